"""Which pairs of the shards are trained on, which of their texts, and in which order.

**Which pairs.** ``Online`` draws again in every epoch, with the function of the balance stage and
the epoch in the key (``metacurate.curation.balancing.balance``): epoch 0 keeps exactly the
pairs of an offline subset of the same counts, t and seed. ``Curated`` takes the texts that curation
kept (``text_kept``), ``AllTexts`` every text. ``fraction`` takes each pair with that probability,
the same pairs in every epoch.

**Which text.** Of a pair's kept texts one is taken: number ``floor(u * kept)``, where u is the draw
of the same generator for (seed, epoch, uid, text position 2**32 - 1, entry 0): a position that no
real text has. The random crop uses the entries 1, 2, ... of that position, ``fraction`` the entry
2**32 - 1 (with epoch 0).

``captions`` gives sources of texts a share each. With that probability (by the draw of the entry
2**32 - 3) a pair gives one of its texts of that source: of the kept texts, or of a column beside
those that curation saw (``caption_cols``), whose texts it does not choose among. Otherwise, or if
the pair has no such text, it gives one of its kept texts of no named source, or one of all its kept
texts if there is none.

**In which order.** The shards are cut into *units*: shards, or, if there are fewer shards than
streams, every n-th pair of a shard. An epoch is a keyed permutation of the units, and epochs follow
one another without a break. There are ``streams`` logical streams; stream s takes the units s,
s + streams, s + 2 * streams, ... of this endless sequence, and shuffles the kept pairs of a unit
within blocks of ``shuffle_block``. Every kept pair of an epoch is so seen exactly once. A global
batch takes the same number of pairs from every stream.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.arrays import offsets_of
from metacurate.curation import balancing
from metacurate.curation.settings import ANY
from metacurate.errors import UserError
from metacurate.training.reasons import SkippedPair
from metacurate.training.shards import (
    Image,
    PairBatch,
    Shard,
    ShardsConfig,
    find_shards,
    read_shard,
)

FREE_POSITION = 2**32 - 1
FREE_ENTRY = 2**32 - 1
SOURCE_ENTRY = 2**32 - 3  # 2**32 - 2 is that of a text chosen first ("one")
POOL_ENTRY = 2**32 - 4  # of an experiment's arms with a share of the pool
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
    """Balancing on the fly: ``counts`` uint64[entries] over the whole pool, threshold ``t``.

    ``t``: one, or float64[entries], each entry's own (that of its language). ``choose_text``: as of
    ``metacurate.curation.balancing.balance``.
    """

    counts: balancing.Counts
    t: float | npt.NDArray[np.float64]
    choose_text: str = ANY

    @property
    def keep_probs(self) -> balancing.Probabilities:
        """The entries' keep probabilities."""
        return balancing.keep_probabilities(self.counts, self.t)


Selection = AllTexts | Curated | Online


@dataclass(frozen=True)
class DataConfig:
    """What is loaded, and how.

    ``global_batch``: pairs a step over all ranks, a multiple of ``streams``; ``image_size``: pixels
    a side; ``crop_scale``: the random crop's share of the area, (1, 1) for a plain resize;
    ``fraction``: the share of the pairs that is used at all; ``captions``: shares of sources of
    captions, which add up to 1 at most.
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
    captions: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_captions(self.captions, self.shards.caption_cols)
        if not 0 < self.fraction <= 1:
            raise UserError(f"fraction must lie in (0, 1], not {self.fraction:.15g}")
        for name in ("global_batch", "image_size", "streams", "shuffle_block"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if self.global_batch % self.streams:
            raise UserError(
                f"global_batch ({self.global_batch}) must be a multiple of streams "
                f"({self.streams}): every stream gives as many pairs to a batch"
            )


def check_captions(captions: Mapping[str, Any], columns: Sequence[str]) -> None:
    """UserError unless sources' shares are positive, at most 1 in all, and name all columns."""
    for name, share in captions.items():
        if isinstance(share, bool) or not isinstance(share, float | int) or not 0 < share <= 1:
            raise UserError(f"captions: the share of {name!r} must lie in (0, 1], not {share!r}")
    if math.fsum(captions.values()) > 1 + 1e-9:
        raise UserError(
            f"captions: the shares add up to {math.fsum(captions.values()):.15g}, more than 1"
        )
    for name in columns:
        if name not in captions:
            raise UserError(f"caption_cols: {name!r} has no share in captions")


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


