"""The worldwide rule's part of the matching kernel: a walk over a trie of characters.

Compiled twin of ``curation.matching.reference`` for entries with a side that needs no space: they
may start or end inside a token. Such an entry, with a space on the side that does need one, is a
path of the trie: its root's edges are the wide characters that entries begin with, and the space.
``matching.match_texts`` finds where a walk may start: at those characters, and at tokens that
``may_start_at_token`` lets through. The spaced text is never written out: ``next_symbol`` reads it
from the text.

Many walks over a text like its entries (one character over and over) would take very long. So a
text has a credit of steps; where that is spent, the whole text is run through the Aho-Corasick
automaton that the trie also is, in time proportional to its length.

The tables, a tuple: ``pages`` and ``roots`` (the root's edges by character, in pages of 256),
``edges`` and ``bits`` (the other edges, see ``matching_tables``), ``fails``, ``links`` and ``owns``
(uint32 by node: the automaton's failure, the next node of the failures that is the end of an entry,
and entry id + 1), ``heads`` and ``head_bits`` (what a token must begin with), and ``credit`` (steps
for a text, and more for each walk).
"""

from __future__ import annotations

import numpy as np

from metacurate.kernels.cache import njit
from metacurate.kernels.matching_tables import (
    K2,
    LOW32,
    U0,
    U1,
    U6,
    U16,
    U32,
    U63,
    aligned_zeros,
    edge_filter,
    edge_hash,
    find_edge,
    fit_edges,
    load8,
    may_have_edge,
    with_room,
)

CREDIT = (1024, 16)
"""Steps that a text has for its walks, and that each walk adds."""

AT_TOKEN = U1 << U32
"""The node of the trie after a space, packed."""

_SPACE = np.int64(0x20)
_NOTHING = np.int64(-1)
# A byte that is no UTF-8 is a symbol beyond all characters.
_NO_CHARACTER = np.int64(0x110000)
_PAGE_BITS = 8
_PAGES = (0x110000 + 256 >> _PAGE_BITS) + 1

# What an ASCII character is: a plain one, a break (it becomes a space), or isolated punctuation.
_PLAIN, _BREAK, _ISOLATED = np.uint8(0), np.uint8(1), np.uint8(2)
_KIND = np.zeros(128, dtype=np.uint8)
_KIND[[ord(c) for c in "\t\n\r"]] = _BREAK
_KIND[[ord(c) for c in ",.;:?!`"]] = _ISOLATED

# Where in the three symbols of isolated punctuation (space, itself, space) a walk is.
BEFORE, ITSELF, AFTER = 0, 1, 2

# ``heads`` has a bit for each length of what tokens must begin with, and this one for whole tokens.
_WHOLE = np.uint16(1)
_HEAD_BYTES = 8
_HEAD_MASKS = np.array([2 ** (8 * n) - 1 for n in range(9)], dtype=np.uint64)


@njit(inline="always")
def decode(at, end):
    """The character at an address (below ``end``), and the address of the next one."""
    first = np.int64(load8(at))
    if first < 0x80:
        return first, at + 1
    if first >= 0xE0:
        if first < 0xF0:
            if at + 3 <= end:
                return (
                    (first & 0x0F) << 12
                    | (np.int64(load8(at + 1)) & 0x3F) << 6
                    | (np.int64(load8(at + 2)) & 0x3F),
                    at + 3,
                )
        elif first < 0xF5 and at + 4 <= end:
            return (
                (first & 0x07) << 18
                | (np.int64(load8(at + 1)) & 0x3F) << 12
                | (np.int64(load8(at + 2)) & 0x3F) << 6
                | (np.int64(load8(at + 3)) & 0x3F),
                at + 4,
            )
    elif first >= 0xC2 and at + 2 <= end:
        return (first & 0x1F) << 6 | (np.int64(load8(at + 1)) & 0x3F), at + 2
    return _NO_CHARACTER + (first & 0x7F), at + 1


@njit(inline="always")
def next_symbol(at, phase, end):
    """A symbol of the spaced text, and the address and phase of the next; -1 after the last.

    The last one is the space after the text, at ``end``.
    """
    if at >= end:
        return (_SPACE if at == end else _NOTHING), at + 1, BEFORE
    first = np.int64(load8(at))
    if first >= 0x80:
        symbol, following = decode(at, end)
        return symbol, following, BEFORE
    kind = _KIND[first]
    if kind == _PLAIN:
        return first, at + 1, BEFORE
    if kind == _BREAK or phase == AFTER:
        return _SPACE, at + 1, BEFORE
    if phase == BEFORE:
        return _SPACE, at, ITSELF
    return first, at, AFTER


@njit()
def strip(start, end):
    """The addresses of a text without the white space at its ends, as Python's ``strip``."""
    while start < end:
        character, following = decode(start, end)
        if not _is_white(character):
            break
        start = following
    while start < end:
        last = end - 1
        while last > start and load8(last) & 0xC0 == 0x80:
            last -= 1
        character, following = decode(last, end)
        if following != end or not _is_white(character):
            break
        end = last
    return start, end


