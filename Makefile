# make demo: train, evaluate and talk to a small model;  make test: the tests;  make style: ruff
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test soak style check-style clean

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt "pytest>=8" "hypothesis>=6" "ruff>=0.6"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python run_conditional_training.py --preset quick_demo
	$(BIN)/python evaluate_trained_model.py --max_samples 300
	printf 'para How can I learn to bake bread in two weeks?\npara If it rains on Friday, we will visit the museum.\nquit\n' | \
		$(BIN)/python interactive_generation.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q

# kills training a hundred times at random moments; a quarter of an hour
soak: $(VENV)/.installed
	$(BIN)/python tests/soak.py --kills 100

style: $(VENV)/.installed
	$(BIN)/ruff check --fix .

check-style: $(VENV)/.installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
