"""May you, now? The exact rate limit (GCRA) and the admission permits (API-5, promise P4)."""
