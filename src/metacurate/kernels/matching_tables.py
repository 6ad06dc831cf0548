"""What the compiled loops of matching share: trie edges and lists of found ids.

A trie's edges are an open-addressing table, ``uint64[rows, 2]`` laid flat: ``node << 32 | label +
1`` and ``child << 32 | entry id + 1``; zero means "none" in all packed fields. A label is a token's
number (``matching``) or a character (``matching_wide``). A bitmap in front of the table turns most
misses away without touching it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metacurate.kernels.cache import njit

NO_HASH_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)
LOW32 = np.uint64(0xFFFFFFFF)
K1 = np.uint64(0x9E3779B97F4A7C15)
K2 = np.uint64(0xD6E8FEB86659FD93)
U0, U1, U2, U3 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
U6, U8, U16, U22, U29, U32 = (np.uint64(n) for n in (6, 8, 16, 22, 29, 32))
U63 = np.uint64(63)

# So many ids are sorted by counting for each how many are smaller. No id is the last number.
RANKED = 256
_EMPTY = np.uint32(0xFFFFFFFF)
# A list of found ids of this size is rid of repeats before it is made longer.
_LONG_LIST = 4096


_LANES = 16


@intrinsic
def _number_smaller(_typing, array, index, value):
    """How many of the 16 elements of a uint32 array from ``index`` on are smaller than a value."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        vector = ir.VectorType(ir.IntType(32), _LANES)
        pointer = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        block = builder.load(pointer, align=4)
        one = builder.insert_element(
            ir.Constant(vector, ir.Undefined), args[2], ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        hits = builder.icmp_unsigned("<", block, builder.shuffle_vector(one, one, zeros))
        bits = builder.zext(builder.bitcast(hits, ir.IntType(_LANES)), ir.IntType(64))
        return builder.ctpop(bits)

    return types.int64(array, types.int64, types.uint32), codegen


@njit(inline="always")
def edge_hash(key):
    h = key * K1
    return (h ^ (h >> U32)) * K2


@njit()
def aligned_zeros(size):
    """uint64 zeros that start at a cache line."""
    padded = np.zeros(size + 8, dtype=np.uint64)
    skip = (8 - np.int64(padded.ctypes.data) // 8 % 8) % 8
    return padded[skip : skip + size]


@njit()
def find_edge(edges, key, hash_mask):
    """The row that holds an edge, or the empty row where it would go."""
    last_row = np.uint64(edges.size // 2 - 1)
    row = (edge_hash(key) & hash_mask) & last_row
    while True:
        there = edges[row * np.uint64(2)]
        if there == key or there == U0:
            return row
        row = (row + U1) & last_row


@njit()
def fit_edges(edges, count, hash_mask):
    rows = 16
    while rows * 2 < count * 3:
        rows *= 2
    fitted = aligned_zeros(2 * rows)
    for old in range(edges.size // 2):
        if edges[2 * old] != U0:
            row = find_edge(fitted, edges[2 * old], hash_mask) * np.uint64(2)
            fitted[row] = edges[2 * old]
            fitted[row + U1] = edges[2 * old + 1]
    return fitted


@njit(inline="always")
def filter_word(bits, key_hash):
    """Where the bitmap has a key's bit, by its (masked) hash."""
    return key_hash >> U22 & np.uint64(bits.size - 1)


@njit(inline="always")
def may_have_edge(bits, key_hash):
    """Whether the bitmap lets a key's (masked) hash through."""
    return bits[filter_word(bits, key_hash)] >> (key_hash >> U16 & U63) & U1 != U0


@njit()
def edge_filter(edges, count, hash_mask):
    """A bitmap of 16 to 32 bits an edge, indexed by the hash's upper half."""
    words = 8
    while words * 64 < count * 16:
        words *= 2
    bits = aligned_zeros(words)
    for row in range(edges.size // 2):
        if edges[2 * row] != U0:
            key_hash = edge_hash(edges[2 * row]) & hash_mask
            bits[filter_word(bits, key_hash)] |= U1 << (key_hash >> U16 & U63)
    return bits


@njit()
def grown(array, size):
    """A copy with room for at least ``size`` elements, and for twice as many as before."""
    larger = np.empty(max(size, 2 * array.size), dtype=array.dtype)
    larger[: array.size] = array
    return larger


@njit()
def with_room(found, matches, more):
    """``found`` with room for ``more`` ids after its first ``matches``, and how many it now has.

    Repeats are removed from long lists first: memory is bounded by the different ids of a text.
    """
    if matches >= _LONG_LIST:
        matches = sort_unique(found, matches)
    if 2 * (matches + more) > found.size:
        found = grown(found, 2 * (matches + more))
    return found, matches


@njit()
def sort_unique(found, matches):
    """Sort ``found[:matches]`` in place and drop its repeats; how many are left."""
    found[:matches] = np.sort(found[:matches])
    left = 0
    for i in range(matches):
        if left == 0 or found[i] != found[left - 1]:
            found[left] = found[i]
            left += 1
    return left


@njit(inline="always")
def append_unique(found, matches, out, written, ranked):
    """Append ``found[:matches]``, sorted and without repeats, to ``out``; returns the new size.

    ``out`` has room for them all; ``ranked`` is uint32[RANKED] to work in, and ``found``, which is
    changed, is no shorter.
    """
    if matches > RANKED:
        matches = sort_unique(found, matches)
        for i in range(matches):
            out[written + i] = found[i]
        return written + matches
    # An id's place is the number of smaller ones; repeats leave places empty.
    for i in range(matches):
        ranked[i] = _EMPTY
    end = matches + _LANES - 1 & -_LANES
    for i in range(matches, end):
        found[i] = _EMPTY
    for i in range(matches):
        smaller = 0
        for j in range(0, end, _LANES):
            smaller += _number_smaller(found, j, found[i])
        ranked[smaller] = found[i]
    for i in range(matches):
        out[written] = ranked[i]
        written += ranked[i] != _EMPTY
    return written
