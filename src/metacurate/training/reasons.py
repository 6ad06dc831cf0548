"""Why pairs are not trained on: the names under which they are counted (``skipped``).

Besides these, images that cannot be decoded have their own (``images.reasons.BadImage``), and odd
members of tars theirs (``webdataset.reasons``).
"""

from __future__ import annotations

from enum import StrEnum


class SkippedPair(StrEnum):
    """Of pairs, and of the texts and images that they should have."""

    NO_UID = "no_uid"
    NO_TEXT = "no_text"
    BROKEN_MATCHED = "broken_matched"
    BROKEN_TEXT_KEPT = "broken_text_kept"
    MISSING_IMAGE = "missing_image"
    OVERSIZED_IMAGE = "oversized_image"
    IMAGE_OUTSIDE_ROOT = "image_outside_root"
