"""Who stands for a version? Ed25519 signatures over the hashes of its files (STORE-1, docs/decisions/0035)."""
