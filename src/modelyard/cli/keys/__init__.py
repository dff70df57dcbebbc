"""Keys on the command line: `keys` for who administers them, `me` for who holds one."""
