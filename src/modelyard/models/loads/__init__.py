"""How versions come into memory: what each step took, what fits, what leaves."""
