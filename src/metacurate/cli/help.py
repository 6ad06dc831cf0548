"""``--help``: options in groups, their names whole however narrow the terminal is.

Typer's own page puts names, values and helps side by side and cuts the names at 80 columns.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

# In the order in which they are shown; the names are those of the commands' parameters. An option
# that is in none is shown last, under OTHERS.
GROUPS: dict[str, tuple[str, ...]] = {
    "Input": (
        "metadata", "run", "plan counts", "inspect text counts", "tars", "url_col", "text_col",
        "key_col", "lang_col", "sha256_col", "sample", "sample_offset", "only", "wiki", "wordnet",
        "dumps", "pageviews", "source", "data", "suite", "root", "blocklist", "lang", "snapshot",
        "max_record_mib",
    ),
    "Matching": ("rule", "language_map", "one_list"),
    "Languages": ("identifier", "page_language", "min_lang_score", "every"),
    "Texts": (
        "entities", "min_length", "max_length", "min_letters", "drop_file_names", "drop_urls",
        "text_rule", "max_texts", "dedup_texts", "keep_repeats",
    ),
    "Entries": (
        "rules", "segmenter", "min_count", "max_unigrams", "unigram_share", "min_pmi",
        "min_bigram_count", "best_bigrams", "bigram_share", "min_views", "max_titles",
        "title_share", "title_rule", "min_hourly_views", "max_entries", "lowercase",
    ),
    "Threshold": (
        "t", "p", "target_size", "counts", "expect_survival", "seed", "choose_text", "p_rule",
        "reference", "t_of",
    ),
    "Images": (
        "resize", "image_size", "upscale", "quality", "min_size", "max_aspect", "max_pixels",
        "accept_truncated", "scorer", "keep", "blur", "drop_duplicates", "max_distance",
    ),
    "Requests": (
        "concurrency", "per_host", "host_delay", "connect_timeout", "timeout", "retries", "backoff",
        "max_wait", "max_bytes", "max_redirects", "user_agent", "robots_directives",
        "allow_network", "min_success",
    ),
    "Evaluation": ("model", "task", "class_names", "templates", "groups", "names_lang"),
    "Output": (
        "out", "entry", "head", "tail", "unmatched", "samples", "top", "entries", "name", "license",
        "languages", "repo", "distribution_only", "push", "private", "dry_run", "to",
        "official_key", "samples_per_shard", "samples_per_tar", "shard_rows", "report", "html",
        "open_page", "verify", "overwrite", "log_to", "as_json",
    ),
    "Engine": (
        "workers", "engine", "address", "gpus_per_task", "rows_per_unit", "threads", "batch_size",
    ),
    "General": ("config", "version", "help", "install_completion", "show_completion"),
}  # fmt: skip
OTHERS = "Options"
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
NAMES_WIDTH = 24  # of the column of names; a longer one has a line of its own
WIDEST = 100  # longer lines do not read well


class Command(TyperCommand):
    """A command whose ``--help`` is this module's."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words behind the command's name in the usage line."""
        return ["[OPTIONS]", *(value for _, value in _arguments(self, ctx))]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page, as Typer does it: itself, since it prints none of no arguments."""
        _show(self, ctx, sections(self, ctx))


class Group(TyperGroup):
    """A group of commands whose ``--help`` is this module's."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        rows = [(name, _first_sentence(command.help)) for name, command in commands]
        _show(self, ctx, {"Commands": rows, **sections(self, ctx)})


class App(typer.Typer):
    """A group of commands with help pages of this module."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Register a command, as ``typer.Typer.command`` does."""
        return super().command(name, cls=Command, **settings)


def _arguments(command: Any, context: Any) -> Iterator[tuple[Any, str]]:
    """A command's arguments, each with its name as the usage line has it."""
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            name = parameter.metavar or parameter.name.upper()
            bare = name.strip("[]")
            yield parameter, bare if parameter.required else f"[{bare}]"


Sections = dict[str, list[tuple[str, str]]]


def sections(command: Any, context: Any) -> Sections:
    """By group, the names of arguments and options with what they are for."""
    path = context.command_path.split()
    found: Sections = {}
    for argument, name in _arguments(command, context):
        _, said = argument.get_help_record(context)
        found.setdefault("Arguments", []).append((name, said.replace("  [required]", "")))
    options: Sections = {group: [] for group in (*GROUPS, OTHERS)}
    for option in command.get_params(context):
        if option.param_type_name == "option" and (record := option.get_help_record(context)):
            group = group_of(option.name, path)
            options[group or OTHERS].append((_names(option, record[0]), _plain(record[1])))
    return found | {group: rows for group, rows in options.items() if rows}


def group_of(option: str, path: list[str]) -> str | None:
    """The group of a command's option: of that command's alone, or of all options of the name."""
    own = (_GROUP_OF.get(" ".join([*path[-depth:], option])) for depth in (2, 1))
    return next((group for group in own if group), None) or _GROUP_OF.get(option)


def _names(option: Any, record: str) -> str:
    """An option's names and what it takes: ``-o, --out DIR``."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.is_flag:
        return " / ".join([names, *option.secondary_opts])
    is_number = re.search(r"\b(int|float)", record.rpartition("--")[2].partition(" ")[2].lower())
    return f"{names} {option.metavar or ('NUMBER' if is_number else 'TEXT')}"


def _plain(said: str) -> str:
    """What an option is for, its default and limits in words: ``x>=1`` is "at least 1"."""
    text, mark, more = said.rpartition("  [") if said.endswith("]") else (said, "", "")
    more = re.sub(r"^default: \((.*)\)(?=[;\]])", r"default: \1", more)
    return text + mark[1:] + _LIMITED.sub(_limits, more)


_LIMITED = re.compile(
    r"(?:(?<=^)|(?<=; ))(?:(?P<low>[-\d.]+)<=)?x"
    r"(?:>=(?P<least>[-\d.]+)|<=(?P<most>[-\d.]+))?(?=[;\]])"
)


def _limits(found: re.Match[str]) -> str:
    least, most = (
        float(end) if end else None for end in (found["low"] or found["least"], found["most"])
    )
    if least is not None and most is not None:
        return f"{least:.15g} to {most:.15g}"
    return f"at least {least:.15g}" if least is not None else f"at most {most:.15g}"


def _show(command: Any, context: Any, sections: Sections) -> None:
    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    console.print(Text(" ".join(context.get_usage().split()), "bold"))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        console.print()
        told = Text.from_markup(" ".join(paragraph.split()))
        for line in told.wrap(console, console.width - 2):
            line.rstrip()
            console.print(Text("  ").append_text(line))
    for title, rows in sections.items():
        console.print()
        console.print(Text(title, "bold yellow"))
        width = min(max(len(name) for name, _ in rows), NAMES_WIDTH)
        for name, said in rows:
            _print_row(console, name, said, width)


def _print_row(console: Console, name: str, said: str, width: int) -> None:
    first = Text("  ").append(name, "bold cyan")
    beside = len(name) <= width
    left = width + 4
    lines = list(Text(said).wrap(console, max(console.width - left, 20)))
    if beside and lines:
        first.append(" " * (left - 2 - len(name))).append(lines.pop(0).plain.rstrip())
    console.print(first, overflow="fold")
    for line in lines:
        console.print(" " * left + line.plain.rstrip(), markup=False)


def _first_sentence(text: str | None) -> str:
    """What a list of commands says of one: its first paragraph."""
    return Text.from_markup(" ".join((text or "").split("\n\n")[0].split())).plain
