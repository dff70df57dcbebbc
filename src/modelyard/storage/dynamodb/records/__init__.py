"""The prediction log in the table of predictions: where the drain puts records, how they are read, and their end."""
