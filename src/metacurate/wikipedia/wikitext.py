"""Wikitext to plain text, for counting words.

What a reader of the article sees as running text is kept: paragraphs, headings, list items, link
labels, the text inside HTML elements. Dropped: comments, templates, tables, references, the
elements of ``DROPPED_ELEMENTS``, what only including pages show, file links with their captions,
category and interlanguage links, bare addresses, behaviour switches and invisible characters.

Two passes. The first removes, in one linear scan, what is dropped as a whole (these constructs
span lines, nest, and make up much of an article), and the tags of all
elements that MediaWiki knows. The second gives the lines
that are left, each at most ``MAX_PIECE`` characters, to mwparserfromhell. Given a whole page, it
takes time quadratic in the number of unclosed brackets or tags (20 s for 20 kB of
``<ref name=``); in bounded pieces the worst found takes 20 s a MB, and real articles take much
less time than whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from metacurate.needs import needs

with needs("metadata"):
    import mwparserfromhell
    from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Text, Wikilink
    from mwparserfromhell.parser import ParserError
    from mwparserfromhell.wikicode import Wikicode


# Stands for dropped content that a reader sees in the middle of a sentence (a template, a
# formula): the words on its two sides are no neighbours. Neither a word character nor a space.
GAP = "\ufffc"

# Elements dropped with their content.
DROPPED_ELEMENTS = (
    "ce|chem|code|gallery|graph|hiero|imagemap|inputbox|mapframe|maplink|math|pre|score|script|"
    "section|source|style|syntaxhighlight|templatedata|templatestyles|timeline"
)
# A footnote mark does not part the words around it, nor does what only other pages show.
_UNSEEN = "includeonly|ref|references"
# The other elements that MediaWiki knows: their content is text. (What else stands between < and >
# is text itself: "i < n and m > k".)
_KNOWN_ELEMENTS = (
    "abbr|b|bdi|bdo|big|blockquote|br|caption|categorytree|center|charinsert|cite|data|dd|del|dfn|"
    "div|dl|dt|em|font|h[1-6]|hr|i|indicator|ins|kbd|langconvert|languages|li|link|mark|meta|"
    "noinclude|ol|onlyinclude|p|phonos|poem|q|rb|rp|rt|rtc|ruby|s|samp|small|span|strike|strong|"
    "sub|sup|table|td|th|time|tr|translate|tt|tvar|u|ul|var|wbr"
)

MAX_PIECE = 2048

# Where a long line of a language without spaces may be cut.
_FULL_STOPS = "。，、；！？།།။។\u200b"

_ELEMENTS = f"{DROPPED_ELEMENTS}|{_UNSEEN}|nowiki"
# What may stand in a tag after its name: no other tag, and no blank line.
_ATTRIBUTES = r"(?![^\s/>])[^<>\n]*(?:\n(?![ \t]*\n)[^<>\n]*)*"
_TOKEN = re.compile(
    r"(?P<comment><!--)"
    rf"|<(?P<element>{_ELEMENTS})(?P<attributes>{_ATTRIBUTES})>"
    r"|(?P<open>\{\{|^[ \t:*#]*\{\|)"
    r"|(?P<close>\}\}|^[ \t]*\|\}(?!\}))",
    re.MULTILINE | re.IGNORECASE,
)
_TRANSPARENT = frozenset(f"{_UNSEEN}|nowiki".split("|"))
_CLOSING_TAG = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in _ELEMENTS.split("|")}
_BLOCK_TAG = re.compile(
    rf"</?(?:blockquote|br|center|dd|div|dl|dt|h[1-6]|hr|li|ol|p|poem|ul){_ATTRIBUTES}>",
    re.IGNORECASE,
)
_TAG = re.compile(rf"</?(?:{_KNOWN_ELEMENTS}|{_ELEMENTS}){_ATTRIBUTES}>", re.IGNORECASE)
# What is left of these after the first pass has no partner; as plain text it is no word.
_UNPAIRED = re.compile(r"[<>]|\{\{+|\}\}+|\{\||\|\}")
_SWITCH = re.compile(
    r"__(?:archivedtalk|disambig|end|expectunusedcategory|expectunusedtemplate|"
    r"expectwithoutscans|expected_unconnected_page|forcetoc|hiddencat|index|newsectionlink|nocc|"
    r"nocontentconvert|noeditsection|nogallery|noglobal|noindex|nonewsectionlink|notalk|notc|"
    r"notitleconvert|notoc|start|staticredirect|toc)__",
    re.IGNORECASE,
)
# Characters that no reader sees and that part no word: the soft hyphen, marks of the direction of
# writing, the word joiner and the byte order mark. (Joiners of letters are letters' business.)
_INVISIBLE = re.compile(r"[\xad\u061c\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
# Joiners and non-joiners of letters, and the space without width, which parts words.
_ZERO_WIDTH = "\u200b\u200c\u200d"
# The language converter's: -{zh-hans:a;zh-hant:b}-, -{flag|a}-. Nothing in it is another's.
_VARIANTS = re.compile(r"-\{(?!\{)([^{}]*)\}-")
_VARIANT = re.compile(r"\s*[a-z]{2,3}(?:-[a-z]+)*\s*:([^;]*)")
_HIDDEN_VARIANTS = frozenset("-DHT")
_ACTIVE_IN_NOWIKI = re.compile(r"''+|[\[\]{}|=*#:;<>]")
# Most links are so simple that the parser would only return their label.
_SIMPLE_LINK = re.compile(
    r"\[\[([^\[\]{}|<>:#*;='\n]+)(?:\|([^\[\]{}|<>:#*;='\n]*[^\[\]{}|<>:#*;='\s]))?\]\]"
)
# A piece without any of these is plain text already.
_MARKUP = re.compile(r"[\[\]&]|''|==|//|^[*#:;]|----")
DROPPED_NAMESPACES = frozenset(("file", "image", "category", "media"))
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*|simple")


@dataclass(frozen=True)
class Wiki:
    """What of wikitext differs among Wikipedias.

    ``media``: the local names of the namespaces of files, media and categories; the English ones
    are known everywhere. ``variants``: whether ``-{...}-`` names forms for variants of the
    language.
    """

    media: tuple[str, ...] = ()
    variants: bool = False


ENGLISH = Wiki()


@cache
def _media_link(names: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds the beginning of links to local namespaces."""
    if not names:
        return None
    any_name = "|".join(re.sub(r"(?:\\?[ _])+", "[ _]+", re.escape(name)) for name in names)
    return re.compile(rf"\[\[[ _]*(?:{any_name})[ _]*:", re.IGNORECASE)


