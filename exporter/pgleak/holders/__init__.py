"""Who holds each of a server's connections: the server's view joined with what the processes report of their pools."""
