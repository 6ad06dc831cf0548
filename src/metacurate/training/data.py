"""The loader: balanced draws on the fly, shuffled, sharded over ranks and workers, resumable.

**Which pairs.** ``Online`` draws anew in every epoch, with the function of the balance stage and
the epoch in the key (:func:`metacurate.balancing.balance`): epoch 0 keeps exactly the pairs of an
offline subset of the same counts, t and seed. ``Curated`` takes the texts that curation kept
(``text_kept``), ``AllTexts`` every text. ``fraction`` takes each pair with that probability, the
same pairs in every epoch.

**Which text.** Of a pair's kept texts one is taken: number ``floor(u * kept)``, where u is the draw
of the same generator for (seed, epoch, uid, text position 2**32 - 1, entry 0): a position that no
real text has. The random crop uses the entries 1, 2, ... of that position, ``fraction`` the entry
2**32 - 1 (with epoch 0).

**In which order.** The shards are cut into *units*: shards, or, if there are fewer shards than
streams, every n-th pair of a shard. An epoch is a keyed permutation of the units, and epochs follow
one another without a break. There are ``streams`` logical streams; stream s takes the units s,
s + streams, s + 2 * streams, ... of this endless sequence, and shuffles the kept pairs of a unit
within blocks of ``shuffle_block``. Every kept pair of an epoch is so seen exactly once. A global
batch takes the same number of pairs from every stream.

Streams are spread over ranks and, there, over worker processes, in their order: so a global batch
has the same pairs in the same order **whatever the number of ranks and workers**, and a stream's
place in the data is two numbers: where it was is where a resumed run goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from metacurate import balancing
from metacurate.errors import UserError
from metacurate.training.images import (
    Pixels,
    UnusableImage,
    decode_image,
    load_image,
    random_crop,
)
from metacurate.training.shards import (
    Image,
    PairBatch,
    Shard,
    ShardsConfig,
    find_shards,
    read_shard,
)
from metacurate.training.stopping import outlive_the_groups_signal

FREE_POSITION = 2**32 - 1
FREE_ENTRY = 2**32 - 1
# Keys of the permutations; the balancing draws have 0 here.
UNIT_ORDER, BLOCK_ORDER = 1, 2
FRUITLESS_EPOCHS = 3


@dataclass(frozen=True)
class AllTexts:
    """Every pair, any of its texts."""


@dataclass(frozen=True)
class Curated:
    """The pairs and texts that curation kept; shards must have ``text_kept``."""


@dataclass(frozen=True)
class Online:
    """Balancing on the fly: ``counts`` uint64[entries] over the whole pool, threshold ``t``."""

    counts: balancing.Counts
    t: float

    @property
    def keep_probs(self) -> balancing.Probabilities:
        """The entries' keep probabilities."""
        return balancing.keep_probabilities(self.counts, self.t)


Selection = AllTexts | Curated | Online


class Tokenizer(Protocol):
    """Texts to token ids, int64[n, context]; must be picklable for worker processes."""

    def __call__(self, texts: Sequence[str]) -> torch.Tensor: ...


