"""Bundles of OpenSSF model signing (`model.sig`), checked without any service (docs/decisions/0046)."""
