"""Encodings of pages: what browsers show, by the HTML, Encoding and URL standards."""

from __future__ import annotations

from random import Random

import pytest
from tinyhtml5.inputstream import EncodingParser

from metacurate.pages.encoding import _prescan, by_label, decode, encode_query
from web_pages import members, record, response, rows_of_warc

IMAGE = '<img src=a.jpg alt="{}">'


def texts(html: bytes, content_type: str = "text/html") -> tuple[list[str], int]:
    """The texts of a page's images, and how many pages were damaged (0 or 1)."""
    rows, counts = rows_of_warc(members(record("response", response(html, content_type))))
    return [text for row in rows for _, text in row["texts"]], counts.damaged_pages


@pytest.mark.parametrize(
    ("html", "content_type", "expected"),
    [
        # One stray byte, and a page cut within its last character.
        (b"<p>caf\xe9</p>" + IMAGE.format("Haus am Fluß").encode(), "text/html; charset=utf-8",
         "Haus am Fluß"),
        (b"<meta charset=utf-8>" + IMAGE.format("Fluß").encode() + b"\xc3", "text/html", "Fluß"),
        (IMAGE.format("Fluß mit Brücke").encode() + b"<p>caf\xe9", "text/html", "Fluß mit Brücke"),
        (b"<img src=a.jpg alt='caf\xe9'>", "text/html; charset=utf-8", "caf\ufffd"),
        ("<meta charset=gbk><img src=a.jpg alt='红房子'>".encode("gbk") + b"\xff", "text/html",
         "红房子"),
    ],
)  # fmt: skip
def test_damaged_bytes_cost_themselves_alone(html: bytes, content_type: str, expected: str) -> None:
    assert texts(html, content_type) == ([expected], 1)


@pytest.mark.parametrize(
    ("label", "written", "expected"),
    [
        ("shift_jis", "①赤い家".encode("cp932"), "①赤い家"),
        ("SJIS", "㈱ 髙橋".encode("cp932"), "㈱ 髙橋"),
        ("euc-kr", "똠방각하 사진".encode("cp949"), "똠방각하 사진"),
        ("ks_c_5601-1987", "똠방각하 사진".encode("cp949"), "똠방각하 사진"),
        ("euc-jp", b"\xad\xa1\xc0\xd6\xa4\xa4\xb2\xc8", "①赤い家"),
        ("big5", "啫喱 相".encode("big5hkscs"), "啫喱 相"),
        ("gb2312", "红房子 10 € 镕".encode("gb18030"), "红房子 10 € 镕"),
        ("gbk", b"10 \x80", "10 €"),
        ("windows-874", b"10 \x80 \xba\xe9\xd2\xb9", "10 € บ้าน"),
        ("iso-8859-1", b"\x93quoted\x94 \x80", "“quoted” €"),
        ("ascii", b"caf\xe9", "café"),
        ("iso-8859-9", b"\xdeehir \x80", "Şehir €"),
        ("koi8-u", b"\xae\xbe", "ўЎ"),
        ("x-mac-cyrillic", b"\x84\xee\xec", "Дом"),
        ("iso-2022-jp", "赤い家".encode("iso2022_jp"), "赤い家"),
        ("x-user-defined", b"caf\xe9", "café"),
        # Labels of 16 bits in a page whose label can be read.
        ("utf-16", "Fluß".encode(), "Fluß"),
        ("unicode", "Fluß".encode(), "Fluß"),
        ("utf-16be", "Fluß".encode(), "Fluß"),
        ("ucs-2", "Fluß!".encode(), "Fluß!"),
    ],
)
def test_labels_mean_the_encodings_of_the_web(label: str, written: bytes, expected: str) -> None:
    html = b'<meta charset="%s"><img src=a.jpg alt="%s">' % (label.encode(), written)
    assert texts(html) == ([expected], 0)
    if label not in ("utf-16", "unicode", "utf-16be", "ucs-2", "x-user-defined"):
        html = b'<img src=a.jpg alt="%s">' % written
        assert texts(html, f"text/html; charset={label}") == ([expected], 0)


