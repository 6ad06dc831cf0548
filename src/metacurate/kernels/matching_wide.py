"""The worldwide rule's part of the matching kernel: a walk over a trie of characters.

Compiled twin of ``curation.matching.reference`` for entries with a side that needs no space: they
may start or end inside a token. Such an entry, with a space on the side that does need one, is a
path of the trie: its root's edges are the wide characters that entries begin with, and the space.
``matching.match_texts`` finds where a walk may start: at those characters, and at tokens that
``may_start_at_token`` lets through. The spaced text is never written out: ``next_symbol`` reads it
from the text.

A node's heavy child, the one with most nodes below it, is the next node, so most of a walk reads
memory in its order; the other edges (fewer than there are entries) are in a hash table.

Many walks over a text like its entries (one character over and over) would take very long. So a
text has a credit of steps; where that is spent, the whole text is run through the Aho-Corasick
automaton that the trie also is, in time proportional to its length.

The tables, a tuple: ``pages`` (uint16) and ``roots`` (uint32: the root's child by character, in
pages of 256), ``steps`` (uint64 by node: entry id + 1 << 32, whether there are other children than
the heavy one, and, of a heavy child, its character + 1), ``edges`` and ``bits`` (the edges to those
others, see ``matching_tables``: entry id + 1 << 32, and the node), ``fails`` and ``links`` (uint32
by node: the automaton's failure, and the next node of the failures that is the end of an entry),
``heads`` and ``head_bits`` (what an entry begins with, see ``may_start_at_token``), and ``credit``
(int64[2]: steps for a text, and more for each walk).
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
    filter_word,
    find_edge,
    load8,
    may_have_edge,
    prefetch,
    with_room,
)

CREDIT = (1024, 16)
"""Steps that a text has for its walks, and that each walk adds."""

AT_TOKEN = U1
"""The node of the trie after a space."""

# In ``steps``.
_CHARACTER = np.uint64(0x1FFFFF)
_BRANCHES = np.uint64(1 << 31)

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

# ``heads`` has, by the first byte, a bit for each length of what tokens must begin with, this one
# for whole tokens, and one for characters that entries begin with inside a token.
_WHOLE = np.uint16(1)
INSIDE = np.uint16(1 << 15)
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


@njit(inline="always")
def may_strip(start, end):
    """Whether ``strip`` may take something off: not if both ends are printable ASCII."""
    return end > start and not (0x20 < load8(start) < 0x7F and 0x20 < load8(end - 1) < 0x7F)


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
def root_child(pages, roots, character):
    """The node that a character leads to from the root; zero if there is none."""
    return roots[np.int64(pages[character >> _PAGE_BITS]) << _PAGE_BITS | character & 0xFF]


@njit(inline="always")
def _head_hash(word, length):
    return edge_hash(word ^ np.uint64(length) * K2)


@njit(inline="always")
def _has_head(head_bits, word, length):
    bit = _head_hash(word, length) >> U16
    return head_bits[bit >> U6 & np.uint64(head_bits.size - 1)] >> (bit & U63) & U1 != U0


@njit()
def has_inside(heads):
    """Whether any entry begins inside a token."""
    for i in range(256):
        if heads[i] & INSIDE:
            return True
    return False


@njit(inline="always")
def may_start_at_token(heads, head_bits, first, length):
    """Whether an entry may begin with a space and a token (its first 8 bytes, its length)."""
    lengths = heads[first & np.uint64(0xFF)] & ~INSIDE
    if lengths == 0:
        return False
    if length < _HEAD_BYTES and lengths & _WHOLE and _has_head(head_bits, first, 16 + length):
        return True
    for n in range(1, min(length, _HEAD_BYTES) + 1):
        if lengths >> n & 1 and _has_head(head_bits, first & _HEAD_MASKS[n], n):
            return True
    return False


@njit(inline="always")
def _child(node, symbol, steps, edges, bits, hash_mask):
    """The node that a symbol leads to from a node other than the root; zero if there is none."""
    label = np.uint64(symbol + 1)
    if steps[node + U1] & _CHARACTER == label:
        return node + U1
    if steps[node] & _BRANCHES:
        key = node << U32 | label
        if may_have_edge(bits, edge_hash(key) & hash_mask):
            edge = find_edge(edges, key, hash_mask) * np.uint64(2)
            if edges[edge] == key:
                return edges[edge + U1] & LOW32
    return U0


@njit()
def run_walks(
    count, end, nodes, places, keys, steps, edges, bits, hash_mask, credit, found, matches
):
    """Take ``count`` walks on, as far as the text goes along, each a step a round.

    A walk is a node and a place in the text (address * 4 + phase). Memory that all of them need is
    asked for before the first of them uses it. Returns (credit left, found, matches); there is none
    left if the walks would have taken more steps than it was.
    """
    # What cannot be guessed is added up rather than branched on.
    if matches + count > found.size:
        found, matches = with_room(found, matches, count)
    for k in range(count):
        own = steps[nodes[k]] >> U32
        found[matches] = np.uint32(own - U1)
        matches += own != U0
    last_row = np.uint64(edges.size // 2 - 1)
    while count:
        credit -= count
        if credit <= 0:
            return 0, found, matches
        if matches + count > found.size:
            found, matches = with_room(found, matches, count)
        alive = 0
        for k in range(count):
            symbol, at, phase = next_symbol(places[k] >> 2, places[k] & 3, end)
            if symbol >= 0:
                node = nodes[k]
                key = node << U32 | np.uint64(symbol + 1)
                prefetch(steps, node + U1)
                if steps[node] & _BRANCHES:
                    key_hash = edge_hash(key) & hash_mask
                    prefetch(bits, filter_word(bits, key_hash))
                    prefetch(edges, (key_hash & last_row) * np.uint64(2))
                nodes[alive], keys[alive], places[alive] = node, key, at << 2 | phase
                alive += 1
        count, alive = alive, 0
        for k in range(count):
            node, key = nodes[k], keys[k]
            packed = steps[node + U1]
            if packed & _CHARACTER == key & LOW32:
                node += U1
            else:
                if not steps[node] & _BRANCHES:
                    continue
                if not may_have_edge(bits, edge_hash(key) & hash_mask):
                    continue
                edge = find_edge(edges, key, hash_mask) * np.uint64(2)
                if edges[edge] != key:
                    continue
                packed = edges[edge + U1]
                node = packed & LOW32
                prefetch(steps, node)
            own = packed >> U32
            found[matches] = np.uint32(own - U1)
            matches += own != U0
            nodes[alive], places[alive] = node, places[k]
            alive += 1
        count = alive
    return credit, found, matches


@njit()
def run_automaton(
    start, end, pages, roots, steps, edges, bits, fails, links, hash_mask, found, matches
):
    """All matches in a text, in time proportional to its length; returns (found, matches)."""
    seen = np.zeros(steps.size // 64 + 1, dtype=np.uint64)
    node = AT_TOKEN
    at, phase = start, BEFORE
    while True:
        symbol, at, phase = next_symbol(at, phase, end)
        if symbol < 0:
            return found, matches
        while node != U0:
            child = _child(node, symbol, steps, edges, bits, hash_mask)
            if child != U0:
                node = child
                break
            node = np.uint64(fails[node])
        else:
            node = np.uint64(root_child(pages, roots, symbol))
        # Those of a node that was seen are all in ``found`` already.
        ended = node if steps[node] >> U32 else np.uint64(links[node])
        while ended != U0 and not seen[ended >> U6] >> (ended & U63) & U1:
            seen[ended >> U6] |= U1 << (ended & U63)
            if matches == found.size:
                found, matches = with_room(found, matches, 1)
            found[matches] = np.uint32((steps[ended] >> U32) - U1)
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
def build_wide_tables(data, offsets, ids, hash_mask, credit):
    """Build the trie of sided entries as UTF-8 ``data`` (uint8) and ``offsets`` (int64[n+1]).

    They have their spaces and are sorted by their bytes; ``ids`` (uint32[n]) are the entries'.
    Returns the tables.
    """
    parents, symbols, owns = _sorted_trie(data, offsets, ids)
    nodes = parents.size
    # The nodes below each node, itself among them; its heavy child; its number of children.
    sizes = np.ones(nodes, dtype=np.int64)
    heavy = np.zeros(nodes, dtype=np.int64)
    children = np.zeros(nodes, dtype=np.int64)
    for node in range(nodes - 1, 0, -1):  # in preorder a parent comes before its children
        parent = parents[node]
        sizes[parent] += sizes[node]
        children[parent] += 1
        if parent and (heavy[parent] == 0 or sizes[node] >= sizes[heavy[parent]]):
            heavy[parent] = node
    # Heavy children follow their parents. The root and the space keep their numbers.
    numbers = np.zeros(nodes, dtype=np.int64)
    count = 1
    for node in range(1, nodes):
        if heavy[parents[node]] != node:
            follower = node
            while follower:
                numbers[follower] = count
                count += 1
                follower = heavy[follower]
    steps = np.zeros(nodes + 1, dtype=np.uint64)
    pages = np.zeros(_PAGES, dtype=np.uint16)
    used, light = 1, 0
    for node in range(1, nodes):
        step = np.uint64(owns[node]) << U32
        if heavy[parents[node]] == node:
            step |= np.uint64(symbols[node] + 1)
        elif parents[node]:
            light += 1
        elif pages[symbols[node] >> _PAGE_BITS] == 0:
            pages[symbols[node] >> _PAGE_BITS] = used
            used += 1
        if children[node] > 1:
            step |= _BRANCHES
        steps[numbers[node]] = step
    roots = np.zeros(used << _PAGE_BITS, dtype=np.uint32)
    rows = 16
    while rows * 2 < light * 3:
        rows *= 2
    edges = aligned_zeros(2 * rows)
    for node in range(1, nodes):
        parent = parents[node]
        if parent == 0:
            slot = np.int64(pages[symbols[node] >> _PAGE_BITS]) << _PAGE_BITS | symbols[node] & 0xFF
            roots[slot] = numbers[node]
        elif heavy[parent] != node:
            key = np.uint64(numbers[parent]) << U32 | np.uint64(symbols[node] + 1)
            edge = find_edge(edges, key, hash_mask) * np.uint64(2)
            edges[edge] = key
            edges[edge + U1] = np.uint64(owns[node]) << U32 | np.uint64(numbers[node])
    bits = edge_filter(edges, light, hash_mask)
    fails, links = _link(parents, symbols, numbers, pages, roots, steps, edges, bits, hash_mask)
    heads, head_bits = _token_heads(data, offsets)
    return pages, roots, steps, edges, bits, fails, links, heads, head_bits, credit


@njit()
def _sorted_trie(data, offsets, ids):
    """The trie's nodes in preorder: parent, symbol, and entry id + 1 (int64, int64, uint32)."""
    base = data.ctypes.data
    nodes, longest = 2, 0
    for entry in range(offsets.size - 1):
        longest = max(longest, offsets[entry + 1] - offsets[entry])
        for i in range(offsets[entry], offsets[entry + 1]):
            nodes += data[i] & 0xC0 != 0x80
    parents = np.zeros(nodes, dtype=np.int64)
    symbols = np.zeros(nodes, dtype=np.int64)
    owns = np.zeros(nodes, dtype=np.uint32)
    # The root is node 0, the space node 1; entries that start with it come first but for those
    # with control characters, which are never wide and so start with the space too.
    symbols[1] = _SPACE
    path = np.zeros(longest + 1, dtype=np.int64)
    path[1] = 1
    nodes, depth = 2, 1
    for entry in range(offsets.size - 1):
        start, end = offsets[entry], offsets[entry + 1]
        if not _can_occur(data, start, end):
            continue
        at, shared = base + start, 0
        while at < base + end:
            symbol, following = decode(at, base + end)
            if shared == depth or symbols[path[shared + 1]] != symbol:
                break
            shared += 1
            at = following
        depth = shared
        while at < base + end:
            symbol, at = decode(at, base + end)
            parents[nodes], symbols[nodes] = path[depth], symbol
            depth += 1
            path[depth] = nodes
            nodes += 1
        owns[path[depth]] = ids[entry] + np.uint32(1)
    return parents[:nodes].copy(), symbols[:nodes].copy(), owns[:nodes].copy()


