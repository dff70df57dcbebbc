"""How things are asked for and shown as text and JSON; knows no framework, shared with the command line."""
