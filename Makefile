# What a new user needs beside this: Python 3.11 to 3.13, pip, and on a bare Debian or Ubuntu apt. Every target sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The files that take longest come first, so that no worker is left with one of them when the other has done all.
NOT_TIMED := tests/unit/export tests/packaging tests/unit/training $(addprefix tests/unit/edge_runtime/, \
  model/test_bundle.py images/test_damage.py model/test_predictor.py model/test_preprocess.py model/test_regions.py \
  commands/test_replay.py model/test_tiles.py plc/test_tags.py)

.PHONY: setup demo quick test check bench soak benchmark-methods benchmark-thresholds deb clean

setup: $(READY)

$(READY): pyproject.toml deploy/opencv_libs.sh
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "make: cannot make a virtual environment; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { rm -rf $(VENV); echo "make: Lineside needs Python 3.11 to 3.13; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing into $(VENV) (the first time takes some minutes: PyTorch and OpenVINO are large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	@bash deploy/opencv_libs.sh $(BIN)/python
	@touch $@

demo: $(READY)
	@$(BIN)/python -m export.demo --out runs/demo

# deploy/decisions/0037
quick: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" tests/unit

test: $(READY)
	@bash deploy/testbench.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(NOT_TIMED)  # a core each
	$(BIN)/python -m pytest $(addprefix --ignore ,$(NOT_TIMED))  # about time: these run alone

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for script in deploy/*.sh .ci/run; do bash -n $$script || exit 1; done
	bash deploy/verify_units.sh

bench: $(READY)
	@$(BIN)/python -m tests.bench $(BENCH)

soak: $(READY)
	@$(BIN)/python -m tests.soak soak $(SOAK)

benchmark-methods: $(READY)
	@$(BIN)/python -m tests.bench_methods --write $(BENCH)

benchmark-thresholds: $(READY)
	@$(BIN)/python -m tests.bench_thresholds --write $(BENCH)

deb: $(READY)
	@bash deploy/deb.sh --python $(BIN)/python $(DEB)

.PHONY: constraints oldest newest

# deploy/decisions/0039: each file needs its own Python
PYTHONS ?= python3.11 python3.12 python3.13
constraints:
	@bash deploy/constraints.sh $(UPGRADE) $(PYTHONS)

# The device with what pyproject.toml says is the oldest, and with the newest there is; both without PyTorch.
oldest newest:
	@bash deploy/bounds.sh $@ $(PYTHON) tests/unit/edge_runtime tests/contract tests/station

clean:
	rm -rf $(VENV) runs dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
