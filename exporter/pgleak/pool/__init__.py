"""The half of pgleak that lives in the application: SQLAlchemy pools, and the code that holds their connections."""
