"""A PostgreSQL server of the tests' own, and databases in it."""
