"""What the site's pages take from the program and the repository when they are built.

``<!-- commands -->`` becomes all commands with their options, in the words and groups of
``--help``; ``<!-- changelog -->`` becomes CHANGELOG.md.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from metacurate.cli import app
from metacurate.cli.help import sections

REPOSITORY = Path(__file__).parents[2]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it with each page."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", "\n".join(reference()))
    if "<!-- changelog -->" in markdown:
        text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
        markdown = markdown.replace("<!-- changelog -->", text.split("\n", 1)[1])
    return markdown


def reference() -> Iterator[str]:
    """The lines of the reference, a section a command."""
    for command, context in commands():
        yield f"\n## {context.command_path}\n"
        yield f"```text\n{context.get_usage().removeprefix('Usage: ')}\n```\n"
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
            yield _paragraph(" ".join(paragraph.split())) + "\n"
        for title, rows in sections(command, context).items():
            yield f"**{title}**\n"
            yield from (f"- `{name}`: {_escaped(said)}" for name, said in rows)
            yield ""


def commands() -> Iterator[tuple[Any, typer.Context]]:
    """All commands that do something, each with the context that its help is made in."""

    def below(command: Any, context: typer.Context) -> Iterator[tuple[Any, typer.Context]]:
        for name, nested in command.commands.items():
            inner = typer.Context(nested, info_name=name, parent=context)
            if hasattr(nested, "commands"):
                yield from below(nested, inner)
            else:
                yield nested, inner

    root = typer.main.get_command(app)
    return below(root, typer.Context(root, info_name="metacurate", terminal_width=10_000))


def _paragraph(text: str) -> str:
    """A paragraph of a docstring, its commands (within ``[bold]``) as code."""
    parts = re.split(r"\[bold\](.*?)\[/bold\]", text)
    return "".join(f"`{p}`" if n % 2 else _escaped(p) for n, p in enumerate(parts))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", text)
