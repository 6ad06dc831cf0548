"""Which encoding a page is in, and its text: as the HTML and Encoding standards have it.

Labels are webencodings', the prescan of a page's beginning, the decoders of the web (whose
Shift_JIS is cp932) and the detection from bytes are turbohtml's.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from metacurate.needs import needs

with needs("crawl"):
    import turbohtml.detect  # also registers the codecs "whatwg-..."
    import webencodings


UTF_8 = "utf-8"
# What of a page the standard's prescan looks at.
PRESCAN_BYTES = 1024

_BOMS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF16_LE, "utf-16le"),
    (codecs.BOM_UTF16_BE, "utf-16be"),
)
_XML_BOMS = ((b"<\0?\0x\0", "utf-16le"), (b"\0<\0?\0x", "utf-16be"))
_XML_ENCODING = re.compile(
    rb"<\?xml[^>]*?[\s\"']encoding\s*=\s*(?:\"([^\">]*)\"|'([^'>]*)')", re.IGNORECASE
)
# The HTML standard's "algorithm for extracting a character encoding from a meta element".
_META_CONTENT = re.compile(
    r"charset[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)\"|'([^']*)'|([^\"'\t\n\f\r ;][^\t\n\f\r ;]*))",
    re.IGNORECASE,
)
# For the prescan: nothing but ASCII, and no escapes of ISO-2022-JP.
_ASCII_ONLY = bytes(range(128)).replace(b"\x1b", b"x") + b"x" * 128
_ANY_CHARACTER = frozenset({UTF_8, "utf-16le", "utf-16be", "replacement"})


class Decoded(NamedTuple):
    """A page's text and the encoding (the standard's name, lower case) that it was read by.

    ``certain``: nothing in the page changes the encoding. ``damaged``: some bytes were not of the
    encoding; U+FFFD stands for them.
    """

    text: str
    encoding: str
    certain: bool
    damaged: bool


def decode(data: bytes, charset: str | None) -> Decoded:
    """A page's bytes as a text, read as browsers read them.

    The encoding is that of the byte order mark, else of the HTTP header's ``charset``, else what
    the first ``PRESCAN_BYTES`` declare; else UTF-8 if that fits, or nearly fits; else what the
    bytes look like. What a page declares is believed whether it fits or not.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return decode_as(data[len(mark) :], encoding)
    named = by_label(charset) if charset else None
    if named is not None:
        return decode_as(data, named)
    declared = _prescan(data[:PRESCAN_BYTES]) or _guess(data)
    return decode_as(data, declared)._replace(certain=False)


def decode_as(data: bytes, encoding: str) -> Decoded:
    """Bytes as a text of that encoding (a name that ``by_label`` gives)."""
    if encoding == UTF_8:
        try:
            return Decoded(data.decode(), encoding, True, False)
        except UnicodeDecodeError:
            return Decoded(data.decode(errors="replace"), encoding, True, True)
    text = data.decode(f"whatwg-{encoding}")
    return Decoded(text, encoding, True, "\ufffd" in text)


def by_label(label: str) -> str | None:
    """The encoding that a label means, None if it means none."""
    found = webencodings.lookup(label) if label.isascii() else None
    return found.name if found is not None else None


def declared_by_meta(
    charset: str | None, http_equiv: str | None, content: str | None
) -> str | None:
    """The encoding that the attributes of a ``<meta>`` element declare; None if there is none."""
    if charset is None and (http_equiv or "").strip().lower() == "content-type":
        found = _META_CONTENT.search(content or "")
        charset = next(group for group in found.groups() if group is not None) if found else None
    encoding = by_label(charset) if charset else None
    if encoding in ("utf-16le", "utf-16be"):
        return UTF_8
    return "windows-1252" if encoding == "x-user-defined" else encoding


def encode_query(query: str, encoding: str) -> str:
    """A query with its characters beyond ASCII percent-encoded by a page's encoding.

    As the URL standard has it: what the encoding lacks becomes ``&#NUMBER;``, percent-encoded.
    """
    codec = webencodings.lookup(encoding)
    if codec is None or encoding in _ANY_CHARACTER:
        return query
    encode = codec.codec_info.encode

    def encoded(run: re.Match[str]) -> str:
        try:
            return _percent(encode(run.group(), "strict")[0])
        except UnicodeEncodeError:
            pass
        pieces = []
        for character in run.group():
            try:
                pieces.append(_percent(encode(character, "strict")[0]))
            except UnicodeEncodeError:
                pieces.append(f"%26%23{ord(character)}%3B")
        return "".join(pieces)

    return re.sub(r"[^\x00-\x7f]+", encoded, query)


def _percent(written: bytes) -> str:
    # A byte that is also an ASCII character is written as that character.
    return "".join(chr(b) if 0x20 < b < 0x7F and b != 0x23 else f"%{b:02X}" for b in written)


def _prescan(start: bytes) -> str | None:
    """The encoding that a page's beginning declares: a ``<meta>``, else an XML declaration."""
    for mark, encoding in _XML_BOMS:
        if start.startswith(mark):
            return encoding
    # The detector looks at declarations first. What comes last here is neither ASCII nor UTF-8, and
    # all else is ASCII, so that it is sure of nothing but a declaration.
    padded = start.translate(_ASCII_ONLY).ljust(PRESCAN_BYTES) + b"\xff\xff"
    found = turbohtml.detect.detect(padded)
    if found.confidence == 1.0 and found.encoding is not None:
        return found.encoding.lower()
    xml = _XML_ENCODING.match(start)
    named = by_label((xml[1] or xml[2] or b"").decode("latin-1")) if xml else None
    # The declaration could be read: it cannot be of 16 bits.
    return UTF_8 if named in ("utf-16le", "utf-16be") else named


def _guess(data: bytes) -> str:
    """The encoding that bytes look like."""
    try:
        data.decode()
        return UTF_8
    except UnicodeDecodeError:
        # A few stray bytes, or a character that is cut at the end, make no other encoding of what
        # is UTF-8 elsewhere: hardly two bytes of another one look like it.
        sound, _ = codecs.utf_8_decode(data, "ignore", False)
        characters = len(sound.encode("ascii", "ignore"))
        errors = len(data) - len(sound.encode())
        if len(sound) - characters > errors:
            return UTF_8
    found = turbohtml.detect.detect(data).encoding
    return found.lower() if found is not None else "windows-1252"
