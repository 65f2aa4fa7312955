"""The example that trains a model runs as it is shown, and what it trains is better than no model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feedback_etl.demo.sample import sample_database

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "train_baseline.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it runs, empty at first."""
    return tmp_path_factory.mktemp("example")


def printed_in(folder: Path, **variables: str) -> list[list[str]]:
    """The words of each line that it prints."""
    environment = os.environ | {"PYTHONWARNINGS": "error"} | variables
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def printed(folder: Path) -> list[list[str]]:
    """Of sample data."""
    return printed_in(folder)


@pytest.mark.slow
def test_the_model_is_better_than_the_majority(printed: list[list[str]]) -> None:
    """In each of the three figures; always to say the same is worth one half."""
    majority, model = ([float(figure) for figure in line[1:]] for line in printed[-2:])
    assert majority[:2] == [0.5, 0.5]
    assert model[0] > 0.55
    assert model[1] > 0.65
    assert model[2] < majority[2]


@pytest.mark.slow
@pytest.mark.usefixtures("printed")
def test_a_database_of_ones_own_goes_into_a_folder_of_its_own(folder: Path) -> None:
    """The exports of the sample, which are of another key, are not in its way."""
    with sample_database(rows=2_000) as url:
        printed = printed_in(folder, FEEDBACK_ETL_DATABASE_URL=url, FEEDBACK_ETL_KEY="k" * 32)
    assert [line[0] for line in printed[-2:]] == ["majority", "model"]
    assert {path.name for path in folder.iterdir()} == {"sample_exports", "exports"}


@pytest.mark.slow
def test_it_prints_the_same_again(printed: list[list[str]], folder: Path) -> None:
    """Whenever it is run, also where its exports are already: nobody counts twice."""
    assert printed_in(folder) == printed


def test_it_has_under_sixty_lines() -> None:
    """Short enough to be read at once."""
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
