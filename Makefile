PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
RUNS   ?= outputs/sweeps/methods
# The sweeps of the paper's figures.
SWEEPS := num_seen partitions heads trained_parts optimizers
REPORT  = $(BIN)/python -m ftc.report
# What is installed: the experiment's own packages, those of the site, everything that development needs, Ray, or
# what releases and audits do.
DIGITS  := $(VENV)/.digits
DOCS    := $(VENV)/.docs
DEV     := $(VENV)/.dev
RAY     := $(VENV)/.ray
RELEASE := $(VENV)/.release
# An environment of the lowest versions that pyproject.toml allows.
LOWEST  := .venv-lowest

.DEFAULT_GOAL := help
.PHONY: help train test test-all test-lowest lint format docs walkthroughs table figures study bench audit dist clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(DIGITS) $(DOCS) $(DEV) $(RAY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "make: $(PYTHON) is older than Python 3.10; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(@:$(VENV)/.%=%)]'
	@touch $@

$(RELEASE): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group release
	@touch $@

# Anew each time: what is installed already is preferred to what is lower.
$(LOWEST)/.dev: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[dev]'
	@touch $@

train: $(DIGITS)  ## Run the embedded experiment anew: UCI digits to MNIST (further overrides: ARGS="seed=1")
	$(BIN)/python -m ftc.train overwrite=true $(ARGS)

test: $(DEV)  ## Run the default test suite (further pytest options: ARGS="-k curve")
	$(BIN)/python -m pytest $(ARGS)

test-all: $(DEV)  ## Run every test, the slow ones too (Ray is fetched for its own)
	@$(BIN)/python -c 'import hydra_plugins.hydra_ray_launcher' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --editable '.[dev,ray]' \
	  || echo "make: Ray cannot be installed here; its test is skipped" >&2
	$(BIN)/python -m pytest -m "" $(ARGS)

test-lowest: $(LOWEST)/.dev  ## Run the default suite on the lowest declared versions (with PYTHON=python3.10)
	$(LOWEST)/bin/python -m pytest $(ARGS)

lint: $(DEV)  ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(DEV)  ## Rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS)  ## Write the generated pages and build the site, links checked, into build/docs
	$(BIN)/python -m docs._generate
	$(BIN)/sphinx-build -q -W --keep-going -E docs build/docs
	@echo build/docs/index.html

table: $(DIGITS)  ## Run three partitions of the digits and reprint the README's table of them
	$(BIN)/python -m ftc.train -m partition.seed=0,1,2 hydra.sweep.dir=outputs/sweeps/readme logger=csv >&2
	@$(REPORT) page=false outputs/sweeps/readme to=outputs/reports/readme figures=[] \
	  metrics=[acc_all,acc_seen,acc_absent,acc_absent_within,harmonic,ausuc] $(ARGS)

# Sweeps on one thread a job: numbers do not depend on how many cores there are.
figures: $(DEV)  ## Run everything that a figure of the docs shows, 77 runs, and draw them all into docs/figures
	$(BIN)/python -m ftc.train run_dir=outputs/figures/digits
	OMP_NUM_THREADS=1 $(BIN)/python -m ftc.train experiment=toy output_dir=outputs/figures run_dir=outputs/figures/toy
	for name in $(SWEEPS); do OMP_NUM_THREADS=1 $(BIN)/python -m ftc.train sweep=$$name output_dir=outputs/figures \
	  hydra.sweep.dir=outputs/figures/$$name hydra/launcher=joblib logger=csv || exit 1; done
	for name in digits toy $(SWEEPS); do \
	  $(REPORT) page=false outputs/figures/$$name to=outputs/figures/reports/$$name figures=[png] >/dev/null || exit 1; done
	$(BIN)/python -m docs._generate.idea outputs/figures/digits outputs/figures/reports/digits/figures/idea.png
	$(REPORT) outputs/figures/digits to=outputs/figures/reports/page figures=[] >/dev/null
	cp outputs/figures/reports/page/report.html docs/_static/digits.html
	for picture in $$(grep -oh 'figures/[a-z_]*/[a-z_]*[.]png' README.md docs/*.md | sort -u); do \
	  run=$$(basename $$(dirname $$picture)); mkdir -p docs/figures/$$run; \
	  cp outputs/figures/reports/$$run/figures/$${picture##*/} docs/$$picture || exit 1; done

study: $(DEV)  ## Reprint the tables of docs/methods.md from run folders (RUNS=outputs/sweeps/methods)
	$(BIN)/python -m ftc.compare runs=$(RUNS) methods=true $(ARGS)

walkthroughs: $(DEV)  ## Execute docs/walkthroughs and store their outputs in the notebooks (ARGS="clip": one of them)
	$(BIN)/python -m docs._generate.walkthroughs outputs/walkthroughs $(ARGS)

bench: $(DEV)  ## Measure speed against baselines in the same run
	$(BIN)/python -m pytest -n 0 -q -s tests/speed -m "" $(ARGS)

# What pip-audit cannot look up fails too: it is not audited.
audit: $(DEV) $(RAY) $(RELEASE)  ## Check licences, rewrite docs/licences.md, and look for known vulnerabilities
	$(BIN)/python -m docs._generate.licences --pins $(VENV)/pins.txt
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip -r $(VENV)/pins.txt

dist: $(RELEASE)  ## Build what a release publishes, the wheel from the sdist, into dist/, and check it
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:  ## Remove the environments, caches and run folders
	rm -rf $(VENV) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find ftc tests -name __pycache__ -type d -prune -exec rm -rf {} +
	find outputs -mindepth 1 ! -name .gitkeep -delete
