"""The filter stage: tar shards in, scored and filtered tar shards out.

Every image is given to the scorers; the rules decide which stay. The new folder has the same layout
(and the same shard names and keys) as the old one, so filters can follow one another, and its
statistics count from the rows of the first input.
"""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.counts import counted
from metacurate.errors import ArgumentError, UserError
from metacurate.images.decode import UndecodableImage
from metacurate.images.decoders import decode_isolated
from metacurate.images.duplicates import DUPLICATES, KINDS, duplicates_name
from metacurate.images.process import encode_jpeg
from metacurate.images.reasons import Filtered
from metacurate.images.scorers import Scorer, load_scorer
from metacurate.needs import needs
from metacurate.pool.convert import json_row
from metacurate.runtime.arrowfiles import read_parquet
from metacurate.runtime.engine import GpuEngine
from metacurate.runtime.manifest import Stage, Statistics, add_statistics
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.webdataset.facts import decode_text
from metacurate.webdataset.files import find_tars, stem_of
from metacurate.webdataset.headers import IMAGE_EXTENSIONS
from metacurate.webdataset.shards import (
    FILTERED,
    SHARD_FILE,
    SUCCESS,
    Sample,
    TarWriter,
    read_samples,
    statistics_name,
)

with needs("images"):
    from PIL import Image, ImageDraw, ImageFilter

FILTER = Stage("filter", (), downstream=(DUPLICATES,), files=SHARD_FILE.pattern)
COMPARISONS = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}
RULE = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|==|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")
BLUR_MARGIN = 0.25
BLUR_FRACTION = 0.15
BATCH_PIXELS = 32 * 512 * 512


@dataclass(frozen=True)
class Rule:
    """A condition that an image must meet to stay: ``column`` compared with ``value``."""

    column: str
    comparison: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """From text such as ``unsafe<0.5``; UserError for anything else."""
        match = RULE.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            return cls(match[1], match[2], float(match[3]))
        except ValueError:
            raise UserError(
                f"cannot read the rule {text!r}; write for example unsafe<0.5"
            ) from None

    def __str__(self) -> str:
        return f"{self.column}{self.comparison}{self.value:.15g}"

    def holds(self, value: Any) -> bool:
        """Whether a score meets the rule; a missing or NaN score does not."""
        return value is not None and bool(COMPARISONS[self.comparison](float(value), self.value))


@dataclass(frozen=True)
class FilterConfig:
    """Options of a filter.

    ``scorers``: names for ``scorers.load_scorer``; ``keep``: rules that all must hold; ``blur``: a
    column of boxes to blur in the images kept; ``drop_duplicates``: ``exact``, ``perceptual`` (both
    kinds) or None; ``quality``: of the JPEG of blurred images.
    """

    scorers: tuple[str, ...] = ()
    keep: tuple[Rule, ...] = ()
    blur: str | None = None
    drop_duplicates: str | None = None
    quality: int = 95


@dataclass(frozen=True)
class _FilterTask:
    source: Folder
    folder: Folder
    stem: str
    tar: str
    config: FilterConfig


class FilterTotals(TypedDict):
    """``count``: rows of the first input; ``images`` were given to this filter, ``successes`` kept.

    ``dropped``: by reason (``reasons.Filtered``, ``reasons.BadImage``, or the rule that was not
    met); ``status_dict``: all rows, also by what an earlier step said about them;
    ``skipped_members``: of the tars (``webdataset.reasons``).
    """

    count: int
    images: int
    successes: int
    dropped: dict[str, int]
    blurred_images: int
    skipped_members: dict[str, int]
    status_dict: dict[str, int]


