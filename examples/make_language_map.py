"""Derive the package's table of language labels (``texts/languages.py``) from public lists.

    pip download --no-deps pywikibot iso639-lang && npm pack cldr-core
    apt-get download iso-codes && dpkg-deb -x iso-codes_*.deb iso-codes
    unzip 'pywikibot-*.whl' && unzip 'iso639_lang-*.whl' && tar xzf cldr-core-*.tgz
    python examples/make_language_map.py --wikipedias pywikibot \\
        --iso iso-codes/usr/share/iso-codes/json --macro iso639 --cldr package

Of each list only facts are taken: Wikipedia's codes (open and closed) and their aliases from
pywikibot; the codes of ISO 639-1, -2 and -3 that name the same language from iso-codes;
macro-languages and their members from iso639-lang; old and other codes and their replacements from
the CLDR. The first that applies decides:

1. a code of Wikipedia is its group: the code up to the first ``-``;
2. another name of the same language (ISO's codes, pywikibot's aliases, ``OWN``);
3. what the CLDR replaces the code by (``iw``, ``cmn``);
4. the macro-language that the code is a member of (``arb`` is ``ar``);
5. what the CLDR replaces by the code (``fil``: it replaces ``tl``);
6. of a macro-language without a Wikipedia of its own, its one member that has one (``OWN`` says
   which of several).

Codes that lead to no Wikipedia are left out: an unknown label means no language anyhow.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src/metacurate/data/languages.json"

# What the lists do not say: Wikipedias whose codes are not those of their language.
OWN = {
    "bho": "bh",  # Bhojpuri
    "bih": "bh",
    "egl": "eml",  # Emilian and Romagnol, once one code
    "rgn": "eml",
    "nrf": "nrm",  # Norman
    "yue": "zh-yue",
    "kok": "gom",  # macro-languages, the members with a Wikipedia
    "bik": "bcl",
    "lah": "pnb",
    "zza": "diq",
    "bua": "bxr",
    "chm": "mhr",
    "rom": "rmy",
    "syr": "arc",  # Syriac: the Aramaic Wikipedia is written in it
    "cbk": "cbk-zam",  # Chavacano
}
# Labels that say that there is no language, or which script it is and no more.
NOTHING = ("mis", "mul", "none", "other", "un", "und", "unknown", "xx", "xxx", "zxx", "qaa")
# The same three letters for two languages: alone, as Wikipedia (and fastText's lid.176, trained on
# it) says, Alemannic; with a script, as NLLB writes them, ISO's Tosk Albanian.
EXACT = {"als-latn": "sq"}


def wikipedias(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Wikipedia's codes, open and closed, and other names for them."""
    wanted = {
        "families/wikipedia_family.py": ("codes", "closed_wikis"),
        "family.py": ("code_aliases",),
    }
    values: dict[str, Any] = {}
    for name, variables in wanted.items():
        for node in ast.walk(ast.parse((folder / name).read_text("utf-8"))):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                variable = node.targets[0].id
                if variable in variables:
                    values[variable] = ast.literal_eval(node.value)
    return {*values["codes"], *values["closed_wikis"]}, values["code_aliases"]


class Lists:
    """The lists, and what they say of a code."""

    def __init__(self, wikipedia: Path, iso: Path, macro: Path, cldr: Path) -> None:
        self.wikis, self.aliases = wikipedias(wikipedia)
        self.same: dict[str, set[str]] = {}
        for name in ("639-2", "639-3"):
            for row in json.loads((iso / f"iso_{name}.json").read_text("utf-8"))[name]:
                codes = {
                    row[key]
                    for key in ("alpha_2", "alpha_3", "bibliographic", "terminology")
                    if key in row and "-" not in row[key]
                }
                together = codes.union(*(self.same.get(code, set()) for code in codes))
                self.same |= dict.fromkeys(together, together)
        members = json.loads((macro / "data/iso-639_macro.json").read_text("utf-8"))["macro"]
        self.members: dict[str, list[str]] = members
        self.parent = {child: parent for parent, found in members.items() for child in found}
        supplemental = json.loads((cldr / "supplemental/aliases.json").read_text("utf-8"))
        replaced = supplemental["supplemental"]["metadata"]["alias"]["languageAlias"]
        self.replaced = {
            code.lower(): row["_replacement"].split("-")[0] for code, row in replaced.items()
        }
        self.replaces: dict[str, set[str]] = {}
        for code, by in self.replaced.items():
            self.replaces.setdefault(by, set()).add(code)

    def codes(self) -> set[str]:
        """All codes that any list has."""
        return {
            *self.wikis, *self.aliases, *self.same, *self.parent, *self.members, *self.replaced,
            *OWN,
        }  # fmt: skip

    def named(self, code: str) -> str | None:
        """The group of a code or of another name of its language."""
        if code in self.wikis:
            return code.split("-", maxsplit=1)[0]
        for other in (code, *sorted(self.same.get(code, ()), key=lambda c: (len(c), c))):
            known = OWN.get(other) or self.aliases.get(other) or other
            if known in self.wikis:
                return known.split("-")[0]
        return None

    def group(self, code: str) -> str | None:
        """The group of a code by the first rule that applies."""
        codes = sorted(self.same.get(code, {code}), key=lambda c: (len(c), c))
        found = [
            self.named(code),
            *(self.named(self.replaced[one]) for one in codes if one in self.replaced),
            *(self.named(self.parent[one]) for one in codes if one in self.parent),
            *(self._only(self.replaces.get(one, ())) for one in codes),
            *(self._only(self.members.get(one, ())) for one in codes),
        ]
        return next((group for group in found if group is not None), None)

    def _only(self, codes: Iterable[str]) -> str | None:
        """The one group that some of these codes are in; None if there are several."""
        groups = {self.named(code) for code in codes if "-" not in code} - {None}
        return groups.pop() if len(groups) == 1 else None


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--wikipedias", type=Path, required=True, help="the folder pywikibot")
    parser.add_argument("--iso", type=Path, required=True, help="iso-codes' folder of JSON files")
    parser.add_argument("--macro", type=Path, required=True, help="the folder iso639")
    parser.add_argument("--cldr", type=Path, required=True, help="the folder of cldr-core")
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args()
    lists = Lists(options.wikipedias, options.iso, options.macro, options.cldr)
    table: dict[str, str | None] = dict.fromkeys(NOTHING)
    for code in lists.codes():
        name = code.lower().replace("_", "-")
        group = lists.group(code)
        # Longer tags are found by their first parts, if these say the same.
        if group is not None and ("-" not in name or lists.group(name.split("-")[0]) != group):
            table[name] = group
    table |= {group: group for group in table.values() if group} | EXACT
    text = json.dumps(dict(sorted(table.items())), indent=0, ensure_ascii=True)
    options.target.write_text(text + "\n", encoding="utf-8")
    groups = {group for group in table.values() if group}
    codes = len(lists.wikis)
    print(f"{options.target}: {len(table):,} labels, {len(groups)} languages of {codes} codes")


if __name__ == "__main__":
    main()
