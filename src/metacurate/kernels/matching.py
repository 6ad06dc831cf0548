"""Compiled twin of ``curation.matching.reference``: a walk over a trie of tokens.

Matches start and end at spaces of the spaced text, so a text is a sequence of tokens split on
*single* spaces (empty tokens included), and so is an entry. The spaced text is never written out:
an isolated punctuation character ends the token before it, is a token itself, and starts a new one.

Two open-addressing tables make up the matcher:

* the vocabulary, ``uint64[rows, 4]``: a token's first 8 bytes, its next 8 bytes (of a token longer
  than 16 bytes: its hash), ``length << 32 | token id + 1``, and ``node << 32 | entry id + 1`` of
  the trie's first level. A token of up to 16 bytes is thus compared whole within one cache line; a
  longer one is compared with its bytes in ``blob`` too. No hash collision can yield a wrong match.
* the edges from there on, by token id (see ``matching_tables``).

Texts are cut into blocks of tokens; hashing a whole block before looking any of it up lets the
tables' cache lines arrive in the meantime.

By the worldwide rules some entries start or end inside tokens: ``matching_wide`` finds those, in
the texts that they can occur in, with each block of tokens. Where its tables are None (the rule
``v1``) none of this is compiled.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metacurate.kernels.cache import njit
from metacurate.kernels.intrinsics import (
    load8,
    load64,
    prefetch,
    range_mask_codegen,
    trailing_zeros,
)
from metacurate.kernels.matching_tables import (
    K1,
    K2,
    LOW32,
    NO_HASH_MASK,
    RANKED,
    U0,
    U1,
    U3,
    U16,
    U29,
    U32,
    aligned_zeros,
    append_unique,
    edge_filter,
    edge_hash,
    find_edge,
    fit_edges,
    grown,
    may_have_edge,
    with_room,
)
from metacurate.kernels.matching_wide import (
    BLOCK_BYTES,
    is_trigger,
    match_wide,
    may_strip,
    strip,
    watch_for,
    work_space,
)

__all__ = ["NO_HASH_MASK", "build_tables", "match_texts"]

BLOCK_TOKENS = 512

_SPACE = np.uint8(0x20)
# Token lengths are at most 2**31; this marks the end of a text in a block. Its first word is the
# text's number among those of the block that ``matching_wide`` looks at + 1, or zero.
_TEXT_END = np.uint64(0xFFFFFFFF)

# Which bits of the first (second) 8 bytes belong to a token of 0 to 16 bytes.
_FIRST_WORD = np.array([2 ** (8 * min(n, 8)) - 1 for n in range(17)], dtype=np.uint64)
_SECOND_WORD = np.array([2 ** (8 * max(n - 8, 0)) - 1 for n in range(17)], dtype=np.uint64)

# Separators as (first byte, number of byte values), and which of them are isolated punctuation.
_WHITE_RANGES = ((0x20, 1), (0x09, 2), (0x0D, 1))
# The first bytes of wide characters: ASCII punctuation, and leads of three bytes and more.
WIDE_START_RANGES = ((0x21, 15), (0x3A, 7), (0x5B, 6), (0x7B, 4), (0xE0, 0x15))
_PUNCTUATION_RANGES = ((0x2C, 1), (0x2E, 1), (0x3A, 2), (0x3F, 1), (0x21, 1), (0x60, 1))


@intrinsic
def _white_mask(_typing, address):
    """Bit i is set iff byte i of the 64 at the address is a space, tab or line break."""
    return types.uint64(types.int64), range_mask_codegen(_WHITE_RANGES)


@intrinsic
def _punctuation_mask(_typing, address):
    """Bit i is set iff byte i of the 64 at the address is isolated punctuation."""
    return types.uint64(types.int64), range_mask_codegen(_PUNCTUATION_RANGES)


@intrinsic
def _wide_lead_mask(_typing, address):
    """Bit i is set iff byte i of the 64 at the address is the lead of three bytes and more."""
    return types.uint64(types.int64), range_mask_codegen(WIDE_START_RANGES[-1:])


@intrinsic
def _few_mask(_typing, address, few, more):
    """Bit i is set iff byte i of the 64 at the address is one of the sixteen of two words."""

    def codegen(_context, builder, _signature, args):
        vector = ir.VectorType(ir.IntType(8), 64)
        block = builder.load(builder.inttoptr(args[0], vector.as_pointer()), align=1)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        found = None
        for i in range(16):
            shifted = builder.lshr(args[1 + i // 8], ir.IntType(64)(i % 8 * 8))
            byte = builder.trunc(shifted, ir.IntType(8))
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), byte, ir.IntType(32)(0))
            hit = builder.icmp_unsigned("==", block, builder.shuffle_vector(one, one, zeros))
            found = hit if found is None else builder.or_(found, hit)
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(types.int64, types.uint64, types.uint64), codegen


@intrinsic
def _wide_start_mask(_typing, address):
    """Bit i is set iff byte i of the 64 at the address may be the first of a wide character."""
    return types.uint64(types.int64), range_mask_codegen(WIDE_START_RANGES)


@njit(inline="always")
def _wide_starts_near_end(address, count):
    """That mask for fewer than 64 readable bytes."""
    starts = U0
    for i in range(count):
        c = load8(address + i)
        if (
            0x21 <= c <= 0x2F or 0x3A <= c <= 0x40 or 0x5B <= c <= 0x60 or 0x7B <= c <= 0x7E
            or 0xE0 <= c <= 0xF4
        ):  # fmt: skip
            starts |= U1 << np.uint64(i)
    return starts


@njit(inline="always")
def _masks_near_end(address, count):
    """Both masks for fewer than 64 readable bytes."""
    white, punctuation = U0, U0
    for i in range(count):
        c = load8(address + i)
        bit = U1 << np.uint64(i)
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
        return U0
    if readable >= 8:
        word = load64(address)
        if length < 8:
            word &= (U1 << np.uint64(length * 8)) - U1
        return word
    word = U0
    for i in range(min(length, 8)):
        word |= np.uint64(load8(address + i)) << np.uint64(i * 8)
    return word


@njit(inline="always")
def _mix(a, b, length):
    h = (a ^ (np.uint64(length) * K2)) * K1
    h = (h ^ (h >> U32) ^ b) * K2
    return h ^ (h >> U29)


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
            first = load64(address) & _FIRST_WORD[length]
            second = load64(address + 8) & _SECOND_WORD[length]
        else:
            first = _word(address, length, readable)
            second = _word(address + 8, length - 8, readable - 8)
        return first, second, _mix(first, second, length)
    first = load64(address)
    h = _hash_long(address, length, readable)
    return first, h, h


@njit()
def _same_bytes(address, blob, start, length):
    for i in range(length):
        if load8(address + i) != blob[start + i]:
            return False
    return True


@njit()
def _find_token(vocabulary, blob, starts, first, second, h, address, length):
    """The row that holds a token, or the empty row where it would go."""
    last_row = np.uint64(vocabulary.size // 4 - 1)
    row = h & last_row
    while True:
        at = row * np.uint64(4)
        meta = vocabulary[at + np.uint64(2)]
        if meta == U0:
            return row
        if (
            vocabulary[at] == first
            and vocabulary[at + U1] == second
            and meta >> U32 == np.uint64(length)
            and (length <= 16 or _same_bytes(address, blob, starts[(meta & LOW32) - U1], length))
        ):
            return row
        row = (row + U1) & last_row


@njit()
def _grow_vocabulary(vocabulary, hashes, size):
    """Move the rows to a table of ``size`` rows; ``hashes`` are by token id."""
    grown = aligned_zeros(size * 4)
    last_row = np.uint64(size - 1)
    for old in range(vocabulary.size // 4):
        meta = vocabulary[old * 4 + 2]
        if meta != U0:
            row = hashes[(meta & LOW32) - U1] & last_row
            while grown[row * np.uint64(4) + np.uint64(2)] != U0:
                row = (row + U1) & last_row
            for k in range(4):
                grown[row * np.uint64(4) + np.uint64(k)] = vocabulary[old * 4 + k]
    return grown


@njit()
def build_tables(data, offsets, ids, hash_mask):
    """Build the trie of the entries given as UTF-8 ``data`` (uint8) and ``offsets`` (int64[n+1]).

    ``ids`` (uint32[n]) are the entries'. ``hash_mask`` is all ones; tests weaken the hash with it.
    Returns (vocabulary, edges, filter bits, blob of long tokens, their starts by token id).
    ValueError if an entry is there twice.
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
        node = U0
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
            if vocabulary[at + np.uint64(2)] == U0:
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
                vocabulary[at + U1] = second
                vocabulary[at + np.uint64(2)] = np.uint64(length) << U32 | np.uint64(tokens)
            last = stop >= end
            if node == U0:
                packed = vocabulary[at + U3]
            else:
                key = node << U32 | (vocabulary[at + np.uint64(2)] & LOW32)
                edge = find_edge(edges, key, hash_mask) * np.uint64(2)
                if edges[edge] == U0:
                    edges[edge] = key
                    edge_count += 1
                packed = edges[edge + U1]
            if last:
                if packed & LOW32:
                    raise ValueError("an entry is there twice")
                packed |= np.uint64(ids[entry]) + U1
            elif packed >> U32 == U0:
                nodes += 1
                packed |= np.uint64(nodes) << U32
            if node == U0:
                vocabulary[at + U3] = packed
            else:
                edges[edge + U1] = packed
            if last:
                break
            node = packed >> U32
            start = stop + 1
    edges = fit_edges(edges, edge_count, hash_mask)
    bits = edge_filter(edges, edge_count, hash_mask)
    blob, starts = _long_tokens(vocabulary, data, starts[:tokens])
    return vocabulary, edges, bits, blob, starts


