"""How a run was made: its pool's name and the command that repeats it, from its manifest."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from metacurate.curation.layout import METADATA_FILE
from metacurate.curation.matching.spacing import V1, WORLDWIDE
from metacurate.pool.schema import PoolConfig
from metacurate.texts.languages import load_language_map

FILE = "FILE"
"""What stands for a file that the manifest knows by its fingerprint only."""

_COLUMNS = ("url_col", "key_col", "lang_col")
_BALANCE = ("t", "p", "target_size", "p_rule", "reference", "choose_text", "seed")


def pool_name(files: Sequence[str]) -> str:
    """The file's address, or the folder that all files lie in; without passwords and queries."""
    shown = [_without_secrets(file) for file in files]
    if len(set(shown)) < 2:
        return shown[0] if shown else ""
    parts = [address.split("/")[:-1] for address in shown]
    shared = 0
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    # Nothing but "" (of an absolute path) or "s3:", "" (of a URL) names no folder.
    folder = "/".join(parts[0][:shared])
    return folder if folder.strip("/") and not folder.endswith((":/", ":")) else shown[0]


def _without_secrets(address: str) -> str:
    """An address without a user's name, password and signature, should it have them."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if "://" not in address:
        return address
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def curate_command(
    match: Mapping[str, Any], count: Mapping[str, Any], balance: Mapping[str, Any]
) -> str:
    """The command that gives the same subset, from the configurations of the run's stages.

    Its metadata are the run's own copy of them; settings that are as they are by default are left
    out, but for the seed.
    """
    words = ["metacurate", "curate", shlex.quote(pool_name(list(match["pool"])))]
    words += [_option("metadata"), METADATA_FILE]
    config, usual = match["pool_config"], PoolConfig()
    for name in _COLUMNS:
        if config[name] is not None:
            words += [_option(name), shlex.quote(config[name])]
    for column in config["text_cols"]:
        words += [_option("text_col"), shlex.quote(column)]
    if config["rows_per_unit"] != usual.rows_per_unit:
        words += [_option("rows_per_unit"), str(config["rows_per_unit"])]
    by_language = "languages" in match["metadata"]
    if match["rule"] != (WORLDWIDE if by_language else V1):
        words += [_option("rule"), match["rule"]]
    if by_language and match["language_map"] != load_language_map().fingerprint:
        words += [_option("language_map"), FILE]
    if "given" in count:
        words += [_option("counts"), FILE]
    for name in _BALANCE:
        if name in balance:
            words += [_option(name), shlex.quote(_plain(balance[name]))]
    if balance.get("expect_survival", 1.0) != 1.0:
        words += [_option("expect_survival"), _plain(balance["expect_survival"])]
    for language, t in balance.get("t_of", {}).items():
        words += [_option("t_of"), shlex.quote(f"{language}={_plain(t)}")]
    return " ".join(words)


def _plain(value: float | str) -> str:
    """A setting as it is typed: a number in full, without ``.0``."""
    return str(value).removesuffix(".0")


def _option(name: str) -> str:
    """The command line's option for an argument."""
    return "-" * 2 + name.replace("_", "-")
