"""How long it takes until something happens: start-up times of the command, the imports and a small export."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import sqlalchemy as sa
from comparison import named
from contenders import USERS_PYTHON, export
from measure import Bench, Command

PYTHON = "`python -c pass`"
IMPORT = "`import feedback_etl`"
LIBRARIES = "importing all libraries"
HELP = "`feedback-etl --help`"
SQLITE = "export of a small SQLite database"
POSTGRES = "export of a small PostgreSQL database"
WITH_PANDAS = "where pandas is installed: "

_LIBRARIES = "connectorx, pandera.polars, polars, polars_hash, psycopg, pyarrow, pydantic_settings, sqlalchemy, typer"


def startup_times(bench: Bench, sqlite: Path, postgres: sa.URL, runs: int) -> dict[str, float]:
    """Medians in seconds of so many runs, in which all take turns.

    Raises:
        Failed: A command ended with an error.
    """
    times: dict[str, list[float]] = {}
    for _ in range(runs):
        for name, command in _commands(sqlite, postgres).items():
            with named(name):
                times.setdefault(name, []).append(bench.time(command).wall)
    return {name: median(walls) for name, walls in times.items()}


def _commands(sqlite: Path, postgres: sa.URL) -> Mapping[str, Command]:
    python = USERS_PYTHON
    small = {SQLITE: f"sqlite:///{sqlite}", POSTGRES: postgres.render_as_string(hide_password=False)}
    exports = {name: export("--days", "-1", "--database-url", url) for name, url in small.items()}
    if find_spec("pandas"):
        exports |= {f"{WITH_PANDAS}{name}": _in_tests_environment(command) for name, command in exports.items()}
    return {
        PYTHON: lambda _: (python, "-c", "pass"),
        IMPORT: lambda _: (python, "-c", "import feedback_etl"),
        LIBRARIES: lambda _: (python, "-c", f"import {_LIBRARIES}"),
        HELP: lambda _: (python, "-m", "feedback_etl", "--help"),
        **exports,
    }


def _in_tests_environment(command: Command) -> Command:
    return lambda folder: (sys.executable, *command(folder)[1:])
