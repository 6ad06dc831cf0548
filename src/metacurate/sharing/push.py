"""Uploading what a finished run has for others to Hugging Face's hub, and nothing else of it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict

from metacurate.curation.layout import (
    BALANCE,
    CROISSANT_FILE,
    DATACARD_FILE,
    DISTRIBUTION,
    DISTRIBUTION_FOLDER,
    MATCH,
    METADATA_FILE,
    README,
    README_FILE,
    finished_section,
)
from metacurate.errors import ArgumentError, UserError
from metacurate.needs import needs
from metacurate.runtime.manifest import Stage, kept_files, read_manifest
from metacurate.runtime.run import Run, open_run
from metacurate.runtime.scratch import scratch_folder
from metacurate.runtime.storage import Folder, is_local, local_path, storage_failure
from metacurate.sharing.card import MARK_START, MAX_CARD_BYTES, without_pool
from metacurate.sharing.config import CardConfig
from metacurate.sharing.facts import plot_files
from metacurate.version import __version__

# What an earlier upload may have left there: files of these names that are not of this run.
_PAIRS = re.compile(r"curated/part-\d{6,}\.parquet")
_OWN = re.compile(_PAIRS.pattern + r"|report/[a-z]+\.png")


class PushTotals(TypedDict):
    """``files``: what is sent, by its name there, with its bytes; ``removed``: files of an earlier
    upload that this run has no more; ``url``: of the commit, None if nothing was sent.
    """

    repo: str
    files: dict[str, int]
    removed: list[str]
    url: str | None


def push(
    run: str | PathLike[str],
    repo: str | None = None,
    *,
    distribution_only: bool = False,
    private: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
) -> PushTotals:
    """Upload a finished run to a data set on Hugging Face's hub, in one commit (extra ``hf``).

    Sent are the card and the Croissant description, the kept pairs, the entries, the plots, and the
    data card without the names of the pool's files; not the index, and not the report, which shows
    texts. The data set is made if there is none. The token is that of ``hf auth login``, or
    ``HF_TOKEN``.

    Args:
        run: The output folder of ``curate``, on this machine.
        repo: The data set, as ``USER/NAME``; the one that its card names, if not given.
        distribution_only: Send ``run/distribution`` (see ``write_card``), nothing of the pairs.
        private: Whether a data set that is made is private.
        dry_run: Send nothing, and ask nobody: only list what would be sent.
        overwrite: Whether a card there that this program did not write is replaced, and, with
            ``distribution_only``, pairs that are there are removed.

    Raises:
        UserError: The run is not finished, in use, or not on this machine; it has no card; files
            are missing; the hub refuses, or cannot be reached.
    """
    with open_run(run, existing=True, workers=1, overwrite=overwrite) as opened:
        return push_run(opened, repo, distribution_only, private, dry_run)


def push_run(
    run: Run, repo: str | None, distribution_only: bool, private: bool, dry_run: bool
) -> PushTotals:
    """``push`` of a run that the caller holds."""
    folder, stage = run.folder, DISTRIBUTION if distribution_only else README
    if not is_local(folder.url):
        raise UserError(f"{folder.url} is no folder of this machine: copy it to one first")
    repo = CardConfig(repo=repo or _said_repo(folder, stage)).repo  # checked
    if repo is None:
        raise ArgumentError("{repo} is needed: the name of a data set on the hub, as USER/NAME")
    files = shared_files(folder, stage)
    sizes = {name: content.stat().st_size if isinstance(content, Path) else len(content)
             for name, content in files.items()}  # fmt: skip
    if dry_run:
        return {"repo": repo, "files": sizes, "removed": [], "url": None}
    removed, url = _upload(repo, files, stage, private, run.overwrite)
    return {"repo": repo, "files": sizes, "removed": removed, "url": url}


def shared_files(folder: Folder, stage: Stage) -> dict[str, Path | bytes]:
    """What is meant for others, by its name on the hub: files of this machine, or content.

    ``stage``: whose card it is. UserError if there is no card, or a file is not as it was made.
    """
    if stage is DISTRIBUTION:
        prefix = f"{DISTRIBUTION_FOLDER}/"
        names = {**_files_of(folder, DISTRIBUTION), f"{prefix}{README_FILE}": None}
        return {name.removeprefix(prefix): _there(folder, name, n) for name, n in names.items()}
    sizes = {n: k for n, k in _files_of(folder, BALANCE).items() if n.startswith("curated/")}
    sizes |= {METADATA_FILE: _files_of(folder, MATCH)[METADATA_FILE]}
    sizes |= _files_of(folder, README)
    sizes |= {name: written["bytes"] for name, written in plot_files(folder).items()}
    found: dict[str, Path | bytes] = {README_FILE: _there(folder, README_FILE, None)}
    found |= {name: _there(folder, name, size) for name, size in sorted(sizes.items())}
    assert CROISSANT_FILE in found
    card = folder.read_json(DATACARD_FILE)
    if card is None:
        raise UserError(f"{folder.address(DATACARD_FILE)} is missing: run the command again")
    return {**found, DATACARD_FILE: json.dumps(without_pool(card)).encode()}


def _files_of(folder: Folder, stage: Stage) -> dict[str, int | None]:
    """The sizes of what a stage wrote, by name."""
    if stage.name not in read_manifest(folder)["stages"]:
        raise UserError(f"{folder.url} has no such card yet: write it with 'metacurate card'")
    files = kept_files(folder, stage.name, finished_section(folder, stage)) or {}
    return {name: written["bytes"] for name, written in files.items()}


def _there(folder: Folder, name: str, size: int | None) -> Path:
    path = local_path(folder.address(name))
    if not path.is_file() or (size is not None and path.stat().st_size != size):
        raise UserError(
            f"{path} is missing, or not as it was made: run the command again that made it"
        )
    return path


def _said_repo(folder: Folder, stage: Stage) -> str | None:
    """The data set that the card names: that of the pairs, and that of the distribution alone."""
    section = read_manifest(folder)["stages"].get(stage.name)
    return None if section is None else section["config"]["said"].get("repo")


def _upload(
    repo: str, files: dict[str, Path | bytes], stage: Stage, private: bool, overwrite: bool
) -> tuple[list[str], str]:
    """Send the files in one commit; what was removed there, and the commit's address."""
    with needs("hf", "sending to the hub"):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="metacurate", library_version=__version__)
    with _told(repo):
        api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        there = set(api.list_repo_files(repo, repo_type="dataset"))
        if README_FILE in there and not overwrite:
            _refuse_foreign(api, repo)
        if stage is DISTRIBUTION and not overwrite and any(map(_PAIRS.fullmatch, there)):
            raise ArgumentError(
                "the data set {name} holds pairs, which a distribution alone would remove: choose "
                "another {repo}, or {overwrite}",
                name=repo,
            )
        removed = sorted(name for name in there - set(files) if _OWN.fullmatch(name))
        operations: list[Any] = [CommitOperationDelete(name) for name in removed]
        for name, content in files.items():
            given = io.BytesIO(content) if isinstance(content, bytes) else content
            operations.append(CommitOperationAdd(name, given))
        commit = api.create_commit(
            repo, operations, repo_type="dataset", commit_message="Written by metacurate",
        )  # fmt: skip
    return removed, str(commit.commit_url)


def _refuse_foreign(api: Any, repo: str) -> None:
    """ArgumentError if the card that is there is someone's own."""
    with scratch_folder() as scratch:
        path = api.hf_hub_download(repo, README_FILE, repo_type="dataset", local_dir=scratch)
        with open(path, "rb") as file:
            content = file.read(MAX_CARD_BYTES)
    if MARK_START not in content:
        raise ArgumentError(
            "the data set {name} has a README.md that is not of this program: choose another "
            "{repo}, or {overwrite}",
            name=repo,
        )


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """What the hub's client raises as one line."""
    try:
        yield
    except Exception as error:
        said = storage_failure(error)
        if said is None:
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = "; log in with 'hf auth login', or set HF_TOKEN" * (status in (401, 403))
        raise UserError(f"the hub did not take {repo}: {said[:300]}{advice}") from error
