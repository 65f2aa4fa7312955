"""Files that are installed with the package: notebooks, and examples of a role and of a row model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from feedback_etl.errors import ExportFileError
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.posix import replace_private_file, temporary_path

_PACKAGE = Path(__file__).parent.parent


def list_bundled(folder: Literal["notebooks", "schemas"], pattern: str) -> list[Path]:
    """Return the bundled files of a folder, which a wheel has in its package and a checkout beside it.

    Raises:
        ExportFileError: The installation has no such files.
    """
    for parent in (_PACKAGE, _PACKAGE.parent):
        if paths := sorted((parent / folder).glob(pattern)):
            return paths
    raise ExportFileError(f"This installation has no {folder}: install the wheel, or run the command in a checkout.")


def copy_notebooks(folder: Path) -> list[Path]:
    """Copy the notebooks to a folder, which is created if missing, and return their new paths.

    Raises:
        ExportFileError: A notebook exists there already, so that work in it would be lost, or cannot be written.
    """
    notebooks = list_bundled("notebooks", "*.ipynb")
    if existing := [path.name for path in notebooks if (folder / path.name).exists()]:
        raise ExportFileError(f"{folder} already has {', '.join(existing)}. Name another folder.")
    return write_files({path.name: path.read_bytes() for path in notebooks}, folder)


def write_files(contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files to a folder, which is created if missing, and return their paths; existing files are replaced."""
    with explain_write_errors(folder, "Name another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            replace_private_file(folder / name, temporary_path(folder, name), content, is_public=True)
    return [folder / name for name in contents]
