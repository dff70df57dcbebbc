"""One connection: its bytes, its order, its bounds."""
