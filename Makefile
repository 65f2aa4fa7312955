PYTHON ?= python3
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-strip-extras --custom-compile-command "make lock" pyproject.toml --group build

RANDOM_ROWS := $(addprefix tests/test_,oracle_agreement.py source_windows.py reader_process.py)

.PHONY: demo test test-all coverage torture bench lint format schemas notebooks lock clean

demo: .venv/installed-run  ## a sample database, exported: what this project does
	$(BIN)/feedback-etl demo

test: .venv/installed-test  ## the default tier: everything that takes no longer than a developer waits
	$(BIN)/pytest -n 2 --dist worksteal

test-all: .venv/installed-test  ## all tests but torture's: executors, notebooks, Celery, the browser, every crash point
	$(BIN)/pytest -n 2 --dist worksteal --hypothesis-profile full -m "not torture"

coverage: .venv/installed-test  ## the same with coverage, as continuous integration runs it
	$(BIN)/pytest -n 2 --dist worksteal --hypothesis-profile full -m "not torture" --durations 25 --cov --cov-report=term

torture: .venv/installed-test  ## what accidents do, a hundred times each, and many more random rows; about an hour
	$(BIN)/pytest -n 2 -m torture
	$(BIN)/pytest -n 2 --hypothesis-profile thorough $(RANDOM_ROWS)

bench: .venv/installed-test .venv-users/installed  ## what is claimed about speed, measured here; about forty minutes
	BENCH_PYTHON=$(CURDIR)/.venv-users/bin/python PYTHONPATH=tests $(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/training.py
	PYTHONPATH=tests $(BIN)/python benchmarks/many_workers.py

lint: .venv/installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-test  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: .venv/installed-run  ## write the published contracts anew
	$(BIN)/feedback-etl contracts schemas

notebooks: .venv/installed-test  ## run the notebooks and store what they give
	$(BIN)/python tests/run_notebooks.py notebooks/*.ipynb

lock: .venv/installed-run  ## pin the newest versions that fit
	$(BIN)/pip install --quiet uv
	$(COMPILE) --upgrade --output-file requirements/run.txt
	$(COMPILE) --upgrade --group test --group lint --output-file requirements/test.txt

clean:
	rm -rf .venv .venv-users feedback_demo

INSTALL = test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D); \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $< && \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	touch $@

.venv/installed-%: requirements/%.txt pyproject.toml
	$(INSTALL)

.venv-users/installed: requirements/run.txt pyproject.toml  # what users have, and nothing that only tests need
	$(INSTALL)
