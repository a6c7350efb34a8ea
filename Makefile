# make demo: train, evaluate and talk to a small model;  make test: the tests;  make style: ruff
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
TOOLS := "pytest>=8" "pytest-cov>=5" "pytest-xdist>=3.5" "hypothesis>=6" "setuptools>=68" "nbclient>=0.10" "ipykernel>=6.29"

.PHONY: demo test soak mutations coverage test-oldest style check-style flag-tables clean

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt $(TOOLS) "ruff>=0.9"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python run_conditional_training.py --preset quick_demo
	$(BIN)/python evaluate_trained_model.py --max_samples 300
	printf 'para How can I learn to bake bread in two weeks?\npara If it rains on Friday, we will visit the museum.\nquit\n' | \
		$(BIN)/python interactive_generation.py

# as many files at once as there are cores, with one thread each
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

# kills training a hundred times at random moments; two minutes on a quiet machine, a quarter of an hour on a busy one
soak: $(VENV)/.installed
	$(BIN)/python -m tools.soak --kills 100

# breaks the mathematics on purpose, 48 times: the tests must notice
mutations: $(VENV)/.installed
	$(BIN)/python -m tools.mutations

coverage: $(VENV)/.installed
	$(BIN)/python -m pytest -q --cov=diffusion_bert --cov-report=term-missing:skip-covered --cov-fail-under=92

# the lowest versions that requirements.txt admits
test-oldest: requirements.txt
	$(PYTHON) -m venv $(OLDEST)
	sed -E 's/>=([0-9.]+).*/==\1/' requirements.txt > $(OLDEST)/requirements.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(OLDEST)/requirements.txt $(TOOLS)
	$(OLDEST)/bin/python -m pytest -q

style: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the tables of flags in docs/, from the settings
flag-tables: $(VENV)/.installed
	$(BIN)/python -m tools.flag_tables

check-style: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