@njit(inline="always")
def _is_white(character):
    return (
        character == 0x20
        or 0x09 <= character <= 0x0D
        or 0x1C <= character <= 0x1F
        or character == 0x85
        or character == 0xA0
        or character == 0x1680
        or 0x2000 <= character <= 0x200A
        or character == 0x2028
        or character == 0x2029
        or character == 0x202F
        or character == 0x205F
        or character == 0x3000
    )


@njit(inline="always")
def root_edge(pages, roots, character):
    """The packed edge from the root; zero if there is none."""
    return roots[np.int64(pages[character >> _PAGE_BITS]) << _PAGE_BITS | character & 0xFF]


@njit(inline="always")
def _head_hash(word, length):
    return edge_hash(word ^ np.uint64(length) * K2)


@njit(inline="always")
def _has_head(head_bits, word, length):
    bit = _head_hash(word, length) >> U16
    return head_bits[bit >> U6 & np.uint64(head_bits.size - 1)] >> (bit & U63) & U1 != U0


@njit(inline="always")
def may_start_at_token(heads, head_bits, first, length):
    """Whether an entry may begin with a space and a token (its first 8 bytes, its length)."""
    lengths = heads[first & np.uint64(0xFF)]
    if lengths == 0:
        return False
    if length < _HEAD_BYTES and lengths & _WHOLE and _has_head(head_bits, first, 16 + length):
        return True
    for n in range(1, min(length, _HEAD_BYTES) + 1):
        if lengths >> n & 1 and _has_head(head_bits, first & _HEAD_MASKS[n], n):
            return True
    return False


@njit()
def walk(packed, at, phase, end, edges, bits, hash_mask, credit, found, matches):
    """Walk on from a node as far as the text goes along; returns (credit left, found, matches).

    It stops, with no credit left, where the steps are more than ``credit``.
    """
    while True:
        if packed & LOW32:
            if matches == found.size:
                found, matches = with_room(found, matches, 1)
            found[matches] = np.uint32((packed & LOW32) - U1)
            matches += 1
        if credit <= 0:
            return 0, found, matches
        credit -= 1
        symbol, at, phase = next_symbol(at, phase, end)
        if symbol < 0:
            return credit, found, matches
        key = (packed >> U32) << U32 | np.uint64(symbol + 1)
        if not may_have_edge(bits, edge_hash(key) & hash_mask):
            return credit, found, matches
        edge = find_edge(edges, key, hash_mask) * np.uint64(2)
        if edges[edge] != key:
            return credit, found, matches
        packed = edges[edge + U1]


