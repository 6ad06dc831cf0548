"""The report of a curation run: one self-contained HTML page and its plots."""
