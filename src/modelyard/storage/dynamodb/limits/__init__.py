"""Limits that hosts share, in a DynamoDB table of their own (docs/decisions/0028)."""
