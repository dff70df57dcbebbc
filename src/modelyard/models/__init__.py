"""What can we serve? Manifest, publish, verify, load (STORE-1 to STORE-4, promises P5, P8)."""
