"""Entry points other than the command line."""
