"""Backup, verification and restoration of a data folder: one folder or one tar file, sealed by a manifest."""
