"""The example that trains a model runs as it is shown, and what it trains is better than no model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "train_baseline.py"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The words of each line that it prints, run in an empty folder."""
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    folder = tmp_path_factory.mktemp("example")
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_the_model_is_better_than_the_majority(printed: list[list[str]]) -> None:
    """In each of the three figures; always to say the same is worth one half."""
    majority, model = ([float(figure) for figure in line[1:]] for line in printed[-2:])
    assert majority[:2] == [0.5, 0.5]
    assert model[0] > 0.55
    assert model[1] > 0.65
    assert model[2] < majority[2]


def test_it_has_under_sixty_lines() -> None:
    """Short enough to be read at once."""
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
