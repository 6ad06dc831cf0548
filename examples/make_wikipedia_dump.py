"""Make a small Wikipedia dump and page view files in the real formats, with known word counts.

The articles are made of real texts (by default WordNet's glosses, from Debian's wordnet-base)
dressed in wikitext: templates (nested, unclosed), tables, references, comments, links, files,
formulas, lists, headings, HTML. Since the dress is put on around known words, what the words and
bigrams of the plain text must be is known without parsing any wikitext; it is written beside it:

    python examples/make_wikipedia_dump.py --out wiki/
    metacurate metadata build --wikipedia wiki/enwiki-20240101-pages-articles-multistream.xml.bz2 \\
        --pageviews 'wiki/pageviews-*' --out metadata.json --min-count 10 --min-pmi 8
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

HEADER = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ \
http://www.mediawiki.org/xml/export-0.11.xsd" version="0.11" xml:lang="en">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>enwiki</dbname>
    <base>https://en.wikipedia.org/wiki/Main_Page</base>
    <generator>MediaWiki 1.42.0-wmf.10</generator>
    <case>first-letter</case>
    <namespaces>
      <namespace key="-1" case="first-letter">Special</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Talk</namespace>
      <namespace key="10" case="first-letter">Template</namespace>
      <namespace key="14" case="first-letter">Category</namespace>
    </namespaces>
  </siteinfo>
"""
FOOTER = "</mediawiki>\n"
# Words in dropped content and in pages that do not count; none may ever be counted.
POISON = "zzdropped"
AWKWARD_WORDS = (
    "don't",
    "T-shirt",
    "1990s",
    "naïve",
    "Ωmega",
    "cafe\u0301",
    "rock’n’roll",
    "x86-64",
)

Segment = list[str]


@dataclass(frozen=True)
class Article:
    """A page of articles' namespace; its words, in segments of neighbours, are known."""

    title: str
    wikitext: str
    segments: tuple[Segment, ...]


def word_segments(texts: Iterable[str]) -> list[Segment]:
    """Runs of two or more plain words of real texts (anything but ASCII letters ends a run)."""
    segments = []
    for text in texts:
        for run in re.findall(r"[A-Za-z]+(?: [A-Za-z]+)+", text):
            segments.append(run.split(" "))
    return segments


def _dress(segment: Segment, draw: random.Random) -> str:
    """Wikitext whose plain text is the segment's words with only spaces between them."""
    words = [_dress_word(word, draw) for word in segment]
    text = words[0]
    for word in words[1:]:
        space = draw.choices(
            (" ", "&nbsp;", "  ", f"<!-- {POISON} --> ", f"<ref>{{{{cite|{POISON}}}}}</ref> ",
             f'<ref name="{POISON}" /> '),
            (88, 4, 2, 2, 2, 2),
        )[0]  # fmt: skip
        text += space + word
    return text


def _dress_word(word: str, draw: random.Random) -> str:
    kind = draw.randrange(40)
    stem, ending = word[:1], word[1:]
    return {
        0: f"[[{word}]]",
        1: f"[[{POISON} (thing)#part|{word}]]",
        2: f"'''{word}'''",
        3: f"''{word}''",
        4: f"<b class='{POISON}'>{word}</b>",
        5: f"[https://example.org/{POISON} {word}]",
        6: f'<span style="{POISON}: 1">{word}</span>',
        7: f"[[{stem}]]{ending}",
        8: f"<nowiki>{word}</nowiki>",
        9: f"[[:Category:{POISON}|{word}]]",
        10: f"''[[{POISON}|{word}]]''",
    }.get(kind, word)


