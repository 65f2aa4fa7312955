"""What we claim about reading exports and training on them, measured; `--small` to see that it works.

Ten exports of windows side by side are read in each form by us and by pandas, every run in a process of its own that
tells its seconds without the imports. All take turns, round by round.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

FILES = 10
STEP = timedelta(days=180)
NOW = datetime(2025, 10, 25, 12)
KEY = "b59c1f5d0af8a3b3e0c64dd1f6de0572"  # published, so of no use elsewhere
PAGE = Path(__file__).with_name("TRAINING.md")

CSV = "count by age range, 10 CSV files"
PARQUET = "count by age range, 10 Parquet files"
OVERLAPPING = "the same, of 10 CSV files and a copy of one: duplicates are looked for"
PANDAS = "pandas reads the 10 CSV files and counts"
PANDAS_TYPED = "the same, with ratings that stay whole and times that are times"
PANDAS_COLUMN = "pandas reads one column of them and counts"
WHOLE = "all columns and rows of 10 CSV files"
FEATURES = "`features` of all rows"
SPLIT = "`split_by_hash` of all rows, three parts"


def make(folder: Path, rows: int) -> int:
    """Write the exports in both forms; how many rows they have."""
    import polars as pl

    import feedback_etl as fe
    from feedback_etl.demo.sample import sample_database

    with sample_database(rows=rows // FILES * 11 // 10, now=NOW) as url:  # some rows are wrong, or there twice
        pairs = fe.load_training(url, days_back=-1, now=NOW, key=KEY).head(rows // FILES)
    for number in range(FILES):
        moved = pairs.with_columns(pl.col("feedback_timestamp") + number * STEP)
        for name, form in (("csv", "csv"), ("overlapping", "csv"), ("parquet", "parquet")):
            _publish(folder / name, moved, number, form)
    _publish(folder / "overlapping", pairs, 0, "csv")
    return pairs.height * FILES


def _publish(folder: Path, pairs: Any, number: int, form: Any) -> None:
    from feedback_etl.data_files.file_formats import FileFormat
    from feedback_etl.exports.preconditions import TransactionOptions
    from feedback_etl.exports.transaction import ExportTransaction
    from feedback_etl.privacy.keys import Key
    from feedback_etl.records.manifest_details import ManifestDetails

    end = NOW + number * STEP
    with ExportTransaction(folder, end, TransactionOptions(key=Key(KEY)), form=FileFormat(form)) as files:
        files.write(pairs)
        files.commit(details=ManifestDetails(window=(end - STEP, end)))


def task(name: str, folder: Path) -> Callable[[], Any]:
    """Return what is measured; what it needs is loaded before."""
    if name in (PANDAS, PANDAS_TYPED, PANDAS_COLUMN):
        import pandas as pd

        options: dict[str, Any] = {"usecols": ["age_range"]} if name == PANDAS_COLUMN else {}
        if name == PANDAS_TYPED:
            options = {"dtype_backend": "numpy_nullable", "parse_dates": ["feedback_timestamp", "export_date"]}
        paths = sorted((folder / "csv").glob("*.csv"))
        return lambda: pd.concat([pd.read_csv(path, **options) for path in paths])["age_range"].value_counts()
    from feedback_etl.training import Vocabulary, features, scan_training, split_by_hash

    if name in (FEATURES, SPLIT):
        pairs = scan_training(folder / "csv").collect()
        known = Vocabulary.fit(pairs)
        shares = {"train": 0.8, "val": 0.1, "test": 0.1}
        if name == SPLIT:
            grouped = pairs.rename({"recommendation_id": "group"})  # who splits by recommendations is warned
            return lambda: split_by_hash(grouped, shares, by="group")
        return lambda: features(pairs, vocabulary=known)
    place = folder / {PARQUET: "parquet", OVERLAPPING: "overlapping"}.get(name, "csv")
    if name == WHOLE:
        return lambda: scan_training(place).collect()
    return lambda: scan_training(place).group_by("age_range").len().collect()


def run(name: str, folder: Path) -> None:
    """Measure one of them in this process, and print its seconds."""
    work = task(name, folder)
    started, processor = time.perf_counter(), time.process_time()
    work()
    print(json.dumps([time.perf_counter() - started, time.process_time() - processor]))


def measured(folder: Path, rounds: int, *, warm_up: bool) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds of each round, after one that fills the caches where `warm_up` asks for it."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name in (CSV, PANDAS, PANDAS_TYPED, PARQUET, PANDAS_COLUMN, OVERLAPPING, WHOLE, FEATURES, SPLIT):
            command = [sys.executable, __file__, "--run", name, "--folder", str(folder)]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            seconds.setdefault(name, []).extend([tuple(told)] if number else [])
        print(f"round {number} of {rounds}", flush=True)
    return seconds


def page(times: dict[str, list[tuple[float, float]]], rows: int, rounds: int) -> Iterator[str]:
    """Return the results as Markdown; notes written by hand stay."""
    from machine import description
    from results import kept_notes

    seconds = {name: [wall for wall, _ in found] for name, found in times.items()}

    def ratio(slower: str, faster: str) -> float:
        return median(a / b for a, b in zip(seconds[slower], seconds[faster], strict=True))

    targets = [
        (f"how many times as fast as pandas is: {CSV}", ratio(PANDAS, CSV), 10, ">=", "x"),
        ("how many times as fast as our CSV is our Parquet", ratio(CSV, PARQUET), 3, ">=", "x"),
        (FEATURES, median(seconds[FEATURES]), 3, "<=", "s"),
    ]
    yield "# What the benchmarks of training measured\n"
    yield f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {rows:,} rows, medians of {rounds} rounds, ratios"
    yield "within a round; imports aside.\n"
    yield "| machine | |\n| --- | --- |"
    yield from (f"| {what} | {which} |" for what, which in description("") if what != "PostgreSQL")
    yield "\n| target | measured | wanted | |\n| --- | --- | --- | --- |"
    for what, value, bound, sign, unit in targets:
        met = value >= bound if sign == ">=" else value <= bound
        yield f"| {what} | {value:.3g} {unit} | {sign} {bound} {unit} | {'met' if met else '**missed**'} |"
    yield "\n| | seconds | from | to | processor s |\n| --- | --- | --- | --- | --- |"
    for name, found in seconds.items():
        processor = median(seconds for _, seconds in times[name])
        yield f"| {name} | {median(found):.3f} | {min(found):.3f} | {max(found):.3f} | {processor:.3f} |"
    yield f"\n## Notes\n\n<!-- notes -->\n{kept_notes(PAGE)}<!-- /notes -->"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="few rows, one round, and the page is printed")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run, options.folder)
        return
    rows, rounds = (10_000, 1) if options.small else (options.rows, options.rounds)
    with tempfile.TemporaryDirectory(prefix="feedback_etl_bench_") as folder:
        made = make(Path(folder), rows)
        text = "\n".join(page(measured(Path(folder), rounds, warm_up=not options.small), made, rounds)) + "\n"
    if options.small:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
