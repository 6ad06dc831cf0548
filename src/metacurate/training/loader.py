"""The loader: pairs as training takes them, decoded in workers, sharded over ranks, resumable.

``training.select`` says which pairs, which texts and which order.

Streams are spread over ranks and, there, over worker processes, in their order: so a global batch
has the same pairs in the same order **whatever the number of ranks and workers**, and a stream's
place in the data is two numbers: where it was is where a resumed run goes on.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing.util import Finalize
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from metacurate.needs import needs

with needs("train"):
    import torch
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
    from torch.utils.data._utils import signal_handling

from metacurate.counts import counted, in_words
from metacurate.errors import ArgumentError, UserError
from metacurate.images.decode import UndecodableImage
from metacurate.images.decoders import decode_isolated, end_idle
from metacurate.runtime.children import end_with_parent, without_main
from metacurate.training.images import Pixels, load_image, random_crop
from metacurate.training.select import (
    FRUITLESS_EPOCHS,
    DataConfig,
    KeptPair,
    Online,
    PairSource,
    Position,
    free_draw,
)
from metacurate.training.shards import (
    Shard,
)
from metacurate.training.stopping import outlive_the_groups_signal


class Tokenizer(Protocol):
    """Texts to token ids, int64[n, context]; must be picklable for worker processes."""

    def __call__(self, texts: Sequence[str]) -> torch.Tensor: ...


@dataclass(frozen=True)
class Batch:
    """Pairs of one step (of one rank, or a part of it).

    ``images`` uint8[n, size, size, 3], ``tokens`` int64[n, context], ``uids`` uint8[n, 16],
    ``epochs`` int64[n].
    """

    images: torch.Tensor
    tokens: torch.Tensor
    uids: torch.Tensor
    epochs: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same with images and tokens on a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            tokens=self.tokens.to(device, non_blocking=True),
        )


def _pixels(pair: KeptPair, config: DataConfig, epoch: int) -> Pixels:
    try:
        data = load_image(pair.image, config.shards.image_root)
    except OSError as error:
        raise UserError(f"an image cannot be read: {error}") from None
    size = config.image_size
    image = decode_isolated(data, at_least=round(size / config.crop_scale[0] ** 0.5))
    return random_crop(
        image,
        size,
        config.crop_scale,
        lambda k: free_draw(config.seed, pair.uid, 1 + k, epoch),
    )


@dataclass(frozen=True)
class Pair:
    """A decoded pair: ``pixels`` uint8[size, size, 3]."""

    uid: bytes
    text: str
    pixels: Pixels
    epoch: int


def stream_pairs(source: PairSource, position: Position, skipped: Counter[str]) -> Iterator[Pair]:
    """A stream's pairs from ``position`` on, without end; ``position`` is moved along.

    Pairs whose image cannot be used are counted in ``skipped`` and skipped. Raises UserError if
    there are no pairs at all.
    """
    config = source.config
    fruitless = 0
    while True:
        epoch = source.epoch_of(position.unit)
        block, into = divmod(position.pair, config.shuffle_block)
        # Counted at the unit's end: a resumed run, which reads the unit again, counts alike.
        counts: Counter[str] = Counter()
        for number, pair in enumerate(source.unit_pairs(position.unit, counts, first_block=block)):
            if number < into:
                continue
            position.pair += 1
            try:
                pixels = _pixels(pair, config, epoch)
            except UndecodableImage as reason:
                skipped[str(reason)] += 1
                continue
            fruitless = 0
            yield Pair(pair.uid, pair.text, pixels, epoch)
        skipped.update(counts)
        fruitless += 1
        if fruitless > FRUITLESS_EPOCHS * source.units:
            # Where few units have pairs a stream may have missed them all, by chance.
            if not _has_pairs(source, epoch):
                raise UserError(
                    f"{', '.join(config.shards.paths)}: no usable pair "
                    f"({in_words(skipped) or 'none is selected'})"
                )
            fruitless = 0
        position.unit, position.pair = position.unit + config.streams, 0


def _has_pairs(source: PairSource, epoch: int) -> bool:
    """Whether any unit of an epoch has a pair with a usable image."""
    for unit in range(epoch * source.units, (epoch + 1) * source.units):
        for pair in source.unit_pairs(unit, Counter()):
            try:
                _pixels(pair, source.config, epoch)
            except UndecodableImage:
                continue
            return True
    return False


@dataclass(frozen=True)
class _Chunk:
    """What a worker gives for a step: its batch, where its streams are then, what it skipped."""

    batch: Batch | None
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    problem: str = ""

    def pin_memory(self) -> _Chunk:
        """The same with images and tokens in pinned memory; the DataLoader's thread calls it."""
        if self.batch is None:
            return self
        batch = replace(
            self.batch,
            images=self.batch.images.pin_memory(),
            tokens=self.batch.tokens.pin_memory(),
        )
        return replace(self, batch=batch)


