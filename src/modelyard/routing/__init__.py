"""Which version? The immutable routing table and the sticky split (OPS-6, promises P2, P6, P12)."""
