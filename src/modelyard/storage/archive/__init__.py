"""Days that left the database, as Parquet files in a folder or a bucket: written, queried, rewritten."""