@dataclass(frozen=True)
class DataConfig:
    """What is loaded, and how.

    ``global_batch``: pairs a step over all ranks, a multiple of ``streams``; ``image_size``: pixels
    a side; ``crop_scale``: the random crop's share of the area, (1, 1) for a plain resize;
    ``fraction``: the share of the pairs that is used at all.
    """

    shards: ShardsConfig
    selection: Selection
    global_batch: int
    image_size: int
    seed: int = 0
    fraction: float = 1.0
    streams: int = 8
    shuffle_block: int = 1024
    crop_scale: tuple[float, float] = (0.9, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UserError(f"fraction must lie in (0, 1], not {self.fraction:g}")
        for name in ("global_batch", "image_size", "streams", "shuffle_block"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if self.global_batch % self.streams:
            raise UserError(
                f"global_batch ({self.global_batch}) must be a multiple of streams "
                f"({self.streams}): every stream gives as many pairs to a batch"
            )


@dataclass(frozen=True)
class KeptPair:
    """A pair that is seen in an epoch, with the text chosen for it; ``uid`` has 16 bytes."""

    uid: bytes
    text: str
    image: Image


@dataclass
class Position:
    """Where a stream is: the unit's number in the endless sequence, and its kept pairs passed."""

    unit: int
    pair: int = 0


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


class PairSource:
    """The pairs of some shards as units and epochs; no state but the files."""

    def __init__(self, config: DataConfig, shards: Sequence[Shard] | None = None) -> None:
        self.config = config
        self.shards = tuple(find_shards(config.shards) if shards is None else shards)
        self.splits = -(-config.streams // len(self.shards))
        self._keep_probs = (
            config.selection.keep_probs if isinstance(config.selection, Online) else None
        )

    @property
    def units(self) -> int:
        """Units an epoch."""
        return len(self.shards) * self.splits

    def epoch_of(self, unit: int) -> int:
        """The epoch that a unit of the endless sequence belongs to."""
        return unit // self.units

    def unit_pairs(
        self, unit: int, skipped: Counter[str], *, first_block: int = 0
    ) -> Iterator[KeptPair]:
        """The kept pairs of a unit of the endless sequence, shuffled in blocks.

        Blocks before ``first_block`` are passed over unshuffled. ``skipped`` counts by reason.
        """
        epoch, at = divmod(unit, self.units)
        order = _generator(self.config.seed, UNIT_ORDER, epoch).permutation(self.units)
        chosen = int(order[at])
        shard, split = divmod(chosen, self.splits)
        size = self.config.shuffle_block
        block: list[KeptPair] = []
        number = 0
        for pair in self._kept(self.shards[shard], split, epoch, skipped):
            block.append(pair)
            if len(block) == size:
                if number >= first_block:
                    yield from self._shuffled(block, epoch, chosen, number)
                block, number = [], number + 1
        if block and number >= first_block:
            yield from self._shuffled(block, epoch, chosen, number)

    def _shuffled(
        self, block: list[KeptPair], epoch: int, chosen: int, number: int
    ) -> Iterator[KeptPair]:
        order = _generator(self.config.seed, BLOCK_ORDER, epoch, chosen, number)
        return (block[i] for i in order.permutation(len(block)))

    def _kept(
        self, shard: Shard, split: int, epoch: int, skipped: Counter[str]
    ) -> Iterator[KeptPair]:
        first = 0
        # A shard that is split is read once a split: what its files lack is counted once only.
        counted = skipped if split == 0 else Counter[str]()
        for batch in read_shard(shard, self.config.shards, counted):
            rows = np.arange(len(batch.uids))
            own = (rows + first) % self.splits == split
            first += len(rows)
            yield from self._choose(batch, own, epoch, skipped, shard)

    def _choose(
        self,
        batch: PairBatch,
        own: npt.NDArray[np.bool_],
        epoch: int,
        skipped: Counter[str],
        shard: Shard,
    ) -> Iterator[KeptPair]:
        config = self.config
        offsets = batch.text_offsets
        usable = np.array([bool(t and not t.isspace()) for t in batch.texts], dtype=np.bool_)
        kept = self._text_mask(batch, epoch, skipped, own, shard) & usable
        filled = np.concatenate([[0], np.cumsum(usable)])
        empty = filled[offsets[1:]] == filled[offsets[:-1]]
        skipped["no_text"] += int(np.count_nonzero(own & empty))
        skipped["no_uid"] += int(np.count_nonzero(own & ~batch.has_uid))
        chosen = np.concatenate([[0], np.cumsum(kept)])
        pairs = own & batch.has_uid & (chosen[offsets[1:]] > chosen[offsets[:-1]])
        for i in np.flatnonzero(pairs):
            uid = batch.uids[i].tobytes()
            if config.fraction < 1 and (
                balancing.draw(config.seed, uid, FREE_POSITION, FREE_ENTRY) >= config.fraction
            ):
                continue
            texts = np.flatnonzero(kept[offsets[i] : offsets[i + 1]])
            at = int(_free_draw(config.seed, uid, 0, epoch) * texts.size) if texts.size > 1 else 0
            text = batch.texts[offsets[i] + texts[at]]
            assert text is not None
            yield KeptPair(uid, text, batch.image(int(i)))

    def _text_mask(
        self,
        batch: PairBatch,
        epoch: int,
        skipped: Counter[str],
        own: npt.NDArray[np.bool_],
        shard: Shard,
    ) -> npt.NDArray[np.bool_]:
        """Which texts the selection keeps, bool[texts]."""
        offsets = batch.text_offsets
        if isinstance(self.config.selection, AllTexts):
            return np.ones(len(batch.texts), dtype=np.bool_)
        online = self._keep_probs is not None
        name, lists = ("matched", batch.matched) if online else ("text_kept", batch.text_kept)
        if lists is None:
            if not len(batch.uids):
                return np.zeros(0, dtype=np.bool_)
            raise UserError(
                f"{shard.address} has no {name!r}: it is not a curated shard; "
                "give the output of 'metacurate curate', or select all texts"
            )
        lengths = np.asarray(lists.value_lengths().fill_null(-1))
        aligned = lengths == np.diff(offsets)
        skipped[f"broken_{name}"] += int(np.count_nonzero(own & ~aligned & (lengths >= 0)))
        mask = np.zeros(len(batch.texts), dtype=np.bool_)
        good = np.repeat(aligned, np.diff(offsets))
        lists = lists.filter(_arrow(aligned))
        flat = lists.flatten()
        if not online:
            mask[good] = np.asarray(flat.fill_null(False))
            return mask
        assert self._keep_probs is not None
        text_offsets = np.zeros(len(flat) + 1, np.int64)
        np.cumsum(np.asarray(flat.value_lengths().fill_null(0)), out=text_offsets[1:])
        pair_offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum(np.diff(offsets)[aligned], out=pair_offsets[1:])
        ids = np.asarray(flat.flatten().fill_null(0), np.uint32)
        if ids.size and int(ids.max()) >= self._keep_probs.size:
            raise UserError(
                f"{shard.address} matches entry {int(ids.max())}, but there are counts of "
                f"{self._keep_probs.size} entries only: counts and shards are of different runs"
            )
        drawn = balancing.balance(
            np.ascontiguousarray(batch.uids[aligned]), pair_offsets, text_offsets, ids,
            self._keep_probs, seed=self.config.seed, epoch=epoch,
        )  # fmt: skip
        mask[good] = drawn.texts
        return mask


def _arrow(mask: npt.NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(mask)


def _generator(seed: int, purpose: int, *place: int) -> np.random.Generator:
    """A generator for one place: counters are (0, place), so that none overlap."""
    counter = np.array([0, *place, *[0] * (3 - len(place))], dtype=np.uint64)
    key = np.array([seed, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _free_draw(seed: int, uid: bytes, number: int, epoch: int) -> float:
    """One of a pair's draws that balancing leaves free, in [0, 1)."""
    return balancing.draw(seed, uid, FREE_POSITION, number, epoch=epoch)


@dataclass(frozen=True)
class Pair:
    """A decoded pair: ``pixels`` uint8[size, size, 3]."""

    uid: bytes
    text: str
    pixels: Pixels
    epoch: int


def stream_pairs(source: PairSource, position: Position, skipped: Counter[str]) -> Iterator[Pair]:
    """A stream's pairs from ``position`` on, without end; ``position`` is moved along.

    Pairs whose image cannot be used are counted in ``skipped`` and passed over. Raises UserError if
    there are no pairs at all.
    """
    config = source.config
    fruitless = 0
    while True:
        epoch = source.epoch_of(position.unit)
        block, into = divmod(position.pair, config.shuffle_block)
        # Counted at the unit's end, so that a resumed run, which reads the unit anew, counts alike.
        counts: Counter[str] = Counter()
        for number, pair in enumerate(source.unit_pairs(position.unit, counts, first_block=block)):
            if number < into:
                continue
            position.pair += 1
            try:
                pixels = _pixels(pair, config, epoch)
            except UnusableImage as reason:
                skipped[str(reason)] += 1
                continue
            fruitless = 0
            yield Pair(pair.uid, pair.text, pixels, epoch)
        skipped.update(counts)
        fruitless += 1
        if fruitless > FRUITLESS_EPOCHS * source.units:
            reasons = ", ".join(f"{k} {v}" for k, v in sorted(skipped.items()) if v)
            raise UserError(
                f"{', '.join(config.shards.paths)}: no usable pair "
                f"({reasons or 'none is selected'})"
            )
        position.unit, position.pair = position.unit + config.streams, 0


def _pixels(pair: KeptPair, config: DataConfig, epoch: int) -> Pixels:
    try:
        data = load_image(pair.image, config.shards.image_root)
    except OSError as error:
        raise UserError(f"an image cannot be read: {error}") from None
    size = config.image_size
    image = decode_image(data, at_least=round(size / config.crop_scale[0] ** 0.5))
    return random_crop(
        image,
        size,
        config.crop_scale,
        lambda k: _free_draw(config.seed, pair.uid, 1 + k, epoch),
    )


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
        """Hex hash of what decides the sequence of pairs (shards by name, selection, seed, ...)."""
        config = self.config
        selection: dict[str, Any] = {"kind": type(config.selection).__name__}
        if isinstance(config.selection, Online):
            counts = np.ascontiguousarray(config.selection.counts, "<u8").tobytes()
            selection |= {
                "t": repr(config.selection.t),
                "counts": hashlib.blake2b(counts, digest_size=16).hexdigest(),
            }
        parts = {
            "shards": [shard.name for shard in self._source.shards],
            "selection": selection,
            "seed": config.seed,
            "fraction": config.fraction,
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
        """Where this rank is after the batches given out so far; see :func:`join_states`."""
        return {
            "fingerprint": self.fingerprint,
            "positions": {str(s): list(p) for s, p in self._positions.items()},
            "skipped": dict(self.skipped),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a joined state, of as many ranks and workers as ever.

        Raises UserError if the state is of other data or settings.
        """
        if state["fingerprint"] != self.fingerprint:
            raise UserError(
                "the checkpoint was written with other shards or data settings; "
                "restore them or start anew with --overwrite"
            )
        for s in self._streams:
            unit, pair = state["positions"][str(s)]
            self._positions[s] = (unit, pair)
        # The joined counts go on with the first rank.
        self.skipped = Counter(state["skipped"] if self._streams.start == 0 else {})

    def __iter__(self) -> Iterator[Batch]:
        plan = _WorkerPlan(self.config, self._tokenizer, self._source.shards, dict(self._positions))
        dataset = _Chunks(plan)
        if self._workers:
            # "spawn": a forked child would inherit locks held by Arrow's and Numba's threads.
            chunks: Iterator[_Chunk] = iter(
                DataLoader(
                    dataset,
                    batch_size=None,
                    num_workers=self._workers,
                    prefetch_factor=self._prefetch,
                    pin_memory=self.device.type == "cuda",
                    multiprocessing_context="spawn",
                )
            )
        else:
            chunks = iter(dataset)
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
        "skipped": dict(skipped),
    }


class Normaliser:
    """Turns uint8[n, h, w, 3] into the float32[n, 3, h, w] that a model takes, on a device.

    The channels' means and deviations are copied there once: a copy a step would make the CPU wait
    for the device in every step.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], device: torch.device | str
    ) -> None:
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std)
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images of that device, normalised."""
        channels = images.permute(0, 3, 1, 2).float().div_(255)
        return channels.sub_(self._mean).div_(self._std)


class OpenClipBatches:
    """A loader as open_clip's own training loop takes it: an epoch of (images, tokens) batches."""

    def __init__(
        self,
        loader: PairLoader,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        batches: int,
    ) -> None:
        self._loader, self._normalise = loader, Normaliser(mean, std, loader.device)
        self._iterator: Iterator[Batch] | None = None
        self.num_batches = batches
        self.num_samples = batches * loader.config.global_batch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        # Each pass goes on where the last one ended.
        self._iterator = self._iterator or iter(self._loader)
        for _ in range(self.num_batches):
            batch = next(self._iterator)
            yield self._normalise(batch.images), batch.tokens
