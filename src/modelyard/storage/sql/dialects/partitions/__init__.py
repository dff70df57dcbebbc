"""The prediction log kept in days, where the database can: how they are made, and how one leaves."""
