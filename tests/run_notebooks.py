"""Run notebooks from top to bottom and store what they give: `make notebooks`, or this file with notebooks behind it.

Each runs in a fresh kernel and a folder of its own. What is stored is the same each time.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # a kernel of this environment, whatever the user's configuration offers

import nbformat
from nbclient import NotebookClient

CELL_SECONDS = 300


def run(path: Path) -> None:
    """Put new outputs in the place of those of a notebook; one that fails stays as it was."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=CELL_SECONDS, record_timing=False, resources=resources).execute()
    notebook.metadata.language_info = {"name": "python"}  # without the version, which says nothing of the outputs
    content: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    path.write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
