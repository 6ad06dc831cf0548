"""Character references in the values of attributes, as the HTML standard replaces them."""

from __future__ import annotations

import re
from html.entities import html5

from metacurate.needs import needs

with needs("crawl"):
    import turbohtml.detect  # noqa: F401 (registers the codecs)


_ENTITY = re.compile(r"&(?:#(?:[0-9]+|[xX][0-9a-fA-F]+);?|([A-Za-z][A-Za-z0-9]*;?)(=?))")


def unescape(value: str) -> str:
    """An attribute's value with its character references replaced, as the HTML standard has it."""
    return _ENTITY.sub(_character, value) if "&" in value else value


def _character(reference: re.Match[str]) -> str:
    name, equals_sign = reference[1], reference[2]
    if name is None:
        digits = reference[0].rstrip(";")[2:]
        return _by_number(digits[1:], 16) if digits[0] in "xX" else _by_number(digits, 10)
    # Without its semicolon a name is not one before "=" or more letters: addresses have such.
    meant = html5.get(name) if name.endswith(";") or not equals_sign else None
    return meant + equals_sign if meant is not None else reference[0]


def _by_number(digits: str, base: int) -> str:
    digits = digits.lstrip("0")
    code = int(digits, base) if 0 < len(digits) < 8 else 0
    if not 0 < code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    # What is called by its place in windows-1252.
    return bytes([code]).decode("whatwg-windows-1252") if 0x80 <= code < 0xA0 else chr(code)