@dataclass(frozen=True)
class _WorkerPlan:
    """What a rank's worker processes need to know."""

    config: DataConfig
    tokenizer: Tokenizer
    shards: tuple[Shard, ...]
    positions: dict[int, tuple[int, int]]  # of the rank's streams, in their order


class _Chunks(IterableDataset):  # type: ignore[misc]
    """A worker's endless chunks."""

    def __init__(self, plan: _WorkerPlan) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[_Chunk]:
        info = get_worker_info()
        number, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            torch.set_num_threads(1)
            outlive_the_groups_signal()
            end_with_parent()  # PyTorch looks for it between chunks only, of which some are large
            atexit.register(_leave)
        try:
            yield from self._chunks(number, workers)
        except UserError as error:
            # As a value: a DataLoader would wrap the exception into a traceback's text.
            yield _Chunk(None, problem=str(error))

    def _chunks(self, number: int, workers: int) -> Iterator[_Chunk]:
        plan = self.plan
        source = PairSource(plan.config, plan.shards)
        streams = sorted(plan.positions)
        share = len(streams) // workers
        own = streams[number * share : (number + 1) * share]
        positions = {s: Position(*plan.positions[s]) for s in own}
        skipped: Counter[str] = Counter()
        pairs = {s: stream_pairs(source, positions[s], skipped) for s in own}
        per_stream = plan.config.global_batch // plan.config.streams
        while True:
            taken = [next(pairs[s]) for s in own for _ in range(per_stream)]
            batch = Batch(
                images=torch.from_numpy(np.stack([p.pixels for p in taken])),
                tokens=plan.tokenizer([p.text for p in taken]),
                uids=torch.from_numpy(
                    np.frombuffer(b"".join(p.uid for p in taken), np.uint8).reshape(-1, 16).copy()
                ),
                epochs=torch.tensor([p.epoch for p in taken]),
            )
            yield _Chunk(batch, {s: (p.unit, p.pair) for s, p in positions.items()}, +skipped)
            skipped.clear()


def _leave() -> None:
    """End a worker as a forked process ends: the interpreter is not taken down.

    The thread that sends batches may be in the middle of PyTorch's code, which works without the
    GIL: coming back to an interpreter that is being taken down, it would abort the process.
    """
    end_idle()
    os._exit(0)


