"""Reads one kind of thing out of a plan: alarms, buckets, the service, what it costs."""
