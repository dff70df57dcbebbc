"""SQLite, PostgreSQL, MySQL through SQLAlchemy Core."""
