"""Notebooks run from top to bottom, as a reader would run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """Every cell runs in a fresh kernel, in a folder of its own, without a configured key or database."""
    copy = tmp_path / notebook.name
    copy.write_bytes(notebook.read_bytes())
    command = [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider", "-q", str(copy)]
    # A kernel of this environment, whatever the user's own configuration offers.
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_no_path_of_a_machine(notebook: Path) -> None:
    """Stored outputs show sample data only: no folder, no warning, no error."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"])
    for trace in ("/tmp/", "/home/", "Warning", "Traceback"):
        assert trace not in outputs