@njit()
def _long_tokens(vocabulary, data, starts):
    """The bytes of the tokens that need them, and where each starts (by token id)."""
    size = 0
    for row in range(vocabulary.size // 4):
        length = np.int64(vocabulary[4 * row + 2] >> U32)
        size += length if length > 16 else 0
    blob = np.empty(size, dtype=np.uint8)
    moved = np.zeros(starts.size, dtype=np.int64)
    size = 0
    for row in range(vocabulary.size // 4):
        meta = vocabulary[4 * row + 2]
        length = np.int64(meta >> U32)
        if length > 16:
            token = (meta & LOW32) - U1
            moved[token] = size
            for i in range(length):
                blob[size + i] = data[starts[token] + i]
            size += length
    return blob, moved


@njit()
def match_texts(
    address, size, offsets, valid, vocabulary, edges, bits, blob, starts, wide, hash_mask, max_depth
):
    """Match the texts at ``address`` (``size`` readable bytes; ``offsets`` int64[n+1] into them).

    ``valid`` is uint8[n], or empty if all texts are valid; other texts match nothing. ``wide`` are
    the tables of ``matching_wide``, or None for the rule ``v1``. Returns
    (``counts`` int64[n+1] with the CSR offsets, ``entry_ids`` uint32[nnz] sorted and unique per
    text).
    """
    texts = offsets.size - 1
    row_offsets = np.zeros(texts + 1, dtype=np.int64)
    out = np.empty(max(64, texts * 4), dtype=np.uint32)
    found = np.empty(256, dtype=np.uint32)
    active = np.empty(max_depth + 1, dtype=np.uint64)
    block = (
        np.empty(BLOCK_TOKENS, dtype=np.uint64),
        np.empty(BLOCK_TOKENS, dtype=np.uint64),
        np.empty(BLOCK_TOKENS, dtype=np.uint64),
        np.empty(BLOCK_TOKENS, dtype=np.uint64),
        np.empty(BLOCK_TOKENS, dtype=np.int64),
    )
    # Texts done, output size, matches of this text, active nodes, tokens of the block done.
    state = np.zeros(5, dtype=np.int64)
    ranked = np.empty(RANKED, dtype=np.uint32)
    # The text to go on with, from where (-1: its start), and whether no trigger was seen so far.
    place = np.array([0, -1, 0], dtype=np.int64)
    wide_firsts = np.empty(BLOCK_TOKENS, dtype=np.int64)
    wide_lasts = np.empty(BLOCK_TOKENS, dtype=np.int64)
    # Where the matches of each of the block's texts with triggers begin in ``pairs``.
    pair_starts = np.zeros(BLOCK_TOKENS + 2, dtype=np.int64)
    pairs = np.empty(16 * BLOCK_TOKENS, dtype=np.uint64)
    watch = (False, False, U0, U0, False)
    if wide is not None:
        work = work_space(BLOCK_TOKENS)
        watch = watch_for(wide[6])
    last_row = np.uint64(vocabulary.size // 4 - 1)
    # No array is replaced in the loops of the functions called here: counting the references to
    # arrays there would cost more than the look-ups.
    while place[0] < texts:
        tokens, wide_texts = _fill_block(
            address, size, offsets, valid, vocabulary, last_row, wide, watch, hash_mask, block,
            wide_firsts, wide_lasts, place,
        )  # fmt: skip
        if wide is not None and wide_texts:
            pairs = match_wide(wide_texts, wide_firsts, wide_lasts, wide, work, pairs, pair_starts)
        state[4] = 0
        while state[4] < tokens:
            out, found = _match_block(
                tokens, block, vocabulary, edges, bits, blob, starts, hash_mask, active, ranked,
                wide_texts, pairs, pair_starts, state, row_offsets, out, found,
            )  # fmt: skip
    return row_offsets, out[: state[1]]


@njit()
def _fill_block(
    address, size, offsets, valid, vocabulary, last_row, wide, watch, hash_mask, block,
    wide_firsts, wide_lasts, place,
):  # fmt: skip
    """Cut texts into tokens from ``place`` on until the block is full; moves ``place``.

    The block: the tokens' comparison words, hash, length, address. The texts with triggers that end
    in it are those from ``wide_firsts`` to ``wide_lasts`` (addresses). Returns how many (tokens,
    texts with triggers) there are.
    """
    firsts, seconds, hashes, lengths, addresses = block
    if wide is not None:
        triggers, contexts = wide[6], wide[7]
        any_triggers, are_few, few, more, any_leads = watch
    n, wide_texts, wide_bytes = 0, 0, 0
    # Room for a token, a punctuation character and the end of a text.
    full = BLOCK_TOKENS - 3
    for text in range(place[0], offsets.size - 1):
        start = offsets[text]
        end = offsets[text + 1]
        if valid.size > 0 and valid[text] == 0:
            end = start
        if wide is not None:
            first_byte, last_byte = address + start, address + end
            if may_strip(first_byte, last_byte):
                first_byte, last_byte = strip(first_byte, last_byte)
                start, end = first_byte - address, last_byte - address
            wide_firsts[wide_texts] = first_byte
            is_watching = any_triggers
        if place[1] >= 0:
            start = place[1]
            place[1] = -1
            if wide is not None:
                is_watching = place[2] != 0
        base = start
        while True:
            white, punctuation = U0, U0
            count = end - base
            if count > 0:
                if base + 64 <= size:
                    white = _white_mask(address + base)
                    punctuation = _punctuation_mask(address + base)
                    if count < 64:
                        inside = (U1 << np.uint64(count)) - U1
                        white &= inside
                        punctuation &= inside
                else:
                    white, punctuation = _masks_near_end(address + base, min(count, 64))
            separators = white | punctuation
            if wide is not None and is_watching and count > 0:
                if base + 64 <= size:
                    if are_few:
                        wide_starts = _few_mask(address + base, few, more)
                        if any_leads:
                            wide_starts |= _wide_lead_mask(address + base)
                    else:
                        wide_starts = _wide_start_mask(address + base)
                    if count < 64:
                        wide_starts &= (U1 << np.uint64(count)) - U1
                else:
                    wide_starts = _wide_starts_near_end(address + base, min(count, 64))
                while wide_starts != U0:
                    at = address + base + np.int64(trailing_zeros(wide_starts))
                    first_byte = wide_firsts[wide_texts]
                    if is_trigger(triggers, contexts, at, first_byte, address + end):
                        is_watching = False
                        break
                    wide_starts &= wide_starts - U1
            while True:
                if n > full:
                    place[0], place[1] = text, start
                    if wide is not None:
                        place[2] = is_watching
                    return n, wide_texts
                if separators != U0:
                    bit = trailing_zeros(separators)
                    stop = base + np.int64(bit)
                elif count <= 64:
                    stop = end
                else:
                    break
                length = stop - start
                first, second, h = _token_key(address + start, length, size - start)
                h &= hash_mask
                prefetch(vocabulary, (h & last_row) << np.uint64(2))
                firsts[n] = first
                seconds[n] = second
                hashes[n] = h
                lengths[n] = np.uint64(length)
                addresses[n] = address + start
                n += 1
                if separators == U0:
                    lengths[n] = _TEXT_END
                    firsts[n] = U0
                    if wide is not None and any_triggers and not is_watching:
                        wide_lasts[wide_texts] = address + end
                        wide_bytes += address + end - wide_firsts[wide_texts]
                        wide_texts += 1
                        firsts[n] = np.uint64(wide_texts)
                        if wide_bytes > BLOCK_BYTES:
                            full = 0
                    n += 1
                    break
                if punctuation >> bit & U1:
                    first = np.uint64(load8(address + stop))
                    h = _mix(first, U0, 1) & hash_mask
                    firsts[n] = first
                    seconds[n] = U0
                    hashes[n] = h
                    lengths[n] = U1
                    n += 1
                separators &= separators - U1
                start = stop + 1
            if count <= 64:
                break
            base += 64
    place[0] = offsets.size - 1
    return n, wide_texts


@njit()
def _match_block(
    tokens, block, vocabulary, edges, bits, blob, starts, hash_mask, active, ranked,
    wide_texts, pairs, pair_starts, state, row_offsets, out, found,
):  # fmt: skip
    """Look a block of tokens up and walk the trie, as far as there is room for what is found.

    Returns the output arrays, with more room than they had if they had none left.
    """
    firsts, seconds, hashes, lengths, addresses = block
    text, written, matches, alive = state[0], state[1], state[2], state[3]
    more = alive + 1
    if wide_texts:
        more += pair_starts[wide_texts] - pair_starts[0]
    if matches + more > found.size:
        found, matches = with_room(found, matches, more)
    if written + matches + more > out.size:
        out = grown(out, written + matches + more)
    done = tokens
    last_row = np.uint64(vocabulary.size // 4 - 1)
    for i in range(state[4], tokens):
        length = lengths[i]
        if length == _TEXT_END:
            own = np.int64(0)
            if firsts[i] != U0:
                own = pair_starts[firsts[i]] - pair_starts[firsts[i] - U1]
            if matches + own > found.size or written + matches + own > out.size:
                done = i
                break
            if own:
                for k in range(pair_starts[firsts[i] - U1], pair_starts[firsts[i]]):
                    found[matches] = np.uint32(pairs[k])
                    matches += 1
            written = append_unique(found, matches, out, written, ranked)
            text += 1
            row_offsets[text] = written
            matches, alive = 0, 0
            continue
        # The vocabulary look-up, inlined: _find_token's work without its insertion point.
        row = hashes[i] & last_row
        packed, token = U0, U0
        while True:
            at = row << np.uint64(2)
            meta = vocabulary[at + np.uint64(2)]
            if meta == U0:
                break
            if (
                vocabulary[at] == firsts[i]
                and vocabulary[at + U1] == seconds[i]
                and meta >> U32 == length
                and (
                    length <= U16
                    or _same_bytes(
                        addresses[i], blob, starts[(meta & LOW32) - U1], np.int64(length)
                    )
                )
            ):
                token = meta & LOW32
                packed = vocabulary[at + U3]
                break
            row = (row + U1) & last_row
        if token == U0:
            alive = 0
            continue
        if matches + alive + 1 > found.size:
            done = i
            break
        still = 0
        for k in range(alive):
            key = active[k] << U32 | token
            if may_have_edge(bits, edge_hash(key) & hash_mask):
                edge = find_edge(edges, key, hash_mask) * np.uint64(2)
                if edges[edge] == key:
                    child = edges[edge + U1]
                    if child & LOW32:
                        found[matches] = np.uint32((child & LOW32) - U1)
                        matches += 1
                    if child >> U32:
                        active[still] = child >> U32
                        still += 1
        # Written in any case and counted if it is one: there is no branch to guess wrong.
        found[matches] = np.uint32((packed & LOW32) - U1)
        matches += packed & LOW32 != U0
        active[still] = packed >> U32
        still += packed >> U32 != U0
        alive = still
    state[0], state[1], state[2], state[3], state[4] = text, written, matches, alive, done
    return out, found
