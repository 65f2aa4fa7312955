"""Raw files as a source: CSV, Parquet or JSON lines, which an in-memory DuckDB shows as the view `files`.

Columns of CSV and JSON lines are text, so that no id loses its zeros to a guessed type; `column_conversions` converts
them to the types that are expected. Times without an offset are UTC.
"""

import glob
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database.quoting import quote_name, quote_text
from feedback_etl.errors import SourceError, UsageError
from feedback_etl.plurals import pluralize

SELECT_FILES = "SELECT * FROM files"

_OPTION = "files"
_READERS = {
    "CSV": "read_csv({}, all_varchar=true, header=true, delim=',', quote='\"', escape='\"', comment='', "
    "union_by_name=true, hive_partitioning=false)",
    "JSON lines": "read_json({}, format='newline_delimited', maximum_depth=1, sample_size=-1, union_by_name=true, "
    "hive_partitioning=false)",
    "Parquet": "read_parquet({}, union_by_name=true, hive_partitioning=false)",
}
_FORMATS = {"csv": "CSV", "parquet": "Parquet", "jsonl": "JSON lines", "ndjson": "JSON lines"}
_PREPARE = (
    "SET autoinstall_known_extensions = false",
    "SET memory_limit = '1GB'",
    "CREATE MACRO text_to_time(x) AS coalesce(timezone('UTC', TRY_CAST(x AS TIMESTAMPTZ)), "
    "CASE WHEN trim(x) <> '' THEN TIMESTAMP '-infinity' END)",
    "CREATE MACRO text_to_number(x, name) AS coalesce(TRY_CAST(x AS DOUBLE), "
    "CASE WHEN trim(x) <> '' THEN error('source column ' || name) END)",
    "CREATE MACRO text_to_integer(x, name) AS CASE WHEN regexp_full_match(trim(x), '[+-]?[0-9]{1,18}') "
    "THEN CAST(x AS BIGINT) WHEN trim(x) <> '' THEN error('source column ' || name) END",
    "CREATE MACRO text_to_boolean(x, name) AS CASE lower(trim(x)) WHEN 'true' THEN 1 WHEN 'false' THEN 0 "
    "ELSE text_to_integer(x, name) END",
)
"""Statements that prepare the database; the macros convert text.

A text that is not a number or truth value stops the query. One that is not a time becomes a time that cannot be read.
"""


def create_files_url(pattern: str) -> sa.URL:
    """Return the URL of files, of the database in memory that reads them."""
    return sa.URL.create("duckdb", database=":memory:", query={_OPTION: pattern})


def find_pattern(url: sa.URL) -> str | None:
    """Return the pattern of a URL of files; None for other URLs."""
    pattern = url.query.get(_OPTION) if url.get_backend_name() == "duckdb" else None
    return pattern if isinstance(pattern, str) else None


@contextmanager
def view_files(connection: sa.Connection, pattern: str | None) -> Iterator[None]:
    """Show the files of a pattern as the view `files` in a database in memory; without a pattern do nothing.

    Raises:
        UsageError: No file matches, or the files have several formats.
        SourceError: A file cannot be read, or has other columns than the first.
    """
    if pattern is None:
        yield
        return
    paths = _find_paths(pattern)
    format_ = _find_format(paths)
    with tempfile.TemporaryDirectory(prefix="feedback_etl-") as folder:  # only this user can read what is sorted there
        for statement in (*_PREPARE, f"SET temp_directory = {quote_text(folder)}"):
            connection.exec_driver_sql(statement)
        names = _describe_files(connection, format_, paths)
        columns = ", ".join(f"{_select(format_, name)} AS {quote_name(name)}" for name in names)
        rows = _READERS[format_].format(f"[{', '.join(quote_text(glob.escape(str(path))) for path in paths)}]")
        connection.exec_driver_sql(f"CREATE VIEW files AS SELECT {columns} FROM {rows}")  # noqa: S608  quoted
        connection.commit()
        yield


def _find_paths(pattern: str) -> list[Path]:
    paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]  # noqa: PTH207  also absolute patterns
    if not paths:
        raise UsageError(
            f"No file matches {pattern} (--from). Quote the pattern, so that the shell does not expand it."
        )
    return paths


def _find_format(paths: Sequence[Path]) -> str:
    formats = dict[str, Path]()
    for path in paths:
        extension = re.sub(r"\.(gz|zst)$", "", path.name.lower()).rpartition(".")[2]
        if extension not in _FORMATS:
            raise UsageError(
                f"The format of {path} is unknown (--from): names end with .{', .'.join(_FORMATS)}, and optionally "
                "with .gz or .zst."
            )
        formats.setdefault(_FORMATS[extension], path)
    if len(formats) > 1:
        names = " and ".join(f"{format_} ({path})" for format_, path in formats.items())
        raise UsageError(f"The files of --from have several formats: {names}. Name the files of one.")
    return next(iter(formats))


def _describe_files(connection: sa.Connection, format_: str, paths: Sequence[Path]) -> list[str]:
    """Return the names of the files' columns; in JSON lines an absent name is a null."""
    described = dict[Path, list[str]]()
    for path in paths:
        rows = _READERS[format_].format(f"[{quote_text(glob.escape(str(path)))}]")
        try:
            result = connection.exec_driver_sql(f"SELECT * FROM {rows} LIMIT 0")  # noqa: S608  quoted
        except SQLAlchemyError:  # its message may contain a line of the file
            raise SourceError(f"The file {path} cannot be read as {format_}.") from None
        described[path] = [str(name) for name, *_ in (result.cursor.description if result.cursor else ())]
        result.close()
        different = {*described[paths[0]]} ^ {*described[path]}
        if different and format_ != "JSON lines":
            raise SourceError(
                f"The files {paths[0]} and {path} differ in {pluralize(len(different), 'column')}. Export "
                "them one after the other, or give them the same columns."
            )
    return [*dict.fromkeys(name for names in described.values() for name in names)]


def _select(format_: str, name: str) -> str:
    """Return a column of a file; one of JSON lines as text, an array as JSON text."""
    return f"({quote_name(name)} ->> '$')" if format_ == "JSON lines" else quote_name(name)