def filter_images(
    tars: str,
    out: str,
    config: FilterConfig,
    *,
    gpus_per_task: float = 0,
    **options: Unpack[RunOptions],
) -> FilterTotals:
    """Score and filter a folder of tar shards into another one.

    ``gpus_per_task``: of an engine that has GPUs to give (``runtime.engine.GpuEngine``); a share
    below 1, or whole ones.
    """
    if not (0 <= gpus_per_task < 1 or float(gpus_per_task).is_integer()) or gpus_per_task < 0:
        raise ArgumentError(
            "{gpus_per_task} must be a share below 1 or a whole number of GPUs, not {value:.15g}",
            value=gpus_per_task,
        )
    if config.drop_duplicates not in (None, *KINDS):
        raise ArgumentError("{drop_duplicates} is {kinds}", kinds=" or ".join(KINDS))
    if not (config.scorers or config.drop_duplicates):
        raise ArgumentError("nothing to do: give {scorers} or {drop_duplicates}")
    if not 1 <= config.quality <= 100:
        raise ArgumentError("{quality} must be from 1 to 100, not {value}", value=config.quality)
    for name in config.scorers:
        load_scorer(name)
    with open_run(out, inputs=[tars], preload=__name__, **options) as opened:
        run = opened
        if gpus_per_task:
            if not isinstance(opened.engine, GpuEngine):
                raise ArgumentError("{gpus_per_task} needs {engine} ray, whose tasks get GPUs")
            run = replace(opened, engine=opened.engine.with_gpus(gpus_per_task))
        source = Folder(tars)
        found = find_tars(source.url)
        shards_in = {stem_of(name): name for name in found.names}
        stems = list(shards_in)
        if config.drop_duplicates and not source.exists(duplicates_name(stems[-1])):
            raise UserError(f"duplicates are not marked yet: run metacurate pool duplicates {tars}")
        recorded = {
            "input": {stem: found.sizes[name] for stem, name in shards_in.items()},
            "scorers": list(config.scorers),
            "keep": [str(rule) for rule in config.keep],
            "blur": config.blur,
            "drop_duplicates": config.drop_duplicates,
            "quality": config.quality if config.blur else None,
        }
        tasks = [
            _FilterTask(source, run.folder, stem, name, config) for stem, name in shards_in.items()
        ]
        return run_stage(
            run, FILTER, recorded, tasks, _filter_shard, unit="images", totals=_totals, alone=True,
        )  # fmt: skip


def _totals(shards: list[Statistics]) -> FilterTotals:
    summed = add_statistics(shards)
    ordered = {k: counted(v) if isinstance(v, dict) else v for k, v in summed.items()}
    return cast(FilterTotals, ordered)


def _filter_shard(task: _FilterTask) -> Statistics:
    """Score and filter one shard; write its three files."""
    config = task.config
    scorers = [load_scorer(name) for name in config.scorers]
    duplicates = _duplicates(task)
    scored: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    blurred = 0
    skipped: Counter[str] = Counter()
    with task.folder.create(f"{task.stem}.tar") as target:
        tar = TarWriter(target)
        samples = read_samples(task.source.open(task.tar), skipped)
        for batch in _batches(samples, skipped):
            for (sample, record, image), scores in _score(batch, scorers):
                scored[sample.key] = scores
                reason = _verdict(sample, image, scores, duplicates, config)
                if reason is not None:
                    reasons[sample.key] = reason
                    continue
                boxes = [] if config.blur is None else _boxes(scores, config.blur)
                if boxes and isinstance(image, Image.Image):
                    blurred += 1
                    kept = _replace_image(sample, blur_boxes(image, boxes), config.quality)
                else:
                    kept = sample
                tar.write(_with_scores(kept, record, scores))
        tar.close()
    return _report(task, scored, reasons, blurred, skipped)


# A sample with the object in its JSON and its decoded image, or the reason why there is none.
_Read = tuple[Sample, dict[str, Any], Image.Image | str]


def _image(sample: Sample) -> Image.Image | str:
    if sample.image is None:
        return Filtered.NO_IMAGE
    try:
        return decode_isolated(sample.image)
    except UndecodableImage as reason:
        return str(reason)