# Wikitext that stands between segments and leaves no word.
_BETWEEN: tuple[Callable[[], str], ...] = (
    lambda: ". ",
    lambda: ", ",
    lambda: "\n\n",
    lambda: "\n* ",
    lambda: "\n# ",
    lambda: f" {{{{convert|5|{POISON}}}}} ",
    lambda: f" {{{{outer|a={{{{inner|[[{POISON}]]}}}}|b=<ref>{POISON}</ref>}}}} ",
    lambda: f" <math>\\{POISON} < {{{{x}}</math> ",
    lambda: f"\n{{| class=\"{POISON}\"\n! {POISON}\n|-\n| {POISON} || {{{{{POISON}|}}}}\n|}}\n",
    lambda: f"\n{{|\n|\n{{| style={POISON}\n| {POISON}\n|}}\n|}}\n",
    lambda: f"\n[[File:{POISON}.jpg|thumb|{POISON} [[{POISON}]] {POISON}]]\n",
    lambda: f"\n[[Category:{POISON}]]\n",
    lambda: f"\n[[fr:{POISON}]]\n",
    lambda: f"\n<gallery>\nFile:{POISON}.jpg|{POISON}\n</gallery>\n",
    lambda: f"\n<!--\n{POISON}\n{{{{\n-->\n",
    lambda: f"\n<syntaxhighlight lang=\"{POISON}\">\n{POISON} [[ {{{{\n</syntaxhighlight>\n",
    lambda: f" https://example.org/{POISON} ",
    lambda: " &mdash; ",
    lambda: "<br />",
    lambda: "\n__NOTOC__\n",
    lambda: " (",
    lambda: ' "',
    lambda: " & ",
    lambda: "\n----\n",
    lambda: " {{ ",  # never closed
    lambda: "\n<div>\n",  # never closed
)  # fmt: skip
_AT_END = (
    "",
    f"\n<!-- never closed {POISON}",
    f"\n{{| never closed\n| {POISON}",
    "\n<ref>",
    "\n[[",
)


def make_articles(segments: Sequence[Segment], count: int, seed: int) -> list[Article]:
    """So many articles over the segments, dressed in wikitext by seeded draws."""
    draw = random.Random(seed)
    articles = []
    for number in range(count):
        own = [list(draw.choice(segments)) for _ in range(draw.randrange(5, 60))]
        own.append([draw.choice(AWKWARD_WORDS), draw.choice(AWKWARD_WORDS)])
        heading = draw.choice(segments)
        text = f"{{{{Infobox|name={POISON}}}}}\n== {' '.join(heading)} ==\n"
        for segment in own:
            text += _dress(segment, draw) + draw.choice(_BETWEEN)()
        text += draw.choice(_AT_END)
        title = " ".join(draw.choice(segments)).capitalize() + f" {number}"
        articles.append(Article(title, text, (list(heading), *own)))
    return articles


def page_xml(
    number: int, title: str, text: str, namespace: int = 0, redirect: str | None = None
) -> bytes:
    """A ``<page>`` element as MediaWiki writes it."""
    target = f"    <redirect title={quoteattr(redirect)} />\n" if redirect is not None else ""
    size = len(text.encode())
    return f"""  <page>
    <title>{escape(title)}</title>
    <ns>{namespace}</ns>
    <id>{number}</id>
{target}    <revision>
      <id>{1_000_000 + number}</id>
      <parentid>{900_000 + number}</parentid>
      <timestamp>2024-01-01T00:00:00Z</timestamp>
      <contributor>
        <username>{POISON}</username>
        <id>{number}</id>
      </contributor>
      <comment>{POISON} &lt;page&gt;</comment>
      <origin>{1_000_000 + number}</origin>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="{size}" sha1="" xml:space="preserve">{escape(text)}</text>
      <sha1></sha1>
    </revision>
  </page>
""".encode()


def dump_pages(articles: Sequence[Article], redirects: Sequence[tuple[str, str]]) -> list[bytes]:
    """Page elements: the articles, redirects, and pages of other namespaces between them."""
    pages = []
    for number, article in enumerate(articles):
        pages.append(page_xml(number, article.title, article.wikitext))
        if number % 3 == 0:
            pages.append(page_xml(10**6 + number, f"Talk:{article.title}", f"{POISON} {POISON}", 1))
        if number % 5 == 0:
            pages.append(page_xml(2 * 10**6 + number, f"Template:{POISON}", POISON, 10))
    for number, (source, target) in enumerate(redirects):
        text = f"#REDIRECT [[{target}]] {POISON}"
        pages.append(page_xml(3 * 10**6 + number, source, text, redirect=target))
    return pages


