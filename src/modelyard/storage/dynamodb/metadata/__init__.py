"""Keys, versions, traffic, the audit log and leases in the table of metadata."""
