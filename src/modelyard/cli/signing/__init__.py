"""`modelyard sign` and `modelyard signer`: keys that stand for versions."""
