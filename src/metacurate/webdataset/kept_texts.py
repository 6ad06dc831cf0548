"""The texts that a curated pool keeps of a sample, and the sample's files with just those.

What training reads from a tar is what its ``KEY.json`` and ``KEY.txt`` hold (``facts``): of texts
that curation rejected, or that deduplication took out, none may be left there.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

import pyarrow as pa

from metacurate.pool.columns import TEXTS_NAME
from metacurate.webdataset.facts import (
    KEPT_NAME,
    MAX_JSON_BYTES,
    MAX_TEXT_BYTES,
    Text,
    decode_text,
    read_record,
    sample_texts,
)
from metacurate.webdataset.headers import Member, padded
from metacurate.webdataset.reasons import NotCopied

MATCHED_NAME = "matched"


@dataclass(frozen=True)
class Kept:
    """The texts of a sample that its row keeps.

    ``curated``: whether curation has chosen them; ``matched``: the ids of the entries that each of
    them matches, if the row says.
    """

    texts: tuple[Text, ...]
    curated: bool
    matched: tuple[tuple[int, ...], ...] | None

    def to_bytes(self) -> bytes:
        """For ``from_bytes``."""
        texts = [[t.text, t.source, t.lang] for t in self.texts]
        return json.dumps([texts, self.curated, self.matched]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What ``to_bytes`` gave."""
        texts, curated, matched = json.loads(content)
        return cls(tuple(Text(*values) for values in texts), curated, matched)

    @classmethod
    def joined(cls, rows: Sequence[Self]) -> Self:
        """The texts that any of the rows keeps, each once."""
        first: dict[str | None, tuple[Text, Any]] = {}
        for row in rows:
            for text, ids in zip(row.texts, row.matched or [None] * len(row.texts), strict=True):
                first.setdefault(text.text, (text, ids))
        texts, matched = zip(*first.values(), strict=True)
        known = all(ids is not None for ids in matched)
        return cls(texts, any(row.curated for row in rows), matched if known else None)


def kept_texts(rows: pa.RecordBatch) -> Iterator[Kept | NotCopied | None]:
    """Of each row what it keeps, or why it is none; None if the pool does not say.

    Those of ``texts`` whose ``text_kept`` is true; all of them if there is no such column.
    """
    if TEXTS_NAME not in rows.schema.names:
        yield from [None] * rows.num_rows
        return
    flags = rows[KEPT_NAME] if KEPT_NAME in rows.schema.names else None
    ids = rows[MATCHED_NAME] if MATCHED_NAME in rows.schema.names else None
    for i, value in enumerate(rows[TEXTS_NAME]):
        texts = sample_texts({TEXTS_NAME: value.as_py()}, None, Counter(), (TEXTS_NAME,))
        kept = [True] * len(texts) if flags is None else flags[i].as_py()
        if not isinstance(kept, list) or len(kept) != len(texts):
            yield NotCopied.BROKEN_TEXT_KEPT
            continue
        chosen = [n for n, keep in enumerate(kept) if keep and texts[n].text]
        if not chosen:
            yield NotCopied.NO_TEXT
            continue
        matched = None if ids is None else ids[i].as_py()
        if not isinstance(matched, list) or len(matched) != len(texts):
            matched = None
        found = Kept(
            tuple(texts[n] for n in chosen),
            flags is not None,
            None if matched is None else tuple(tuple(matched[n] or ()) for n in chosen),
        )
        yield Kept.joined([found])


@dataclass(frozen=True)
class Files:
    """A sample's files in order: members to be copied, and the bytes of new ones, headers included.

    ``changed``: whether the sample has other texts than before.
    """

    parts: list[Member | bytes]
    changed: bool = False


def with_texts(file: IO[bytes], key: str, members: Sequence[Member], kept: Kept | None) -> Files:
    """The files of a tar's sample with the kept texts, and with no others.

    The JSON has them as ``texts``, and what curation says of them as tars of ``pool download`` do.
    ``KEY.txt`` gets the first one if it holds none of them. All are copied if the texts are not
    known, or if the sample has just these and no curation has chosen.
    """
    if kept is None:
        return Files(list(members))
    problems: Counter[str] = Counter()
    record = read_record(_read(file, members, "json", MAX_JSON_BYTES), problems)
    text = decode_text(_read(file, members, "txt", MAX_TEXT_BYTES), problems)
    own = {found.text for found in sample_texts(record, text, problems) if found.text}
    texts = {found.text for found in kept.texts}
    outdated = {KEPT_NAME, MATCHED_NAME} & record.keys()
    if own == texts and not (kept.curated or outdated):
        return Files(list(members))
    # Lists of other texts, item by item, do not fit these.
    record = {name: value for name, value in record.items() if name not in outdated}
    record[TEXTS_NAME] = [vars(found) for found in kept.texts]
    if kept.curated:
        record[KEPT_NAME] = [True] * len(kept.texts)
        if kept.matched is not None:
            record[MATCHED_NAME] = kept.matched
    # Lone surrogates, which JSON may spell out, stay spelt out.
    content = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace")
    parts: list[Member | bytes] = []
    for member in members:
        if member.extension == "json":
            parts.append(_file(f"{key}.json", content))
        elif member.extension == "txt" and text not in texts:
            parts.append(_file(f"{key}.txt", (kept.texts[0].text or "").encode()))
        else:
            parts.append(member)
    if not any(member.extension == "json" for member in members):
        parts.append(_file(f"{key}.json", content))
    return Files(parts, own != texts)


def _read(file: IO[bytes], members: Sequence[Member], extension: str, limit: int) -> bytes | None:
    member = next((m for m in members if m.extension == extension), None)
    if member is None:
        return None
    file.seek(member.data_offset)
    return file.read(min(member.size, limit + 1))


def _file(name: str, content: bytes) -> bytes:
    """A member of a tar, without times or owners."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.PAX_FORMAT) + content.ljust(padded(len(content)), b"\0")
