"""The audit log in the database: `trail` extends it inside the transaction of a change, `log` reads and checks it."""
