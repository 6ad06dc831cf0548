"""Why rows and texts are dropped by ``pool dedup``: the names under which they are counted."""

from __future__ import annotations

from enum import StrEnum


class DroppedRow(StrEnum):
    """Of rows."""

    NO_UID = "no_uid"
    NOT_LISTED = "not_listed"
    BLOCKED_DOMAIN = "blocked_domain"
    BLOCKED_URL = "blocked_url"
    NO_TEXT = "no_text"
    DUPLICATE = "duplicate"
    TEXT_OF_MANY_IMAGES = "text_of_many_images"


class DroppedText(StrEnum):
    """Of texts; those that text rules drop have the rule's reason (``texts.rules.BadText``)."""

    OF_DROPPED_PAIR = "of_dropped_pair"
    EMPTY = "empty"
    DUPLICATE = "duplicate"
    OVER_MAX_TEXTS = "over_max_texts"
    TEXT_OF_MANY_IMAGES = "text_of_many_images"
