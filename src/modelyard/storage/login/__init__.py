"""How the service signs in to its database: by a password in the URL, by one that a secret store keeps and changes, or
by tokens that are made for each connection. Start at `database.login_of`."""
