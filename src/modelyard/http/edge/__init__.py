"""What stands at the server's edge: TLS, and the proxies in front of it."""
