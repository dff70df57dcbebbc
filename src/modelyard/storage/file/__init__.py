"""Artifacts in a folder (STORE-1, STORE-2)."""
