"""Training throughput against open_clip's own loop: same tars, model, batch, precision, machine.

    python benchmarks/gpu/train_throughput.py --model ViT-B-32-quickgelu --batch 672 --workers 14

One process, one device (a GPU if there is one). Needs the extra ``train`` and, for
open_clip's loader, ``webdataset<=0.2.86``, ``braceexpand`` and ``pandas``. The tars are made first:
JPEGs of ``--image-side`` pixels (smooth random pictures, about as large in bytes as photographs of
that size) with captions of WordNet entries. Both sides decode, crop at random, tokenize and train
with AdamW; the rates are of the steps after ``--warmup``, the device's queue drained at both ends.
The two alternate, ``--rounds`` times. ``--batch`` must be a multiple of ``--workers``. Prints one
JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from metacurate.metadata.store import load_metadata
from metacurate.runtime.storage import Folder
from metacurate.training.config import DataSection, OptimizerSection, TrainConfig
from metacurate.training.distributed import ranks
from metacurate.training.openclip import ModelConfig, open_clip
from metacurate.training.trainer import Trainer
from metacurate.webdataset.shards import Sample, TarWriter

SHARDS = 16
DISTINCT_IMAGES = 500
CAPTION_ENTRIES = 6


def make_tars(folder: Path, pairs: int, side: int) -> None:
    """Write the tars; images repeat after DISTINCT_IMAGES, captions do not."""
    generator = np.random.default_rng(0)
    entries = load_metadata("wordnet").entries
    images = []
    for _ in range(min(DISTINCT_IMAGES, pairs)):
        coarse = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(picture, np.int16) + generator.integers(-12, 13, (side, side, 3))
        encoded = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=90)
        images.append(encoded.getvalue())
    target = Folder(str(folder))
    for shard in range(SHARDS):
        with target.create(f"{shard:05d}.tar") as file:
            writer = TarWriter(file)
            for i in range(shard, pairs, SHARDS):
                words = generator.integers(len(entries), size=CAPTION_ENTRIES)
                text = " ".join(entries[int(w)].as_py() for w in words)
                files = {
                    "jpg": images[i % len(images)],
                    "txt": text.encode(),
                    "json": json.dumps({"key": f"{i:09d}"}).encode(),
                }
                writer.write(Sample(f"{i:09d}", files))
            writer.close()


class Clock:
    """Times of a loop that takes batches: when the warm-up ended, and how long it waited."""

    def __init__(self, warmup: int, drain: Callable[[], None]) -> None:
        self._warmup, self._drain = warmup, drain
        self.start = self.waited = 0.0

    def batches(self, source: Iterator[Any], steps: int) -> Iterator[Any]:
        """The first ``warmup`` + ``steps`` batches of a source."""
        for step in range(self._warmup + steps):
            if step == self._warmup:
                self._drain()
                self.start, self.waited = time.perf_counter(), 0.0
            before = time.perf_counter()
            batch = next(source)
            self.waited += time.perf_counter() - before
            yield batch

    def result(self, pairs: int) -> dict[str, float]:
        """Rate and share of waiting since the warm-up."""
        self._drain()
        seconds = time.perf_counter() - self.start
        return {"pairs_per_second": pairs / seconds, "data_wait": self.waited / seconds}


def drain() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run_metacurate(options: argparse.Namespace, tars: Path) -> dict[str, float]:
    """Our trainer's steps on our loader."""
    config = TrainConfig(
        model=ModelConfig(options.model),
        data=DataSection(
            shards=(str(tars),), selection="all", streams=max(options.workers, 1),
            workers=options.workers, shuffle_block=64,
        ),
        seen_pairs=(options.warmup + options.steps) * options.batch,
        global_batch=options.batch,
        optimizer=OptimizerSection(),
        precision=options.precision,
        grad_checkpointing=options.grad_checkpointing,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out, ranks() as here:
        trainer = Trainer(config, Folder(out), here, False)
        clock = Clock(options.warmup, drain)
        with contextlib.closing(iter(trainer.loader)) as source:  # type: ignore[type-var]
            for batch in clock.batches(source, options.steps):
                trainer._step(batch)
                trainer.progress.step += 1
            return clock.result(options.steps * options.batch)


def run_open_clip(options: argparse.Namespace, tars: Path) -> dict[str, float]:
    """open_clip's ``train_one_epoch`` on its WebDataset loader."""
    clip = open_clip()
    from open_clip_train.data import get_wds_dataset
    from open_clip_train.params import parse_args
    from open_clip_train.train import train_one_epoch

    steps = options.warmup + options.steps
    args = parse_args(
        [
            "--train-data", str(tars / f"{{00000..{SHARDS - 1:05d}}}.tar"),
            "--dataset-type", "webdataset", "--dataset-resampled",
            "--train-num-samples", str(2 * steps * options.batch),
            "--batch-size", str(options.batch), "--workers", str(options.workers),
            "--model", options.model, "--precision", options.precision,
            "--log-every-n-steps", str(10**9), "--skip-scheduler",
        ]
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # What open_clip_train.main sets before it trains.
    args.distributed, args.rank, args.world_size, args.device = False, 0, 1, device
    args.local_rank, args.distill, args.horovod, args.wandb = 0, False, False, False
    model, preprocess, _ = clip.create_model_and_transforms(
        options.model, device=device, output_dict=True
    )
    if options.grad_checkpointing:
        model.set_grad_checkpointing()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2
    )
    data = get_wds_dataset(
        args, preprocess, is_train=True, tokenizer=clip.get_tokenizer(options.model)
    )
    clock = Clock(options.warmup, drain)
    loader = data.dataloader

    class Timed:
        num_batches, num_samples = steps, steps * options.batch

        def __iter__(self) -> Iterator[Any]:
            return clock.batches(iter(loader), options.steps)

    data.dataloader = Timed()
    loss = clip.ClipLoss(cache_labels=True)
    train_one_epoch(model, {"train": data}, loss, 0, optimizer, None, None, None, args)
    return clock.result(options.steps * options.batch)


def main() -> None:
    """Take the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--batch", type=int, default=672)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=15)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-side", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--precision", default="amp_bf16", choices=("fp32", "amp_bf16"))
    parser.add_argument("--grad-checkpointing", action="store_true")
    options = parser.parse_args()
    if options.batch % max(options.workers, 1):
        parser.error(f"--batch {options.batch} is no multiple of --workers {options.workers}")
    logging.disable(logging.WARNING)
    sides = {"metacurate": run_metacurate, "open_clip": run_open_clip}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        make_tars(Path(folder), options.pairs, options.image_side)
        for _ in range(options.rounds):
            for name, side in sides.items():
                results[name].append(side(options, Path(folder)))
                print(name, results[name][-1], file=sys.stderr, flush=True)
    medians = {
        name: {key: float(np.median([r[key] for r in rounds])) for key in rounds[0]}
        for name, rounds in results.items()
    }
    ratio = medians["metacurate"]["pairs_per_second"] / medians["open_clip"]["pairs_per_second"]
    cuda = torch.cuda.is_available()
    report = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "open_clip": open_clip().__version__,
        **vars(options),
        "medians": medians,
        "ratio": ratio,
        "rounds_in_order": results,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