@njit()
def run_automaton(
    start, end, pages, roots, edges, bits, fails, links, owns, hash_mask, found, matches
):
    """All matches in a text, in time proportional to its length; returns (found, matches)."""
    seen = np.zeros(owns.size // 64 + 1, dtype=np.uint64)
    node = AT_TOKEN >> U32
    at, phase = start, BEFORE
    while True:
        symbol, at, phase = next_symbol(at, phase, end)
        if symbol < 0:
            return found, matches
        while True:
            if node == U0:
                node = root_edge(pages, roots, symbol) >> U32
                break
            key = node << U32 | np.uint64(symbol + 1)
            if may_have_edge(bits, edge_hash(key) & hash_mask):
                edge = find_edge(edges, key, hash_mask) * np.uint64(2)
                if edges[edge] == key:
                    node = edges[edge + U1] >> U32
                    break
            node = np.uint64(fails[node])
        # Those of a node that was seen are all in ``found`` already.
        ended = node if owns[node] else np.uint64(links[node])
        while ended != U0 and not seen[ended >> U6] >> (ended & U63) & U1:
            seen[ended >> U6] |= U1 << (ended & U63)
            if matches == found.size:
                found, matches = with_room(found, matches, 1)
            found[matches] = np.uint32(owns[ended] - 1)
            matches += 1
            ended = np.uint64(links[ended])


@njit()
def _can_occur(data, start, end):
    """Whether an entry is part of any spaced text: punctuation isolated, without breaks."""
    for i in range(start, end):
        if data[i] < 0x80:
            kind = _KIND[data[i]]
            if kind == _BREAK:
                return False
            if kind == _ISOLATED and (
                (i > start and data[i - 1] != _SPACE) or (i + 1 < end and data[i + 1] != _SPACE)
            ):
                return False
    return True


@njit()
def build_wide_tables(data, offsets, ids, lefts, rights, hash_mask, credit):
    """Build the trie of entries as UTF-8 ``data`` (uint8) and ``offsets`` (int64[n+1]).

    ``ids`` (uint32[n]) are theirs; ``lefts`` and ``rights`` (bool[n]) say which sides need a space.
    Returns the tables.
    """
    base = data.ctypes.data
    most_nodes = 2
    for entry in range(offsets.size - 1):
        if _can_occur(data, offsets[entry], offsets[entry + 1]):
            for i in range(offsets[entry], offsets[entry + 1]):
                most_nodes += data[i] & 0xC0 != 0x80
            most_nodes += rights[entry]
    parents = np.zeros(most_nodes, dtype=np.uint32)
    symbols = np.zeros(most_nodes, dtype=np.uint32)
    owns = np.zeros(most_nodes, dtype=np.uint32)
    edges = aligned_zeros(2 * 1024)
    # The root is node 0, the space node 1.
    symbols[1] = _SPACE
    key = np.uint64(_SPACE + 1)
    edge = find_edge(edges, key, hash_mask) * np.uint64(2)
    edges[edge], edges[edge + U1] = key, AT_TOKEN
    nodes = 2
    for entry in range(offsets.size - 1):
        start, end = offsets[entry], offsets[entry + 1]
        if not _can_occur(data, start, end):
            continue
        node = AT_TOKEN >> U32 if lefts[entry] else U0
        at = base + start
        last = base + end + (1 if rights[entry] else 0)
        while at < last:
            if at < base + end:
                symbol, at = decode(at, base + end)
            else:
                symbol, at = _SPACE, at + 1
            key = node << U32 | np.uint64(symbol + 1)
            edge = find_edge(edges, key, hash_mask) * np.uint64(2)
            if edges[edge] == U0:
                if nodes * 3 > edges.size:
                    edges = fit_edges(edges, edges.size // 2, hash_mask)
                    edge = find_edge(edges, key, hash_mask) * np.uint64(2)
                edges[edge], edges[edge + U1] = key, np.uint64(nodes) << U32
                parents[nodes], symbols[nodes] = node, symbol
                nodes += 1
            node = edges[edge + U1] >> U32
        edges[edge + U1] |= np.uint64(ids[entry]) + U1
        owns[node] = ids[entry] + np.uint32(1)
    fails, links = _link(parents[:nodes], symbols[:nodes], owns, edges, hash_mask)
    pages, roots, edges = _part_roots(edges, nodes, hash_mask)
    bits = edge_filter(edges, nodes, hash_mask)
    heads, head_bits = _token_heads(data, offsets, lefts)
    return pages, roots, edges, bits, fails, links, owns[:nodes].copy(), heads, head_bits, credit


@njit()
def _link(parents, symbols, owns, edges, hash_mask):
    """The automaton's failures, and their next nodes that end an entry, shallow nodes first."""
    nodes = parents.size
    depths = np.zeros(nodes, dtype=np.int64)
    for node in range(1, nodes):  # a parent is older than its children
        depths[node] = depths[parents[node]] + 1
    order = np.argsort(depths, kind="mergesort")
    fails = np.zeros(nodes, dtype=np.uint32)
    links = np.zeros(nodes, dtype=np.uint32)
    for place in range(1, nodes):
        node = order[place]
        if depths[node] == 1:
            continue
        shorter = np.uint64(fails[parents[node]])
        while True:
            key = shorter << U32 | np.uint64(symbols[node] + np.uint32(1))
            edge = find_edge(edges, key, hash_mask) * np.uint64(2)
            if edges[edge] == key:
                shorter = edges[edge + U1] >> U32
                break
            if shorter == U0:
                break
            shorter = np.uint64(fails[shorter])
        fails[node] = shorter
        links[node] = shorter if owns[shorter] else links[shorter]
    return fails, links


@njit()
def _part_roots(edges, nodes, hash_mask):
    """The root's edges, by character in pages of 256 (page 0 is empty), and the other edges."""
    pages = np.zeros(_PAGES, dtype=np.uint16)
    used = 1
    inner = 0
    for row in range(edges.size // 2):
        key = edges[2 * row]
        if key != U0 and key >> U32 == U0:
            page = np.int64(key - U1) >> _PAGE_BITS
            if pages[page] == 0:
                pages[page] = used
                used += 1
        inner += key >> U32 != U0
    roots = np.zeros(used << _PAGE_BITS, dtype=np.uint64)
    for row in range(edges.size // 2):
        key = edges[2 * row]
        if key != U0 and key >> U32 == U0:
            character = np.int64(key - U1)
            slot = np.int64(pages[character >> _PAGE_BITS]) << _PAGE_BITS | character & 0xFF
            roots[slot] = edges[2 * row + 1]
            edges[2 * row] = U0
    return pages, roots, fit_edges(edges, inner, hash_mask)


@njit()
def _token_heads(data, offsets, lefts):
    """What a token begins with that an entry begins with after a space, for a quick look."""
    heads = np.zeros(256, dtype=np.uint16)
    words = 64
    while words * 64 < 16 * lefts.size:
        words *= 2
    head_bits = aligned_zeros(words)
    for entry in range(lefts.size):
        start, end = offsets[entry], offsets[entry + 1]
        if not lefts[entry] or not _can_occur(data, start, end):
            continue
        word, length = U0, 0
        while length < _HEAD_BYTES and start + length < end and data[start + length] != _SPACE:
            word |= np.uint64(data[start + length]) << np.uint64(8 * length)
            length += 1
        whole = length < _HEAD_BYTES and start + length < end
        bit = _head_hash(word, 16 + length if whole else length) >> U16
        head_bits[bit >> U6 & np.uint64(words - 1)] |= U1 << (bit & U63)
        heads[word & np.uint64(0xFF)] |= _WHOLE if whole else np.uint16(1 << length)
    return heads, head_bits