PADDING = "<script src=a.js></script>" * 300  # over 4,096 bytes


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<!-- <meta charset="windows-1251"> --><meta charset="utf-8">', "utf-8"),
        ('<meta name="keywords" content="charset=windows-1251"><meta charset=utf-8>', "utf-8"),
        ('<meta name="keywords" content="charset=koi8-r">', "utf-8"),
        ('<meta data-charset="koi8-r">', "utf-8"),
        ('<p title="<meta charset=koi8-r>">', "utf-8"),
        ("<!--><meta charset=koi8-r>-->", "koi8-r"),
        ('<meta charset="bogus"><meta charset="koi8-r">', "koi8-r"),
        ('<meta charset=" KOI8-R ">', "koi8-r"),
        ("<meta content='text/html; charset = \"koi8-r\"' http-equiv=Content-Type>", "koi8-r"),
        ('<?xml version="1.0" encoding="windows-1251"?>', "windows-1251"),
        ('<?xml version="1.0" encoding="koi8-r"?><meta charset=windows-1251>', "windows-1251"),
        (f"{PADDING}<meta charset=koi8-r>", "koi8-r"),
        (f"{PADDING}<meta http-equiv=content-type content='a; charset=koi8-r'>", "koi8-r"),
        (f"{PADDING}<!-- <meta charset=koi8-r> --><meta charset=windows-1251>", "windows-1251"),
        (f"{PADDING}<script>'<meta charset=koi8-r>'</script>", "utf-8"),
        # The beginning is searched without a parser; what the parser finds comes after it.
        ("<script>'<meta charset=koi8-r>'</script><meta charset=windows-1251>", "windows-1251"),
    ],
)
def test_declarations_in_pages(head: str, encoding: str) -> None:
    html = f"{head}<img src=a.jpg alt='красный дом'>".encode(encoding)
    assert texts(html) == (["красный дом"], 0)


def test_what_is_stronger() -> None:
    html = "<meta charset=koi8-r>" + IMAGE.format("Fluß")
    assert texts(html.encode(), "text/html; charset=utf-8") == (["Fluß"], 0)
    assert texts(html.encode("utf-8-sig"), "text/html; charset=koi8-r") == (["Fluß"], 0)
    assert texts(b"\xff\xfe" + html.encode("utf-16-le")) == (["Fluß"], 0)
    assert texts(b"\xfe\xff" + html.encode("utf-16-be")) == (["Fluß"], 0)
    # A header's label is believed even if the page cannot be read then, as by browsers.
    assert texts(html.encode() + b"<p>", "text/html; charset=utf-16") == ([], 0)


@pytest.mark.parametrize(
    ("written", "encoding"),
    [
        ("красный дом на улице большого города", "windows-1251"),
        ("красный дом на улице большого города", "koi8-r"),
        ("大きな町の通りにある赤い家と古い木", "shift_jis"),
        ("大きな町の通りにある赤い家と古い木", "euc-jp"),
        ("큰 도시의 거리에 있는 빨간 집", "euc-kr"),
        ("大城市街上的红房子和一棵老树", "gbk"),
        ("ein rotes Haus über dem Fluß", "windows-1252"),
    ],
)
def test_undeclared_encodings_are_detected(written: str, encoding: str) -> None:
    html = f"<p>{written * 3}<p>{IMAGE.format(written)}".encode(encoding)
    assert texts(html) == ([written], 0)


