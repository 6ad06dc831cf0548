"""The report's charts by name, for what knows of them without drawing them."""

from __future__ import annotations

PLOTS = {
    "cumulative": "Cumulative counts over entries for several thresholds",
    "ranks": "Counts by rank of the entry, before and after balancing",
    "histogram": "Number of entries by their count, before and after balancing",
    "matches": "Matched entries per text, before and after balancing",
}
"""The charts and their titles."""
