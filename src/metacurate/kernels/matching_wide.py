"""The worldwide rule's part of the matching kernel: a walk over a trie of characters.

Compiled twin of ``curation.matching.reference`` for entries with a side that needs no space: they
may start or end inside a token. Such an entry, with a space on the side that does need one, is a
path of the trie.

The trie is a double array. Characters that entries have are numbered, the most frequent first: a
character's *class*, 0 for all others. A node is the number of a cell; its child by class c is the
cell ``base + c``, if that says that it is its child. So a step reads one place in memory, which is
known as soon as the step before is done. Nodes with several children get their places first, those
with most nodes below them foremost; chains of single children fill what is left, in their order.

An entry can occur only in texts that have the first byte of a wide character at one of its ends:
its *trigger*; and if that is ASCII, then with some bytes before it (or behind it, where the entry
begins with it), its *context*. Texts without any trigger need no walk. The others are written as
classes, with the spaces of the spaced text, and walks begin at all characters that entries begin
with. The walks of many texts are taken on together, a step a round, so that memory arrives in the
meantime.

Many walks over a text like its entries (one character over and over) would take very long. So a
block has a credit of steps; where that is spent, the texts whose walks are not at their ends are
run through the Aho-Corasick automaton that the trie also is, in time proportional to their length.
So are texts longer than ``LONGEST_WALKED``.

The tables, a tuple: ``pages`` (uint16) and ``classes`` (uint32: the class by character, in pages of
256), ``cells`` (uint64: the base, whether it is the end of an entry, the parent's cell), ``ids``
(uint32 by cell: entry id), ``fails`` and ``links`` (uint32 by cell: the automaton's failure, and
the next node of the failures that is the end of an entry), ``triggers`` (uint16 by byte: a bit for
each length of a context that it has, see ``is_trigger``), ``contexts`` (uint64: a bitmap of their
hashes), and ``credit`` (int64[2]: steps for a block, and more for each of its walks).
"""

from __future__ import annotations

import numpy as np

from metacurate.kernels.cache import njit
from metacurate.kernels.intrinsics import load8, prefetch, trailing_zeros
from metacurate.kernels.matching_tables import (
    LOW32,
    U0,
    U1,
    U2,
    U6,
    U8,
    U16,
    U32,
    U63,
    aligned_zeros,
    edge_hash,
    grown,
)

CREDIT = (1024, 16)
"""Steps that a block has for its walks, and that each walk adds."""

LONGEST_WALKED = 16_384
"""Bytes of a text; longer ones are for the automaton."""

BLOCK_BYTES = 4096
"""Beyond so many bytes of texts to walk, no text is added to a block."""

# A cell: base << 33 | whether an entry ends here << 32 | the parent's cell. The root is cell 0, its
# base 0; a base of 0 elsewhere says that there are no children.
_BASE = np.uint64(33)
_ENDS = np.uint64(32)
_FREE = np.uint64(0xFFFFFFFF)
# Words of 64 cells in which a place for a node is sought before it gets one behind all others, and
# those before the place of the last node with so many children. From how many there are "many".
_WORDS_TRIED = 256
_WORDS_BEFORE = 32
_MANY = 64
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)

# Bytes of a context; and of a trigger that needs none.
_CONTEXT = 4
_ALWAYS = np.uint16(1 << 15)

_SPACE = np.int64(0x20)
_NOTHING = np.int64(-1)
# A byte that is no UTF-8 is a symbol beyond all characters.
_NO_CHARACTER = np.int64(0x110000)
_SYMBOLS = 0x110080
_PAGE_BITS = 8
_PAGES = (0x110000 + 256 >> _PAGE_BITS) + 1

# What an ASCII character is: a plain one, a break (it becomes a space), or isolated punctuation.
_PLAIN, _BREAK, _ISOLATED = np.uint8(0), np.uint8(1), np.uint8(2)
_KIND = np.zeros(128, dtype=np.uint8)
_KIND[[ord(c) for c in "\t\n\r"]] = _BREAK
_KIND[[ord(c) for c in ",.;:?!`"]] = _ISOLATED

# Where in the three symbols of isolated punctuation (space, itself, space) the automaton is.
_BEFORE, _ITSELF, _AFTER = 0, 1, 2


