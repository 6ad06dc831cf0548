"""Looking at what there is: a text, an entry, a pair; two distributions; a sweep of thresholds."""
