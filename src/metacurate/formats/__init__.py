"""The formats of tables: one file and one object a format, and the table of them."""