def plain_text(wikitext: str, wiki: Wiki = ENGLISH) -> str:
    """The running text of an article, one paragraph, heading or list item a line."""
    if wiki.variants:
        wikitext = _VARIANTS.sub(_one_variant, wikitext)
    if (local := _media_link(wiki.media)) is not None:
        wikitext = local.sub("[[File:", wikitext)
    text = "\n".join(_plain_piece(piece) for piece in _pieces(drop_blocks(wikitext)))
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _one_variant(found: re.Match[str]) -> str:
    """What a reader sees of a choice among variants: the first of them."""
    flags, bar, rest = found[1].partition("|")
    if not bar:
        flags, rest = "", found[1]
    if not _HIDDEN_VARIANTS.isdisjoint(flag.strip() for flag in flags.split(";")):
        return ""
    variant = _VARIANT.match(rest)
    return variant[1].strip() if variant else rest


def drop_blocks(text: str) -> str:
    """The text without comments, templates, tables, dropped elements and HTML tags.

    An unclosed comment or table extends to the end (as in MediaWiki); an unclosed template or
    element loses its opening mark only.
    """
    removed: list[tuple[int, int, str]] = []
    opened: list[tuple[bool, int]] = []  # (is a table, position)
    tables = 0
    never_closed: set[str] = set()
    position, end = 0, len(text)
    while (token := _TOKEN.search(text, position)) is not None:
        start, position = token.span()
        if token["comment"]:
            found = text.find("-->", position)
            position = end if found < 0 else found + 3
            removed.append((start, position, ""))
        elif token["element"]:
            name = token["element"].lower()
            replacement = "" if name in _TRANSPARENT else GAP
            if token["attributes"].rstrip().endswith("/"):
                removed.append((start, position, replacement))
                continue
            closing = None
            if name not in never_closed:
                closing = _CLOSING_TAG[name].search(text, position)
            if closing is None:
                never_closed.add(name)  # looked for once: the scan stays linear
                continue
            if name == "nowiki":
                replacement = _ACTIVE_IN_NOWIKI.sub(GAP, text[position : closing.start()])
            position = closing.end()
            removed.append((start, position, replacement))
        elif token["open"]:
            is_table = token["open"] != "{{"
            tables += is_table
            opened.append((is_table, start))
        else:
            is_table = token["close"] != "}}"
            if not (tables if is_table else len(opened) - tables):
                continue
            while True:
                was_table, begun = opened.pop()
                tables -= was_table
                if was_table == is_table:
                    break
            while removed and removed[-1][0] >= begun:
                removed.pop()
            removed.append((begun, position, "\n" if is_table else GAP))
    for is_table, start in opened:
        if is_table:
            while removed and removed[-1][0] >= start:
                removed.pop()
            removed.append((start, end, "\n"))
            break
    kept: list[str] = []
    position = 0
    for start, stop, replacement in removed:
        kept += (text[position:start], replacement)
        position = stop
    kept.append(text[position:])
    left = "".join(kept)
    left = _TAG.sub("", _BLOCK_TAG.sub("\n", left))
    return _SWITCH.sub(GAP, _UNPAIRED.sub(GAP, left))


