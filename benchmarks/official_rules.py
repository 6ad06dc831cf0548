"""What the official scripts' rules choose, and what metacurate does, on the example pool.

The rules are written down here as the scripts have them: global draws, an entry at a time; records
that are listed for each kept text; a probability that is a capped sum.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

import metacurate as mc
from record import record, table

POOL = Path(__file__).parent.parent / "examples" / "emoji"
T = 10
RUNS = 200

Probabilities = npt.NDArray[np.float64]


def official_probabilities(counts: npt.NDArray[np.uint64], t: float) -> Probabilities:
    """Of entries, float64[entries]: counts below t are raised to it."""
    raised = counts.astype(np.float64)
    raised[raised < t] = t
    return t / raised


def official_draws(
    matches: npt.NDArray[np.int64], probabilities: Probabilities, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The kept texts; ``matches``: int64[matches, 2] of an entry and the number of a text."""
    entries = matches[:, 0]
    chosen = random.random(len(matches)) < probabilities[entries]
    return np.unique(matches[chosen, 1])


def capped_sums(matches: npt.NDArray[np.int64], probabilities: Probabilities, texts: int
                ) -> Probabilities:  # fmt: skip
    """The probability of each text as the demonstration shows it."""
    sums = np.bincount(matches[:, 1], probabilities[matches[:, 0]], minlength=texts)
    return np.minimum(sums, 1)


def main() -> None:
    run = mc.curate(POOL, "wordnet", t=float("inf"))
    rows = run.to_arrow()
    of_pairs = rows["matched"].combine_chunks()
    of_texts = of_pairs.flatten()
    pair_offsets = np.concatenate([[0], np.cumsum(of_pairs.value_lengths())])
    lengths = np.asarray(of_texts.value_lengths())
    text_offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.asarray(of_texts.flatten())
    matches = np.stack([ids.astype(np.int64), np.repeat(np.arange(lengths.size), lengths)], axis=1)
    counts = mc.count_entries(ids, int(ids.max()) + 1)
    probabilities = official_probabilities(counts, T)
    pair_of_text = np.repeat(np.arange(rows.num_rows), np.diff(pair_offsets))
    uids = np.frombuffer(b"".join(rows["uid"].to_pylist()), "<u8").reshape(-1, 2)

    random = np.random.default_rng(0)
    listed, official, own = [], [], []
    drawn = np.zeros(lengths.size)
    for seed in range(RUNS):
        texts = official_draws(matches, probabilities, random)
        drawn[texts] += 1
        listed.append(texts.size)
        official.append(np.unique(pair_of_text[texts]).size)
        balanced = mc.balance(
            uids, pair_offsets, text_offsets, ids, mc.keep_probabilities(counts, T), seed=seed
        )
        own.append(int(balanced.pairs.sum()))
    exact = np.array([
        1 - np.prod(1 - probabilities[ids[first:end]])
        for first, end in pairwise(text_offsets)
    ])  # fmt: skip
    capped = capped_sums(matches, probabilities, lengths.size)
    drawable = (lengths > 0) & (exact < 1)
    sizes = [
        [name, f"{np.mean(values):,.1f}", f"{np.std(values, ddof=1):.1f}",
         f"{min(values):,} to {max(values):,}"]
        for name, values in (
            ("official rule, pairs", official), ("official rule, records in the list", listed),
            ("metacurate, pairs", own),
        )
    ]  # fmt: skip
    errors = [
        [name, f"{np.mean(values[drawable]):.4f}",
         f"{np.mean(values[drawable] - drawn[drawable] / RUNS):+.4f}",
         f"{np.max(np.abs(values - exact)[drawable]):.3f}"]
        for name, values in (("exact", exact), ("capped sum", capped))
    ]  # fmt: skip
    expected = run.matched["pairs"]
    pairs = mc.pair_keep_probabilities(
        text_offsets[pair_offsets], ids, mc.keep_probabilities(counts, T)
    )
    record(
        "measured",
        f"The example pool with WordNet, t = {T}: {expected:,} matched pairs; {RUNS} draws of each "
        f"rule. Expected in closed form: {pairs.sum():,.1f} pairs.\n\n"
        + table(["kept", "mean", "standard deviation", "least and most"], sizes)
        + f"\n\nProbabilities of the {int(drawable.sum()):,} texts that are not kept for sure:\n\n"
        + table(["", "mean", "mean difference to the share of draws",
                 "largest difference to exact"], errors),
        page="from-the-official-scripts.md",
    )  # fmt: skip


if __name__ == "__main__":
    main()
