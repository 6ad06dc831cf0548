"""The report of a curation run and the comparison of two: self-contained HTML pages, plots."""