def random_markup(rng: Random) -> bytes:
    """A comment, a declaration, an end tag, or a tag whose attributes may declare an encoding."""
    kind = rng.randrange(8)
    label = rng.choice([b"koi8-r", b"big5", b"utf-16", b"x-user-defined", b"bogus", b" UTF-8 "])
    if kind == 0:
        return b"<!-- <meta charset='%s'> -->" % label
    if kind == 1:
        return rng.choice([b"<!doctype html>", b"<?a charset=b?>", b"</meta charset='x'>", b"< a>"])
    quote = rng.choice([b'"', b"'"])
    content = rng.choice([b"text/html; charset=", b"charset", b"a charset = "])
    attributes = [
        (rng.choice([b"charset", b"CHARSET", b"data-charset"]), label),
        (b"content", content + label.strip()),
        (b"http-equiv", rng.choice([b"content-type", b"Content-Type", b"refresh"])),
        (b"name", b"keywords"),
    ]
    written = [
        name + rng.choice([b"=", b" = ", b"=\n"]) + quote + value + quote
        for name, value in rng.sample(attributes, rng.randrange(4))
    ]
    tag = rng.choice([b"meta", b"META", b"metas", b"p"])
    return b"<" + b" ".join([tag, *written]) + b">"


def test_an_independent_prescan_agrees() -> None:
    rng = Random(0)
    found = 0
    for _ in range(20_000):
        page = b"text".join(random_markup(rng) for _ in range(rng.randrange(1, 5)))
        expected = EncodingParser(page).get_encoding()
        name = expected.name if expected is not None else None
        name = {"utf-16le": "utf-8", "x-user-defined": "windows-1252"}.get(name or "", name)
        assert _prescan(page) == name, page
        found += name is not None
    assert 4000 < found < 19_000


def test_nothing_is_declared_by_nothing() -> None:
    for text in ("", "x", "赤い家", "красный дом " * 90, "caf\xe9"):
        for encoding in ("utf-8", "shift_jis", "koi8-r", "latin-1", "iso2022_jp", "utf-16-le"):
            assert _prescan(text.encode(encoding, "ignore")) is None


@pytest.mark.parametrize(
    ("query", "encoding", "expected"),
    [
        ("n=Дом", "windows-1251", "n=%C4%EE%EC"),
        ("n=Дом ß", "windows-1251", "n=%C4%EE%EC %26%23223%3B"),
        ("ソ", "shift_jis", "%83\\"),
        ("赤い", "iso-2022-jp", "%1B$B@V$$%1B(B"),
        ("n=Дом", "utf-8", "n=Дом"),
        ("n=Дом", "utf-16le", "n=Дом"),
    ],
)
def test_queries_in_the_pages_encoding(query: str, encoding: str, expected: str) -> None:
    assert encode_query(query, encoding) == expected


def test_addresses_of_a_page_in_another_encoding() -> None:
    html = '<meta charset=windows-1251><base href="/Дом/">' + "".join(
        f'<img src="{src}" alt="{n}">'
        for n, src in enumerate(("/i.php?n=Дом", "Дом.png?Дом#Дом", "/i#?Дом", "/a?x=1"))
    )
    rows, _ = rows_of_warc(members(record("response", response(html.encode("windows-1251")))))
    house = "%D0%94%D0%BE%D0%BC"
    assert [row["url"] for row in rows] == [
        "http://a.example/i.php?n=%C4%EE%EC",
        f"http://a.example/{house}/{house}.png?%C4%EE%EC",
        "http://a.example/i",
        "http://a.example/a?x=1",
    ]


def test_labels() -> None:
    assert [by_label(label) for label in ("latin1", " UTF8\n", "x-sjis", "iso-2022-kr")] == [
        *("windows-1252", "utf-8", "shift_jis", "replacement")
    ]
    assert [by_label(label) for label in ("utf-7", "bogus", "", "utf-8\u212a")] == [None] * 4


def test_what_was_read_says_how() -> None:
    assert decode(b"\xff", None)[1:] == ("windows-1252", False, False)
    assert decode("é".encode(), "latin1")[1:] == ("windows-1252", True, False)
    assert decode(b"a\xc3", "utf-8") == ("a\ufffd", "utf-8", True, True)
    # A replacement character that the page has itself is no damage.
    assert decode("\ufffd".encode(), None) == ("\ufffd", "utf-8", False, False)
