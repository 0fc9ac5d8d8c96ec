# `make demo` trains, scores and shows a small model. `make test` checks the whole project (about 25 minutes on two cores).
# `make test-fast` omits the tests marked slow (about 5 minutes). `make lint` checks style, imports, types and words.
# `make words` finds words to avoid (tools/words.txt). `make docs` builds the docs site into build/site. `make faults`
# damages runs and files for 25 minutes and counts the failures (docs/reliability.md).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

.PHONY: demo test test-fast lint words docs faults clean

demo: $(VENV)/.installed
	$(BIN)/orthogan train configs/demo.yaml
	$(BIN)/orthogan sample $(RUN) --seeds 0-63 --truncation 0.8 --out $(RUN)/samples.png
	$(BIN)/orthogan traverse $(RUN) --method svd --dims 0-7 --control 2 --range 2 --out $(RUN)/traversal.png
	@echo
	@echo "Look at them:  $(CURDIR)/$(RUN)/samples.png"
	@echo "               $(CURDIR)/$(RUN)/traversal.png"
	@echo "Real faces:    $(CURDIR)/$(RUN)/reals.png"

# one thread per process, as many processes as processors (at most 8), compiled modules kept for the commands that tests start
test test-fast: export OMP_NUM_THREADS = 1
test test-fast: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --threads 2
	$(BIN)/codespell
	$(BIN)/python tools/words.py

words: $(VENV)/.installed-dev
	$(BIN)/python tools/words.py

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open $(CURDIR)/build/site/index.html"

faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults --out runs/faults/$$(git describe --always --dirty) --minutes 25

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --progress-bar off -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --progress-bar off -e ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build runs .pytest_cache .ruff_cache .hypothesis .import_linter_cache
