"""The commands of whoever has to answer for privacy."""

import json
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.console import counted, print_data, tell
from feedback_etl.cli.folder import AsJson, KeyFiles, Output, keys_at_hand, settings_for
from feedback_etl.cli.options import AllowRowSecurity
from feedback_etl.errors import CheckFailedError, ExportFileError, UsageError

if TYPE_CHECKING:
    import polars as pl


_WIDTH = 100


def check(
    output: Output = None,
    write_record: Annotated[
        bool, typer.Option("--write-record", help="First write the record of processing from the settings.")
    ] = False,
    key_file: KeyFiles = None,
    query: Annotated[
        Path | None, typer.Option(help="The SELECT that exports are made with.", metavar="FILE.sql")
    ] = None,
    allow_row_security: AllowRowSecurity = None,
    as_json: AsJson = False,
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="Where the feedback is.", metavar="URL")
    ] = None,
) -> None:
    """Test what should be so before exports are used.

    Pseudonyms, columns, keys, modes, retention, erasure, the audit log and more, on the files and the database as they
    are. Exit code 1 if something is not as it should be; each such line tells what mends it.
    """
    from feedback_etl.compliance.check import check as check_all
    from feedback_etl.compliance.record import write_record as write

    settings = settings_for(output, database_url=database_url, query=query, allow_row_security=allow_row_security)
    if write_record:
        tell(f"written: {write(settings)}")
    keys = keys_at_hand(settings, key_file)
    items = check_all(settings, keys=keys)
    if as_json:
        print_data(json.dumps([item._asdict() for item in items]))
    else:
        for item in items:
            first, *more = textwrap.wrap(item.told, _WIDTH) or [""]
            print_data(f"{'ok  ' if item.passed else 'FAIL'}  {item.name:<11} {first}")
            for line in [*more, item.mend]:
                if line:
                    print_data(f"{'':<18}{line}")
    if failed := [item.name for item in items if not item.passed]:
        raise CheckFailedError(f"{counted(len(failed), 'item')} of {len(items)} failed: {', '.join(failed)}.")


