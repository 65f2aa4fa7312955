"""Folders of exports for tests: made by real exports of a small SQLite database."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.privacy.column_inspector import ColumnInspector
from feedback_etl.results import ExportReport

NOW = datetime(2025, 10, 25, 12)
FORMS: list[dict[str, Any]] = [
    {"format": "csv"},
    {"format": "csv", "compression": "gzip"},
    {"format": "csv", "compression": "zstd"},
    {"format": "parquet"},
]


@contextmanager
def as_earlier_version() -> Iterator[None]:
    """Export what is refused today."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ColumnInspector, "require_none", lambda _: None)
        yield


def people(count: int, *, each: int = 3, days_ago: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Feedback of so many users: user 2 has the analyses from 201 on; every fourth row is wrong."""
    rows = [
        {
            "id": user * 100 + number,
            "user_id": user,
            "analysis_id": user * 100 + number,
            "recommendation_id": 1,
            "helpful_rating": 9 if number % 4 == 0 else 5,
            "timeframe": 'a "quoted"\nline, or two',
            "created_at": NOW - timedelta(days=days_ago, hours=user, minutes=number),
        }
        for user in range(1, count + 1)
        for number in range(1, each + 1)
    ]
    record = {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne", "dry"]}
    return {"records": [record], "feedbacks": rows}


def exported(database: Database, folder: Path | str, **options: Any) -> ExportReport:
    """Export everything, read by SQLAlchemy without a reader process: the tests inspect what follows the read."""
    with database.engine.connect() as connection:
        return fe.export_feedback(connection, **_usual(folder) | options)


def exported_from_url(database: Database, folder: Path, **options: Any) -> ExportReport:
    """The same, read as people's exports are: by ConnectorX, in a process of its own."""
    return fe.export_feedback(database.url, **_usual(folder) | options)


def _usual(folder: Path | str) -> dict[str, Any]:
    return {"days_back": -1, "now": NOW, "key": KEY, "output_dir": folder}


def row_files(folder: Path) -> list[Path]:
    """The files with rows below a folder, whoever wrote them: pairs and rejected rows, in CSV."""
    return [*folder.rglob("*.csv"), *folder.rglob("*_rejected.txt")]


def rows_of(path: Path) -> pl.DataFrame:
    """The rows of a data file in any form, as text."""
    if path.suffix == ".parquet":
        return pl.read_parquet(path).cast(pl.String)
    return pl.read_csv(path, infer_schema=False)


def visible(folder: Path) -> list[str]:
    """List the visible files of a folder."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
