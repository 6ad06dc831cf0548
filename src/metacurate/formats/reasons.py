"""Why something of a pool is lost: the names under which losses are counted, and what they mean."""

from __future__ import annotations

from typing import Final

NO_URL: Final = "no_url"
NO_IMAGE: Final = "no_image"
NO_TEXT: Final = "no_text"
UNDECODABLE_TEXT: Final = "undecodable_text"
OVERSIZED_TEXT: Final = "oversized_text"
MALFORMED_ROW: Final = "malformed_row"
OVERSIZED_ROW: Final = "oversized_row"
UNREADABLE_REST: Final = "unreadable_rest"
TRUNCATED_FILE: Final = "truncated_file"
UNREADABLE_ROW_GROUP: Final = "unreadable_row_group"
UNREADABLE_VALUE: Final = "unreadable_value"
UNDECODABLE_VALUE: Final = "undecodable_value"
UNCONVERTIBLE_VALUE: Final = "unconvertible_value"

VALUES = (UNREADABLE_VALUE, UNDECODABLE_VALUE, UNCONVERTIBLE_VALUE)
"""Losses in columns that are carried on: the value is null, the row is kept."""