@njit(inline="always")
def _decode(at, end):
    """The character at an address (below ``end``), and the address of the next one.

    What is no UTF-8 is taken byte by byte; surrogates and characters written too long pass.
    """
    first = np.int64(load8(at))
    if first < 0x80:
        return first, at + 1
    if first >= 0xE0:
        if first < 0xF0:
            if at + 3 <= end:
                second, third = np.int64(load8(at + 1)), np.int64(load8(at + 2))
                if second & 0xC0 == 0x80 and third & 0xC0 == 0x80:
                    return (first & 0x0F) << 12 | (second & 0x3F) << 6 | (third & 0x3F), at + 3
        elif first < 0xF5 and at + 4 <= end:
            second, third = np.int64(load8(at + 1)), np.int64(load8(at + 2))
            fourth = np.int64(load8(at + 3))
            if second & 0xC0 == 0x80 and third & 0xC0 == 0x80 and fourth & 0xC0 == 0x80:
                character = (
                    (first & 0x07) << 18
                    | (second & 0x3F) << 12
                    | (third & 0x3F) << 6
                    | (fourth & 0x3F)
                )
                if character < _NO_CHARACTER:
                    return character, at + 4
    elif first >= 0xC2 and at + 2 <= end:
        second = np.int64(load8(at + 1))
        if second & 0xC0 == 0x80:
            return (first & 0x1F) << 6 | (second & 0x3F), at + 2
    return _NO_CHARACTER + (first & 0x7F), at + 1


@njit(inline="always")
def _next_symbol(at, phase, end):
    """A symbol of the spaced text, and the address and phase of the next; -1 after the last.

    The last one is the space after the text, at ``end``.
    """
    if at >= end:
        return (_SPACE if at == end else _NOTHING), at + 1, _BEFORE
    first = np.int64(load8(at))
    if first >= 0x80:
        symbol, following = _decode(at, end)
        return symbol, following, _BEFORE
    kind = _KIND[first]
    if kind == _PLAIN:
        return first, at + 1, _BEFORE
    if kind == _BREAK or phase == _AFTER:
        return _SPACE, at + 1, _BEFORE
    if phase == _BEFORE:
        return _SPACE, at, _ITSELF
    return first, at, _AFTER


@njit(inline="always")
def may_strip(start, end):
    """Whether ``strip`` may take something off: not if both ends are printable ASCII."""
    return end > start and not (0x20 < load8(start) < 0x7F and 0x20 < load8(end - 1) < 0x7F)


@njit()
def strip(start, end):
    """The addresses of a text without the white space at its ends, as Python's ``strip``."""
    while start < end:
        character, following = _decode(start, end)
        if not _is_white(character):
            break
        start = following
    while start < end:
        last = end - 1
        while last > start and load8(last) & 0xC0 == 0x80:
            last -= 1
        character, following = _decode(last, end)
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
def _class_of(pages, classes, character):
    return classes[np.int64(pages[character >> _PAGE_BITS]) << _PAGE_BITS | character & 0xFF]


@njit(inline="always")
def is_trigger(triggers, contexts, at, first, last):
    """Whether the byte at an address, in a text from ``first`` to ``last``, may be a trigger."""
    lengths = triggers[load8(at)]
    if lengths == 0:
        return False
    if lengths & _ALWAYS:
        return True
    context = U0
    for n in range(1, min(_CONTEXT, at - first + 1) + 1):
        context = context << U8 | np.uint64(load8(at + 1 - n))
        if lengths >> n & 1 and _has_context(contexts, context):
            return True
    context = U1
    for n in range(1, min(_CONTEXT, last - at) + 1):
        context = context << U8 | np.uint64(load8(at - 1 + n))
        if lengths >> (n + _CONTEXT) & 1 and _has_context(contexts, context):
            return True
    return False


@njit(inline="always")
def _has_context(contexts, context):
    bit = edge_hash(context) >> U16
    return contexts[bit >> U6 & np.uint64(contexts.size - 1)] >> (bit & U63) & U1 != U0


