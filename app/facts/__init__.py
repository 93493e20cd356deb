"""What the pages say in words and tables, as plain data."""
