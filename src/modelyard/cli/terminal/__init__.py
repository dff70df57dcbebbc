"""What the commands share towards the terminal: options, tables, progress, files of rows."""
