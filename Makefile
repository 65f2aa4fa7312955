PYTHON ?= python3
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-strip-extras --custom-compile-command "make lock" pyproject.toml --group build

RANDOM_ROWS := $(addprefix tests/test_,oracle_agreement.py database_windows.py reader_process.py)

OLDEST := $(addprefix tests/test_,any_frame.py csv.py custom_model.py dataset.py demo.py expressions.py manifest.py \
	options.py processor.py report.py schema.py settings.py stored_formats.py transforms.py)

.PHONY: demo test test-all test-oldest coverage torture bench bench-more lint format docs schemas notebooks lock clean

demo: .venv/installed-run  ## create a sample database and export it
	$(BIN)/feedback-etl demo

test: .venv/installed-test  ## the default tier, in less than 6 minutes
	$(BIN)/pytest -n 2 --dist worksteal

test-all: .venv/installed-test .venv-airflow/installed  ## the default and the slow tier: executors, notebooks, Celery, the browser, every crash point
	$(BIN)/pytest -n 2 --dist worksteal --hypothesis-profile full -m "not torture"

test-oldest: .venv-oldest/installed  ## tests of what libraries decide, with the oldest supported version of each
	.venv-oldest/bin/pytest -n 2 --dist worksteal $(OLDEST)

coverage: .venv/installed-test .venv-airflow/installed  ## the same with coverage, as continuous integration runs it
	$(BIN)/pytest -n 2 --dist worksteal --hypothesis-profile full -m "not torture" --durations 25 --cov --cov-report=term

torture: .venv/installed-test  ## each fault injection a hundred times, and many more random rows; about an hour
	$(BIN)/pytest -n 2 -m torture
	$(BIN)/pytest -n 2 --hypothesis-profile thorough $(RANDOM_ROWS)

bench: .venv/installed-test .venv-users/installed  ## measure exports, and write RESULTS.md; about half an hour
	BENCH_PYTHON=$(CURDIR)/.venv-users/bin/python PYTHONPATH=tests $(BIN)/python benchmarks/bench.py

bench-more: .venv/installed-test  ## measure training and exports by many workers
	$(BIN)/python benchmarks/training.py
	PYTHONPATH=tests $(BIN)/python benchmarks/many_workers.py

lint: .venv/installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-test  ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-test  ## build the documentation site in docs/_build/html
	$(BIN)/sphinx-build --fail-on-warning --quiet docs docs/_build/html

schemas: .venv/installed-run  ## regenerate the published contracts
	$(BIN)/feedback-etl contracts -o schemas

notebooks: .venv/installed-test  ## run the notebooks and store their outputs
	$(BIN)/python tests/run_notebooks.py notebooks/*.ipynb

lock: .venv/installed-run  ## pin the newest compatible versions
	$(BIN)/pip install --quiet uv
	$(COMPILE) --upgrade --output-file requirements/run.txt
	$(COMPILE) --upgrade --group test --group lint --output-file requirements/test.txt
	$(COMPILE) --upgrade --group airflow --output-file requirements/airflow.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-deps --no-header --no-annotate \
		--resolution lowest-direct pyproject.toml | \
		$(COMPILE) --upgrade --constraint - --group test --output-file requirements/oldest.txt

clean:
	rm -rf .venv .venv-oldest .venv-airflow .venv-users docs/_build feedback_demo

INSTALL = test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D); \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $< && \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	touch $@

.venv/installed-%: requirements/%.txt pyproject.toml
	$(INSTALL)

.venv-oldest/installed: requirements/oldest.txt pyproject.toml  # the lower bounds of pyproject.toml, and what tests need
	$(INSTALL)

.venv-airflow/installed: requirements/airflow.txt pyproject.toml  # an environment of its own: see pyproject.toml
	$(INSTALL)

.venv-users/installed: requirements/run.txt pyproject.toml  # the dependencies of users, without those of tests
	$(INSTALL)
