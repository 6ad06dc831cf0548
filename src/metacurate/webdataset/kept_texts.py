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
from typing import IO, Self

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

NO_TEXT, BROKEN = "no_text", f"broken_{KEPT_NAME}"
# Lists of earlier texts, item by item: they do not fit others.
OUTDATED = (KEPT_NAME, "matched")


@dataclass(frozen=True)
class Kept:
    """The texts of a sample that its row keeps."""

    texts: tuple[Text, ...]

    def to_bytes(self) -> bytes:
        """For :meth:`from_bytes`."""
        return json.dumps([[t.text, t.source, t.lang] for t in self.texts]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What :meth:`to_bytes` gave."""
        return cls(tuple(Text(*values) for values in json.loads(content)))

    @classmethod
    def joined(cls, rows: Sequence[Self]) -> Self:
        """The texts that any of the rows keeps."""
        return cls(tuple({t.text: t for row in rows for t in row.texts}.values()))


def kept_texts(rows: pa.RecordBatch) -> Iterator[Kept | str | None]:
    """Of each row what it keeps, or why it is none; None if the pool does not say.

    Those of ``texts`` whose ``text_kept`` is true; all of them if there is no such column.
    """
    if TEXTS_NAME not in rows.schema.names:
        yield from [None] * rows.num_rows
        return
    flags = rows[KEPT_NAME] if KEPT_NAME in rows.schema.names else None
    for i, value in enumerate(rows[TEXTS_NAME]):
        texts = sample_texts({TEXTS_NAME: value.as_py()}, None, Counter(), (TEXTS_NAME,))
        kept = [True] * len(texts) if flags is None else flags[i].as_py()
        if not isinstance(kept, list) or len(kept) != len(texts):
            yield BROKEN
            continue
        chosen = [text for text, keep in zip(texts, kept, strict=True) if keep and text.text]
        yield Kept.joined([Kept(tuple(chosen))]) if chosen else NO_TEXT


def with_texts(
    file: IO[bytes], key: str, members: Sequence[Member], kept: Kept | None
) -> list[Member | bytes]:
    """The files of a sample's tar that make it one with the kept texts, in order.

    Members are to be copied; bytes are new ones, headers included. All are members if the sample
    has just these texts, or if they are not known.
    """
    if kept is None:
        return list(members)
    problems: Counter[str] = Counter()
    record = read_record(_read(file, members, "json", MAX_JSON_BYTES), problems)
    text = decode_text(_read(file, members, "txt", MAX_TEXT_BYTES), problems)
    own = {found.text for found in sample_texts(record, text, problems) if found.text}
    texts = {found.text: found for found in kept.texts}
    if own == set(texts) and not any(name in record for name in OUTDATED):
        return list(members)
    lists = {TEXTS_NAME: [vars(found) for found in kept.texts]}
    record = {name: value for name, value in record.items() if name not in OUTDATED} | lists
    # Lone surrogates, which JSON may spell out, stay spelt out.
    content = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace")
    files: list[Member | bytes] = []
    for member in members:
        if member.extension == "json":
            files.append(_file(f"{key}.json", content))
        elif member.extension == "txt" and text not in texts:
            files.append(_file(f"{key}.txt", (kept.texts[0].text or "").encode()))
        else:
            files.append(member)
    if not any(member.extension == "json" for member in members):
        files.append(_file(f"{key}.json", content))
    return files


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