def risk(
    files: Annotated[
        list[Path], typer.Argument(help="CSV (also .gz, .zst) or Parquet files, or folders of parts.", metavar="FILE")
    ],
    quasi_identifier: Annotated[
        list[str] | None,
        typer.Option(
            help="What somebody may know of a person; may be repeated.",
            metavar="COLUMN",
            show_default="age_range, conditions_detected, timeframe",
        ),
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option(
            help="What nobody should learn; may be repeated.", metavar="COLUMN", show_default="the ratings there are"
        ),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(
            help="Who a row is of; without it every row counts as a person.",
            metavar="COLUMN",
            show_default="subject_hash, if there is one",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON on stdout.")] = False,
) -> None:
    """Measure how easily people are found again in files.

    k-anonymity, l-diversity, t-closeness and what follows from them, over all files together.
    """
    from feedback_etl.columns import RATING_FIELDS, SUBJECT_HASH, all_quasi_identifiers
    from feedback_etl.privacy.risk import risk as risk_of
    from feedback_etl.settings import load_settings

    _require_files_of_one_key(files)
    settings = load_settings()
    table = _with_numbers(_table(files), sensitive)
    declared = [each for each in settings.extra_columns if each.name in table.columns]
    names = (*RATING_FIELDS, *(each.name for each in declared if each.role == "sensitive"))
    found = risk_of(
        table,
        quasi_identifiers=quasi_identifier or all_quasi_identifiers(settings.quasi_identifiers, declared),
        sensitive=sensitive or [name for name in names if name in table.columns],
        person=person or (SUBJECT_HASH.name if SUBJECT_HASH.name in table.columns else None),
    )
    if as_json:
        print_data(json.dumps(found.to_dict()))
        return
    for name, value in found.to_dict().items():
        told = value if isinstance(value, dict) else {"": value}
        for column, number in told.items():
            figure = f"{number:,}" if isinstance(number, int) else f"{number:.4g}"
            print_data(f"{name:<16}{figure:>12}  {column}".rstrip())


def _with_numbers(table: "pl.DataFrame", sensitive: list[str] | None) -> "pl.DataFrame":
    """The sensitive columns that hold numbers and nothing else as such: these have an order."""
    import polars as pl

    from feedback_etl.columns import RATING_FIELDS

    names = [name for name in sensitive or RATING_FIELDS if name in table.columns]
    numbers = table.select(pl.col(names).cast(pl.Float64, strict=False))
    return table.with_columns(each for each in numbers if each.null_count() == table[each.name].null_count())


def _require_files_of_one_key(files: list[Path]) -> None:
    """Refuse files of several keys: a person would count once for each key."""
    if len(keys := {key for file in files for key in _keys_of(_paths_of(file)[0])}) > 1:
        raise UsageError(
            f"The files are of {len(keys)} keys ({', '.join(sorted(keys))}): who is in several of them has a pseudonym "
            "of each, and would count as several people. Measure those of one key together."
        )


def _paths_of(file: Path) -> list[str]:
    """A file, or the parts in the folder of an export; of the exports in a folder, the keys can differ."""
    from feedback_etl.storage.base import open_storage
    from feedback_etl.storage.object_store import ObjectStorage

    place = open_storage(file)
    names = place.names() if isinstance(place, ObjectStorage) or place.exists() else []
    parts = [name for name in names if name.startswith("part-")]
    if not parts and (names or file.is_dir()):
        raise UsageError(
            f"{place} is a folder: name its files ({place}/*.csv), or measure its exports together, each pair once, "
            f"with feedback-etl report --output {place}."
        )
    return [place.address(name) for name in parts] or [str(place)]


def _keys_of(file: str) -> Iterator[str]:
    """Of which key a file is, if it is of an export: itself or a part of one."""
    from feedback_etl.exports.layout import DATA_SUFFIXES, manifest_path
    from feedback_etl.exports.manifest import parse_manifest
    from feedback_etl.storage.base import open_storage

    folder, _, name = file.rpartition("/")
    stems = [name.removesuffix(suffix) for suffix in DATA_SUFFIXES if name.endswith(suffix)]
    if name.startswith("part-"):
        folder, _, *stems = folder.rpartition("/")
    for stem in stems:
        with suppress(OSError):
            place = open_storage(folder or ".")
            yield (
                parse_manifest(place.read(manifest_path(stem)), f"{folder}/{manifest_path(stem)}").pseudonyms
                or "unkeyed"
            )


def _read(path: str) -> "pl.DataFrame":
    import polars as pl

    from feedback_etl.exports.csv_records import without_empty_lines
    from feedback_etl.storage.base import open_storage
    from feedback_etl.storage.urls import is_object_store

    folder, _, name = path.rpartition("/")
    with open_storage(folder).fetched(name) if is_object_store(path) else nullcontext(Path(path)) as file:
        if path.endswith(".parquet"):
            frame = pl.scan_parquet(file, glob=False)
        else:
            frame = pl.scan_csv(without_empty_lines(file), infer_schema=False, glob=False)
        return frame.collect().cast(pl.String)


def _table(files: list[Path]) -> "pl.DataFrame":
    """All files as one table of text: 1067 and 01067 are two values."""
    import polars as pl

    from feedback_etl.exports.csv_records import READ_ERRORS

    frames = []
    for file in files:
        try:
            frames += [_read(path) for path in _paths_of(file)]
        except (*READ_ERRORS, pl.exceptions.PolarsError):  # whose texts may hold values
            raise ExportFileError(f"{file} cannot be read as CSV or Parquet.") from None
    try:
        return pl.concat(frames)
    except pl.exceptions.PolarsError:
        raise ExportFileError("The files have different columns; measure them one by one.") from None
