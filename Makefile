# Each target sets up .venv by itself when it is missing.
PYTHON ?= python3
BIN := .venv/bin
DEMO := recipes/review-sentiment

.PHONY: setup demo test test-slow bench lint fix

setup: .venv/ready

.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/python $(DEMO)/fetch.py
	$(BIN)/bantam make $(DEMO)/recipe.toml
	$(BIN)/bantam run runs/review-sentiment "The battery died after a week."
	$(BIN)/bantam run runs/review-sentiment "Sets up in a minute and just works."

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/pytest -q -n 2

test-slow: .venv/ready
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks
	$(BIN)/pytest -q -m slow

bench: .venv/ready
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[bench]'
	$(BIN)/python benchmarks/reviews.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/tune.py
	$(BIN)/python benchmarks/tune.py --ablate --steps 12
	$(BIN)/python benchmarks/serve.py --requests 48
	$(BIN)/python benchmarks/adapt.py
	$(BIN)/python benchmarks/text.py
	$(BIN)/python benchmarks/vocabulary.py
	$(BIN)/python benchmarks/scratch.py throughput
	$(BIN)/python benchmarks/scratch.py quality
	$(BIN)/python benchmarks/scratch.py ablate
	$(BIN)/python benchmarks/less.py
