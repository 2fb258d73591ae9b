"""pgleak catches PostgreSQL connection leaks while they are still small.

This package has two halves. ``pgleak serve`` watches servers from outside. Importing :mod:`pgleak` in an application
is the way to the other half and loads neither psycopg2 nor yaml.
"""

__version__ = "0.1.0"
