"""Compiled twin of ``hashlib.blake2b``: the compression (RFC 7693) of four messages side by side.

A part of ``kernels.uid``, which says what both gain.
One instruction works on the same word of all four: a short message costs a third of what it costs
alone. Names follow the RFC (h: state, m: message words, v: working vector, t: bytes so far).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 4
BLOCK_BYTES = 128
_IV = (
    0x6A09E667F3BCC908,
    0xBB67AE8584CAA73B,
    0x3C6EF372FE94F82B,
    0xA54FF53A5F1D36F1,
    0x510E527FADE682D1,
    0x9B05688C2B3E6C1F,
    0x1F83D9ABFB41BD6B,
    0x5BE0CD19137E2179,
)
# Which message words a round takes; it has 12 rounds, the last two as the first two.
_SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)
_ROUNDS = 12
_COLUMNS_AND_DIAGONALS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
_VECTOR = ir.VectorType(ir.IntType(64), LANES)


def initial_state(digest_bytes: int) -> np.ndarray:
    """The state before the first block, uint64[8, LANES], for digests of so many bytes, no key."""
    state = np.repeat(np.array(_IV, np.uint64)[:, None], LANES, axis=1)
    state[0] ^= np.uint64(0x01010000 ^ digest_bytes)
    return state


@intrinsic
def compress(_typing, h, m, t, last, out):
    """Take a block of each message into the state; ``out`` gets the new one.

    ``h`` and ``out`` uint64[8, LANES] (they may be the same), ``m`` uint64[LANES, 16], ``t``
    uint64[LANES] and ``last`` uint64[LANES] (all ones if it is the message's last block, else 0),
    all contiguous.
    """

    def codegen(context, builder, signature, args):
        def rows(argument):
            kind = signature.args[argument]
            data = context.make_array(kind)(context, builder, args[argument]).data
            start = builder.bitcast(data, _VECTOR.as_pointer())
            return lambda row: builder.gep(start, [ir.IntType(32)(row)])

        def load(argument, row):
            return builder.load(rows(argument)(row), align=8)

        def words_of_all():
            """Word by word those of all messages: four by four, rows become columns."""
            for first in range(0, 16, LANES):
                a, b, c, d = (load(1, (16 * lane + first) // LANES) for lane in range(LANES))
                low, high = (0, 4, 2, 6), (1, 5, 3, 7)
                ab, cd = (shuffled(*two, low) for two in ((a, b), (c, d)))
                ab_odd, cd_odd = (shuffled(*two, high) for two in ((a, b), (c, d)))
                yield shuffled(ab, cd, (0, 1, 4, 5))
                yield shuffled(ab_odd, cd_odd, (0, 1, 4, 5))
                yield shuffled(ab, cd, (2, 3, 6, 7))
                yield shuffled(ab_odd, cd_odd, (2, 3, 6, 7))

        def shuffled(one, other, places):
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(places))
            return builder.shuffle_vector(one, other, mask)

        def rotated(word, bits):
            right = builder.lshr(word, ir.Constant(_VECTOR, [bits] * LANES))
            return builder.or_(right, builder.shl(word, ir.Constant(_VECTOR, [64 - bits] * LANES)))

        state = [load(0, row) for row in range(8)]
        words = list(words_of_all())
        v = state + [ir.Constant(_VECTOR, [word] * LANES) for word in _IV]
        v[12] = builder.xor(v[12], load(2, 0))
        v[14] = builder.xor(v[14], load(3, 0))
        for number in range(_ROUNDS):
            order = iter(_SIGMA[number % len(_SIGMA)])
            for a, b, c, d in _COLUMNS_AND_DIAGONALS:
                for first, second in ((32, 24), (16, 63)):
                    v[a] = builder.add(builder.add(v[a], v[b]), words[next(order)])
                    v[d] = rotated(builder.xor(v[d], v[a]), first)
                    v[c] = builder.add(v[c], v[d])
                    v[b] = rotated(builder.xor(v[b], v[c]), second)
        for row in range(8):
            new = builder.xor(state[row], builder.xor(v[row], v[row + 8]))
            builder.store(new, rows(4)(row), align=8)
        return context.get_dummy_value()

    return types.void(h, m, t, last, out), codegen
