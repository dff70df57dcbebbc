"""Public fakes: what a test uses in place of the world."""
