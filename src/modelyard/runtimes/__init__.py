"""What executes a version; each format's library is imported only when a model needs it."""
