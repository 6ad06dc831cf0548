"""Why an image is missing: the names under which it is counted (docs/images.md says more of each).

Besides these, ``http_NNN`` is a server's status, and ``pool filter`` names the rule that was not
met.
"""

from __future__ import annotations

from enum import StrEnum


class FailedDownload(StrEnum):
    """Of rows whose URL gave nothing."""

    NO_URL = "no_url"
    BAD_URL = "bad_url"
    BLOCKED_ADDRESS = "blocked_address"
    DNS_FAILED = "dns_failed"
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    BAD_RESPONSE = "bad_response"
    BAD_REDIRECT = "bad_redirect"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    ROBOTS_HEADER = "robots_header"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    TOO_MANY_BYTES = "too_many_bytes"
    EMPTY_BODY = "empty_body"
    UNKNOWN_CONTENT_ENCODING = "unknown_content_encoding"
    HASH_MISMATCH = "hash_mismatch"


class BadImage(StrEnum):
    """Of files that are not decoded, or refused by their size."""

    NOT_AN_IMAGE = "not_an_image"
    BROKEN_IMAGE = "broken_image"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_SCANS = "too_many_scans"
    IMAGE_TOO_SMALL = "image_too_small"
    ASPECT_RATIO_TOO_LARGE = "aspect_ratio_too_large"
    DECODER_TIMED_OUT = "decoder_timed_out"
    DECODER_DIED = "decoder_died"
    OUT_OF_MEMORY = "out_of_memory"


class Filtered(StrEnum):
    """Of samples that ``pool filter`` drops."""

    EXACT_DUPLICATE = "exact_duplicate"
    PERCEPTUAL_DUPLICATE = "perceptual_duplicate"
    NO_IMAGE = "no_image"
    MISSING_IMAGE = "missing_image"
