"""What we claim about speed, measured: `make bench`, or `python benchmarks/bench.py --small` to see that it works."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import database
import psutil
import sqlalchemy as sa
from comparison import Measured, compare
from contenders import (
    BARE,
    ORM,
    OURS,
    SLOW,
    USERS_PYTHON,
    Setup,
    check_contents,
    check_rows,
    contenders,
    export,
    on_sqlite,
    psql,
    unable,
    with_options,
)
from machine import description
from measure import Bench, Failed
from own_share import record
from results import Results, kept_notes, markdown
from startup import startup_times
from statements import bare_join, copied
from watchdog import running_server

from feedback_etl.demo.sample import create_sample_database

KEY = "b59c1f5d0af8a3b3e0c64dd1f6de0572"  # published, so of no use elsewhere
HERE = Path(__file__).resolve().parent
CHECKED_ROWS = 5_000
STARTUP_ROWS = 3_000

FULL = {"rows": 2_000_000, "rounds": 5, "scale": "2,8,32", "output": Path(__file__).with_name("RESULTS.md")}
SMALL = {"rows": 20_000, "rounds": 1, "scale": "0.02,0.04"}


def main() -> None:
    """Measure and write."""
    options = _options()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    if "PYTHONPATH" in os.environ:  # commands run in other folders
        paths = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths)
    try:
        results = _measured(options)
    except Failed as failure:
        sys.exit(f"error: {failure}")
    if options.output is None:
        print(markdown(results), "A small run shows that everything works. Its figures mean nothing.", sep="\n")
    else:
        options.output.write_text(markdown(results, kept_notes(options.output)), encoding="utf-8")
        print(f"written to {options.output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, help="rows of the comparison")
    parser.add_argument("--rounds", type=int, help="how often each contender runs")
    parser.add_argument("--scale", type=_sizes, help="sizes of the series, in millions of rows")
    parser.add_argument("--output", type=Path, help="the page; with --small it is printed unless this is given")
    parser.add_argument("--date", default=str(datetime.now(UTC).date()), help="the date of the page")
    parser.add_argument("--small", action="store_true", help="few rows and rounds: does it work?")
    parser.set_defaults(**SMALL if "--small" in sys.argv else FULL)
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [round(float(millions) * 1_000_000) for millions in text.split(",")]


def _leave(number: int, _frame: object) -> None:
    """End in order, once: whatever runs is ended too."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _measured(options: argparse.Namespace) -> Results:
    for name, reason in unable().items():
        print(f"without {name}: {reason}", flush=True)
    now = datetime.now(UTC).replace(tzinfo=None)
    with _place() as place:
        startup = _startup(place, now, runs=1 if options.small else 9)
        _check(place, now)
        print(f"loading {options.rows:,} rows", flush=True)
        url = database.create(place.server, "compared", options.rows, now)
        main = _compare(place, url, now, options)
        print("options, steps, SQLite", flush=True)
        rounds, rows = min(options.rounds, 3), options.rows
        bench = place.bench(url)
        series = place.folder / "series"
        commands = with_options(series)
        bench.run(export("--days", "-1", "--incremental")(series))
        with_them = compare(bench, commands, dict.fromkeys(commands, rows), rounds, memory=not options.small)
        steps = bench.run((USERS_PYTHON, HERE / "steps.py", place.folder, place.recording(url)))
        sqlite = _compare_on_sqlite(place, now, rows, rounds, memory=not options.small)
        scale = _scale(place, url, options)
        version = database.server_version(place.server)
    return Results(
        main=main,
        options=with_them,
        sqlite=sqlite,
        steps=steps,
        rounds=options.rounds,
        scale=scale,
        startup=startup,
        startup_rows=STARTUP_ROWS,
        machine=description(version),
        date=options.date,
    )


class _Place(NamedTuple):
    """Where everything happens; gone in the end."""

    server: sa.URL
    folder: Path

    def bench(self, url: sa.URL) -> Bench:
        """For commands that work on a database, and find compiled modules as in an installation."""
        foreign = ("FEEDBACK_ETL_", "DATABASE_URL", "PG", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment["FEEDBACK_ETL_KEY"] = KEY
        environment["FEEDBACK_ETL_DATABASE_URL"] = url.render_as_string(hide_password=False)
        pid, *_ = (Path(str(self.server.query["host"])) / "postmaster.pid").read_text().splitlines()
        return Bench(self.folder, environment, psutil.Process(int(pid)))

    def setup(self, url: sa.URL, now: datetime, orm_rows: int) -> Setup:
        """For contenders that work on a database."""
        record(url.render_as_string(hide_password=False), self.recording(url), now)
        return Setup(url, KEY, now, self.folder, self.recording(url), orm_rows)

    def recording(self, url: sa.URL) -> Path:
        """Return the path of the recorded stream of a database."""
        return self.folder / f"{url.database}.arrow"


@contextmanager
def _place() -> Iterator[_Place]:
    with tempfile.TemporaryDirectory(prefix="feedback_etl_bench_") as folder, running_server("postgres") as url:
        yield _Place(sa.make_url(url), Path(folder))


def _startup(place: _Place, now: datetime, runs: int) -> dict[str, float]:
    print(f"start-up times, {runs} runs", flush=True)
    sqlite = place.folder / "small.db"
    create_sample_database(sqlite, rows=STARTUP_ROWS, now=now)
    postgres = database.create(place.server, "small", STARTUP_ROWS, now)
    return startup_times(place.bench(postgres), sqlite, postgres, runs)


def _check(place: _Place, now: datetime) -> None:
    url = database.create(place.server, "checked", CHECKED_ROWS, now)
    setup = place.setup(url, now, CHECKED_ROWS)
    check_contents(place.bench(url), contenders(setup), place.folder)


def _compare(place: _Place, url: sa.URL, now: datetime, options: argparse.Namespace) -> dict[str, Measured]:
    orm_rows = options.rows // 10 if options.small else min(options.rows, 20_000)
    commands = contenders(place.setup(url, now, orm_rows))
    rows_of = dict.fromkeys(commands, options.rows) | {ORM: orm_rows}
    memory = not options.small
    figures = compare(place.bench(url), commands, rows_of, options.rounds, slow=SLOW, memory=memory)
    check_rows(figures)
    return figures


def _compare_on_sqlite(place: _Place, now: datetime, rows: int, rounds: int, *, memory: bool) -> dict[str, Measured]:
    """Ours and the script, on a file with the same rows."""
    path = place.folder / "compared.db"
    create_sample_database(path, rows=rows, now=now)
    commands = on_sqlite()
    bench = place.bench(sa.URL.create("sqlite", database=str(path)))
    figures = compare(bench, commands, dict.fromkeys(commands, rows), rounds, memory=memory)
    path.unlink()
    return figures


def _scale(place: _Place, url: sa.URL, options: argparse.Namespace) -> dict[int, dict[str, Measured]]:
    """Ours and the bare join, over windows of one database."""
    database.grow(url, options.rows, max(options.scale))
    figures = {}
    for rows in options.scale:
        print(f"{rows:,} rows", flush=True)
        since = database.start_of(url, rows)
        setup = Setup(url, KEY, since, place.folder, place.folder, 0)
        commands = {
            OURS: export("--since", since.isoformat()),
            BARE: psql(setup, "bare.sql", copied(bare_join(since))),
        }
        figures[rows] = compare(place.bench(url), commands, dict.fromkeys(commands, rows), min(options.rounds, 3))
    return figures


if __name__ == "__main__":
    main()
