"""The example that trains a model runs as shown, and its model beats the majority baseline."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pseudonym_keys import KEY

from feedback_etl.demo.sample import sample_database

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "train_baseline.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of the example, empty at first."""
    return tmp_path_factory.mktemp("example")


def run_example(folder: Path, **variables: str) -> list[list[str]]:
    """Run the example and return the words of each printed line."""
    environment = os.environ | {"PYTHONWARNINGS": "error"} | variables
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def printed(folder: Path) -> list[list[str]]:
    """Return the output on sample data."""
    return run_example(folder)


@pytest.mark.slow
def test_model_is_better_than_the_majority(printed: list[list[str]]) -> None:
    """In all three metrics; the majority's balanced accuracy and ROC AUC are 0.5."""
    majority, model = ([float(figure) for figure in line[1:]] for line in printed[-2:])
    assert majority[:2] == [0.5, 0.5]
    assert model[0] > 0.55
    assert model[1] > 0.65
    assert model[2] < majority[2]


@pytest.mark.slow
@pytest.mark.usefixtures("printed")
def test_own_database_is_exported_to_another_folder(folder: Path) -> None:
    """The sample's exports have another key and do not interfere."""
    with sample_database(rows=2_000) as url:
        printed = run_example(folder, FEEDBACK_ETL_DATABASE_URL=url, FEEDBACK_ETL_KEY=KEY)
    assert [line[0] for line in printed[-2:]] == ["majority", "model"]
    assert {path.name for path in folder.iterdir()} == {"sample_exports", "exports"}


@pytest.mark.slow
def test_second_run_prints_the_same(printed: list[list[str]], folder: Path) -> None:
    """Although the exports of the first run exist: no pair counts twice."""
    assert run_example(folder) == printed


def test_example_has_fewer_than_sixty_lines() -> None:
    """Short enough to be read at once."""
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
