"""The table from identifiers' labels to metadata languages: right for all labels that ship."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from test_language import fasttext_model

from metacurate.errors import UserError
from metacurate.texts.language import _PY3LANGID_CODES, _cld2_language
from metacurate.texts.languages import OTHER, LanguageMap, load_language_map

SHIPPED = load_language_map()


@pytest.mark.parametrize(
    ("labels", "language"),
    [
        ("en eng EN en-GB en_US.UTF-8 eng_Latn", "en"),
        ("zh zho chi cmn zh-Hant-TW ZH_cn zho_Hans yue nan lzh zh_yue zh-classical", "zh"),
        ("wuu zh-wuu", "wuu"),  # has a Wikipedia of its own, whose code says nothing of zh
        ("ar ara arb arb_Arab acm", "ar"),
        ("arz arz_Arab", "arz"),
        ("no nb nob nor no-bok", "no"),
        ("nn nno no-nyn", "nn"),
        ("pt_BR por", "pt"),
        ("sr-Latn srp scc", "sr"),
        ("sh hbs", "sh"),
        ("he iw heb", "he"),
        ("id in ind", "id"),
        ("yi ji ydd", "yi"),
        ("jv jw jav", "jv"),
        ("ro mo ron rum mol", "ro"),
        ("tl fil tgl", "tl"),
        ("be be_tarask be-x-old bel", "be"),
        ("nds nds_nl nds-NL", "nds"),
        ("ms zsm msa may", "ms"),
        ("als gsw", "als"),  # Wikipedia's code of Alemannic
        ("sq sqi alb als_Latn aln", "sq"),  # ISO's als is Tosk Albanian
        ("et ekk est", "et"),
        ("bh bho bih", "bh"),
        ("ku kmr kur", "ku"),
        ("ckb", "ckb"),
        ("gom kok", "gom"),
        ("roa rup roa-rup", "roa"),
    ],
)
def test_labels(labels: str, language: str) -> None:
    found = {label: SHIPPED.language(label) for label in labels.split()}
    assert found == dict.fromkeys(labels.split(), language)


@pytest.mark.parametrize(
    "label",
    [None, "", " ", "und", "unknown", "un", "xx-Tfng", "zxx", "mul", "tlh", "-", "--en", "e n",
     "enx", "e" * 100_000, "en-" * 100_000, "\ud800", "../../en"],
)  # fmt: skip
def test_labels_that_mean_no_language(label: str | None) -> None:
    assert SHIPPED.language(label) is None


# What an identifier says and no Wikipedia is written in: these texts go to ``other``.
WITHOUT_WIKIPEDIA = {
    "eldc": set(),
    "py3langid": {"gcf", "grc", "hbo", "sdh"},
    "lingua": set(),
    "fasttext": set(),
    "pycld2": {"crs", "gaa", "hmn", "kha", "kri", "lif", "loz", "lua", "luo", "mfe", "raj", "tlh"},
}


def labels_of(identifier: str) -> set[str]:
    """All labels that an identifier can give, as the library lists them."""
    if importlib.util.find_spec(identifier) is None:
        pytest.skip(f"package {identifier} is not installed")
    module: Any = importlib.import_module(identifier)
    if identifier == "eldc":
        return set(module.LANGUAGES)
    if identifier == "lingua":
        return {language.iso_code_639_1.name.lower() for language in module.Language.all()}
    if identifier == "pycld2":
        return {_cld2_language(code) for _, code in module.LANGUAGES} - {""}
    if identifier == "fasttext":
        model = module.load_model(fasttext_model())
        return {label.removeprefix("__label__") for label in model.predict("a", 1_000, -1.0)[0]}
    langid = importlib.import_module("py3langid.langid")
    labels = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE).labels
    return {_PY3LANGID_CODES.get(label, label) for label in labels} - {""}


@pytest.mark.parametrize(
    ("identifier", "at_least"),
    [("eldc", 60), ("py3langid", 97), ("lingua", 75), ("fasttext", 176), ("pycld2", 150)],
)
def test_every_label_of_the_identifiers(identifier: str, at_least: int) -> None:
    labels = labels_of(identifier)
    assert len(labels) >= at_least
    lost = {label for label in labels if SHIPPED.language(label) is None}
    assert lost <= WITHOUT_WIKIPEDIA[identifier]


def test_three_letters_mean_what_two_do() -> None:
    lingua = pytest.importorskip("lingua")
    for language in lingua.Language.all():
        two, three = language.iso_code_639_1.name, language.iso_code_639_3.name
        assert SHIPPED.language(three) == SHIPPED.language(two) is not None, language


def test_metadata_languages() -> None:
    assert len(SHIPPED.languages) > 300
    assert {"en", "zh", "be", "nds", "fiu", "bat", "map", "cbk", "simple"} <= SHIPPED.languages
    assert not any("-" in name or "_" in name for name in SHIPPED.languages)
    assert OTHER not in SHIPPED.languages


def written(folder: Path, value: object) -> Path:
    path = folder / "map.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_a_map_of_ones_own(tmp_path: Path) -> None:
    own = {"ZH_hant": "zh-tw", "yue": "yue", "sr-latn": None, "hmn": "hmn", "EN": "english"}
    changed = load_language_map(written(tmp_path, own))
    labels = [
        "zh-Hant",
        "zh-hant-HK",
        "zh",
        "yue",
        "sr-Latn",
        "sr",
        "hmn",
        "en",
        "eng",
        "de",
        "xyz",
    ]
    found = ["zh-tw", "zh-tw", "zh", "yue", None, "sr", "hmn", "english", "en", "de", None]
    assert [changed.language(label) for label in labels] == found
    assert {"zh-tw", "yue", "hmn"} <= changed.languages
    assert changed.fingerprint != SHIPPED.fingerprint
    assert load_language_map(written(tmp_path, {})).fingerprint == SHIPPED.fingerprint
    assert pickle.loads(pickle.dumps(changed)) == changed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ('["en"]', "must be a JSON object"),
        ('{"en": "en", "en": "de"}', "'en' is there twice"),
        ('{"en": 5}', "not 5"),
        ('{"en": "../x"}', 'not "../x"'),
        ('{"en": ""}', 'not ""'),
        ('{" ": "en"}', "a label has 1 to 64 characters"),
    ],
)
def test_maps_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_language_map(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match="language map"):
            load_language_map(missing)


def test_lookup_order() -> None:
    table = LanguageMap({"a_B": "exact", "a-b": "normal", "a": "first"})
    assert [table.language(label) for label in ("a_B", "A_B", "a-b-c", "a-c")] == [
        "exact", "normal", "normal", "first",
    ]  # fmt: skip
