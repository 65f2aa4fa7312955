"""Notebooks run from top to bottom, as a reader would run them, and contain their outputs."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import pytest

import feedback_etl as fe
from feedback_etl.demo.sample import DEMO_KEY, sample_database

RUN = Path(__file__).with_name("run_notebooks.py")
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
PLOTTED = [path for path in NOTEBOOKS if path.stem != "quickstart"]
PICTURE = "image/png"
MAX_BYTES = 500_000  # of a notebook with its pictures; repositories keep every version of them


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells that are run."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def pictures(cells: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """The outputs that hold a picture, by their kinds."""
    outputs = (output for cell in cells for output in cell["outputs"])
    return (output["data"] for output in outputs if PICTURE in output.get("data", {}))


def without_pixels(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells with pictures that are only there: fonts are drawn a little differently elsewhere."""
    for data in pictures(cells):
        data[PICTURE] = "a picture"
    return cells


def test_the_cells_of_the_quickstart_run_as_one_program() -> None:
    """Without a kernel; the slow tier compares the outputs of a kernel."""
    (quickstart,) = [path for path in NOTEBOOKS if path not in PLOTTED]
    code = "\n".join("".join(cell["source"]) for cell in code_cells(quickstart))
    names: dict[str, Any] = {}
    exec(compile(code, quickstart.name, "exec"), names)
    assert names["loaded"].equals(names["pairs"])
    assert names["by_hand"].height > 0


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_the_outputs_that_are_stored(notebook: Path, tmp_path: Path) -> None:
    """Every cell runs in a fresh kernel, without a configured key or database; `make notebooks` stores outputs anew."""
    copy, temporary = tmp_path / notebook.name, tmp_path / "temporary"
    copy.write_bytes(notebook.read_bytes())
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, str(RUN), str(copy)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert without_pixels(code_cells(copy)) == without_pixels(code_cells(notebook))
    assert [*temporary.iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize("notebook", ["exploring_feedback", "training_a_baseline"])
def test_own_exports_are_used_by_the_line_that_the_notebook_names(
    notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one export of other people, timeframes and conditions, which has no rows in common with the sample."""
    path = RUN.parent.parent / "notebooks" / f"{notebook}.ipynb"
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    (line,) = re.findall(r"`(FOLDER = .*?)`", text)
    monkeypatch.chdir(tmp_path)
    with sample_database(rows=1_500, seed=11) as url:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            database.execute("UPDATE recommendation_feedbacks SET timeframe = 'day_90' WHERE timeframe = '8_weeks'")
            database.execute(
                "UPDATE recommendation_records SET conditions_analyzed = replace(conditions_analyzed, 'dry', 'x')"
            )
            database.commit()
        fe.export_feedback(url, days_back=90, key=DEMO_KEY, output_dir=line.split('"')[1], include_subject_hash=True)
    code = "\n".join("".join(cell["source"]) for cell in code_cells(path))
    assert code.count("\nFOLDER = None\n") == 1
    monkeypatch.setattr("matplotlib.rcParams", dict(matplotlib.rcParams))
    names: dict[str, Any] = {}
    exec(compile(code.replace("\nFOLDER = None\n", f"\n{line}\n"), path.name, "exec"), names)
    assert "url" not in names
    assert 0 < names["pairs"].height < 1_500


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_no_path_of_a_machine(notebook: Path) -> None:
    """Stored outputs show sample data only: no folder, no warning, no error."""
    outputs = json.dumps([cell["outputs"] for cell in without_pixels(code_cells(notebook))])
    for trace in ("/tmp/", "/home/", "Warning", "Traceback", "stderr"):
        assert trace not in outputs


@pytest.mark.parametrize("notebook", PLOTTED, ids=lambda path: path.stem)
def test_plots_are_stored_and_small(notebook: Path) -> None:
    """A reader who does not run a notebook sees its plots, and the repository stays small."""
    assert len([*pictures(code_cells(notebook))]) >= 4
    assert notebook.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("notebook", PLOTTED, ids=lambda path: path.stem)
def test_plots_have_descriptions_with_values(notebook: Path) -> None:
    """For those who do not see the picture; as text too, since JupyterLab and GitHub show no alternative texts."""
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    plots = [number for number, output in enumerate(outputs) if PICTURE in output.get("data", {})]
    descriptions = [outputs[number]["metadata"][PICTURE]["alt"] for number in plots]
    assert all(re.fullmatch(r"[A-Z].{40,}\d.*\.", text) for text in descriptions)
    assert len({*descriptions}) == len(plots)
    below = [outputs[number + 1]["data"] for number in plots]
    assert ["".join(data["text/plain"]) for data in below] == descriptions
    assert all(
        "</summary>" + escape(text) in "".join(data["text/html"])
        for data, text in zip(below, descriptions, strict=True)
    )


def test_extra_brings_what_notebooks_import() -> None:
    """And JupyterLab, whose kernel brings IPython."""
    project = tomllib.loads((RUN.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {re.split("[>=]", requirement)[0] for requirement in project["optional-dependencies"]["notebook"]}
    assert extra == {"jupyterlab", "matplotlib", "scikit-learn"}
    code = "\n".join("".join(cell["source"]) for notebook in NOTEBOOKS for cell in code_cells(notebook))
    imported = {*re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)} - sys.stdlib_module_names
    assert imported == {"IPython", "feedback_etl", "matplotlib", "numpy", "polars", "sklearn"}


def test_plots_share_one_style() -> None:
    """The cell that sets it is the same in all notebooks with plots."""
    sources = ["".join(cell["source"]) for notebook in PLOTTED for cell in code_cells(notebook)]
    styles = [source for source in sources if "rcParams" in source]
    assert len(styles) == len(PLOTTED)
    assert len({*styles}) == 1
