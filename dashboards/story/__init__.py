"""A story for the pictures: thirty hours of a leak, told by the project's own functions from made-up connections.

An application holds its share of a server's 240 connections after a deploy, loses one connection about every seven
minutes, and the server will refuse everybody thirty hours later; its neighbours have load that comes and goes. Only the
connections and the checkouts are made up: what is judged, counted and exposed of them is what the exporter does.
"""
