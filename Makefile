# `make quickstart` and `make test` are all a fresh machine needs; the rest is for development.

BIN := .venv/bin
WORKERS ?= 2
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint expert rendering state setup gl clean

help:
	@echo "make quickstart   tasks, demonstrations, training, one-shot evaluation, report (ARGS=...)"
	@echo "make test         the whole test suite (WORKERS=$(WORKERS), ARGS=...)"
	@echo "make lint         ruff and mypy"
	@echo "make expert       measures the scripted expert (ARGS='--episodes 2000')"
	@echo "make rendering    measures frames a second of observations on one core"
	@echo "make state        trains three seeds on state observations; the median on the test split"
	@echo "make setup        .venv with the pinned packages, and headless OpenGL"
	@echo "make clean        removes .venv and caches; keeps runs/"

quickstart: gl
	$(BIN)/ent-bc quickstart $(ARGS)

# Each worker is one process on one core, so torch gets one thread in each.
test: gl
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

expert: .venv/.installed
	$(BIN)/python benchmarks/expert.py $(ARGS)

rendering: gl
	$(BIN)/python benchmarks/rendering.py $(ARGS)

state: gl
	$(BIN)/python benchmarks/one_shot.py --preset state --out runs/state $(ARGS)

setup: gl

gl: .venv/.installed
	@$(BIN)/python scripts/ensure_gl.py

.venv/.installed: pyproject.toml constraints.txt
	@sh scripts/set_up.sh
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
