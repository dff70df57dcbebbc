"""When a turn may be answered: after its write, after a sync, or after the database has committed it."""
