"""Why records, pages, images and texts are dropped: the names under which they are counted.

Of images also ``pages.urls.BadAddress``, of texts ``texts.rules.BadText`` and reasons of the user's
own rules.
"""

from __future__ import annotations

from enum import StrEnum


class DroppedRecord(StrEnum):
    """Of the records of an archive."""

    DAMAGED_MEMBER = "damaged compressed member"
    TRUNCATED_MEMBER = "truncated compressed member"
    OVERSIZED = "oversized record"
    BROKEN = "broken record"
    DAMAGED_FILE = "rest of a damaged file"
    REVISIT = "revisit (the page is in another record)"
    NO_HTML_METADATA = "no HTML metadata"


DAMAGES = frozenset(
    {
        DroppedRecord.DAMAGED_MEMBER,
        DroppedRecord.TRUNCATED_MEMBER,
        DroppedRecord.BROKEN,
        DroppedRecord.DAMAGED_FILE,
    }
)
"""What an archive does not have, unless it is damaged."""


class DroppedPage(StrEnum):
    """Of the pages of sound records."""

    BAD_URL = "bad page URL"
    LONG_URL = "oversized page URL"
    BAD_RESPONSE = "broken HTTP response"
    BAD_ENCODING = "broken content encoding"
    OVERSIZED = "oversized page"
    NOT_HTML = "not HTML"
    NO_IMAGE = "page without image"
    INVALID_JSON = "invalid JSON"
    LOST = "page that crashed or stalled the parser"


class DroppedImage(StrEnum):
    """Of the images of pages."""

    NO_TEXT = "no text"
    REPEATED = "repeated on the page"
    OTHER_LANGUAGE = "text in another language"


class DroppedText(StrEnum):
    """Of the texts of images."""

    REPEATED = "text that the image has already"
    OTHER_LANGUAGE = "text in another language"
