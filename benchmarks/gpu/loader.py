"""CPU time a pair of our loader and of open_clip's, on the same tars, in one process without a GPU.

    python benchmarks/gpu/loader.py [--pairs 1024] [--rounds 5]

How many pairs a core can prepare decides how many cores a GPU needs beside it. Both read tars,
decode JPEGs (256 pixels), crop at random to 224 pixels and tokenize; process CPU time, so other
load on the machine matters little. Needs what ``train_throughput.py`` needs.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_throughput import SHARDS, make_tars

from metacurate.training.loader import PairLoader
from metacurate.training.openclip import ModelConfig, OpenClipTokenizer, open_clip
from metacurate.training.select import AllTexts, DataConfig
from metacurate.training.shards import ShardsConfig

MODEL = "ViT-B-32-quickgelu"
BATCH = 64


def metacurate_batches(tars: Path) -> Iterator[Any]:
    """Our loader's batches."""
    config = DataConfig(
        ShardsConfig((str(tars),)), AllTexts(), BATCH, 224, streams=1, shuffle_block=BATCH
    )
    return iter(PairLoader(config, OpenClipTokenizer(ModelConfig(MODEL))))


def open_clip_batches(tars: Path) -> Iterator[Any]:
    """open_clip's loader's batches."""
    clip = open_clip()
    from open_clip_train.data import get_wds_dataset
    from open_clip_train.params import parse_args

    args = parse_args(
        ["--train-data", str(tars / f"{{00000..{SHARDS - 1:05d}}}.tar"), "--dataset-resampled",
         "--train-num-samples", str(10**6), "--batch-size", str(BATCH), "--workers", "0"]
    )  # fmt: skip
    args.distributed, args.world_size = False, 1
    preprocess = clip.image_transform(224, is_train=True)
    data = get_wds_dataset(args, preprocess, is_train=True, tokenizer=clip.get_tokenizer(MODEL))
    return iter(data.dataloader)


def main() -> None:
    """Take the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_tars(Path(folder), 4 * options.pairs, 256)
        sides = {
            "metacurate": metacurate_batches(Path(folder)),
            "open_clip": open_clip_batches(Path(folder)),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        steps = options.pairs // BATCH
        for batches in sides.values():
            next(batches)
        for _ in range(options.rounds):
            for name, batches in sides.items():
                start = time.process_time()
                for _ in islice(batches, steps):
                    pass
                times[name].append((time.process_time() - start) / (steps * BATCH) * 1000)
    medians = {name: float(np.median(of)) for name, of in times.items()}
    ratio = medians["open_clip"] / medians["metacurate"]
    print(json.dumps({"cpu_ms_a_pair": medians, "ratio": ratio, "rounds": times}, indent=1))


if __name__ == "__main__":
    main()
