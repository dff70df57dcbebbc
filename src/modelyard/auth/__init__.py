"""Who are you? Keys, scopes, and the snapshot that a request is checked against (API-4, SEC-3, promise P7)."""
