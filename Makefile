# The same verbs for people and for CI: setup, demo, test, test-all, check, bench, clean. `make` lists them.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A Python of 3.11 or newer. Name one yourself with: make PYTHON=/path/to/python3.12
PYTHON ?=
# One more package index for pip to look at; empty for none. On Linux the plain index gives CUDA builds of PyTorch
# (gigabytes); PyTorch's CPU index, named here, gives the small ones. See "Install" in README.md.
INDEX_URL ?=
# How many processes the quick tests share, each with one thread; 0 for none beside pytest's own, to debug in.
JOBS ?= 2
# Passed to pytest, such as: make test ARGS="-k gate"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check docs bench clean

help:
	@echo "make setup     a virtual environment in $(VENV) with everything, pinned by constraints.txt"
	@echo "make demo      the whole promise on real handwritten digits, about three minutes"
	@echo "make test      the tests that are quick, in two processes (make test JOBS=0: in one)"
	@echo "make test-all  every test that this machine can run"
	@echo "make check     style and types: ruff, mypy"
	@echo "make docs      the guide as web pages, in docs/_build; a dead link is an error"
	@echo "make bench     the benchmark against other tools, some hours; writes benchmarks/results"
	@echo "make clean     remove $(VENV) and what tools left behind"

# The stamp is written last, so that an interrupted set-up is done again from scratch, and holds what was installed from.
setup:
	@set -euo pipefail; \
	want="$$(cat pyproject.toml constraints.txt | cksum) $(CURDIR)"; \
	if [ "$$(head -n 1 $(STAMP) 2>/dev/null)" = "$$want" ] && { [ -z "$(PYTHON)" ] || grep -qxF "$(PYTHON)" $(STAMP); } && $(BIN)/python -c 'import vivace' 2>/dev/null; then exit 0; fi; \
	old='import sys; sys.exit(sys.version_info < (3, 11))'; \
	python="$(PYTHON)"; \
	for name in $${python:-python3.11 python3.12 python3.13 python3 python}; do \
	    if "$$name" -c "$$old" 2>/dev/null; then found="$$name"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	    seen="$$("$${python:-python3}" --version 2>&1 || true)"; \
	    echo "Vivace needs Python 3.11 or newer; found here: $${seen:-none}." >&2; \
	    echo "Install one, or name one: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 5; \
	fi; \
	export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1; unset PYTHONHOME PYTHONPATH PIP_USER; \
	pip="$(BIN)/python -m pip install -qq $(if $(INDEX_URL),--extra-index-url '$(INDEX_URL)') -c constraints.txt"; \
	echo "setup 1/4  virtual environment in $(VENV) ($$("$$found" --version))"; \
	"$$found" -m venv --clear $(VENV) || { echo "The venv module of $$found failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 5; }; \
	echo "setup 2/4  PyTorch, the largest part: a few minutes where the line is slow"; \
	eval "$$pip torch numpy"; \
	echo "setup 3/4  runtimes and tools: ONNX Runtime, OpenVINO, NNCF, torchao, Keras, pytest and others"; \
	eval "$$pip -e '.[dev]'"; \
	echo "setup 4/4  checking what was installed"; \
	$(BIN)/python -m pip check; \
	$(BIN)/python -m compileall -q src || true; \
	printf '%s\n%s\n' "$$want" "$(PYTHON)" > $(STAMP)

demo: setup
	@$(BIN)/vivace demo

test: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not gpu" $(ARGS)

test-all: setup
	@$(BIN)/python -m pytest $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo "the guide is in docs/_build/index.html"

bench: setup
	@$(BIN)/python benchmarks/inference.py $(ARGS)
	@$(BIN)/python benchmarks/training.py
	@$(BIN)/python benchmarks/predicting.py
	@$(BIN)/python benchmarks/branches.py

clean:
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info benchmarks/work
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
