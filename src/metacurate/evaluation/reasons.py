"""Why examples are not evaluated: the names under which they are counted (``skipped``).

Besides these, images that cannot be decoded have their own (``images.reasons.BadImage``).
"""

from __future__ import annotations

from enum import StrEnum


class SkippedExample(StrEnum):
    """Of files and samples."""

    NOT_AN_IMAGE_FILE = "not_an_image_file"
    MISSING_IMAGE = "missing_image"
    BROKEN_LABEL = "broken_label"
    LABEL_OUT_OF_RANGE = "label_out_of_range"
    CLASS_WITHOUT_NAME = "class_without_name"
    NO_CAPTION = "no_caption"
    BROKEN_FIELDS = "broken_fields"
    NO_GROUP = "no_group"
    BROKEN_QUESTION = "broken_question"
