"""Duplicates, scorers, filters and face blurring on tar shards, and their commands."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

import webdataset
from conftest import Command
from hostile_server import encoded, photo
from metacurate.errors import UserError
from metacurate.images import duplicates
from metacurate.images.duplicates import mark_duplicates
from metacurate.images.filter import FilterConfig, Rule, blur_boxes, filter_images
from metacurate.images.process import ImageConfig, ProcessedImage, process_image
from metacurate.images.scorers import load_scorer
from metacurate.images.survival import survival_rate
from metacurate.runtime.engines.local import LocalEngine
from metacurate.webdataset.shards import Sample, TarWriter, read_samples, sample_key, shard_stem

ENGINE = LocalEngine(1)


def brightness(
    images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[float]]:
    """A scorer of somebody's own, as ``module:function``."""
    assert all(row["key"] for row in rows)
    return {"brightness": [float(image.mean()) for image in images]}


def write_shards(folder: Path, shards: list[list[bytes | None]]) -> None:
    """Shards as pool download leaves them; None stands for a failed row."""
    for number, bodies in enumerate(shards):
        rows, samples = [], []
        for position, body in enumerate(bodies):
            row: dict[str, Any] = {"key": sample_key(number, position, 100), "url": "http://x/y"}
            if body is None:
                rows.append(row | {"status": "failed_to_download", "error_message": "http_404"})
                continue
            image = process_image(body, ImageConfig(size=256))
            assert isinstance(image, ProcessedImage)
            row |= {"status": "success", "sha256": image.sha256, "dhash": image.dhash}
            rows.append(row)
            files = {"jpg": image.jpeg, "txt": b"text", "json": json.dumps(row).encode()}
            samples.append(Sample(row["key"], files))
        stem = shard_stem(number)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{stem}.tar").open("wb") as file:
            tar = TarWriter(file)
            for sample in samples:
                tar.write(sample)
            tar.close()
        schema = pa.schema(
            [(n, pa.string()) for n in ("key", "url", "status", "error_message", "sha256", "dhash")]
        )
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{stem}.parquet")
        statistics = {"count": len(bodies), "successes": len(samples)}
        (folder / f"{stem}_stats.json").write_text(json.dumps(statistics))


