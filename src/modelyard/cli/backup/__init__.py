"""`modelyard backup` and `modelyard restore`."""
