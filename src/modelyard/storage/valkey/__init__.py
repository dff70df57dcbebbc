"""Limits that hosts share, in Valkey or Redis."""
