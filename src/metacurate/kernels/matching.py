"""Compiled twin of ``curation.matching.reference``: a walk over a trie of tokens.

Matches start and end at spaces of the spaced text, so a text is a sequence of tokens split on
*single* spaces (empty tokens included), and so is an entry. The spaced text is never written out:
an isolated punctuation character ends the token before it, is a token itself, and starts a new one.

Two open-addressing tables make up the matcher:

* the vocabulary, ``uint64[rows, 4]``: a token's first 8 bytes, its next 8 bytes (of a token longer
  than 16 bytes: its hash), ``length << 32 | token id + 1``, and ``node << 32 | entry id + 1`` of
  the trie's first level. A token of up to 16 bytes is thus compared whole within one cache line; a
  longer one is compared with its bytes in ``blob`` too. No hash collision can yield a wrong match.
* the edges, ``uint64[rows, 2]``: ``node << 32 | token id + 1`` and ``child << 32 | entry id + 1``.
  A bitmap in front of them turns most misses away without touching them.

Zero means "none" in all packed fields. Texts are cut into blocks of tokens; hashing a whole block
before looking any of it up lets the tables' cache lines arrive in the meantime.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metacurate.kernels.cache import njit

BLOCK_TOKENS = 512
NO_HASH_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)

_SPACE = np.uint8(0x20)
# Token lengths are at most 2**31; this one marks the end of a text in a block of tokens.
_TEXT_END = np.uint64(0xFFFFFFFF)
_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xD6E8FEB86659FD93)
_LOW32 = np.uint64(0xFFFFFFFF)
_U0, _U1, _U3 = np.uint64(0), np.uint64(1), np.uint64(3)
_U6, _U8, _U16, _U29, _U32 = (np.uint64(n) for n in (6, 8, 16, 29, 32))
_U63, _U64 = np.uint64(63), np.uint64(64)

# Which bits of the first (second) 8 bytes belong to a token of 0 to 16 bytes.
_FIRST_WORD = np.array([2 ** (8 * min(n, 8)) - 1 for n in range(17)], dtype=np.uint64)
_SECOND_WORD = np.array([2 ** (8 * max(n - 8, 0)) - 1 for n in range(17)], dtype=np.uint64)

# Separators as (first byte, number of byte values), and which of them are isolated punctuation.
_WHITE_RANGES = ((0x20, 1), (0x09, 2), (0x0D, 1))
_PUNCTUATION_RANGES = ((0x2C, 1), (0x2E, 1), (0x3A, 2), (0x3F, 1), (0x21, 1), (0x60, 1))


@intrinsic
def _load64(_typing, address):
    """The 8 bytes at an address, unaligned."""

    def codegen(_context, builder, _signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), codegen


@intrinsic
def _load8(_typing, address):
    """The byte at an address."""

    def codegen(_context, builder, _signature, args):
        return builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer()))

    return types.uint8(types.int64), codegen


@intrinsic
def _prefetch(_typing, array, index):
    """Ask for the cache line of element ``array[index]`` of a flat uint64 array."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch",
            [ir.IntType(8).as_pointer()],
            ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), i32, i32, i32]),
        )
        builder.call(function, [pointer, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), codegen


@intrinsic
def _trailing_zeros(_typing, bits):
    """The position of the lowest set bit."""

    def codegen(_context, builder, _signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


def _range_mask_codegen(ranges):
    def codegen(_context, builder, _signature, args):
        vector = ir.VectorType(ir.IntType(8), 64)
        block = builder.load(builder.inttoptr(args[0], vector.as_pointer()), align=1)
        found = None
        for first, count in ranges:
            if count == 1:
                hit = builder.icmp_unsigned("==", block, ir.Constant(vector, [first] * 64))
            else:
                shifted = builder.sub(block, ir.Constant(vector, [first] * 64))
                hit = builder.icmp_unsigned("<", shifted, ir.Constant(vector, [count] * 64))
            found = hit if found is None else builder.or_(found, hit)
        return builder.bitcast(found, ir.IntType(64))

    return codegen


@intrinsic
def _white_mask(_typing, address):
    """Bit i is set iff byte i of the 64 at the address is a space, tab or line break."""
    return types.uint64(types.int64), _range_mask_codegen(_WHITE_RANGES)


@intrinsic
def _punctuation_mask(_typing, address):
    """Bit i is set iff byte i of the 64 at the address is isolated punctuation."""
    return types.uint64(types.int64), _range_mask_codegen(_PUNCTUATION_RANGES)


@njit(inline="always")
def _masks_near_end(address, count):
    """Both masks for fewer than 64 readable bytes."""
    white, punctuation = _U0, _U0
    for i in range(count):
        c = _load8(address + i)
        bit = _U1 << np.uint64(i)
        if c == 0x20 or c == 0x09 or c == 0x0A or c == 0x0D:
            white |= bit
        elif (
            c == 0x2C or c == 0x2E or c == 0x3A or c == 0x3B or c == 0x3F or c == 0x21 or c == 0x60
        ):
            punctuation |= bit
    return white, punctuation


@njit(inline="always")
def _word(address, length, readable):
    """Up to 8 bytes of a token as a little-endian number, zero beyond ``length``."""
    if length <= 0:
        return _U0
    if readable >= 8:
        word = _load64(address)
        if length < 8:
            word &= (_U1 << np.uint64(length * 8)) - _U1
        return word
    word = _U0
    for i in range(min(length, 8)):
        word |= np.uint64(_load8(address + i)) << np.uint64(i * 8)
    return word


@njit(inline="always")
def _mix(a, b, length):
    h = (a ^ (np.uint64(length) * _K2)) * _K1
    h = (h ^ (h >> _U32) ^ b) * _K2
    return h ^ (h >> _U29)


@njit()
def _hash_long(address, length, readable):
    """Hash of a token of more than 16 bytes."""
    h = np.uint64(length)
    for start in range(0, length, 8):
        h = _mix(_word(address + start, length - start, readable - start), h, length)
    return h


@njit(inline="always")
def _token_key(address, length, readable):
    """The two comparison words and the hash of a token."""
    if length <= 16:
        if readable >= 16:
            first = _load64(address) & _FIRST_WORD[length]
            second = _load64(address + 8) & _SECOND_WORD[length]
        else:
            first = _word(address, length, readable)
            second = _word(address + 8, length - 8, readable - 8)
        return first, second, _mix(first, second, length)
    first = _load64(address)
    h = _hash_long(address, length, readable)
    return first, h, h


@njit()
def _same_bytes(address, blob, start, length):
    for i in range(length):
        if _load8(address + i) != blob[start + i]:
            return False
    return True


@njit(inline="always")
def _edge_hash(key):
    h = key * _K1
    return (h ^ (h >> _U32)) * _K2


@njit()
def _find_token(vocabulary, blob, starts, first, second, h, address, length):
    """The row that holds a token, or the empty row where it would go."""
    last_row = np.uint64(vocabulary.size // 4 - 1)
    row = h & last_row
    while True:
        at = row * np.uint64(4)
        meta = vocabulary[at + np.uint64(2)]
        if meta == _U0:
            return row
        if (
            vocabulary[at] == first
            and vocabulary[at + _U1] == second
            and meta >> _U32 == np.uint64(length)
            and (length <= 16 or _same_bytes(address, blob, starts[(meta & _LOW32) - _U1], length))
        ):
            return row
        row = (row + _U1) & last_row


@njit()
def _grow_vocabulary(vocabulary, hashes, size):
    """Move the rows to a table of ``size`` rows; ``hashes`` are by token id."""
    grown = aligned_zeros(size * 4)
    last_row = np.uint64(size - 1)
    for old in range(vocabulary.size // 4):
        meta = vocabulary[old * 4 + 2]
        if meta != _U0:
            row = hashes[(meta & _LOW32) - _U1] & last_row
            while grown[row * np.uint64(4) + np.uint64(2)] != _U0:
                row = (row + _U1) & last_row
            for k in range(4):
                grown[row * np.uint64(4) + np.uint64(k)] = vocabulary[old * 4 + k]
    return grown


@njit()
def aligned_zeros(size):
    """uint64 zeros that start at a cache line."""
    padded = np.zeros(size + 8, dtype=np.uint64)
    skip = (8 - np.int64(padded.ctypes.data) // 8 % 8) % 8
    return padded[skip : skip + size]


@njit()
def _find_edge(edges, key, hash_mask):
    """The row that holds an edge, or the empty row where it would go."""
    last_row = np.uint64(edges.size // 2 - 1)
    row = (_edge_hash(key) & hash_mask) & last_row
    while True:
        there = edges[row * np.uint64(2)]
        if there == key or there == _U0:
            return row
        row = (row + _U1) & last_row


@njit()
def build_tables(data, offsets, hash_mask):
    """Build the trie of the entries given as UTF-8 ``data`` (uint8) and ``offsets`` (int64[n+1]).

    ``hash_mask`` is all ones; tests weaken the hash with it. Returns (vocabulary, edges, filter
    bits, blob of long tokens, their starts by token id).
    """
    base = data.ctypes.data
    entries = offsets.size - 1
    most_tokens = entries
    for i in range(data.size):
        most_tokens += data[i] == _SPACE
    hashes = np.empty(most_tokens, dtype=np.uint64)
    starts = np.zeros(most_tokens, dtype=np.int64)
    vocabulary = aligned_zeros(4 * 1024)
    edge_rows = 1024
    while edge_rows < 2 * (most_tokens - entries):
        edge_rows *= 2
    edges = aligned_zeros(2 * edge_rows)
    tokens, nodes, edge_count = 0, 0, 0
    for entry in range(entries):
        end = offsets[entry + 1]
        start = offsets[entry]
        node = _U0
        # Where the entry's path so far ends: a row of the vocabulary (depth 1) or of the edges.
        while True:
            stop = start
            while stop < end and data[stop] != _SPACE:
                stop += 1
            length = stop - start
            first, second, h = _token_key(base + start, length, data.size - start)
            h &= hash_mask
            row = _find_token(vocabulary, data, starts, first, second, h, base + start, length)
            at = row * np.uint64(4)
            if vocabulary[at + np.uint64(2)] == _U0:
                if (tokens + 1) * 3 > vocabulary.size // 4 * 2:
                    vocabulary = _grow_vocabulary(vocabulary, hashes, vocabulary.size // 2)
                    row = _find_token(
                        vocabulary, data, starts, first, second, h, base + start, length
                    )
                    at = row * np.uint64(4)
                hashes[tokens] = h
                starts[tokens] = start
                tokens += 1
                vocabulary[at] = first
                vocabulary[at + _U1] = second
                vocabulary[at + np.uint64(2)] = np.uint64(length) << _U32 | np.uint64(tokens)
            last = stop >= end
            if node == _U0:
                packed = vocabulary[at + _U3]
            else:
                key = node << _U32 | (vocabulary[at + np.uint64(2)] & _LOW32)
                edge = _find_edge(edges, key, hash_mask) * np.uint64(2)
                if edges[edge] == _U0:
                    edges[edge] = key
                    edge_count += 1
                packed = edges[edge + _U1]
            if last:
                packed |= np.uint64(entry + 1)
            elif packed >> _U32 == _U0:
                nodes += 1
                packed |= np.uint64(nodes) << _U32
            if node == _U0:
                vocabulary[at + _U3] = packed
            else:
                edges[edge + _U1] = packed
            if last:
                break
            node = packed >> _U32
            start = stop + 1
    edges = _fit_edges(edges, edge_count, hash_mask)
    bits = _edge_filter(edges, edge_count, hash_mask)
    blob, starts = _long_tokens(vocabulary, data, starts[:tokens])
    return vocabulary, edges, bits, blob, starts


@njit()
def _fit_edges(edges, count, hash_mask):
    rows = 16
    while rows * 2 < count * 3:
        rows *= 2
    fitted = aligned_zeros(2 * rows)
    for old in range(edges.size // 2):
        if edges[2 * old] != _U0:
            row = _find_edge(fitted, edges[2 * old], hash_mask) * np.uint64(2)
            fitted[row] = edges[2 * old]
            fitted[row + _U1] = edges[2 * old + 1]
    return fitted


@njit()
def _edge_filter(edges, count, hash_mask):
    """A bitmap of 16 to 32 bits an edge, indexed by the hash's upper half."""
    words = 8
    while words * 64 < count * 16:
        words *= 2
    bits = aligned_zeros(words)
    for row in range(edges.size // 2):
        if edges[2 * row] != _U0:
            bit = (_edge_hash(edges[2 * row]) & hash_mask) >> _U16
            bits[bit >> _U6 & np.uint64(words - 1)] |= _U1 << (bit & _U63)
    return bits


@njit()
def _long_tokens(vocabulary, data, starts):
    """The bytes of the tokens that need them, and where each starts (by token id)."""
    size = 0
    for row in range(vocabulary.size // 4):
        length = np.int64(vocabulary[4 * row + 2] >> _U32)
        size += length if length > 16 else 0
    blob = np.empty(size, dtype=np.uint8)
    moved = np.zeros(starts.size, dtype=np.int64)
    size = 0
    for row in range(vocabulary.size // 4):
        meta = vocabulary[4 * row + 2]
        length = np.int64(meta >> _U32)
        if length > 16:
            token = (meta & _LOW32) - _U1
            moved[token] = size
            for i in range(length):
                blob[size + i] = data[starts[token] + i]
            size += length
    return blob, moved


@njit()
def match_texts(
    address, size, offsets, valid, vocabulary, edges, bits, blob, starts, hash_mask, max_depth
):
    """Match the texts at ``address`` (``size`` readable bytes; ``offsets`` int64[n+1] into them).

    ``valid`` is uint8[n], or empty if all texts are valid; other texts match nothing. Returns
    (``counts`` int64[n+1] with the CSR offsets, ``entry_ids`` uint32[nnz] sorted and unique per
    text).
    """
    texts = offsets.size - 1
    row_offsets = np.zeros(texts + 1, dtype=np.int64)
    out = np.empty(max(64, texts * 4), dtype=np.uint32)
    found = np.empty(256, dtype=np.uint32)
    active = np.empty(max_depth + 1, dtype=np.uint64)
    # The block of tokens: comparison words, hash, length, address; and the running state
    # (tokens in the block, texts done, output size, matches of this text, active nodes).
    firsts = np.empty(BLOCK_TOKENS, dtype=np.uint64)
    seconds = np.empty(BLOCK_TOKENS, dtype=np.uint64)
    hashes = np.empty(BLOCK_TOKENS, dtype=np.uint64)
    lengths = np.empty(BLOCK_TOKENS, dtype=np.uint64)
    addresses = np.empty(BLOCK_TOKENS, dtype=np.int64)
    state = np.zeros(4, dtype=np.int64)
    last_row = np.uint64(vocabulary.size // 4 - 1)
    n = 0
    for text in range(texts):
        start = offsets[text]
        end = offsets[text + 1]
        if valid.size > 0 and valid[text] == 0:
            end = start
        base = start
        while True:
            white, punctuation = _U0, _U0
            count = end - base
            if count > 0:
                if base + 64 <= size:
                    white = _white_mask(address + base)
                    punctuation = _punctuation_mask(address + base)
                    if count < 64:
                        inside = (_U1 << np.uint64(count)) - _U1
                        white &= inside
                        punctuation &= inside
                else:
                    white, punctuation = _masks_near_end(address + base, min(count, 64))
            separators = white | punctuation
            while True:
                # Room for a token, a punctuation character and the end of the text.
                if n > BLOCK_TOKENS - 3:
                    out, found = _match_block(
                        n, firsts, seconds, hashes, lengths, addresses, vocabulary, edges, bits,
                        blob, starts, hash_mask, active, state, row_offsets, out, found,
                    )  # fmt: skip
                    n = 0
                if separators != _U0:
                    bit = _trailing_zeros(separators)
                    stop = base + np.int64(bit)
                elif count <= 64:
                    stop = end
                else:
                    break
                length = stop - start
                first, second, h = _token_key(address + start, length, size - start)
                h &= hash_mask
                _prefetch(vocabulary, (h & last_row) << np.uint64(2))
                firsts[n] = first
                seconds[n] = second
                hashes[n] = h
                lengths[n] = np.uint64(length)
                addresses[n] = address + start
                n += 1
                if separators == _U0:
                    lengths[n] = _TEXT_END
                    n += 1
                    break
                if punctuation >> bit & _U1:
                    first = np.uint64(_load8(address + stop))
                    h = _mix(first, _U0, 1) & hash_mask
                    firsts[n] = first
                    seconds[n] = _U0
                    hashes[n] = h
                    lengths[n] = _U1
                    n += 1
                separators &= separators - _U1
                start = stop + 1
            if count <= 64:
                break
            base += 64
    out, found = _match_block(
        n, firsts, seconds, hashes, lengths, addresses, vocabulary, edges, bits,
        blob, starts, hash_mask, active, state, row_offsets, out, found,
    )  # fmt: skip
    return row_offsets, out[: state[1]]


@njit()
def _match_block(
    tokens, firsts, seconds, hashes, lengths, addresses, vocabulary, edges, bits,
    blob, starts, hash_mask, active, state, row_offsets, out, found,
):  # fmt: skip
    """Look a block of tokens up and walk the trie; returns the (perhaps grown) output arrays."""
    text, written, matches, alive = state[0], state[1], state[2], state[3]
    last_word = np.uint64(bits.size - 1)
    last_row = np.uint64(vocabulary.size // 4 - 1)
    for i in range(tokens):
        length = lengths[i]
        if length == _TEXT_END:
            if written + matches > out.size:
                out = _grown(out, written + matches)
            written = _append_unique(found, matches, out, written)
            text += 1
            row_offsets[text] = written
            matches, alive = 0, 0
            continue
        # The vocabulary look-up, inlined: _find_token's work without its insertion point.
        row = hashes[i] & last_row
        packed, token = _U0, _U0
        while True:
            at = row << np.uint64(2)
            meta = vocabulary[at + np.uint64(2)]
            if meta == _U0:
                break
            if (
                vocabulary[at] == firsts[i]
                and vocabulary[at + _U1] == seconds[i]
                and meta >> _U32 == length
                and (
                    length <= _U16
                    or _same_bytes(
                        addresses[i], blob, starts[(meta & _LOW32) - _U1], np.int64(length)
                    )
                )
            ):
                token = meta & _LOW32
                packed = vocabulary[at + _U3]
                break
            row = (row + _U1) & last_row
        if token == _U0:
            alive = 0
            continue
        if matches + alive + 1 > found.size:
            found = _grown(found, matches + alive + 1)
        still = 0
        for k in range(alive):
            key = active[k] << _U32 | token
            bit = (_edge_hash(key) & hash_mask) >> _U16
            if bits[bit >> _U6 & last_word] >> (bit & _U63) & _U1:
                edge = _find_edge(edges, key, hash_mask) * np.uint64(2)
                if edges[edge] == key:
                    child = edges[edge + _U1]
                    if child & _LOW32:
                        found[matches] = np.uint32((child & _LOW32) - _U1)
                        matches += 1
                    if child >> _U32:
                        active[still] = child >> _U32
                        still += 1
        if packed & _LOW32:
            found[matches] = np.uint32((packed & _LOW32) - _U1)
            matches += 1
        if packed >> _U32:
            active[still] = packed >> _U32
            still += 1
        alive = still
    state[0], state[1], state[2], state[3] = text, written, matches, alive
    return out, found


@njit()
def _grown(array, size):
    grown = np.empty(max(size, 2 * array.size), dtype=array.dtype)
    grown[: array.size] = array
    return grown


@njit()
def _append_unique(found, matches, out, written):
    """Append ``found[:matches]``, sorted and without repeats, to ``out``; returns the new size."""
    if matches <= 32:
        for i in range(1, matches):
            value = found[i]
            j = i
            while j > 0 and found[j - 1] > value:
                found[j] = found[j - 1]
                j -= 1
            found[j] = value
    else:
        found[:matches] = np.sort(found[:matches])
    for i in range(matches):
        if i == 0 or found[i] != found[i - 1]:
            out[written] = found[i]
            written += 1
    return written
