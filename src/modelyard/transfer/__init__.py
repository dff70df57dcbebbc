"""Moving an installation: what one data folder, database and artifact store hold, into others."""
