"""The prediction log in the database: where the drain puts records, how they are read, and their outcomes."""
