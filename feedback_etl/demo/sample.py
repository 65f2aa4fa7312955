"""Create the sample database: a SQLite file with the default schema, to try the package without another database."""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from feedback_etl.clock import resolve_now
from feedback_etl.database import tables
from feedback_etl.demo.data import Row, generate_tables
from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.posix import make_private_folder

DEMO_KEY = Key("feedback-etl demo key - published, never use it for real data", accept_weak=True)
APPLICATION_ID = int.from_bytes(b"fETL", "big")  # PRAGMA application_id: files with it may be replaced


def create_sample_database(path: Path, *, rows: int = 5_000, seed: int = 7, now: datetime) -> int:
    """Write a SQLite database with the default schema and return the number of its feedback rows.

    The same `rows`, `seed` and `now` give the same content. A file at `path` is replaced
    atomically if it is a sample database itself, and refused otherwise. The new file has mode 0600.

    Args:
        path: Path of the database; a missing folder is created (0700).
        rows, seed, now: As for `generate_tables`.

    Raises:
        UsageError: `rows` is negative, or `now` has a time zone.
        ExportFileError: `path` is not a sample database, is in use, or cannot be written.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     create_sample_database(Path(folder, "demo.db"), rows=100, now=datetime(2025, 10, 25))
    100
    """
    contents = generate_tables(rows, seed=seed, now=now)
    try:
        make_private_folder(path.parent)
        _refuse_other_files(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600, O_EXCL
        os.close(handle)
        try:
            _fill(name, contents)
            _refuse_other_files(path)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        message = f"The sample database {path} cannot be written ({error}); choose another path."
        raise ExportFileError(message) from error
    return rows


@contextmanager
def sample_database(rows: int = 1_000, *, seed: int = 7, now: datetime | None = None) -> Iterator[str]:
    """Create a sample database in a temporary folder, and yield its URL; the folder is deleted on exit.

    Takes the arguments of `create_sample_database`; `now` is the current time by default.

    >>> with sample_database(rows=10) as url:
    ...     url.startswith("sqlite:///")
    True
    """
    now = resolve_now(now)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feedback.db"
        create_sample_database(path, rows=rows, seed=seed, now=now)
        yield f"sqlite:///{path}"


def _fill(name: str, contents: Iterable[tuple[sa.Table, list[Row]]]) -> None:
    """Create the tables in an empty file and insert their rows."""
    with closing(sqlite3.connect(name, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")  # the new file is discarded after a failure
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.executescript(tables.render_application_schema("sqlite"))
        database.execute("BEGIN")
        for table, rows in contents:
            placeholders = ", ".join("?" * len(table.columns))
            database.executemany(f"INSERT INTO {table.name} VALUES ({placeholders})", rows)  # noqa: S608
        database.execute("COMMIT")
        database.execute("ANALYZE")


def _refuse_other_files(path: Path) -> None:
    if any(path.with_name(path.name + suffix).exists() for suffix in ("-journal", "-wal")):
        raise ExportFileError(f"{path} is in use by another program; close it, or choose another path.")
    if path.is_symlink() or (path.exists() and not (path.is_file() and _is_ours(path))):
        raise ExportFileError(f"{path} exists and is not a sample database; choose another path.")


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(72)  # sqlite.org/fileformat.html: the application id is at byte 68
    return header[:16] == b"SQLite format 3\0" and header[68:] == APPLICATION_ID.to_bytes(4, "big")
