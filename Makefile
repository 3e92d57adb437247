# Two commands matter: `make demo` shows the main job, `make test` proves it. Both set everything up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TYPED := $(addprefix tests/engine/test_,run.py edits.py gradients.py windows.py generate_edits.py) tests/models/test_inputs.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench docs coverage studies format clean setup

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and alone: a plain dependency would bring the newest build with its CUDA packages
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs,serve]"
	touch $(READY)

setup: $(READY)

demo: $(READY)  ## look into a small model, then open the workbench (where nobody looks on: render it once)
	$(BIN)/mainspring demo
	if [ -t 1 ]; then $(BIN)/mainspring workbench; else $(BIN)/mainspring workbench --check; fi

test: $(READY)  ## the whole test suite; root gets Debian's chromium for the browser tests, if it is missing
	@.ci/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"
	# the engine once more, with every annotation checked as the code runs
	MAINSPRING_TYPES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not wrong_types" $(TYPED)

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

studies: $(READY)  ## every study on its organisms, and the tests that take minutes
	$(BIN)/mainspring study --all --out studies
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

coverage: $(READY)  ## line coverage of the vocabulary, the engine and the models
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=term-missing

bench: $(READY)  ## overhead, side by side with peers, in environments of their own
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/sweeps.py

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(READY)
	$(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .benchmarks-env site .pytest_cache .ruff_cache
