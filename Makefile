# Two commands: `make demo` and `make test`. Both set up .venv from requirements.lock first.
PYTHON ?= python3
JOBS ?= logical
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo gallery test lint bench clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

demo: setup  ## A first asset: no GPU, no download.
	$(BIN)/python launch.py text "a standing corgi dog"

gallery: setup  ## The pictures at the top of the README.
	$(BIN)/python benchmarks/gallery.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

bench: setup
	$(BIN)/python launch.py bench kernels

clean:
	rm -rf $(VENV) runs
