# The usual commands, with the environment that tests/run makes.
BIN ?= .venv/bin
ROOM ?= pool

.PHONY: setup lint types quick room bounds docs picture experiment all

setup:  ## make .venv
	tests/run --venv $(BIN:/bin=) --setup

lint:  ## style, repaired where possible
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types:
	$(BIN)/mypy

quick:  ## the tests that take no minutes: the style of the house, texts, pools, matching, balancing
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_plugins.py tests/test_printable.py \
	    tests/texts tests/pool tests/curation/test_balancing.py tests/curation/test_matching.py

room:  ## one room's tests: make room ROOM=deduplication
	$(BIN)/python -m pytest -q tests/$(ROOM)

bounds:  ## compiled loops with each index checked: some minutes
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -q \
	    tests/kernels tests/curation tests/pool tests/texts tests/commoncrawl tests/deduplication

docs:
	$(BIN)/python -m mkdocs build --strict

EXPERIMENT ?= cpu
experiment:  ## the emoji experiment, 8 minutes; also with EXPERIMENT=scored or scale
	$(BIN)/python examples/emoji_experiment/make_pool.py emoji
	$(BIN)/metacurate experiment --config examples/emoji_experiment/$(EXPERIMENT).toml \
	    --out emoji/$(EXPERIMENT)

picture:  ## the picture of the report in README
	$(BIN)/python tests/report_picture.py

all: lint types
	tests/run --venv $(BIN:/bin=)
