"""Data files given by name: read them as one table, and refuse files of different keys."""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from feedback_etl.errors import ExportFileError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from feedback_etl.records.manifest import Manifest


def read_files(files: list[Path], *, numeric: Iterable[str]) -> "pl.DataFrame":
    """Read files as one table of strings, in which 1067 and 01067 are different values.

    Args:
        files: CSV or Parquet files, or folders of parts.
        numeric: Columns to convert to Float64 if every value is a number, because their order matters.

    Raises:
        UsageError: A file does not exist, a folder contains exports, or the files were made with different keys.
        ExportFileError: A file cannot be read, or the files have different columns.
    """
    _require_one_key(files)
    return _convert_numbers(_read_strings(files), numeric)


def _require_one_key(files: list[Path]) -> None:
    """Refuse files of different keys: a person would be counted once for each key."""
    keys = {key for file in files for key in _read_key_ids(_list_data_files(file)[0])}
    if len(keys) > 1:
        raise UsageError(
            f"The files were made with {len(keys)} keys ({', '.join(sorted(keys))}), so one person has several "
            "pseudonyms and would be counted several times: measure the files of each key separately."
        )


def _list_data_files(file: Path) -> list[str]:
    """Return a file, or the parts in the folder of one export; the exports of a folder may have different keys."""
    from feedback_etl.storage.location import open_storage

    storage = open_storage(file)
    names = storage.names()
    parts = [name for name in names if name.startswith("part-")]
    if not parts and (names or file.is_dir()):
        raise UsageError(
            f"{storage} is a folder: name its files ({storage}/*.csv), or measure its exports together, without "
            f"duplicates, with `feedback-etl report --output {shlex.quote(str(storage))}`."
        )
    return [storage.uri(name) for name in parts] or [str(storage)]


def _read_key_ids(file: str) -> Iterator[str]:
    """Yield the id of the key of a data file or a part, if it belongs to an export."""
    return (manifest.pseudonyms or "unkeyed" for manifest in _read_manifests(file))


def _read_manifests(file: str) -> "Iterator[Manifest]":
    """Yield the manifest of a data file or a part, if it belongs to an export."""
    from feedback_etl.records.layout import DATA_SUFFIXES, manifest_path
    from feedback_etl.records.manifest import parse_manifest
    from feedback_etl.storage.location import open_storage

    folder, _, name = file.rpartition("/")
    stems = [name.removesuffix(suffix) for suffix in DATA_SUFFIXES if name.endswith(suffix)]
    if name.startswith("part-"):
        folder, _, *stems = folder.rpartition("/")
    for stem in stems:
        with suppress(OSError):
            content = open_storage(folder or ".").read(manifest_path(stem))
            yield parse_manifest(content, f"{folder}/{manifest_path(stem)}")


def _read_strings(files: list[Path]) -> "pl.DataFrame":
    """Read all files as one table of strings."""
    import polars as pl

    from feedback_etl.data_files.csv_files import READ_ERRORS

    frames = []
    for file in files:
        try:
            frames += [_read_file(path) for path in _list_data_files(file)]
        except FileNotFoundError:
            raise UsageError(f"There is no file {file}.") from None
        except (*READ_ERRORS, pl.exceptions.PolarsError):  # the error's text may contain values
            raise ExportFileError(f"{file} cannot be read as CSV or Parquet.") from None
    try:
        return pl.concat(frames)
    except pl.exceptions.PolarsError:
        raise ExportFileError("The files have different columns: measure them separately.") from None


def _read_file(path: str) -> "pl.DataFrame":
    """Read a local file or an object as strings."""
    import polars as pl

    from feedback_etl.data_files.csv_files import escaped_columns, scan_csv_text, without_empty_lines
    from feedback_etl.storage.location import open_storage

    folder, slash, name = path.rpartition("/")
    with open_storage(folder or slash or ".").local_copy(name) as file:
        if path.endswith(".parquet"):
            frame = pl.scan_parquet(file, glob=False)
        else:
            escaped = {column for manifest in _read_manifests(path) for column in escaped_columns(manifest)}
            frame = scan_csv_text(without_empty_lines(file), sorted(escaped))
        return frame.collect().cast(pl.String)


def _convert_numbers(table: "pl.DataFrame", names: Iterable[str]) -> "pl.DataFrame":
    """Convert those of the named columns to Float64 whose values are all numbers."""
    import polars as pl

    existing = [name for name in names if name in table.columns]
    numbers = table.select(pl.col(existing).cast(pl.Float64, strict=False))
    return table.with_columns(column for column in numbers if column.null_count() == table[column.name].null_count())