def _batches(samples: Iterator[Sample], problems: Counter[str]) -> Iterator[list[_Read]]:
    """Samples with their images, in batches of bounded pixels."""
    batch: list[_Read] = []
    pixels = 0
    for sample in samples:
        image = _image(sample)
        batch.append((sample, sample.record(problems), image))
        pixels += 0 if isinstance(image, str) else image.width * image.height
        if pixels >= BATCH_PIXELS or len(batch) >= 256:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _score(batch: Sequence[_Read], scorers: Sequence[Scorer]) -> list[tuple[_Read, dict[str, Any]]]:
    arrays = [np.asarray(image) for _, _, image in batch if not isinstance(image, str)]
    rows = [_row(sample, record) for sample, record, image in batch if not isinstance(image, str)]
    columns: dict[str, Sequence[Any]] = {}
    for scorer in scorers:
        for name, values in scorer(arrays, rows).items() if arrays else ():
            if len(values) != len(arrays):
                raise UserError(
                    f"the scorer gave {len(values)} values of {name!r} for {len(arrays)} images"
                )
            if name in columns:
                raise UserError(f"two scorers give a column {name!r}")
            columns[name] = [v.item() if isinstance(v, np.generic) else v for v in values]
    scores = iter(range(len(arrays)))
    found = []
    for read in batch:
        position = None if isinstance(read[2], str) else next(scores)
        own = {} if position is None else {n: values[position] for n, values in columns.items()}
        found.append((read, own))
    return found


def _row(sample: Sample, record: dict[str, Any]) -> dict[str, Any]:
    """What a scorer is told of an image: its record, and the text beside it."""
    text = decode_text(sample.files.get("txt"), Counter())
    return record if text is None else {"txt": text, **record}


def _verdict(
    sample: Sample,
    image: Image.Image | str,
    scores: dict[str, Any],
    duplicates: dict[str, str],
    config: FilterConfig,
) -> str | None:
    """Why an image is dropped, None if it stays."""
    if isinstance(image, str):
        return image
    if sample.key in duplicates:
        return duplicates[sample.key]
    for rule in config.keep:
        if rule.column not in scores:
            raise UserError(
                f"no scorer gives {rule.column!r} for the rule {rule}; there is "
                f"{', '.join(scores) or 'no column'}"
            )
        value = scores[rule.column]
        if isinstance(value, list | tuple | str):
            raise UserError(f"the rule {rule} needs numbers, but {rule.column!r} holds lists")
        if not rule.holds(value):
            return f"not {rule}"
    return None


def _boxes(scores: dict[str, Any], column: str) -> list[Any]:
    if column not in scores:
        raise UserError(f"no scorer gives {column!r} to blur; there is {', '.join(scores)}")
    boxes = scores[column]
    if not isinstance(boxes, list) or any(len(box) != 4 for box in boxes):
        raise UserError(f"{column!r} holds no boxes (left, top, width, height)")
    return boxes


def blur_boxes(image: Image.Image, boxes: Sequence[Sequence[float]]) -> Image.Image:
    """The image with ellipses over the boxes (left, top, width, height) blurred beyond recognition.

    Boxes are widened by a quarter of their size. The region is first brought down to about 7 cells
    a side, so that no filter brings the face back.
    """
    result = image.copy()
    for left, top, width, height in boxes:
        grow_x, grow_y = BLUR_MARGIN * width, BLUR_MARGIN * height
        area = (
            max(0, int(left - grow_x)),
            max(0, int(top - grow_y)),
            min(image.width, int(np.ceil(left + width + grow_x))),
            min(image.height, int(np.ceil(top + height + grow_y))),
        )
        if area[2] <= area[0] or area[3] <= area[1]:
            continue
        region = result.crop(area)
        cells = tuple(max(1, min(7, side)) for side in region.size)
        smooth = region.resize((cells[0], cells[1]), Image.Resampling.BOX)
        smooth = smooth.resize(region.size, Image.Resampling.BILINEAR)
        smooth = smooth.filter(ImageFilter.GaussianBlur(BLUR_FRACTION * min(region.size)))
        mask = Image.new("L", region.size, 0)
        ImageDraw.Draw(mask).ellipse((0, 0, region.width - 1, region.height - 1), fill=255)
        result.paste(smooth, (area[0], area[1]), mask)
    return result


