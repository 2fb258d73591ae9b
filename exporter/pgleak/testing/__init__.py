"""What `pytest --pgleak` does: judge each test by what it leaves in the ledger."""
