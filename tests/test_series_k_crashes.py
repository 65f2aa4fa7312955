"""Crashes of the exports of a series with k: every row leaves once, or waits, wherever a process dies."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from anonymity_checker import pseudonym
from databases import Database
from processes import environment
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import Storage
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.object_store import ObjectStorage

NOW, DAY = datetime(2025, 10, 25, 12), timedelta(days=1)

# An export of a series that is killed at the nth call that changes the folder.
KILLED = f"""
import os, signal, sys
from datetime import datetime
import sqlalchemy as sa
import feedback_etl as fe
path, folder, number = sys.argv[1:]
calls = 0

def watch(name):
    function = getattr(os, name)
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    setattr(os, name, call)

for name in ("link", "unlink", "rename", "replace", "fsync"):
    watch(name)
with sa.create_engine(f"sqlite:///{{path}}").connect() as connection:
    fe.export_feedback(connection, incremental=True, days_back=30, k=3, now=datetime(2025, 10, 27, 12), key={KEY!r},
                       output_dir=folder)
"""


class Dead(BaseException):
    """What stops a process that is killed, and every clean-up in it."""


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create two nights: "a" and "c" leave in the second one, "b" waits, and "d" leaves each time."""
    sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
    for day, people in ((1, "aabddd"), (2, "aabcccd"), (3, "d")):
        rows = [
            {
                **{"id": day * 100 + user, "user_id": day * 10 + user, "analysis_id": day * 100 + user},
                **{"recommendation_id": 1, "helpful_rating": 5, "timeframe": timeframe},
                "created_at": NOW + day * DAY - timedelta(minutes=user + 1),
            }
            for user, timeframe in enumerate(people)
        ]
        sqlite_database.fill(feedbacks=rows)
    return sqlite_database


def export_night(app: Database, place: str | Path, day: int) -> ExportReport:
    """Run the export of a day."""
    with app.engine.connect() as connection:
        return fe.export_feedback(
            connection, incremental=True, days_back=30, k=3, now=NOW + day * DAY, key=KEY, output_dir=place
        )


def read(storage: Storage, kind: str) -> list[str]:
    """Return the pseudonyms in the data of all exports, or in the pending rows of the last one."""
    manifests, found = list_manifests(storage), list[str]()
    for file in (file for manifest in manifests[0 if kind == "pairs" else -1 :] for file in manifest.all(kind)):
        with storage.local_copy(file.path) as path:
            frame = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
            found += frame["analysis_hash"].to_list()
    return sorted(found)


def require_done(storage: Storage) -> None:
    """Require that 11 rows have left, once each, and two wait."""
    left = [100 + 3, 100 + 4, 100 + 5, 100, 101, 200, 201, *range(203, 207)]
    assert read(storage, "pairs") == sorted(pseudonym(analysis, KEY) for analysis in left)
    assert read(storage, "pending") == sorted(pseudonym(analysis, KEY) for analysis in (102, 202))


def kill_at_each(app: Database, tmp_path: Path, numbers: Iterator[int]) -> int:
    """Kill the second export at calls, repeat it each time; return the number of kills."""
    first, kills = tmp_path / "first", 0
    export_night(app, first, 1)
    for number in numbers:
        folder = tmp_path / f"killed {number}"
        shutil.copytree(first, folder)
        path = app.url.removeprefix("sqlite:///")
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, path, str(folder), str(number)], env=environment(), check=False
        )
        if ended.returncode == 0:  # it makes fewer calls
            break
        assert ended.returncode == -signal.SIGKILL
        kills += 1
        export_night(app, folder, 2)
        require_done(open_storage(folder))
        assert not [path for path in (folder / ".feedback_etl").iterdir() if path.name.startswith(".")]
        export_night(app, folder, 3)  # which deletes what a killed run has left of the state before
        assert len(list(folder.rglob("*.pending"))) == 1
    return kills


@pytest.mark.slow
def test_killed_export_of_a_folder_loses_and_repeats_no_row(app: Database, tmp_path: Path) -> None:
    """At some of the calls that change files; `make torture` takes each."""
    assert kill_at_each(app, tmp_path, iter((3, 14, 22, 29))) >= 3


@pytest.mark.torture
def test_export_of_a_folder_killed_at_any_call(app: Database, tmp_path: Path) -> None:
    """At every call."""
    assert kill_at_each(app, tmp_path, iter(range(1, 200))) >= 15


def dying(number: int, calls: list[str], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that raises from its nth call on."""

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(function.__name__)
        if len(calls) >= number:
            raise Dead
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_export_to_an_object_store_that_dies_loses_and_repeats_no_row(
    app: Database, bucket_url: str, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """At requests that write, or each of them; nothing that comes after it is cleaned up."""
    for number in range(step, 60, step):
        place, calls = f"{bucket_url}/{number}", list[str]()
        storage = open_storage(place)
        export_night(app, place, 1)
        with monkeypatch.context() as patch:
            for name in ("put_new", "replace", "delete"):
                patch.setattr(ObjectStorage, name, dying(number, calls, getattr(ObjectStorage, name)))
            with suppress(Dead):
                export_night(app, place, 2)
            is_complete = len(calls) < number
        export_night(app, place, 2)
        require_done(storage)
        if is_complete:
            break
    assert number >= 8
