"""`modelyard convert`."""
