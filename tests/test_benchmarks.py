"""What is claimed about speed is measured by programs that work, and quoted as it was measured."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def tables(text: str) -> list[list[str]]:
    """The cells of every line of every table."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_documented_performance_equals_the_results() -> None:
    """Compare each row of the table in docs/performance.md with the results, cell by cell."""
    section = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    results = RESULTS.read_text(encoding="utf-8")
    measured = {cells[0]: cells for cells in reversed(tables(results))}  # the first table that has the name
    header, *quoted = tables(section)
    full_header = next(cells for cells in tables(results) if cells[1:2] == ["seconds"])
    places = [full_header.index(name) for name in header]
    assert len(quoted) >= 5
    for cells in quoted:
        assert cells == [measured[cells[0]][place] for place in places]
    (readme,) = re.findall(r"docs/performance.md.*\n.*", (ROOT / "README.md").read_text(encoding="utf-8"))
    figures = re.findall(r"(\d[\d.,]*) (?:s|MB|x)\b", section.partition("|")[0] + readme)
    assert len(figures) == 5
    assert all(number in results for number in figures)


SMALL_RUNS = {
    "bench": (
        ["--rows", "4000", "--scale", "0.008"],
        ["`feedback-etl export`", "`COPY` of the bare join", "pandas and hashlib", "gate (pandera)", "8,000"],
        "6 contenders wrote the same",
    ),
    "training": ([], ["`features` of all rows", "count by age range, 10 Parquet files"], ""),
    "many_workers": ([], ["`feedback-etl export --bulk`", "a worker, a task whose range is empty"], ""),
}
"""Options of each program, first cells of its tables, and what it prints beside them."""


@pytest.mark.slow
@pytest.mark.parametrize("program", SMALL_RUNS)
def test_small_run_measures_all(program: str) -> None:
    """It compares everybody who can run here; everybody who does the same work has the same rows."""
    options, cells, text = SMALL_RUNS[program]
    done = subprocess.run(
        [sys.executable, f"benchmarks/{program}.py", "--small", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or program == "many_workers"  # Dask logs
    assert text in done.stdout
    assert {*cells} <= {row[0] for row in tables(done.stdout)}
