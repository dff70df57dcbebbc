"""What does everybody speak of? Types, errors, settings, the clock. Imports nothing of ours."""
