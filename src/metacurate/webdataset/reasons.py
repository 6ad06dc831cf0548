"""Why something of WebDataset tars is not used: the names under which it is counted."""

from __future__ import annotations

from enum import StrEnum


class Unread(StrEnum):
    """Of files with a tar's name."""

    UNSAFE_NAME = "unsafe_name"
    OTHER_COMPRESSION = "other_compression"
    NOT_A_FILE = "not_a_file"


class SkippedMember(StrEnum):
    """Of the members of a tar, and of the tar itself.

    Damage ends the tar: samples after it may be lost.
    """

    UNSAFE_NAME = "unsafe_name"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    NO_KEY = "no_key"
    REPEATED_EXTENSION = "repeated_extension"
    REPEATED_KEY = "repeated_key"
    TOO_LARGE = "member_too_large"
    BYTES_AFTER_END = "bytes_after_end"
    UNREADABLE = "tar_unreadable"
    DAMAGED = "tar_damaged"
    TRUNCATED = "tar_truncated"


class DroppedSample(StrEnum):
    """Of samples that become no row of a pool."""

    NO_IMAGE = "no_image"
    IMAGE_OF_OTHER_FORMAT = "image_of_other_format"
    NO_TEXT = "no_text"


class Problem(StrEnum):
    """Of what is said of a sample: the sample stays."""

    TEXT_NOT_UTF8 = "text_not_utf8"
    TEXT_TOO_LARGE = "text_too_large"
    JSON_INVALID = "json_invalid"
    JSON_TOO_LARGE = "json_too_large"
    OTHER_TEXT_IN_TXT = "other_text_in_txt"
    OTHER_TEXT_IN_JSON = "other_text_in_json"
    SIDE_PARQUET_UNREADABLE = "side_parquet_unreadable"
    SIDE_PARQUET_WITHOUT_KEY = "side_parquet_without_key"
    SIDE_PARQUET_TOO_LARGE = "side_parquet_too_large"


class NotCopied(StrEnum):
    """Of rows and samples that ``pool reshard`` does not copy."""

    UNKNOWN = "tar_or_members_unknown"
    NOT_AT_ITS_PLACE = "not_at_its_place"
    NO_TEXT = "no_text"
    BROKEN_TEXT_KEPT = "broken_text_kept"