def _replace_image(sample: Sample, image: Image.Image, quality: int) -> Sample:
    files = {}
    for extension, data in sample.files.items():
        if extension in IMAGE_EXTENSIONS:
            files["jpg"] = encode_jpeg(image, quality)
        else:
            files[extension] = data
    return Sample(sample.key, files)


def _with_scores(sample: Sample, record: dict[str, Any], scores: dict[str, Any]) -> Sample:
    # Lone surrogates, which JSON may spell out, stay spelt out.
    text = json.dumps(json_row({**record, **scores}), ensure_ascii=False)
    return Sample(sample.key, {**sample.files, "json": text.encode(errors="backslashreplace")})


def _duplicates(task: _FilterTask) -> dict[str, str]:
    """The reason to drop, by key, of the shard's duplicates."""
    kind = task.config.drop_duplicates
    if kind is None:
        return {}
    name = duplicates_name(task.stem)
    try:
        with task.source.open(name) as file:
            table = read_parquet(file)
    except FileNotFoundError:
        raise UserError(
            f"{task.source.address(name)} is missing: "
            f"run metacurate pool duplicates {task.source.url} again"
        ) from None
    found: dict[str, str] = {}
    for marked in KINDS[: KINDS.index(kind) + 1]:
        leaders = table[f"{marked}_duplicate_of"].to_pylist()
        for key, leader in zip(table["key"].to_pylist(), leaders, strict=True):
            if leader is not None:
                found.setdefault(key, Filtered(f"{marked}_duplicate"))
    return found


def _report(
    task: _FilterTask,
    scored: dict[str, dict[str, Any]],
    reasons: dict[str, str],
    blurred: int,
    skipped: Counter[str],
) -> Statistics:
    """Write the shard's Parquet file and statistics."""
    rows = _input_rows(task, list(scored))
    keys = rows["key"].to_pylist()
    statuses = rows["status"].to_pylist()
    messages = rows["error_message"].to_pylist()
    for position, key in enumerate(keys):
        if key not in scored and statuses[position] == SUCCESS:
            reasons[key] = Filtered.MISSING_IMAGE
        if key in reasons:
            statuses[position], messages[position] = FILTERED, reasons[key]
    for name, values in (("status", statuses), ("error_message", messages)):
        index = rows.column_names.index(name)
        rows = rows.set_column(index, name, pa.array(values, pa.string()))
    names = list(dict.fromkeys(name for scores in scored.values() for name in scores))
    for name in names:
        column = pa.array([scored.get(key, {}).get(name) for key in keys])
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, column)
        else:
            rows = rows.append_column(name, column)
    with task.folder.create(f"{task.stem}.parquet") as file:
        pq.write_table(rows, file, compression="zstd")
    counts = Counter(statuses)
    statistics = {
        "count": len(keys),
        "images": len(scored),
        "successes": counts[SUCCESS],
        **{s: n for s, n in sorted(counts.items()) if s != SUCCESS},
        "dropped": counted(Counter(reasons.values())),
        "blurred_images": blurred,
        "skipped_members": counted(skipped),
        "status_dict": counted(Counter(m or SUCCESS for m in messages)),
    }
    task.folder.write_json(statistics_name(task.stem), statistics)
    return statistics


def _input_rows(task: _FilterTask, keys: list[str]) -> pa.Table:
    """The shard's rows; of the tar's samples alone if there is no Parquet file beside it."""
    name = f"{task.stem}.parquet"
    if task.source.exists(name):
        try:
            with task.source.open(name) as file:
                rows = read_parquet(file)
        except pa.ArrowInvalid as error:
            raise UserError(f"{task.source.address(name)} is not readable ({error})") from None
        missing = {"key", "status", "error_message"} - set(rows.column_names)
        if missing:
            raise UserError(f"{task.source.address(name)} has no column {min(missing)!r}")
        return rows.replace_schema_metadata(None)
    none = pa.nulls(len(keys), pa.string())
    return pa.table({"key": keys, "status": [SUCCESS] * len(keys), "error_message": none})