class PairSource:
    """The pairs of some shards as units and epochs; no state but the files."""

    def __init__(self, config: DataConfig, shards: Sequence[Shard] | None = None) -> None:
        self.config = config
        self.shards = tuple(find_shards(config.shards) if shards is None else shards)
        self.splits = -(-config.streams // len(self.shards))
        self._reading = replace(config.shards, with_sources=bool(config.captions))
        # In the order of names, not of the configuration's lines.
        self._names = tuple(sorted(config.captions))
        self._shares = np.cumsum([config.captions[name] for name in self._names])
        self._keep_probs, self._choose_text = None, ANY
        if isinstance(config.selection, Online):
            self._keep_probs = config.selection.keep_probs
            self._choose_text = config.selection.choose_text

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

        Blocks before ``first_block`` are skipped unshuffled. ``skipped`` counts by reason.
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
        for batch in read_shard(shard, self._reading, counted):
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
        filled = offsets_of(usable)
        empty = filled[offsets[1:]] == filled[offsets[:-1]]
        skipped[SkippedPair.NO_TEXT] += int(np.count_nonzero(own & empty))
        skipped[SkippedPair.NO_UID] += int(np.count_nonzero(own & ~batch.has_uid))
        chosen = offsets_of(kept)
        pairs = own & batch.has_uid & (chosen[offsets[1:]] > chosen[offsets[:-1]])
        for i in np.flatnonzero(pairs):
            uid = batch.uids[i].tobytes()
            if config.fraction < 1 and (
                balancing.draw(config.seed, uid, FREE_POSITION, FREE_ENTRY) >= config.fraction
            ):
                continue
            places = offsets[i] + np.flatnonzero(kept[offsets[i] : offsets[i + 1]])
            texts = [batch.texts[place] or "" for place in places]
            if self._names:
                sources = [batch.sources[place] for place in places]
                texts = self._of_source(batch, int(i), uid, epoch, texts, sources, skipped)
            at = int(free_draw(config.seed, uid, 0, epoch) * len(texts)) if len(texts) > 1 else 0
            yield KeptPair(uid, texts[at], batch.image(int(i)))

    def _of_source(
        self,
        batch: PairBatch,
        pair: int,
        uid: bytes,
        epoch: int,
        texts: list[str],
        sources: list[str | None],
        skipped: Counter[str],
    ) -> list[str]:
        """Those of a pair's texts that are of the source drawn for it."""
        drawn = free_draw(self.config.seed, uid, SOURCE_ENTRY, epoch)
        number = int(np.searchsorted(self._shares, drawn, side="right"))
        if number < len(self._names):
            name = self._names[number]
            if name in batch.captions:
                found, offsets = batch.captions[name]
                own = [t for t in found[offsets[pair] : offsets[pair + 1]] if t and not t.isspace()]
            else:
                own = [t for t, source in zip(texts, sources, strict=True) if source == name]
            if own:
                return own
            skipped[SkippedPair.CAPTION_MISSING] += 1
        others = [t for t, s in zip(texts, sources, strict=True) if s not in self.config.captions]
        return others or texts

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
        skipped[SkippedPair(f"broken_{name}")] += int(
            np.count_nonzero(own & ~aligned & (lengths >= 0))
        )
        mask = np.zeros(len(batch.texts), dtype=np.bool_)
        good = np.repeat(aligned, np.diff(offsets))
        lists = lists.filter(_arrow(aligned))
        flat = lists.flatten()
        if not online:
            mask[good] = np.asarray(flat.fill_null(False))
            return mask
        assert self._keep_probs is not None
        text_offsets = offsets_of(flat.value_lengths().fill_null(0))
        pair_offsets = offsets_of(np.diff(offsets)[aligned])
        ids = np.asarray(flat.flatten().fill_null(0), np.uint32)
        if ids.size and int(ids.max()) >= self._keep_probs.size:
            raise UserError(
                f"{shard.address} matches entry {int(ids.max())}, but there are counts of "
                f"{self._keep_probs.size} entries only: counts and shards are of different runs"
            )
        drawn = balancing.balance(
            np.ascontiguousarray(batch.uids[aligned]), pair_offsets, text_offsets, ids,
            self._keep_probs, seed=self.config.seed, epoch=epoch, choose_text=self._choose_text,
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


def free_draw(seed: int, uid: bytes, number: int, epoch: int) -> float:
    """One of a pair's draws that balancing leaves free, in [0, 1)."""
    return balancing.draw(seed, uid, FREE_POSITION, number, epoch=epoch)
