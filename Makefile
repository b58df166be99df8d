# `make quickstart` and `make test` are all a fresh machine needs; the rest is for development.

WORKERS ?= 2
ARGS ?=
# Which packages: imitation's stack in .venv, or with STACK=-latest the newest in .venv-latest.
STACK ?=
ENV := .venv$(STACK)
BIN := $(ENV)/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-latest test-install lint expert state speed fine-tuning setup gl clean

help:
	@echo "make quickstart   tasks, demonstrations, training, one-shot evaluation, report (ARGS=...)"
	@echo "make test         the whole test suite (WORKERS=$(WORKERS), ARGS=...)"
	@echo "make test-latest  the same on the newest gymnasium and Stable-Baselines3, and Meta-World"
	@echo "make test-install the wheel holds all data; the environment alone installs light and runs"
	@echo "make lint         ruff and mypy"
	@echo "make expert       measures the scripted expert (ARGS='--episodes 2000')"
	@echo "make state        trains three seeds on state observations; the median on the test split"
	@echo "make fine-tuning  PPO from under-trained models, three seeds, success before and after"
	@echo "make speed        how fast all is beside its peers and its limits (ARGS='--groups pictures')"
	@echo "make setup        .venv with the pinned packages, and headless OpenGL"
	@echo "make clean        removes virtual environments and caches; keeps runs/"

quickstart: gl
	$(BIN)/ent-bc quickstart $(ARGS)

# Each worker is one process on one core, so torch gets one thread in each.
test: gl
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-latest:
	@$(MAKE) test STACK=-latest

test-install: $(ENV)/.installed
	$(BIN)/python scripts/check_install.py

lint: $(ENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

expert: $(ENV)/.installed
	$(BIN)/python benchmarks/expert.py $(ARGS)

state: gl
	$(BIN)/python benchmarks/one_shot.py --preset state --out runs/state $(ARGS)

fine-tuning: gl
	$(BIN)/python benchmarks/fine_tuning.py --out runs/fine_tuning $(ARGS)

speed: gl
	$(BIN)/ent-bc benchmark speed $(ARGS)

setup: gl

gl: $(ENV)/.installed
	@$(BIN)/python scripts/ensure_gl.py

$(ENV)/.installed: pyproject.toml constraints$(STACK).txt
	@sh scripts/set_up.sh $(STACK)
	@touch $@

clean:
	rm -rf .venv .venv-latest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
