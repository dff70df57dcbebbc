"""Large artifacts, held once for all workers of a host (docs/decisions/0041-one-copy-for-all-workers.md).

The worker that needs a version first starts its process, the others connect; each brings memory of its own for the
tensors of its runs. `host` is what runs there.
"""
