"""What runs in the jail: confinement first, then trials of it, then the model. Nothing that starts a thread is imported
before the confinement is complete: Landlock and credentials hold for one thread and those that it starts."""