def multistream(pages: Sequence[bytes], pages_a_stream: int = 100) -> bytes:
    """A multistream bzip2 dump: the header, streams of so many pages, the footer."""
    streams = [HEADER.encode()]
    streams += [
        b"".join(pages[start : start + pages_a_stream])
        for start in range(0, len(pages), pages_a_stream)
    ]
    return b"".join(bz2.compress(stream) for stream in [*streams, FOOTER.encode()])


def single_stream(pages: Sequence[bytes]) -> bytes:
    """The XML text of a dump."""
    return HEADER.encode() + b"".join(pages) + FOOTER.encode()


def known_counts(articles: Sequence[Article]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Counts of words and of pairs of neighbours, from the segments."""
    words: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for article in articles:
        for segment in article.segments:
            words.update(segment)
            bigrams.update(itertools.pairwise(segment))
    return words, bigrams


def hourly_lines(views: Sequence[tuple[str, int]], draw: random.Random) -> list[bytes]:
    """Lines of an hourly page view file, other wikis and projects among them."""
    lines = [b"de Hauptseite 99 0", b"en.b Cooking 4 0", b"fr.m Paris 7 0"]
    for title, count in views:
        desktop = draw.randrange(count + 1)
        for domain, part in (("en", desktop), ("en.m", count - desktop)):
            if part:
                name = title.replace(" ", "_")
                name = quote(name) if draw.random() < 0.3 else name
                lines.append(f"{domain} {name} {part} 0".encode())
    return sorted(lines)


def daily_lines(views: Sequence[tuple[str, int]]) -> list[bytes]:
    """Lines of a daily page view file."""
    lines = [b"de.wikipedia Hauptseite 1 desktop 50 A50", b"en.wikibooks Cooking 2 desktop 3 B3"]
    for number, (title, count) in enumerate(views):
        name = title.replace(" ", "_")
        access = ("desktop", "mobile-web", "mobile-app")[number % 3]
        lines.append(f"en.wikipedia {name} {number} {access} {count} A{count}".encode())
    return lines


def main() -> None:
    """Write a dump (multistream and plain), page views and the known counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--articles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    from metacurate.metadata.wordnet import read_glosses

    articles = make_articles(
        word_segments(read_glosses(options.wordnet)), options.articles, options.seed
    )
    redirects = [(f"Old {article.title}", article.title) for article in articles[::4]]
    pages = dump_pages(articles, redirects)
    draw = random.Random(options.seed)
    views = [(article.title, draw.randrange(1, 200)) for article in articles]
    views += [(source, draw.randrange(1, 50)) for source, _ in redirects]
    words, bigrams = known_counts(articles)
    options.out.mkdir(parents=True, exist_ok=True)
    name = "enwiki-20240101-pages-articles"
    (options.out / f"{name}-multistream.xml.bz2").write_bytes(multistream(pages))
    hourly = b"".join(line + b"\n" for line in hourly_lines(views, draw))
    daily = b"".join(line + b"\n" for line in daily_lines(views))
    (options.out / "pageviews-20240101-000000.gz").write_bytes(gzip.compress(hourly, mtime=0))
    (options.out / "pageviews-20240101-user.bz2").write_bytes(bz2.compress(daily))
    known = {
        "words": dict(words.most_common()),
        "bigrams": {" ".join(pair): count for pair, count in bigrams.most_common()},
    }
    (options.out / "known_counts.json").write_text(json.dumps(known, ensure_ascii=False, indent=1))
    print(f"{len(articles)} articles, {sum(words.values())} words in {options.out}")


if __name__ == "__main__":
    main()
