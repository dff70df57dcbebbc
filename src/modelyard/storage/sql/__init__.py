"""SQLite, PostgreSQL and MySQL through SQLAlchemy Core.

Start at `open.open_stores`; `database.Database` owns connections and transactions, `dialects` holds everything that
differs between databases, `schema` the tables as the adapters see them, `migrations/` how a database gets there.
"""
