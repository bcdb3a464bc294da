# `make demo` does the main job twice; `make test` proves it. Both start from nothing but git, make and Python 3.10–3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install install-sim demo test test-slow test-sim lint format types check bench lock clean

help:
	@echo "make demo       record, train, evaluate and report: ALOHA transfer cube and MetaWorld button press"
	@echo "make test       the tests (under 10 minutes on 2 cores)"
	@echo "make test-slow  the long ones: many kill points, all experts"
	@echo "make test-sim   the simulators, those too that make install leaves out (1.5 GB more)"
	@echo "make lint types the other two checks of .ci/run"
	@echo "make bench      every benchmark, one JSON line each"

$(VENV)/installed: requirements.txt requirements-peers.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else f"Menura needs Python 3.10 to 3.13, this is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing. Install it: apt-get install -y python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.txt --requirement requirements-peers.txt
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

install: $(VENV)/installed

$(VENV)/installed-sim: $(VENV)/installed requirements-sim.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-sim.txt
	@touch $@

install-sim: $(VENV)/installed-sim

demo: install
	@sh tools/opengl.sh || true
	@$(BIN)/python examples/demo.py

test: install
	@sh tools/opengl.sh || true
	@sh tools/chromium.sh || true
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: install
	@sh tools/opengl.sh || true
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-sim: install-sim
	@sh tools/opengl.sh || true
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m sim

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/mypy

check: lint types test

bench: install
	@for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# Needs uv. The CUDA parts of torch are left to pip, which takes those that the machine's own torch wheel asks for.
# labmaze has no wheel for Python 3.13; only dm_control's mazes need it, which nothing here does. evdev must be compiled;
# only robosuite's keyboard and space mouse need it.
COMPILE = uv pip compile pyproject.toml --universal --python-version 3.10 --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links
LIGHT = $(foreach extra,metaworld aloha pusht gymnasium_robotics tensorboard zarr zmq ray peft diffusers bitsandbytes dev,--extra $(extra))
HEAVY = $(foreach extra,panda_gym pybullet robosuite dm_control,--extra $(extra))
lock:
	{ grep '^#' requirements.txt; \
	  $(COMPILE) --constraint tools/pins.txt $(LIGHT) \
	  | grep -v -E '^(nvidia-|cuda-|triton)' | sed -E "s/^(torch==[0-9.]+).*/\1/; s/^(labmaze==[0-9.]+)$$/\1 ; python_full_version < '3.13'/" | uniq; } > requirements.new
	mv requirements.new requirements.txt
	{ grep '^#' requirements-sim.txt; \
	  $(COMPILE) --constraint tools/pins.txt --constraint requirements.txt $(LIGHT) $(HEAVY) | grep -v -E '^(nvidia-|cuda-|triton|evdev|torch==|labmaze)' \
	  | grep -v -x -F -f requirements.txt; } > requirements.new
	mv requirements.new requirements-sim.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
