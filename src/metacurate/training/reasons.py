"""Why pairs are not trained on: the names under which they are counted (``skipped``).

``caption_missing`` is no reason to skip a pair: it counts those that lacked the caption drawn for
them, and gave another text. Besides these, images that cannot be decoded have their own
(``images.reasons.BadImage``), and odd members of tars theirs (``webdataset.reasons``).
"""

from __future__ import annotations

from enum import StrEnum


class SkippedPair(StrEnum):
    """Of pairs, and of the texts and images that they should have."""

    NO_UID = "no_uid"
    NO_TEXT = "no_text"
    CAPTION_MISSING = "caption_missing"
    BROKEN_MATCHED = "broken_matched"
    BROKEN_TEXT_KEPT = "broken_text_kept"
    MISSING_IMAGE = "missing_image"
    OVERSIZED_IMAGE = "oversized_image"
    IMAGE_OUTSIDE_ROOT = "image_outside_root"
