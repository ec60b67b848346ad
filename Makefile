# What a new user needs beside this: Python 3.11 to 3.13, pip, and on a bare Debian or Ubuntu apt. Every target sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# These compute; all other tests wait for clocks, sockets and processes. The files that take longest come first, so that no worker is left with
# one of them when the other has done all.
COMPUTES := tests/unit/export tests/packaging tests/unit/training $(addprefix tests/unit/edge_runtime/, \
  model/test_bundle.py images/test_damage.py model/test_predictor.py model/test_preprocess.py model/test_regions.py \
  commands/test_replay.py model/test_tiles.py plc/test_tags.py)

.PHONY: setup demo quick test mutate check docs bench soak chaos fuzz benchmark-methods benchmark-thresholds deb clean

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

# deploy/decisions/0037
test: $(READY)
	@bash deploy/testbench.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(COMPUTES)  # a core each
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not alone" $(addprefix --ignore ,$(COMPUTES))
	$(BIN)/python -m pytest -m alone $(addprefix --ignore ,$(COMPUTES))

# deploy/decisions/0039
mutate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2
	@$(BIN)/python -m tests.mutants --show

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for script in deploy/*.sh .ci/run; do bash -n $$script || exit 1; done
	bash deploy/verify_units.sh

# deploy/decisions/0043. A page, a link or a heading that is not there ends it.
docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -f deploy/docs/mkdocs.yml
	@echo "build/site/index.html"

bench: $(READY)
	@$(BIN)/python -m tests.bench $(BENCH)

soak: $(READY)
	@$(BIN)/python -m tests.soak soak $(SOAK)

chaos: $(READY)
	@bash deploy/testbench.sh
	@$(BIN)/python -m tests.chaos $(CHAOS)

benchmark-methods: $(READY)
	@$(BIN)/python -m tests.bench_methods --write $(BENCH)

benchmark-thresholds: $(READY)
	@$(BIN)/python -m tests.bench_thresholds --write $(BENCH)

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz $(FUZZ)

deb: $(READY)
	@bash deploy/deb.sh --python $(BIN)/python $(DEB)

.PHONY: sbom
sbom: $(READY)
	@$(BIN)/python deploy/sbom.py $(SBOM)

.PHONY: constraints oldest newest coverage

# deploy/decisions/0042: each file needs its own Python
PYTHONS ?= python3.11 python3.12 python3.13
constraints:
	@bash deploy/constraints.sh $(UPGRADE) $(PYTHONS)

# The device with what pyproject.toml says is the oldest, and with the newest there is; both without PyTorch.
oldest newest:
	@bash deploy/bounds.sh $@ $(PYTHON) tests/unit/edge_runtime tests/contract tests/station

# deploy/decisions/0037: what the quick tests reach, and the least that they may
coverage: $(READY)
	@$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not alone" --cov --cov-report= \
	  tests/unit tests/contract tests/station
	$(BIN)/coverage report --skip-covered --include 'edge_runtime/*' --fail-under 94
	$(BIN)/coverage report --skip-covered --include 'training/*' --fail-under 88
	$(BIN)/coverage report --skip-covered --include 'export/*' --fail-under 53

clean:
	rm -rf $(VENV) runs dist build mutants .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
