"""What pages say of their images: captions, lazy loading, srcset, texts, other elements."""

from __future__ import annotations

import time
from random import Random

import pytest
import srcset as reference

from metacurate.pages.html import read_page
from metacurate.pages.srcset import candidates
from web_pages import members, record, response, rows_of_warc

HOST = "http://a.example/p/"


def rows(html: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Address (without the page's folder) and texts of a page's rows."""
    found, _ = rows_of_warc(members(record("response", response(html))))
    return [(row["url"].removeprefix(HOST), row["texts"]) for row in found]


def addresses(tag: str) -> list[str]:
    return [url for url, _ in rows(tag)]


CAPTION = "<figcaption>Red barn</figcaption>"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("<img data-src=a.jpg><noscript><img src=a.jpg></noscript>", "a.jpg"),
        ("<noscript><img src=a.jpg></noscript><img data-src=a.jpg src=blank.gif>", "a.jpg"),
        ("<img src=data:, class=lazy><noscript><img src=a.jpg></noscript>", "a.jpg"),
        ("<img src=blank.gif data-x=1><noscript><img src=/i/77></noscript>", "http://a.example/i/77"),
        ("<noscript><img src=a.jpg></noscript>", "a.jpg"),
        ("<picture><img data-src=a.jpg></picture><noscript><img src=a.jpg></noscript>", "a.jpg"),
        ("<amp-img src=a.jpg><noscript><img src=a.jpg></noscript></amp-img>", "a.jpg"),
    ],
)  # fmt: skip
def test_the_image_for_those_without_scripts_is_the_same_image(images: str, expected: str) -> None:
    assert rows(f"<figure>{images}{CAPTION}</figure>") == [(expected, [("figcaption", "Red barn")])]


def test_images_without_scripts_that_are_others() -> None:
    html = f"""<figure><img src=1.jpg alt=one><noscript><img src=2.jpg alt=two></noscript>{CAPTION}
    </figure><img data-src=3.jpg><noscript><img src=3.jpg alt=three title=drei></noscript>"""
    assert rows(html) == [
        ("1.jpg", [("alt", "one")]),
        ("2.jpg", [("alt", "two")]),
        ("3.jpg", [("alt", "three"), ("title", "drei")]),
    ]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Red barn<br>Photo: Ann", "Red barn Photo: Ann"),
        ("<p>Red barn</p><p>Photo: Ann</p>", "Red barn Photo: Ann"),
        ("Red barn<div>Photo</div>: Ann", "Red barn Photo : Ann"),
        ("<ul><li>Red<li>barn</ul>", "Red barn"),
        ("R<b>e</b>d <a href=x>ba<span>rn</span></a>", "Red barn"),
        ("Red<style>p{}</style> barn<script>x()</script><!-- no -->", "Red barn"),
        ("Red barn<noscript><p>no</p></noscript><template>no</template>", "Red barn"),
        ("Red<wbr>barn", "Redbarn"),
    ],
)
def test_words_of_captions(caption: str, expected: str) -> None:
    html = f"<figure><img src=a.jpg><figcaption>{caption}</figcaption></figure>"
    assert rows(html) == [("a.jpg", [("figcaption", expected)])]


@pytest.mark.parametrize(
    "attributes",
    [
        "data-lazy=true", "data-image=4711", "data-src=null", "data-src=''", "data-src=undefined",
        """data-image='{"id": 1, "src": "b.jpg"}'""", "data-image='[1]'", "data-url=/page.html",
        "data-url=https://b.example/page", "data-src='b_{width}x.jpg'", "data-src='{{ b.jpg }}'",
        "data-src='https://b.example/$%7Bwidth%7D/b.jpg'", "data-lazy=1.5",
        "data-original='<%= b.jpg %>'", "data-src=data:image/gif;base64,AA", "data-url='#'",
        # What is not of this image, or no address.
        "data-hover=b.jpg", "data-fallback=b.jpg", "data-placeholder=b.jpg", "data-title=b.jpg",
        "onerror=b.jpg", "data-file-name=b.jpg", "class=b.jpg", "data-zoom=b.jpg",
    ],
)  # fmt: skip
def test_attributes_without_an_address_are_skipped(attributes: str) -> None:
    assert addresses(f"<img {attributes} src=a.jpg alt=t>") == ["a.jpg"]
    assert addresses(f"<img src=a.jpg {attributes} alt=t>") == ["a.jpg"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("data-src=b.jpg", "b.jpg"), ("data-src=/i/4711", "http://a.example/i/4711"),
        ("data-src='i.php?n=1'", "i.php?n=1"), ("data-lazy=b.jpg?w=3", "b.jpg?w=3"),
        ("data-image=//c.example/b", "http://c.example/b"), ("data-url=b.png", "b.png"),
        ("data-original=b.webp", "b.webp"), ("data-src='my b.jpg'", "my%20b.jpg"),
        ("data-srcset='b-1.jpg 1x, b-2.jpg 2x'", "b-2.jpg"), ("data-lazy-srcset=b.jpg", "b.jpg"),
        ("data-bg-srcset=b.jpg", "b.jpg"),
        # Attributes that are in no list.
        ("data-lazyload=b.jpg", "b.jpg"), ("data-ll-src=b.jpg", "b.jpg"),
        ("data-echo=b.jpg", "b.jpg"), ("data-hi-res=b.jpg", "b.jpg"), ("lazysrc=b.jpg", "b.jpg"),
        ("data-cfsrc=b.jpg", "b.jpg"), ("data-pin-media=b.jpg", "b.jpg"), ("file=b.jpg", "b.jpg"),
        ("data-lazy-image=/i/4711", "http://a.example/i/4711"), ("data-full=b.jpg", "b.jpg"),
        ("data-my-img=https://c.example/i?id=7", "https://c.example/i?id=7"),
        ("data-zoom-image=b.jpg!large", "b.jpg!large"), ("original=b.jpg", "b.jpg"),
        ("data-actualsrc=b.jpg", "b.jpg"), ("data-orig-file=b.jpg", "b.jpg"),
    ],
)  # fmt: skip
def test_addresses_of_lazy_images(attributes: str, expected: str) -> None:
    for src in ("src=placeholder.gif", "src=data:,", "", "src=/img/1x1.png?x", "src=''"):
        assert addresses(f"<img {src} {attributes} alt=t>") == [expected]


def test_a_placeholder_is_better_than_nothing() -> None:
    assert addresses("<img src=placeholder.gif data-x=1 alt=t>") == ["placeholder.gif"]
    assert addresses("<img src='{{ item.src }}' alt=t>") == []
    assert addresses("<img src='/{8B6C}/a.jpg' alt=t>") == ["http://a.example/%7B8B6C%7D/a.jpg"]


def test_other_elements_and_attributes_with_texts() -> None:
    html = """<amp-img src=1.jpg alt=one></amp-img><image src=2.jpg alt=two>
    <img src=3.jpg aria-label=three data-image-title=drei>
    <div role=img aria-label=four style="color:red;background:no-repeat url('4.jpg')"></div>
    <svg role=img aria-label=five></svg><span role="img" aria-label=six>6</span>
    <input type=image src=7.jpg alt=seven><div style="background:url(8.jpg)" title=eight></div>"""
    assert rows(html) == [
        ("1.jpg", [("alt", "one")]),
        ("2.jpg", [("alt", "two")]),
        ("3.jpg", [("data-image-title", "drei"), ("aria-label", "three")]),
        ("4.jpg", [("aria-label", "four")]),
    ]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("background:url('a(1).jpg')", "a(1).jpg"),
        ('background-image: url( "b (2).jpg" ), url(c.jpg)', "b%20(2).jpg"),
        ("background:url(&quot;it's.jpg&quot;)", "it's.jpg"),
        (r"background:url(d\(3\).jpg)", "d(3).jpg"),
        (r"background:url('\65 .jp\000067')", "e.jpg"),
        ("background:url(f.jpg", "f.jpg"),
        ("background:url('');background:url(g.jpg)", "g.jpg"),
    ],
)
def test_addresses_in_styles(style: str, expected: str) -> None:
    quote = "'" if '"' in style else '"'
    html = f"<div role=img aria-label=t style={quote}{style}{quote}></div>"
    assert addresses(html) == [expected]


@pytest.mark.parametrize("unit", ["blank-", "_pixel", ".gif", "/loading", "a.gif?"])
def test_long_addresses_take_linear_time(unit: str) -> None:
    start = time.process_time()
    assert rows(f"<img src='{unit * 100_000}' alt=t>") == []
    style = "background:" * 100_000
    assert rows(f"<div role=img aria-label=t style='{style}'><img src=a.jpg>") == []
    assert time.process_time() - start < 5


def test_the_long_address_of_a_picture_is_not_copied_to_each_image() -> None:
    for start, reason in (("", "oversized URL"), ("data:", "data: URL")):
        source = f"<source srcset='{start}{'x' * 50_000} 1x'>"
        html = f"<picture>{source}{'<img alt=a>' * 20}</picture>"
        images = read_page(html).images
        assert max(len(address) for found, _ in images for address in found) < 10_000
        found, counts = rows_of_warc(members(record("response", response(html))))
        assert (found, counts.dropped_images) == ([], {reason: 20})
    blanks = " " * 9000
    assert addresses(f"<img src='{blanks}a.jpg{blanks}' alt=t>") == ["a.jpg"]


def test_a_text_counts_once_for_an_image() -> None:
    html = """<figure><img src=a.jpg alt="Red  barn" title="Red barn" aria-label="Barn">
    <figcaption>Red<br>barn</figcaption></figure>"""
    found, counts = rows_of_warc(members(record("response", response(html))))
    assert found[0]["texts"] == [("alt", "Red barn"), ("aria-label", "Barn")]
    assert counts.dropped_texts == {"text that the image has already": 2}


@pytest.mark.parametrize(
    "text",
    ["\u200b", "\u00ad\u00ad", "\ufffc", "\ue001 \ue002", "\ufeff\u200d", "\u2800", "\u3164",
     "\U000f0000", "\ufe0f", "\u202a\u202c"],
)  # fmt: skip
def test_texts_of_invisible_characters_are_empty(text: str) -> None:
    html = f"<img src=a.jpg alt='{text}' title='{text}x'><img src=b.jpg alt='{text}'>"
    found, counts = rows_of_warc(members(record("response", response(html))))
    assert [row["texts"] for row in found] == [[("title", f"{text}x")]]
    assert counts.dropped_texts == {"empty text": 2}


@pytest.mark.parametrize(
    ("srcset", "expected"),
    [
        ("a.jpg 1x, b.jpg 2x", "b.jpg"),
        ("a.jpg 1x (b, c) , b.jpg 1x", "b.jpg"),
        ("a.jpg (,b.jpg 2x), c.jpg", "c.jpg"),
        ("a.jpg 100w 200w, b.jpg 50w", "b.jpg"),
        ("a.jpg 900w 2x, b.jpg 50w", "b.jpg"),
        ("a.jpg 0w, b.jpg 50w", "b.jpg"),
        ("a.jpg -1x, b.jpg 0.5x", "b.jpg"),
        ("a.jpg 2X, b.jpg", "b.jpg"),
        ("a.jpg 100w 50h, b.jpg 50w", "a.jpg"),
        ("a.jpg 50h, b.jpg", "b.jpg"),
        ("a.jpg 1e0x, b.jpg .5x", "a.jpg"),
        ("a.jpg,b.jpg 2x", "a.jpg,b.jpg"),
        (",, a.jpg,, ,b.jpg,", "a.jpg"),
        ("", None), (" , ", None), ("a.jpg 3q", None),
    ],
)  # fmt: skip
def test_srcset(srcset: str, expected: str | None) -> None:
    assert addresses(f"<img srcset='{srcset}' alt=t>") == ([expected] if expected else [])


TOKENS = [
    *("a.png", "b.jpg", "1x", "2x", "100w", "0w", "50h", "1.5x", "-1x", ".5x", "1e3x", "(", ")"),
    *("a.png,", ",", " ", "\t", " ", ",", ", ", "+1x", "1w", "1W", "1X", "1q", "0x", "1.x"),
    *("\xa0", "-0x", "x", "w", "00w", "1e1000x"),
]


def test_an_independent_reader_of_srcset_agrees() -> None:
    rng = Random(0)
    sound = 0
    for _ in range(50_000):
        text = "".join(rng.choice(TOKENS) for _ in range(rng.randrange(1, 12)))
        found = list(candidates(text))
        expected = [
            (c.url, c.width, 1.0 if c.width is None and c.density is None else c.density)
            for c in reference.parse(text)
        ]
        if any(c.density == float("inf") for c in reference.parse(text)):
            continue  # numbers out of range are errors by the standard
        assert found == expected, text
        sound += len(found)
    assert sound > 10_000