def _pieces(text: str) -> Iterator[str]:
    """Lines, joined while a link is open, cut at the last space (or mark of a language without
    spaces) before ``MAX_PIECE`` characters."""
    piece = ""
    for line in text.split("\n"):
        piece = f"{piece}\n{line}" if piece else line
        if len(piece) <= MAX_PIECE and piece.count("[[") > piece.count("]]"):
            continue
        while len(piece) > MAX_PIECE:
            cut = piece.rfind(" ", 1, MAX_PIECE)
            if cut < 0:
                marks = (piece.rfind(mark, 1, MAX_PIECE) + 1 for mark in _FULL_STOPS)
                cut = max(marks) or MAX_PIECE
            yield piece[:cut]
            piece = piece[cut:]
        yield piece
        piece = ""
    if piece:
        yield piece


def _plain_piece(piece: str) -> str:
    piece = _SIMPLE_LINK.sub(lambda link: (link[2] or link[1]).strip(), piece)
    if not _MARKUP.search(piece):
        return piece
    try:
        return _plain_nodes(mwparserfromhell.parse(piece))
    except ParserError:
        return _MARKUP.sub(GAP, piece)


def _plain_nodes(code: Wikicode | None) -> str:
    return "".join(_plain_node(node) for node in code.nodes) if code is not None else ""


def _plain_node(node: Node) -> str:
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        return _plain_link(node)
    if isinstance(node, Tag):
        # Only wiki marks are left: quotes have contents, list marks and rules have none.
        return _plain_nodes(node.contents) or "\n"
    if isinstance(node, HTMLEntity):
        character = str(node.normalize())
        is_text = character.isprintable() or character in f"\xa0{_ZERO_WIDTH}"
        return character if is_text or _INVISIBLE.match(character) else GAP
    if isinstance(node, Heading):
        return f"\n{_plain_nodes(node.title).strip()}\n"
    if isinstance(node, ExternalLink) and node.brackets:
        return _plain_nodes(node.title)
    return GAP


def _plain_link(link: Wikilink) -> str:
    target = str(link.title).strip()
    prefix = target.partition(":")[0].strip() if ":" in target else ""
    label = _plain_nodes(link.text).strip()
    if prefix.lower() in DROPPED_NAMESPACES:
        return ""
    if not label and _LANGUAGE.fullmatch(prefix):
        return ""
    return label or _plain_nodes(link.title).strip().removeprefix(":")
