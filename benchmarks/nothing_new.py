"""How long an incremental export takes when there is nothing new; `--small` to see that it works.

One series follows new rows, another one changes too (`--cursor updated_at`, with an index on the column). Their first
runs export all rows; then each runs again in turn, as a command from start to end. With `--python` the interpreters of
other versions of the package take turns too, each with folders of its own. The results are printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median

import database
import psycopg
import sqlalchemy as sa
from watchdog import running_server

NOW = datetime(2025, 10, 25, 12)
KEY = "b59c1f5d0af8a3b3e0c64dd1f6de0572"  # published, so of no use elsewhere
SERIES: dict[str, tuple[str, ...]] = {"new rows": (), "changed rows": ("--cursor", "updated_at")}


def run(python: str, folder: Path, options: tuple[str, ...]) -> float:
    """Return the seconds of an incremental export as a command, from start to end."""
    command = [python, "-m", "feedback_etl", "export", "--incremental", "--days", "-1", "--output", str(folder)]
    started = time.perf_counter()
    subprocess.run([*command, "--quiet", *options], check=True)
    return time.perf_counter() - started


def measure(pythons: list[str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run with nothing new, by interpreter and series.

    Raises:
        CalledProcessError: An export failed.
    """
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="feedback_etl_bench_") as folder:
        for number in range(-1, rounds):  # the first exports all rows
            for version, python in enumerate(pythons):
                for name, options in SERIES.items():
                    took = run(python, Path(folder) / f"{version} {name}", options)
                    if number >= 0:
                        seconds.setdefault(f"{python}, {name}", []).append(took)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--python", action="append", default=[], help="an interpreter with another version")
    parser.add_argument("--small", action="store_true", help="few rows, one round")
    options = parser.parse_args()
    rows, rounds = (2_000, 1) if options.small else (options.rows, options.rounds)
    with running_server("postgres") as server:
        url = database.create(sa.make_url(server), "feedback", rows, NOW)
        with psycopg.connect(database.conninfo(url)) as connection:
            connection.execute("CREATE INDEX ON recommendation_feedbacks (updated_at)")
        text = url.render_as_string(hide_password=False)
        os.environ |= {"FEEDBACK_ETL_DATABASE_URL": text, "FEEDBACK_ETL_KEY": KEY}
        for name, seconds in measure([sys.executable, *options.python], rounds).items():
            print(f"{median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})  {name}, {rows:,} rows")


if __name__ == "__main__":
    main()
