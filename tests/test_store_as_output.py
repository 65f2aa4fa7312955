"""`--output s3://...`: an export into an object store is the same export with every executor."""

import errno
import json
import os
import pickle
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import polars as pl
import pytest
from clusters import EXECUTORS, NOW, ROWS, Watched, WorkerKiller, dask, exported, frame_of, kill_coordinator
from databases import Database
from object_store import Proxy, Trouble
from processes import wait_for
from pseudonym_keys import KEY

from feedback_etl.errors import ExportFileError, ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests, read_manifest
from feedback_etl.records.manifest import Manifest
from feedback_etl.results import ExportReport
from feedback_etl.storage.object_store import ObjectStorage

STEM = "feedback_training_20251025_120000"
WHERE = {"export_filename", "rejected_filename", "audit_head", "execution_time_seconds", "advice"}


@pytest.fixture
def url(shared_url: str) -> str:
    """A PostgreSQL database of sample data that workers know; no test changes it."""
    return shared_url


def stored(url: str, bucket_url: str, **options: Any) -> ExportReport:
    """An export of everything into the bucket."""
    return exported(url, bucket_url, **options)


def manifest_of(report: ExportReport, bucket_url: str) -> Manifest:
    """Its manifest."""
    manifest = read_manifest(ObjectStorage(bucket_url), report.export_filename.rpartition("/")[2])
    assert manifest
    return manifest


def rows_of(report: ExportReport, bucket_url: str, kind: str = "pairs") -> pl.DataFrame:
    """Its rows as text, by its manifest."""
    frames = []
    for file in manifest_of(report, bucket_url).all(kind):
        with ObjectStorage(bucket_url).local_copy(file.path) as path:
            read: Any = pl.read_parquet if file.path.endswith(".parquet") else pl.read_csv
            frames.append(read(path, **({} if file.path.endswith(".parquet") else {"infer_schema": False})))
    rows: pl.DataFrame = pl.concat(frames).cast(pl.String)
    return rows


def everything(bucket_url: str) -> list[str]:
    """All objects but those of the log."""
    names = ObjectStorage(bucket_url).names("")
    folders = ObjectStorage(bucket_url).names(STEM)
    return [*names, *folders]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (None, {"format": "parquet", "k": 5}),
        pytest.param(None, {"compression": "gzip"}, marks=pytest.mark.slow),
        pytest.param("threads", {}, marks=pytest.mark.slow),
        ("threads", {"compression": "zstd", "include_subject_hash": True, "k": 5}),
    ],
    ids=str,
)
def test_it_is_the_same_export(
    url: str, bucket_url: str, tmp_path: Path, options: dict[str, Any], kind: str | None
) -> None:
    """Row for row, figure for figure; parts, manifest and log are in the bucket, and nothing is here."""
    alone = exported(url, tmp_path / "alone", **options)
    here = set(Path.cwd().rglob("*"))
    if kind is None:
        report = stored(url, bucket_url, **options)
    else:
        with EXECUTORS[kind]() as executor:
            report = stored(url, bucket_url, executor=executor, **options)
    assert set(Path.cwd().rglob("*")) == here
    assert rows_of(report, bucket_url).equals(frame_of(alone))
    figures = alone.to_dict()
    assert {name: value for name, value in report.to_dict().items() if value != figures[name]}.keys() <= WHERE
    manifest = manifest_of(report, bucket_url)
    assert len(manifest.all("pairs")) >= 3
    assert report.export_filename == f"{bucket_url}/{manifest.stem}"
    assert [record["event"] for record in AuditLog(ObjectStorage(bucket_url)).records()] == ["started", "committed"]
    assert ObjectStorage(bucket_url).names(f".feedback_etl/{manifest.stem}") == []


def test_worker_reads_tombstones_once(url: str, bucket_url: str, proxy: Proxy) -> None:
    """And opens it once, however many tasks it does."""
    line = {"erasure": "0" * 16, "kind": "pseudonym", "digest": "0" * 32, "key_id": Key(KEY).id}
    ObjectStorage(bucket_url).append_lines(".feedback_etl/tombstones.jsonl", (json.dumps(line) + "\n").encode())
    watched = Watched()

    def read_by(**options: Any) -> int:
        proxy.requests.clear()
        stored(url, bucket_url, executor=watched, **options)
        return sum(request.startswith("GET") and "/tombstones/0" in request for request in proxy.requests)

    few, tasks = read_by(since="2025-10-24"), len(watched.tasks)
    many = read_by(workers=16)
    assert len(watched.tasks) - tasks > 16 > tasks
    assert many <= few


def test_every_database_can_be_exported_there(database: Database, bucket_url: str) -> None:
    """Those that cannot be divided as one part."""
    record = {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}
    row = {"user_id": 1, "recommendation_id": 1, "helpful_rating": 5, "created_at": NOW.replace(hour=1)}
    database.fill(records=[record], feedbacks=[row | {"id": number, "analysis_id": number} for number in range(1, 8)])
    report = stored(database.url, bucket_url)
    assert rows_of(report, bucket_url).height == 7


@pytest.mark.slow
@pytest.mark.served_store
def test_a_worker_that_is_killed_loses_nothing(url: str, bucket_url: str, tmp_path: Path) -> None:
    """A Dask worker, by SIGKILL while it has a task: parts are there whole or not at all."""
    alone = exported(url, tmp_path / "alone")
    with dask() as (executor, client):
        killer = WorkerKiller(client)
        report = stored(url, bucket_url, executor=executor, workers=16, on_progress=killer)
    assert killer.killed
    assert rows_of(report, bucket_url).equals(frame_of(alone))


