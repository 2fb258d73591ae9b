"""Which connections are held, by which line of which process: for a person, now."""