@njit()
def _link(parents, symbols, numbers, pages, roots, steps, edges, bits, hash_mask):
    """The automaton's failures, and their next nodes that end an entry, shallow nodes first."""
    nodes = parents.size
    depths = np.zeros(nodes, dtype=np.int64)
    for node in range(1, nodes):
        depths[node] = depths[parents[node]] + 1
    order = np.argsort(depths, kind="mergesort")
    fails = np.zeros(nodes, dtype=np.uint32)
    links = np.zeros(nodes, dtype=np.uint32)
    for place in range(1, nodes):
        node = order[place]
        if depths[node] == 1:
            continue
        shorter = np.uint64(fails[numbers[parents[node]]])
        found = U0
        while shorter != U0:
            found = _child(shorter, symbols[node], steps, edges, bits, hash_mask)
            if found != U0:
                break
            shorter = np.uint64(fails[shorter])
        else:
            found = np.uint64(root_child(pages, roots, symbols[node]))
        fails[numbers[node]] = found
        links[numbers[node]] = found if steps[found] >> U32 else np.uint64(links[found])
    return fails, links


@njit()
def _token_heads(data, offsets):
    """What a token begins with that an entry begins with after a space, for a quick look."""
    heads = np.zeros(256, dtype=np.uint16)
    words = 64
    while words * 64 < 16 * offsets.size:
        words *= 2
    head_bits = aligned_zeros(words)
    for entry in range(offsets.size - 1):
        start, end = offsets[entry], offsets[entry + 1]
        if not _can_occur(data, start, end):
            continue
        if data[start] != _SPACE:
            heads[data[start]] |= INSIDE
            continue
        start += 1
        word, length = U0, 0
        while length < _HEAD_BYTES and start + length < end and data[start + length] != _SPACE:
            word |= np.uint64(data[start + length]) << np.uint64(8 * length)
            length += 1
        whole = length < _HEAD_BYTES and start + length < end
        bit = _head_hash(word, 16 + length if whole else length) >> U16
        head_bits[bit >> U6 & np.uint64(words - 1)] |= U1 << (bit & U63)
        heads[word & np.uint64(0xFF)] |= _WHOLE if whole else np.uint16(1 << length)
    return heads, head_bits
