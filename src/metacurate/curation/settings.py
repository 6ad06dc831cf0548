"""How to balance: the threshold, or what it is solved from, and the seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metacurate.arguments import number, shown, whole
from metacurate.errors import ArgumentError

BELOW, NEAREST = "below", "nearest"
P_RULES = (BELOW, NEAREST)
"""How a threshold follows from a tail proportion (``balancing.solve_threshold``)."""
SAME = "same"
"""Instead of these: every language has the threshold of the reference language, whatever its p."""
ANY, ONE = "any", "one"
TEXT_CHOICES = (ANY, ONE)
"""Which of a pair's texts may keep it: any, or one that is chosen first (``balancing.balance``)."""
REFERENCE = "en"


@dataclass(frozen=True)
class Balance:
    """How to balance: exactly one of the threshold, the tail proportion and the target size.

    ``expect_survival`` is the share of the kept pairs whose images are expected to survive the
    download: the threshold is then so much larger that the aim is met by those that do.

    ``p_rule``: how t follows from p; ``nearest`` with several languages and ``below`` with one list
    if not given; ``same``: it does not, every language has t itself. ``reference``: the language
    that has t as it is given, from which the thresholds of the others follow; ``t_of``: languages
    and their thresholds, where they do not (both with metadata of several languages).
    ``choose_text``: ``any`` text of a pair may keep it (MetaCLIP), or ``one`` is chosen first (as
    MetaCLIP's later data loaders do).
    """

    t: float | None = None
    p: float | None = None
    target_size: int | None = None
    seed: int = 0
    expect_survival: float = 1.0
    p_rule: str | None = None
    reference: str = REFERENCE
    t_of: tuple[tuple[str, float], ...] = ()
    choose_text: str = ANY

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.t, self.p, self.target_size)) != 1:
            raise ArgumentError("give exactly one of {t}, {p} and {target_size}")
        # NumPy's numbers become Python's, which a manifest can hold.
        if self.t is not None:
            self._set("t", check_t(self.t))
        if self.p is not None:
            self._set("p", check_p(self.p))
        if self.target_size is not None:
            self._set("target_size", whole("target_size", self.target_size, 1))
        if not 0 < (survival := number("expect_survival", self.expect_survival)) <= 1:
            raise ArgumentError(
                "{expect_survival} must lie above 0 and up to 1, not {value:.15g}", value=survival
            )
        self._set("expect_survival", survival)
        self._set("seed", whole("seed", self.seed, 0, 2**64))
        if self.p_rule is not None:
            check_choice("p_rule", self.p_rule, (*P_RULES, SAME))
            if self.p_rule == SAME and self.p is not None:
                raise ArgumentError("{p_rule} same is for {t} and {target_size}, not for {p}")
        check_choice("choose_text", self.choose_text, TEXT_CHOICES)
        given = self.t_of.items() if isinstance(self.t_of, Mapping) else self.t_of
        try:
            self._set("t_of", tuple((str(name), check_t(t)) for name, t in given))
        except ValueError as error:
            raise ArgumentError("{t_of}: {said}", said=str(error)) from None

    def check_languages(self, languages: Sequence[str]) -> None:
        """ArgumentError if the metadata lack a language that is named; none: they are one list."""
        if not languages:
            several = {"t_of": bool(self.t_of), "reference": self.reference != REFERENCE}
            for name in (name for name, given in several.items() if given):
                raise ArgumentError(
                    f"{{{name}}} needs metadata of several languages; these are one list"
                )
            return
        if unknown := sorted({name for name, _ in self.t_of} - set(languages)):
            raise ArgumentError(
                "{t_of}: the metadata has no language {unknown}; it has {languages}",
                unknown=unknown[0],
                languages=in_short(languages),
            )
        if self.follows_reference and self.reference not in languages:
            raise self.no_reference("has no language", languages)

    @property
    def follows_reference(self) -> bool:
        """Whether the thresholds of several languages follow from that of the reference."""
        return self.p is None and self.p_rule != SAME

    def no_reference(self, what: str, languages: Sequence[str]) -> ArgumentError:
        """The error of a reference language whose tail cannot be known."""
        return ArgumentError(
            "{reference}: the metadata {what} {language}, from which the thresholds of the others "
            "follow; it has {languages}. Name another one, or give {p}",
            what=what,
            language=self.reference,
            languages=in_short(languages),
        )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite threshold is the string "inf"."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        values["t_of"] = {name: json_number(t) for name, t in self.t_of}
        for name, default in (("reference", REFERENCE), ("t_of", {}), ("choose_text", ANY)):
            if values[name] == default:
                del values[name]
        return {k: "inf" if v == math.inf else v for k, v in values.items()}


def in_short(languages: Sequence[str]) -> str:
    """The first languages of a list, in words."""
    return ", ".join(languages[:20]) + (", ..." if len(languages) > 20 else "")


def check_t(t: float) -> float:
    """A threshold as a float; ArgumentError if it is none."""
    if not (value := number("t", t)) > 0:
        raise ArgumentError(
            "{t} must be positive (inf: no balancing), not {value:.15g}", value=value
        )
    return value


def check_p(p: float) -> float:
    """A tail proportion as a float; ArgumentError if it is none."""
    if not 0 <= (value := number("p", p)) <= 1:
        raise ArgumentError("{p} must lie between 0 and 1, not {value:.15g}", value=value)
    return value


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some words; ArgumentError if it is none."""
    if isinstance(value, str) and value in choices:
        return str(value)
    raise ArgumentError(
        f"{{{name}}} must be {{choices}}, not {{value}}",
        choices=" or ".join(choices),
        value=shown(value),
    )


def json_number(t: float) -> float | str:
    """A threshold (also NumPy's) as JSON has it: infinity is the string "inf"."""
    return "inf" if math.isinf(t) else float(t)


def threshold_text(t: float | str | None) -> str:
    """A threshold for people; without balancing it is the string "inf", of a language without
    counts None."""
    if t is None:
        return "–"
    return t if isinstance(t, str) else f"{t:,.6g}"
