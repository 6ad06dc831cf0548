"""Wikipedia's ``pages-articles`` XML dumps: pages, one by one, in bounded memory.

Format: MediaWiki's XML export. Each ``<page>`` is cut out of the stream by its tags (inside a page
``<`` only occurs as markup, so the tags are unambiguous) and parsed on its own: memory is bounded
by a page, and there is no document type and so no entity that could be declared or expanded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import unescape

from metacurate.errors import UserError
from metacurate.wikipedia.dumpfile import BLOCK_BYTES, Block, Part, read_blocks
from metacurate.wikipedia.reasons import Loss

_BEGIN, _END = b"<page>", b"</page>"
_MAX_DEPTH = 16
_HEAD_BYTES = 1 << 16
_CASE = re.compile(r"<case>([a-z-]+)</case>")
_DUMP_NAME = re.compile(r"(?P<wiki>.*-pages-articles)(?P<multi>-multistream)?(?P<part>\d*)\.xml")


class PageError(Exception):
    """Why a page cannot be used; the message is the reason's name in the statistics."""


@dataclass(frozen=True)
class Page:
    """A page: its title (with spaces), namespace number, redirect target if it is one, wikitext."""

    title: str
    namespace: int
    redirect: str | None
    text: str


def read_pages(part: Part, max_page_bytes: int, losses: Counter[str]) -> Iterator[Page]:
    """The pages that begin in a part of a dump; what cannot be read is counted by reason."""
    for raw in split_pages(read_blocks(part, losses), max_page_bytes, losses):
        try:
            yield parse_page(raw)
        except PageError as error:
            losses[str(error)] += 1


def split_pages(
    blocks: Iterable[Block], max_page_bytes: int, losses: Counter[str]
) -> Iterator[bytes]:
    """Cut ``<page>...</page>`` out of blocks: those that begin in owned bytes.

    Counts ``long_pages`` (over ``max_page_bytes``) and ``truncated_pages`` (cut off by damage or
    the end of the file).
    """
    held = b""
    inside = long = False
    searched = 0  # of a page under way, how much is known not to hold its end
    limit: int | None = None  # where in ``held`` the bytes of the next part begin
    for block in blocks:
        if block.gap:
            losses[Loss.TRUNCATED_PAGES] += inside and not long
            held, inside, long, searched = b"", False, False, 0
            limit = None if limit is None else 0
        if not block.owned and limit is None:
            limit = len(held)
        held += block.data
        position = 0
        while True:
            if not inside:
                begin = held.find(_BEGIN, position)
                position = begin if begin >= 0 else max(position, len(held) - len(_BEGIN) + 1)
                if limit is not None and position >= limit:
                    return
                if begin < 0:
                    break
                inside, searched = True, begin
            end = held.find(_END, searched)
            if end < 0:
                searched = max(position, len(held) - len(_END) + 1)
                if len(held) - position > max_page_bytes:
                    losses[Loss.LONG_PAGES] += not long
                    long, position = True, searched
                break
            end += len(_END)
            if end - position > max_page_bytes and not long:
                losses[Loss.LONG_PAGES] += 1
            elif not long:
                yield held[position:end]
            position, inside, long = end, False, False
        held = held[position:]
        searched -= position
        limit = None if limit is None else limit - position
    losses[Loss.TRUNCATED_PAGES] += inside and not long


def parse_page(raw: bytes) -> Page:
    """Parse one ``<page>`` element. PageError: ``bad_utf8``, ``bad_xml``, ``incomplete_pages``,
    ``not_wikitext``."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        raise PageError(Loss.BAD_UTF8) from None
    fields: dict[str, str] = {}
    path: list[str] = []
    content: list[str] = []
    wanted = {"page/title", "page/ns", "page/revision/model", "page/revision/text"}

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        content.clear()
        if len(path) > _MAX_DEPTH:
            raise PageError(Loss.BAD_XML)
        if path == ["page", "redirect"]:
            fields["redirect"] = attributes.get("title", "")

    def end(_: str) -> None:
        where = "/".join(path)
        if where in wanted:
            fields[where] = "".join(content)  # of several revisions, the last one
        content.clear()
        path.pop()

    def refuse(*_: Any) -> None:
        raise PageError(Loss.BAD_XML)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = content.append
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(raw, True)
    except expat.ExpatError:
        raise PageError(Loss.BAD_XML) from None
    title, namespace = fields.get("page/title"), fields.get("page/ns", "")
    if not title or not re.fullmatch(r"-?\d{1,6}", namespace):
        raise PageError(Loss.INCOMPLETE_PAGES)
    redirect = fields.get("redirect")
    if redirect is not None:
        redirect = redirect.partition("#")[0].replace("_", " ").strip()
    elif namespace == "0" and fields.get("page/revision/model", "wikitext") != "wikitext":
        raise PageError(Loss.NOT_WIKITEXT)
    text = fields.get("page/revision/text", "")
    return Page(title.replace("_", " "), int(namespace), redirect, text)


@dataclass(frozen=True)
class SiteInfo:
    """What the beginning of a dump says of its wiki: database name, names of namespaces, and
    whether articles' titles begin with a capital (in a few wikis, Lojban's for one, not all do)."""

    database: str = ""
    namespaces: tuple[tuple[int, str], ...] = ()
    capital: bool = True

    def names(self, *numbers: int) -> tuple[str, ...]:
        """The local names of some namespaces."""
        return tuple(name for number, name in self.namespaces if number in numbers)


def read_site_info(head: bytes) -> SiteInfo:
    """The facts of a dump's ``<siteinfo>``, as far as they are there."""
    text, end, _ = head[:_HEAD_BYTES].decode(errors="replace").partition("</siteinfo>")
    if not end:
        return SiteInfo()
    database = re.search(r"<dbname>(\w+)</dbname>", text)
    found = re.findall(r'<namespace key="(-?\d{1,6})"[^>]*>([^<>]+)</namespace>', text)
    names = tuple((int(key), unescape(name)) for key, name in found)
    case = re.search(r'<namespace key="0"[^>]* case="([a-z-]+)"', text) or _CASE.search(text)
    capital = case is None or case[1] != "case-sensitive"
    return SiteInfo(database[1] if database else "", names, capital)


def check_dumps(addresses: list[str]) -> SiteInfo:
    """UserError if a file is no dump, or if two files hold the same pages, as far as names tell.

    Returns what the first file says of its wiki.
    """
    forms: dict[str, str] = {}
    site: SiteInfo | None = None
    for address in addresses:
        blocks = read_blocks(Part(address, 0, BLOCK_BYTES), Counter())
        head = next(blocks, Block(b"")).data
        site = site or read_site_info(head)
        if b"<mediawiki" not in head[:4096]:
            raise UserError(
                f"{address} is no Wikipedia XML dump (enwiki-DATE-pages-articles*.xml.bz2): "
                "it does not begin with <mediawiki>"
            )
        name = _DUMP_NAME.match(address.rsplit("/", 1)[-1])
        if name is None:
            continue
        # Wikipedia offers the same pages whole and in numbered parts, each also as multistream.
        form = f"{'numbered' if name['part'] else 'whole'}{name['multi'] or ''}"
        other = forms.setdefault(name["wiki"], form)
        if other != form:
            raise UserError(
                f"the files {name['wiki']}* hold the same pages twice ({other} and {form}): name "
                "one of the two only (the multistream files are read in parallel)"
            )
    return site or SiteInfo()