@pytest.mark.parametrize(
    "how", ["lost", *(pytest.param(value, marks=pytest.mark.slow) for value in ("503", "cut", "slow"))]
)
def test_failing_and_slow_requests_change_nothing(
    url: str, proxy: Proxy, bucket_url: str, tmp_path: Path, how: str
) -> None:
    """They are repeated; a write that had succeeded counts once."""
    proxy.troubles += [Trouble(how, 2, "PUT", "part-")]
    proxy.troubles += [Trouble(how, 1, "PUT", "manifest"), Trouble(how, 1, "PUT", "audit")]
    report = stored(url, bucket_url)
    assert [trouble.times for trouble in proxy.troubles] == [0, 0, 0]
    assert rows_of(report, bucket_url).equals(frame_of(exported(url, tmp_path / "alone")))
    assert [record["event"] for record in AuditLog(ObjectStorage(bucket_url)).records()] == ["started", "committed"]


def test_what_fails_leaves_nothing(url: str, bucket_url: str) -> None:
    """No part, and no manifest of an export: the existing markers stop late workers."""

    def lost(work: Any, task: Any) -> Any:
        if task.number == 3:
            raise MemoryError
        return work(task)

    with pytest.raises(ExportFileError, match="Part 3 was lost"):
        stored(url, bucket_url, executor=Watched(lost))
    with pytest.raises(ValidationError):
        stored(url, bucket_url, strict=True)
    assert everything(bucket_url) == [f"{stem}.manifest.json" for stem in (STEM, f"{STEM}_1")]
    assert list_manifests(bucket_url) == []
    assert [record["event"] for record in AuditLog(ObjectStorage(bucket_url)).records()] == ["started", "failed"] * 2


def test_an_empty_window_leaves_nothing_that_waits(url: str, bucket_url: str) -> None:
    """With k, the file of small classes is written even without rows."""
    stored(url, bucket_url, k=5, since="2001-01-01", until="2001-02-01", days_back=None)
    assert ObjectStorage(bucket_url).names(f".feedback_etl/{STEM}") == []
    assert list_manifests(bucket_url) == []


@pytest.mark.sample("made")
@pytest.mark.parametrize("moment", ["made", "put"])
def test_a_temporary_folder_that_is_full_is_named(
    url: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Parts are written there; no folder with the bucket's name is created."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(
        "feedback_etl.storage.object_store.TemporaryDirectory" if moment == "made" else "os.fsync", full
    )
    message = f"^Nothing was written to {gettempdir()}: the disk is full. Files for {bucket_url} .* set TMPDIR"
    with pytest.raises(ExportFileError, match=message):
        stored(url, bucket_url)


@pytest.mark.served_store
def test_tasks_hold_no_credentials(url: str, bucket_url: str) -> None:
    """They name the bucket; workers have their own."""
    watched = Watched()
    stored(url, bucket_url, executor=watched)
    secrets = [os.environ[name] for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    assert all(secrets)
    for task in watched.tasks:
        assert bucket_url.encode() in pickle.dumps(task)
        assert not any(secret.encode() in pickle.dumps(task) for secret in secrets)


@pytest.mark.slow
@pytest.mark.served_store
def test_a_killed_coordinator_leaves_no_export(url: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL while parts are put: without a manifest they are not an export, and another run is not disturbed."""
    kill_coordinator(url, bucket_url)
    wait_for(lambda: bool(ObjectStorage(bucket_url).names(STEM)))
    assert read_manifest(ObjectStorage(bucket_url), STEM) is None
    report = stored(url, bucket_url)
    assert report.export_filename == f"{bucket_url}/{STEM}_1"
    assert rows_of(report, bucket_url).height == report.exported_records
    assert report.total_feedback_records == ROWS


def test_what_is_asked_for_twice_is_made_once(url: str, bucket_url: str) -> None:
    """Under one request id; under another, it is another export."""
    first = stored(url, bucket_url, idempotency_key="one")
    again = stored(url, bucket_url, idempotency_key="one")
    figures = first.to_dict()
    assert {name for name, value in again.to_dict().items() if value != figures[name]} <= {"execution_time_seconds"}
    other = stored(url, bucket_url, idempotency_key="two")
    assert other.export_filename != first.export_filename
    assert len(list_manifests(bucket_url)) == 2


def test_an_earlier_run_of_the_same_request_can_publish_no_more(url: str, bucket_url: str) -> None:
    """A queue has given its worker up and asks another; the first one was only slow, and ends with an error."""
    later: list[ExportReport] = []

    def slow(work: Any, task: Any) -> Any:
        if task.number == 0:
            later.append(stored(url, bucket_url, idempotency_key="one"))
        return work(task)

    with pytest.raises(ExportFileError, match=f"The export {STEM} ended while"):
        stored(url, bucket_url, idempotency_key="one", executor=Watched(slow))
    (manifest,) = list_manifests(bucket_url)
    assert later[0].export_filename == f"{bucket_url}/{manifest.stem}"
    assert rows_of(later[0], bucket_url).height == later[0].exported_records
    assert ObjectStorage(bucket_url).names(STEM) == []
    again = stored(url, bucket_url, idempotency_key="one")
    assert again.export_filename == later[0].export_filename
