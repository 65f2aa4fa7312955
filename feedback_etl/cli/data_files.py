"""Data files given by name: read them as one table, and refuse files of different keys."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from feedback_etl.errors import ExportFileError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from feedback_etl.records.manifest import Manifest
    from feedback_etl.schema.model import FeedbackSchema


class JoinedFiles(NamedTuple):
    """Rows of files.

    Attributes:
        table: The rows as strings, in which 1067 and 01067 are different values.
        repeated: Number of rows that were left out because a later file contains them; None if these cannot be found.
        links_rows: Whether equal pseudonyms link the rows of an analysis; in shared files, and where a declared schema
            has no analyses, each row has a pseudonym of its own.
        quasi_identifiers: The columns for which the exports have measured k, by their manifests; none for other files.
    """

    table: "pl.DataFrame"
    repeated: int | None
    links_rows: bool
    quasi_identifiers: list[str]


def read_files(files: list[Path], *, numeric: Iterable[str], schema: "FeedbackSchema") -> JoinedFiles:
    """Read files as one table.

    A feedback that several exports contain, by the key of its pair, is one row: that of the last file.

    Args:
        files: CSV or Parquet files, or folders of parts.
        numeric: Columns to convert to Float64 if every value is a number, because their order matters.
        schema: Schema of files without a manifest.

    Raises:
        UsageError: A file does not exist, a folder contains exports, the files were made with different keys, or they
            are shared ones of overlapping windows, whose rows have other pseudonyms in each.
        ExportFileError: A file cannot be read, or the files have different columns.
    """
    paths = list(dict.fromkeys(path for file in files for path in _list_data_files(file)))
    manifests = {path: next(_read_manifests(path), None) for path in paths}
    existing = [manifest for manifest in manifests.values() if manifest]
    _require_comparable(existing)
    names = dict.fromkeys(name for manifest in existing for name in manifest.risk.get("quasi_identifiers", ()))
    frames = [_read_export_file(path) for path in paths]
    exports = [manifest.run if (manifest := manifests[path]) else path for path in paths]
    schemas = [manifest.schema if manifest else schema for manifest in manifests.values()]
    key = schemas[-1].pair_key
    is_found = all({*key} <= {*frame.columns} for frame in frames) and all(own.has_whole_key for own in schemas)
    table = _join_exports(frames, exports, key if is_found else ())
    repeated = sum(frame.height for frame in frames) - table.height if is_found or len({*exports}) == 1 else None
    links_rows = _has_linked_rows(frames, exports, manifests.values())
    return JoinedFiles(_convert_numbers(table, numeric), repeated, links_rows, [*names])


def _has_linked_rows(frames: "list[pl.DataFrame]", exports: list[str], manifests: "Iterable[Manifest | None]") -> bool:
    """Return whether pseudonyms link rows: some occur twice in an export, or the manifests are of analyses."""
    import polars as pl

    from feedback_etl.schema.classic import is_classic
    from feedback_etl.schema.model import PSEUDONYM

    if any(PSEUDONYM not in frame.columns for frame in frames):
        return False
    rows = [frame.select(PSEUDONYM, pl.lit(name).alias("export")) for frame, name in zip(frames, exports, strict=True)]
    if pl.concat(rows).is_duplicated().any():
        return True
    return all(manifest and is_classic(manifest.schema) and not manifest.recipient for manifest in manifests)


def _require_comparable(manifests: "Iterable[Manifest]") -> None:
    """Refuse files of different keys, in which a person would be counted once for each, and shared ones that overlap.

    Raises:
        UsageError: The files are of several keys, or shared windows overlap.
    """
    exports = {manifest.run: manifest for manifest in manifests}
    keys = {manifest.pseudonyms or "unkeyed" for manifest in exports.values()}
    if len(keys) > 1:
        raise UsageError(
            f"The files were made with {len(keys)} keys ({', '.join(sorted(keys))}), so one person has several "
            "pseudonyms and would be counted several times: measure the files of each key separately."
        )
    shared = [manifest.window for manifest in exports.values() if manifest.recipient]
    from feedback_etl.exports.overlaps import has_overlap

    if any(has_overlap(*pair) for pair in combinations(shared, 2)):
        raise UsageError(
            "The shared files have overlapping windows, and a row has a different pseudonym in each, so it would be "
            "counted several times: measure them separately."
        )


def _join_exports(frames: "list[pl.DataFrame]", exports: list[str], key: Sequence[str]) -> "pl.DataFrame":
    """Join files; of rows with the same pair in several exports, those of the last export remain.

    Rows of one export are different ones, also if truncated times make their pairs equal. Without a key, all remain.
    """
    import polars as pl

    parts = [frame.with_columns(pl.lit(name).alias("an export")) for frame, name in zip(frames, exports, strict=True)]
    try:
        table = pl.concat(parts)
    except pl.exceptions.PolarsError:
        raise ExportFileError("The files have different columns: measure them separately.") from None
    if key and len({*exports}) > 1:
        numbered = table.with_columns(pl.int_range(pl.len()).over(*key, "an export").alias("a number"))
        table = numbered.unique([*key, "a number"], keep="last", maintain_order=True).drop("a number")
    return table.drop("an export")


def _list_data_files(file: Path) -> list[str]:
    """Return a file, or the parts in the folder of one export; the exports of a folder may have different keys."""
    from feedback_etl.storage.location import open_storage

    storage = open_storage(file)
    names = storage.names()
    parts = [name for name in names if name.startswith("part-")]
    if not parts and (names or file.is_dir()):
        raise UsageError(
            f"{storage} is a folder: name its files ({storage}/*.csv), or measure its exports together, without "
            f"duplicates, with `feedback-etl report {shlex.quote(str(storage))}`."
        )
    return [storage.uri(name) for name in parts] or [str(storage)]


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


def _read_export_file(path: str) -> "pl.DataFrame":
    """Read a file as strings; raise an error that contains no value of it."""
    import polars as pl

    from feedback_etl.data_files.csv_files import READ_ERRORS

    try:
        return _read_file(path)
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except (*READ_ERRORS, pl.exceptions.PolarsError):  # the error's text may contain values
        raise ExportFileError(f"{path} cannot be read as CSV or Parquet.") from None


def _read_file(path: str) -> "pl.DataFrame":
    """Read a local file or an object as strings."""
    import polars as pl

    from feedback_etl.data_files.csv_files import list_escaped, scan_csv_text, without_empty_lines
    from feedback_etl.storage.location import open_storage
    from feedback_etl.transform.expressions import iso_timestamp
    from feedback_etl.transform.json_lists import encode_list

    folder, slash, name = path.rpartition("/")
    with open_storage(folder or slash or ".").local_copy(name) as file:
        if path.endswith(".parquet"):
            frame = pl.scan_parquet(file, glob=False)
        else:
            escaped = {column for manifest in _read_manifests(path) for column in list_escaped(manifest)}
            frame = scan_csv_text(without_empty_lines(file), sorted(escaped))
        table = frame.collect()
        times = [name for name, dtype in table.schema.items() if dtype == pl.Datetime]
        lists = [name for name, dtype in table.schema.items() if dtype == pl.List]
        table = table.cast(dict.fromkeys(lists, pl.List(pl.String)))
        texts = [*map(iso_timestamp, times), *map(encode_list, lists)]
        return table.with_columns(texts).cast(pl.String)


def _convert_numbers(table: "pl.DataFrame", names: Iterable[str]) -> "pl.DataFrame":
    """Convert those of the named columns to Float64 whose values are all numbers."""
    import polars as pl

    existing = [name for name in names if name in table.columns]
    numbers = table.select(pl.col(existing).cast(pl.Float64, strict=False))
    return table.with_columns(column for column in numbers if column.null_count() == table[column.name].null_count())