@njit()
def watch_for(triggers):
    """How to look for triggers: whether there are any, whether at most sixteen are ASCII, two words
    of these (with bytes that are in no text), and whether there are others.
    """
    number, leads = 0, False
    words = np.full(2, 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for byte in range(256):
        if triggers[byte] and byte >= 0x80:
            leads = True
        elif triggers[byte]:
            words[number & 1] = words[number & 1] << U8 | np.uint64(byte)
            number += 1
    return number > 0 or leads, number <= 16, words[0], words[1], leads


@njit()
def work_space(texts):
    """Arrays to work in, for blocks of so many texts: what ``match_wide`` calls ``work``."""
    # Isolated punctuation takes three symbols a byte; a text also has two spaces and an end.
    room = 3 * (BLOCK_BYTES + LONGEST_WALKED) + 3 * texts + 1
    symbols = np.empty(room, dtype=np.uint32)
    keys, places = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint64)
    return symbols, keys, places, np.empty(texts, dtype=np.uint8)


@njit()
def match_wide(texts, firsts, lasts, wide, work, pairs, starts):
    """The matches of a block's texts, given by the addresses of their bytes.

    Returns ``pairs`` (perhaps longer): the ids of text ``i`` (not sorted, with repeats) are those
    from ``starts[i]`` up to ``starts[i + 1]``; ``starts`` is int64[texts + 2 at least].
    """
    pages, classes, cells, ids, _, _, _, _, credit = wide
    symbols, keys, places, is_left = work
    count, walks = U0, 0
    for text in range(texts):
        is_left[text] = lasts[text] - firsts[text] > LONGEST_WALKED
        if not is_left[text]:
            first = count
            count = _write(firsts[text], lasts[text], pages, classes, symbols, count)
            walks = _start(symbols, first, count, text, cells, keys, places, walks)
    pairs, found, left = _run_walks(
        walks, keys, places, symbols, cells, credit[0] + walks * credit[1], pairs
    )
    for k in range(left):
        is_left[places[k] & LOW32] = 1
    seen = np.zeros(cells.size // 64 + 1 if np.any(is_left[:texts]) else 0, dtype=np.uint64)
    for text in range(texts):
        if is_left[text]:
            pairs, found = _run_automaton(firsts[text], lasts[text], text, wide, seen, pairs, found)
    _group_by_text(pairs, found, ids, starts, texts)
    return pairs


@njit(inline="always")
def _write(at, end, pages, classes, symbols, count):
    """Write a text's classes after the first ``count``; returns how many there are now.

    A text ends with class 0, at which all walks end.
    """
    space = _class_of(pages, classes, _SPACE)
    symbols[count] = space
    count += U1
    while at < end:
        first = load8(at)
        if first >= 0x80:
            character, at = _decode(at, end)
            symbols[count] = _class_of(pages, classes, character)
        else:
            at += 1
            kind = _KIND[first]
            if kind == _PLAIN:
                symbols[count] = _class_of(pages, classes, np.int64(first))
            else:
                symbols[count] = space
                if kind == _ISOLATED:
                    symbols[count + U1] = _class_of(pages, classes, np.int64(first))
                    symbols[count + U2] = space
                    count += U2
        count += U1
    symbols[count] = space
    symbols[count + U1] = 0
    return count + U2


@njit(inline="always")
def _start(symbols, first, stop, text, cells, keys, places, walks):
    """Add walks for the symbols of a text, after the first ``walks``; returns how many there are.

    A walk is a key (a node's cell << 32, and the cell that the next symbol leads to) and a place
    (where that symbol is << 32, and the number of the text).
    """
    # What cannot be guessed is added up rather than branched on.
    k = np.uint64(walks)
    for i in range(first, stop):
        symbol = np.uint64(symbols[i])
        keys[k] = symbol
        places[k] = i << U32 | np.uint64(text)
        k += np.uint64(cells[symbol] & LOW32 == U0)
    return np.int64(k)


@njit()
def _run_walks(walks, keys, places, symbols, cells, credit, pairs):
    """Take all walks on, a step a round, to their ends, or until the credit of steps is spent.

    Returns (``pairs``, how many, how many walks are not at their ends: the first ones of
    ``places``). A pair is the number of a text << 32 and a cell where an entry ends; they lie in
    the first half of ``pairs``.
    """
    found, count = U0, np.uint64(walks)
    while count:
        credit -= np.int64(count)
        if credit <= 0:
            break
        if found + count > np.uint64(pairs.size // 2):
            pairs = grown(pairs, np.int64(2 * (found + count)))
        alive = U0
        for k in range(count):
            key, place = keys[k], places[k]
            node = key & LOW32
            cell = cells[node]
            here = np.uint64(cell & LOW32 == key >> U32)
            pairs[found] = place << U32 | node
            found += cell >> _ENDS & here
            base = cell >> _BASE
            here &= np.uint64(base != U0)
            place += U1 << U32
            child = base + np.uint64(symbols[place >> U32])
            prefetch(cells, child * here)
            keys[alive] = node << U32 | child
            places[alive] = place
            alive += here
        count = alive
    return pairs, found, np.int64(count)


@njit()
def _group_by_text(pairs, count, ids, starts, texts):
    """Write the entry ids of the first ``count`` pairs, by text, to the second half of ``pairs``.

    ``starts`` then tells where each text's begin, and the last one's end.
    """
    starts[1 : texts + 2] = 0
    for i in range(count):
        starts[(pairs[i] >> U32) + U2] += 1
    starts[0] = pairs.size // 2
    starts[1] = starts[0]
    for text in range(2, texts + 2):
        starts[text] += starts[text - 1]
    for i in range(count):
        following = (pairs[i] >> U32) + U1
        pairs[starts[following]] = np.uint64(ids[pairs[i] & LOW32])
        starts[following] += 1


@njit(inline="always")
def _child(cells, node, symbol):
    """The cell of a node's child; zero if there is none."""
    child = (cells[node] >> _BASE) + np.uint64(symbol)
    return child if cells[child] & LOW32 == node else U0


@njit()
def _run_automaton(start, end, text, wide, seen, pairs, found):
    """All matches in a text as pairs, in time proportional to its length; (``pairs``, how many).

    ``seen`` has a zero bit for each cell, before and after.
    """
    pages, classes, cells, _, fails, links, _, _, _ = wide
    first = found
    node = np.uint64(_class_of(pages, classes, _SPACE))
    at, phase = start, _BEFORE
    while True:
        character, at, phase = _next_symbol(at, phase, end)
        if character < 0:
            for i in range(first, found):
                ended = pairs[i] & LOW32
                seen[ended >> U6] &= ~(U1 << (ended & U63))
            return pairs, found
        symbol = _class_of(pages, classes, character)
        child = _child(cells, node, symbol)
        while child == U0 and node != U0:
            node = np.uint64(fails[node])
            child = _child(cells, node, symbol)
        node = child
        # Those of a node that was seen are all among the pairs already.
        ended = node if cells[node] >> _ENDS & U1 else np.uint64(links[node])
        while ended != U0 and not seen[ended >> U6] >> (ended & U63) & U1:
            seen[ended >> U6] |= U1 << (ended & U63)
            if found == np.uint64(pairs.size // 2):
                pairs = grown(pairs, 2 * pairs.size)
            pairs[found] = np.uint64(text) << U32 | ended
            found += U1
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
def build_wide_tables(data, offsets, ids, credit):
    """Build the trie of sided entries as UTF-8 ``data`` (uint8) and ``offsets`` (int64[n+1]).

    They have their spaces and are sorted by their bytes; ``ids`` (uint32[n]) are the entries'.
    Returns the tables.
    """
    parents, symbols, owns = _sorted_trie(data, offsets, ids)
    nodes = parents.size
    pages, classes, symbols, number = _classes(symbols)
    bases, size = _place(parents, symbols, number)
    # The cells' numbers take the place of the symbols, parents first.
    for node in range(1, nodes):
        symbols[node] += bases[parents[node]]
    cells = aligned_zeros(size)
    cells[:] = _FREE
    entry_ids = np.zeros(size, dtype=np.uint32)
    for node in range(1, nodes):
        cell = symbols[node]
        cells[cell] = np.uint64(bases[node]) << _BASE | np.uint64(symbols[parents[node]])
        if owns[node]:
            cells[cell] |= U1 << _ENDS
            entry_ids[cell] = owns[node] - np.uint32(1)
    fails, links = _link(parents, symbols, bases, cells)
    triggers, contexts = _triggers(data, offsets)
    return pages, classes, cells, entry_ids, fails, links, triggers, contexts, credit


@njit()
def _classes(symbols):
    """The tables of classes, each node's class (int64; the root's is 0), and how many there are."""
    frequency = np.zeros(_SYMBOLS, dtype=np.int64)
    for node in range(1, symbols.size):
        frequency[symbols[node]] += 1
    used = np.flatnonzero(frequency)
    order = np.argsort(-frequency[used], kind="mergesort")
    pages = np.zeros(_PAGES, dtype=np.uint16)
    last = 0
    for symbol in used:
        if pages[symbol >> _PAGE_BITS] == 0:
            last += 1
            pages[symbol >> _PAGE_BITS] = last
    classes = np.zeros(last + 1 << _PAGE_BITS, dtype=np.uint32)
    for number in range(used.size):
        symbol = used[order[number]]
        at = np.int64(pages[symbol >> _PAGE_BITS]) << _PAGE_BITS | symbol & 0xFF
        classes[at] = number + 1
        frequency[symbol] = number + 1
    numbers = np.zeros(symbols.size, dtype=np.int64)
    for node in range(1, symbols.size):
        numbers[node] = frequency[symbols[node]]
    return pages, classes, numbers, used.size


@njit()
def _place(parents, symbols, number):
    """Each node's base (int64; 0 without children), such that no two nodes get one cell.

    ``symbols`` are the nodes' classes, of which there are ``number``. Returns (bases, cells).
    """
    nodes = parents.size
    # The children of each node, one node's together; the nodes below it, itself among them.
    firsts = np.zeros(nodes + 2, dtype=np.int64)
    sizes = np.ones(nodes, dtype=np.int64)
    for node in range(nodes - 1, 0, -1):  # in preorder a parent comes before its children
        firsts[parents[node] + 2] += 1
        sizes[parents[node]] += sizes[node]
    for node in range(2, nodes + 2):
        firsts[node] += firsts[node - 1]
    children = np.empty(nodes, dtype=np.int64)
    for node in range(1, nodes):
        children[firsts[parents[node] + 1]] = symbols[node]
        firsts[parents[node] + 1] += 1
    bases = np.zeros(nodes, dtype=np.int64)
    used = np.zeros((nodes + number) // 64 + 2 * _WORDS_TRIED, dtype=np.uint64)
    used[0] = U1
    top = 0
    for i in range(firsts[1]):
        top = max(top, _use(used, children[i]))
    branching = np.flatnonzero(np.diff(firsts[: nodes + 1]) > 1)
    order = np.argsort(-sizes[branching], kind="mergesort")
    # Where the last search for so many children ended: hardly anything is free much before.
    lows = np.zeros(_MANY + 1, dtype=np.int64)
    for k in range(branching.size):
        node = branching[order[k]]
        if node == 0:
            continue
        own = children[firsts[node] : firsts[node + 1]]
        many = min(own.size, _MANY)
        base = _find_base(used, own, lows[many], top)
        lows[many] = max(lows[many], (base >> 6) - _WORDS_BEFORE)
        bases[node] = base
        if base + number + 64 * 4 > 64 * used.size:
            used = _more_zeros(used, 2 * used.size + number // 64)
        for symbol in own:
            top = max(top, _use(used, base + symbol))
    cell = number + 1
    for node in range(1, nodes):
        if firsts[node + 1] - firsts[node] == 1:
            if cell // 64 + 2 > used.size:
                used = _more_zeros(used, 2 * used.size)
            while used[cell >> 6] >> (np.uint64(cell) & U63) & U1:
                free = ~used[cell >> 6] >> (np.uint64(cell) & U63)
                if free == U0:
                    cell = (cell >> 6) + 1 << 6
                    if cell // 64 + 2 > used.size:
                        used = _more_zeros(used, 2 * used.size)
                else:
                    cell += np.int64(trailing_zeros(free))
            bases[node] = cell - children[firsts[node]]
            cell += 1
    return bases, np.max(bases) + number + 1


@njit(inline="always")
def _use(used, cell):
    """Mark a cell as used; its word."""
    used[cell >> 6] |= U1 << (np.uint64(cell) & U63)
    return cell >> 6


@njit()
def _more_zeros(words, size):
    longer = np.zeros(size, dtype=np.uint64)
    longer[: words.size] = words
    return longer


@njit()
def _find_base(used, symbols, low, top):
    """The first base whose cells for these classes are free, of 64 at a time.

    It is sought from the word ``low`` on; after some, behind ``top``, the last word that is used.
    """
    word, tried = low, 0
    while True:
        taken = U1 if word == 0 else U0  # a base of 0 says that there are no children
        for symbol in symbols:
            at = word + (symbol >> 6)
            if at > top:
                continue
            shift = np.uint64(symbol) & U63
            taken |= used[at] >> shift
            if shift:
                taken |= used[at + 1] << (np.uint64(64) - shift)
            if taken == _ALL:
                break
        if taken != _ALL:
            return (word << 6) + np.int64(trailing_zeros(~taken))
        tried += 1
        word = word + 1 if tried < _WORDS_TRIED else max(word, top) + 1


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
    path = np.zeros(longest + 2, dtype=np.int64)  # the space is there without any entry
    path[1] = 1
    nodes, depth = 2, 1
    for entry in range(offsets.size - 1):
        start, end = offsets[entry], offsets[entry + 1]
        if not _can_occur(data, start, end):
            continue
        at, shared = base + start, 0
        while at < base + end:
            symbol, following = _decode(at, base + end)
            if shared == depth or symbols[path[shared + 1]] != symbol:
                break
            shared += 1
            at = following
        depth = shared
        while at < base + end:
            symbol, at = _decode(at, base + end)
            parents[nodes], symbols[nodes] = path[depth], symbol
            depth += 1
            path[depth] = nodes
            nodes += 1
        owns[path[depth]] = ids[entry] + np.uint32(1)
    return parents[:nodes].copy(), symbols[:nodes].copy(), owns[:nodes].copy()


@njit()
def _link(parents, numbers, bases, cells):
    """The automaton's failures, and their next nodes that end an entry, shallow nodes first.

    ``numbers`` are the nodes' cells.
    """
    nodes = parents.size
    depths = np.zeros(nodes, dtype=np.int64)
    for node in range(1, nodes):
        depths[node] = depths[parents[node]] + 1
    order = np.argsort(depths, kind="mergesort")
    fails = np.zeros(cells.size, dtype=np.uint32)
    links = np.zeros(cells.size, dtype=np.uint32)
    for place in range(1, nodes):
        node = order[place]
        if depths[node] == 1:
            continue
        symbol = numbers[node] - bases[parents[node]]
        shorter = np.uint64(fails[numbers[parents[node]]])
        found = _child(cells, shorter, symbol)
        while found == U0 and shorter != U0:
            shorter = np.uint64(fails[shorter])
            found = _child(cells, shorter, symbol)
        fails[numbers[node]] = found
        links[numbers[node]] = found if cells[found] >> _ENDS & U1 else np.uint64(links[found])
    return fails, links


@njit()
def _triggers(data, offsets):
    """The triggers of all entries that can occur, and their contexts: see ``is_trigger``.

    A context is the bytes from the trigger on, away from the end of the entry, as far as they
    are side by side in texts too: up to a space. (Isolated punctuation is between spaces.)
    """
    triggers = np.zeros(256, dtype=np.uint16)
    words = 8
    while words * 64 < 16 * offsets.size:
        words *= 2
    contexts = aligned_zeros(words)
    for entry in range(offsets.size - 1):
        start, end = offsets[entry], offsets[entry + 1]
        if not _can_occur(data, start, end):
            continue
        at, way, context, base = end - 1, -1, U0, 0
        while data[at] & 0xC0 == 0x80:
            at -= 1
        if data[at] == _SPACE:
            at, way, context, base = start, 1, U1, _CONTEXT
        trigger = data[at]
        if trigger >= 0x80:
            triggers[trigger] |= _ALWAYS
            continue
        length = 0
        while start <= at < end and length < _CONTEXT:
            if data[at] == _SPACE:
                break
            context = context << U8 | np.uint64(data[at])
            length += 1
            at += way
        triggers[trigger] |= np.uint16(1 << (base + length))
        bit = edge_hash(context) >> U16
        contexts[bit >> U6 & np.uint64(words - 1)] |= U1 << (bit & U63)
    return triggers, contexts
