"""`modelyard copy` and `modelyard migrate`."""
