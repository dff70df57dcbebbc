"""How is it going? Volumes, errors, latency and scores over time, and one version beside another (DATA-3)."""
