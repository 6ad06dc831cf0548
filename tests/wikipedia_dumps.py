"""What tests of Wikipedia's dumps share: the dump maker of the examples, over real words."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from metacurate.metadata.wordnet import shipped_entries


def load_maker() -> ModuleType:
    """The module ``examples/make_wikipedia_dump.py``."""
    import sys

    path = Path(__file__).parents[1] / "examples" / "make_wikipedia_dump.py"
    spec = importlib.util.spec_from_file_location("make_wikipedia_dump", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


maker = load_maker()
# Neighbouring words of real texts: WordNet's names of two and more words.
SEGMENTS = maker.word_segments(shipped_entries())[::40]