class PairLoader:
    """Batches of one rank, without end, from where ``load_state_dict`` put it or the beginning.

    ``device`` is where images and tokens go.
    ``skipped`` counts what this rank could not use, by reason; ``wait_seconds`` is how long
    iteration waited for data.
    """

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        prefetch: int = 4,
        device: torch.device | None = None,
    ) -> None:
        parts = world_size * max(workers, 1)
        if config.streams % parts:
            raise UserError(
                f"streams ({config.streams}) must be a multiple of ranks times workers "
                f"({world_size} x {max(workers, 1)})"
            )
        self.config = config
        self._source = PairSource(config)
        self._tokenizer = tokenizer
        self._workers, self._prefetch = workers, prefetch
        self.device = device or torch.device("cpu")
        share = config.streams // world_size
        self._streams = range(rank * share, (rank + 1) * share)
        self._positions: dict[int, tuple[int, int]] = {s: (s, 0) for s in self._streams}
        self.skipped: Counter[str] = Counter()
        self.wait_seconds = 0.0

    @property
    def fingerprint(self) -> str:
        """Hex hash of what decides the sequence of pairs (shards, selection, seed, ...)."""
        config = self.config
        selection: dict[str, Any] = {"kind": type(config.selection).__name__}
        if isinstance(config.selection, Online):
            selection |= {
                "t": repr(t) if isinstance(t := config.selection.t, float) else _digest(t),
                "choose_text": config.selection.choose_text,
                "counts": _digest(config.selection.counts),
            }
        parts = {
            "shards": [(shard.name, shard.content) for shard in self._source.shards],
            "selection": selection,
            "seed": config.seed,
            "fraction": config.fraction,
            "captions": sorted(config.captions.items()),
            "caption_cols": sorted(config.shards.caption_cols),
            "streams": config.streams,
            "shuffle_block": config.shuffle_block,
            "global_batch": config.global_batch,
        }
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    @property
    def epoch(self) -> int:
        """The epoch that this rank's slowest stream is in."""
        return min(self._source.epoch_of(unit) for unit, _ in self._positions.values())

    def state_dict(self) -> dict[str, Any]:
        """Where this rank is after the batches given out so far; see ``join_states``."""
        return {
            "fingerprint": self.fingerprint,
            "positions": {str(s): list(p) for s, p in self._positions.items()},
            "skipped": counted(self.skipped),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a joined state, of as many ranks and workers as ever.

        Raises UserError if the state is of other data or settings.
        """
        if state["fingerprint"] != self.fingerprint:
            raise ArgumentError(
                "the checkpoint was written with other shards (or other content in them) or data "
                "settings; restore them or start over with {overwrite}"
            )
        for s in self._streams:
            unit, pair = state["positions"][str(s)]
            self._positions[s] = (unit, pair)
        # The joined counts go on with the first rank.
        self.skipped = Counter(state["skipped"] if self._streams.start == 0 else {})

    def __iter__(self) -> Iterator[Batch]:
        plan = _WorkerPlan(self.config, self._tokenizer, self._source.shards, dict(self._positions))
        dataset = _Chunks(plan)
        if not self._workers:
            yield from self._batches(iter(dataset))
            return
        # "spawn": a forked child would inherit locks held by Arrow's and Numba's threads.
        loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=self._prefetch,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="spawn",
        )
        # A tokenizer of the caller's main module needs it in the workers.
        of_main = getattr(self._tokenizer, "__module__", "") == "__main__"
        with nullcontext() if of_main else without_main():
            chunks: Iterator[_Chunk] = iter(loader)
        # At the process's end, too, and then before multiprocessing waits for its children.
        end = Finalize(None, _end_workers, (chunks,), exitpriority=100)
        try:
            yield from self._batches(chunks)
        finally:
            end()

    def _batches(self, chunks: Iterator[_Chunk]) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            parts = [next(chunks) for _ in range(max(self._workers, 1))]
            problem = next((part.problem for part in parts if part.problem), None)
            if problem is not None:
                raise UserError(problem)
            # Joined on the device: joining here would copy all images once more.
            batch = _joined([p.batch.to(self.device) for p in parts if p.batch is not None])
            self.wait_seconds += time.perf_counter() - start
            for part in parts:
                self._positions.update(part.positions)
                self.skipped.update(part.skipped)
            yield batch


def _end_workers(chunks: Any) -> None:
    """End a DataLoader's workers, also where it leaves that to the end of the process.

    They ignore all signals that can be ignored (``stopping``): multiprocessing would wait for them.
    """
    if chunks._worker_pids_set:
        # How a worker ends is of no interest now; while the DataLoader watches, it may be an error.
        signal_handling._remove_worker_pids(id(chunks))
        chunks._worker_pids_set = False
    chunks._shutdown_workers()
    for worker in chunks._workers:
        worker.kill()
        worker.join()


def _joined(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return Batch(
        *(
            torch.cat([getattr(b, name) for b in batches])
            for name in ("images", "tokens", "uids", "epochs")
        )
    )


def join_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The states of all ranks as one, which any number of ranks can load."""
    skipped: Counter[str] = Counter()
    positions: dict[str, list[int]] = {}
    for state in states:
        skipped.update(state["skipped"])
        positions |= state["positions"]
    return {
        "fingerprint": states[0]["fingerprint"],
        "positions": positions,
        "skipped": counted(skipped),
    }


def _digest(numbers: npt.NDArray[Any]) -> str:
    """A hex hash of an array's values."""
    values = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<")).tobytes()
    return hashlib.blake2b(values, digest_size=16).hexdigest()
