"""The last release's program, as its users have it installed while they upgrade.

Its source lies here as an archive: a clone without history, or a release's tarball, could not make it, and a test that
is skipped there would prove nothing where it counts.
"""