def samples_of(folder: Path) -> dict[str, dict[str, Any]]:
    """All samples of a folder by key, as webdataset reads them."""
    tars = [str(p) for p in sorted(folder.glob("*.tar"))]
    return {s["__key__"]: s for s in webdataset.WebDataset(tars, shardshuffle=False)}


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two shards with exact copies, a perceptual one, blank images and failures."""
    first, second, blank = encoded(photo(1)), encoded(photo(2)), Image.new("RGB", (32, 32), "white")
    write_shards(
        tmp_path / "tars",
        [
            [first, None, second, encoded(blank, "PNG")],
            [encoded(photo(2), quality=80), first, encoded(photo(3)), encoded(blank)],
        ],
    )
    return tmp_path / "tars"


@pytest.mark.parametrize("images_per_partition", [1, 3, 1_000_000])
def test_duplicates_are_marked_across_shards(
    tars: Path, images_per_partition: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "IMAGES_PER_PARTITION", images_per_partition)
    totals = mark_duplicates(str(tars))
    assert totals == {"images": 7, "exact_duplicates": 1, "perceptual_duplicates": 1}
    marks = [pq.read_table(tars / "duplicates" / f"0000{n}.parquet").to_pylist() for n in range(2)]
    assert [m["key"] for m in marks[0]] == ["0000000", "0000002", "0000003"]
    assert all(m["exact_duplicate_of"] is None for m in marks[0])
    assert [m["exact_duplicate_of"] for m in marks[1]] == [None, "0000000", None, None]
    assert [m["perceptual_duplicate_of"] for m in marks[1]] == ["0000002", "0000000", None, None]


def test_duplicates_agree_with_a_plain_count(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 40, (5, 20))
    write_shards(tmp_path, [[encoded(photo(int(n))) for n in shard] for shard in numbers])
    totals = mark_duplicates(str(tmp_path))
    assert totals["exact_duplicates"] == numbers.size - len(np.unique(numbers))
    first: dict[int, str] = {}
    for shard in range(5):
        table = pq.read_table(tmp_path / "duplicates" / f"{shard_stem(shard)}.parquet")
        for number, row in zip(numbers[shard], table.to_pylist(), strict=True):
            leader = first.setdefault(int(number), row["key"])
            assert row["exact_duplicate_of"] == (None if leader == row["key"] else leader)


@pytest.mark.parametrize("max_distance", range(6))
@pytest.mark.parametrize("images_per_partition", [7, 1_000_000])
def test_look_alikes_agree_with_comparing_all_pairs(
    tmp_path: Path, max_distance: int, images_per_partition: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "IMAGES_PER_PARTITION", images_per_partition)
    rng = np.random.default_rng(max_distance)
    models = [*rng.integers(0, 2**64, 30, dtype=np.uint64).tolist(), 0, 2**64 - 1, 2**63]
    hashes = []
    for model in rng.choice(len(models), 400):
        flips = rng.choice(64, rng.integers(0, 7), replace=False)
        hashes.append(models[model] ^ sum(1 << int(bit) for bit in flips))
    for shard in range(4):
        rows = {
            "key": [sample_key(shard, row, 100) for row in range(100)],
            "status": ["success"] * 100,
            "sha256": [f"{shard * 100 + row:064x}" for row in range(100)],
            "dhash": [f"{value:016x}" for value in hashes[shard * 100 : shard * 100 + 100]],
        }
        pq.write_table(pa.table(rows), tmp_path / f"{shard_stem(shard)}.parquet")
        (tmp_path / f"{shard_stem(shard)}.tar").touch()
    totals = mark_duplicates(str(tmp_path), max_distance=max_distance)
    found = [
        row["perceptual_duplicate_of"]
        for shard in range(4)
        for row in pq.read_table(
            tmp_path / "duplicates" / f"{shard_stem(shard)}.parquet"
        ).to_pylist()
    ]
    usable = [4 <= value.bit_count() <= 60 for value in hashes]
    expected = [
        next(
            (
                sample_key(j // 100, j % 100, 100)
                for j in range(i)
                if usable[i] and usable[j] and (hashes[i] ^ hashes[j]).bit_count() <= max_distance
            ),
            None,
        )
        for i in range(len(hashes))
    ]
    assert found == expected
    assert totals["perceptual_duplicates"] == sum(e is not None for e in expected) > 10


def test_duplicates_are_dropped(tars: Path, tmp_path: Path) -> None:
    config = FilterConfig(drop_duplicates="exact")
    with pytest.raises(UserError, match="pool duplicates"):
        filter_images(str(tars), str(tmp_path / "out"), config, engine=ENGINE)
    mark_duplicates(str(tars))
    totals = filter_images(str(tars), str(tmp_path / "out"), config, engine=ENGINE)
    assert totals["dropped"] == {"exact_duplicate": 1}
    both = FilterConfig(drop_duplicates="perceptual")
    totals = filter_images(str(tars), str(tmp_path / "both"), both, engine=ENGINE)
    assert totals["dropped"] == {"exact_duplicate": 1, "perceptual_duplicate": 1}
    assert totals["successes"] == 5
    assert set(samples_of(tars)) - set(samples_of(tmp_path / "both")) == {"0000100", "0000101"}


def test_a_scorer_of_ones_own_filters(tars: Path, tmp_path: Path) -> None:
    config = FilterConfig(
        scorers=("test_image_filters:brightness",), keep=(Rule.parse("brightness < 200"),)
    )
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, workers in zip(outs, (1, 2), strict=True):
        totals = filter_images(str(tars), str(out), config, engine=LocalEngine(workers))
    assert totals["count"] == 8
    assert totals["images"] == 7
    assert totals["successes"] == 5
    assert totals["dropped"] == {"not brightness<200": 2}
    assert totals["status_dict"] == {"http_404": 1, "not brightness<200": 2, "success": 5}
    files = [{p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} for out in outs]
    assert files[0] == files[1]

    kept, before = samples_of(outs[0]), samples_of(tars)
    for key, sample in kept.items():
        assert sample["jpg"] == before[key]["jpg"]
        pixels = np.asarray(Image.open(io.BytesIO(sample["jpg"])))
        assert json.loads(sample["json"])["brightness"] == pytest.approx(pixels.mean())
    rows = [row for p in sorted(outs[0].glob("*.parquet")) for row in pq.read_table(p).to_pylist()]
    assert [r["status"] for r in rows].count("filtered") == 2
    assert all((r["brightness"] is None) == (r["status"] == "failed_to_download") for r in rows)
    assert survival_rate(str(outs[0])).rate == 5 / 8


def test_filters_follow_one_another(tars: Path, tmp_path: Path) -> None:
    scorers = ("test_image_filters:brightness",)
    first = FilterConfig(scorers, (Rule.parse("brightness<200"),))
    filter_images(str(tars), str(tmp_path / "a"), first, engine=ENGINE)
    second = FilterConfig(scorers, (Rule.parse("brightness>=0"), Rule.parse("brightness<1")))
    totals = filter_images(str(tmp_path / "a"), str(tmp_path / "b"), second, engine=ENGINE)
    assert totals["images"] == 5
    assert totals["dropped"] == {"not brightness<1": 5}
    assert totals["filtered"] == 7
    assert survival_rate(str(tmp_path / "b")).rate == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FilterConfig(), "nothing to do"),
        (
            FilterConfig(scorers=("nothing",)),
            "no scorer 'nothing'; known are clip-score, faces, unsafe",
        ),
        (FilterConfig(scorers=("no_such_module:f",)), "no_such_module"),
        (FilterConfig(scorers=("test_image_filters:nothing",)), "nothing"),
        (FilterConfig(scorers=("test_image_filters:ENGINE",)), "cannot be called"),
        (
            FilterConfig(("test_image_filters:brightness",), (Rule("darkness", "<", 1.0),)),
            "no scorer gives 'darkness'",
        ),
        (FilterConfig(("test_image_filters:brightness",), blur="brightness"), "no boxes"),
        (FilterConfig(drop_duplicates="some"), "exact or perceptual"),
    ],
)
def test_mistakes_are_named(tars: Path, tmp_path: Path, config: FilterConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        filter_images(str(tars), str(tmp_path / "out"), config, engine=ENGINE)


@pytest.mark.parametrize("text", ["", "unsafe", "unsafe<", "<0.5", "unsafe=0.5", "unsafe<1.2.3"])
def test_unreadable_rules_are_named(text: str) -> None:
    with pytest.raises(UserError, match="cannot read the rule"):
        Rule.parse(text)


def test_missing_scores_do_not_meet_a_rule() -> None:
    rule = Rule.parse("unsafe < 0.5")
    assert str(rule) == "unsafe<0.5"
    assert rule.holds(0.4)
    assert not rule.holds(0.5)
    assert not rule.holds(float("nan"))
    assert not rule.holds(None)


def test_of_a_damaged_tar_the_samples_before_the_damage_are_kept(
    tars: Path, tmp_path: Path
) -> None:
    config = FilterConfig(("test_image_filters:brightness",))
    whole = filter_images(str(tars), str(tmp_path / "whole"), config, engine=ENGINE)
    content = (tars / "00000.tar").read_bytes()
    (tars / "00000.tar").write_bytes(content[: len(content) // 2])
    totals = filter_images(str(tars), str(tmp_path / "out"), config, engine=ENGINE)
    assert totals["skipped_members"] == {"tar_damaged": 1}
    lost = totals["dropped"]["missing_image"]
    assert 0 < lost < whole["successes"]
    assert totals["successes"] == whole["successes"] - lost
    assert totals["count"] == whole["count"]


def test_unreadable_images_are_dropped(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", [[encoded(photo(1)), encoded(photo(2))]])
    with (tmp_path / "in" / "00000.tar").open("rb") as file:
        samples = list(read_samples(file, Counter()))
    with (tmp_path / "in" / "00000.tar").open("wb") as file:
        tar = TarWriter(file)
        tar.write(samples[0])
        tar.write(Sample(samples[1].key, {**samples[1].files, "jpg": b"damaged"}))
        tar.close()
    config = FilterConfig(("test_image_filters:brightness",))
    totals = filter_images(str(tmp_path / "in"), str(tmp_path / "out"), config, engine=ENGINE)
    assert totals["dropped"] == {"not_an_image": 1}
    assert list(samples_of(tmp_path / "out")) == ["0000000"]


def test_images_missing_in_the_tar_are_not_called_successes(tars: Path, tmp_path: Path) -> None:
    """A tar of somebody else's: an image left out, and a member that points elsewhere."""
    with (tars / "00000.tar").open("rb") as file:
        samples = list(read_samples(file, Counter()))
    with (tars / "00000.tar").open("wb") as file:
        tar = TarWriter(file)
        tar.write(samples[0])
        tar.write(Sample("../../evil", {"jpg": b"x"}))
        tar.close()
    config = FilterConfig(("test_image_filters:brightness",))
    totals = filter_images(str(tars), str(tmp_path / "out"), config, engine=ENGINE)
    assert totals["dropped"] == {"missing_image": 2}
    assert totals["skipped_members"] == {"unsafe_name": 1}
    assert totals["successes"] == 5 == len(samples_of(tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "00000.tar") as written:
        assert all(".." not in name for name in written.getnames())


def test_tars_without_parquet_are_filtered_too(tars: Path, tmp_path: Path) -> None:
    for path in tars.glob("*.parquet"):
        path.unlink()
    config = FilterConfig(("test_image_filters:brightness",), (Rule.parse("brightness<200"),))
    totals = filter_images(str(tars), str(tmp_path / "out"), config, engine=ENGINE)
    assert (totals["count"], totals["successes"]) == (7, 5)


def faces_in(image: np.ndarray) -> list[Any]:
    """The boxes that the shipped detector finds."""
    return load_scorer("faces")([image], [{}])["face_boxes"][0]


def test_faces_are_found_and_blurred(tmp_path: Path) -> None:
    astronaut, coffee = skimage.data.astronaut(), skimage.data.coffee()
    assert len(faces_in(astronaut)) == 1
    left, top, width, height = faces_in(astronaut)[0]
    # The face of scikit-image's astronaut lies within these bounds.
    assert 150 < left < 200
    assert 40 < top < 110
    assert 60 < width < 130
    assert 70 < height < 150
    bodies = [encoded(Image.fromarray(image), "PNG") for image in (astronaut, coffee)]
    write_shards(tmp_path / "in", [list(bodies)])
    config = FilterConfig(("faces",), blur="face_boxes")
    totals = filter_images(str(tmp_path / "in"), str(tmp_path / "out"), config, engine=ENGINE)
    assert totals["blurred_images"] == 1
    before, after = samples_of(tmp_path / "in"), samples_of(tmp_path / "out")
    portrait, cup = sorted(after)
    assert json.loads(after[portrait]["json"])["faces"] == 1
    assert json.loads(after[cup]["json"])["faces"] == 0
    assert after[cup]["jpg"] == before[cup]["jpg"]
    blurred = np.asarray(Image.open(io.BytesIO(after[portrait]["jpg"])))
    assert not faces_in(blurred)
    original = np.asarray(Image.open(io.BytesIO(before[portrait]["jpg"])))
    assert blurred.shape == original.shape
    assert np.abs(blurred[150:].astype(int) - original[150:]).mean() < 3, "only the face changes"


def test_blurring_takes_any_box() -> None:
    image = photo(1)
    boxes = [(-50, -50, 60, 60), (90, 60, 100, 100), (10, 10, 0.2, 0.2), (500, 500, 9, 9)]
    result = blur_boxes(image, boxes)
    assert result.size == image.size
    assert np.abs(np.asarray(result).astype(int) - np.asarray(image)).max() > 0


def test_the_unsafe_scorer_passes_harmless_images() -> None:
    names = ("astronaut", "coffee", "cat", "rocket", "camera", "page", "moon")
    images = [np.asarray(Image.fromarray(getattr(skimage.data, n)()).convert("RGB")) for n in names]
    scores = load_scorer("unsafe")(images, [{}] * len(images))["unsafe"]
    assert len(scores) == len(names)
    assert all(0 <= score < 0.2 for score in scores), dict(zip(names, scores, strict=True))
    assert scores == load_scorer("unsafe")(images[:1], [{}])["unsafe"] + scores[1:]


def test_the_commands(tars: Path, tmp_path: Path, metacurate: Command) -> None:
    run = partial(metacurate, "pool")
    marked = run("duplicates", str(tars), "--json")
    assert json.loads(marked.stdout)["exact_duplicates"] == 1
    out = str(tmp_path / "out")
    filtered = run("filter", str(tars), "--out", out, "--drop-duplicates", "exact", "--json")
    assert json.loads(filtered.stdout)["successes"] == 6
    assert json.loads(run("survival", out, "--json").stdout)["rate"] == 6 / 8
    assert "0.7500" in run("survival", out).stdout
    wrong = run("filter", str(tars), "--out", str(tmp_path / "x"), "--keep", "unsafe")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("metacurate: error: cannot read the rule")
    assert wrong.stderr.count("\n") == 1
    (tmp_path / "empty").mkdir()
    assert run("survival", str(tmp_path / "empty")).returncode == 2


def test_sample_keys_are_img2datasets() -> None:
    assert sample_key(3, 7, 10_000) == "000030007"
    assert sample_key(3, 7, 10) == "000037"
    assert sample_key(12, 0, 1) == "00012"
    assert sample_key(123_456, 99, 100) == "12345699"
