"""A MariaDB server of the tests' own, and databases in it."""
