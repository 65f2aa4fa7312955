"""Users who may put objects into the store, and late workers, can neither leave nor remove other objects."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from clusters import Watched, dask, exported
from databases import Database
from exports_in_parts import LocalParts
from folders import NOW, people
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import manifest_path, part_path, state_part_path
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.object_store import ObjectStorage

SIGNER = Key(KEY)


@pytest.fixture
def local_parts(sqlite_database: Database, tmp_path: Path) -> LocalParts:
    """Three users with feedback, as the parts of an export."""
    sqlite_database.fill(**people(3, each=4))
    return LocalParts(sqlite_database, tmp_path / "made")


def published(url: str, local_parts: LocalParts) -> str:
    """An export in the bucket; its stem."""
    with ExportTransaction(ObjectStorage(url), NOW, TransactionOptions(key=SIGNER)) as export:
        export.commit(local_parts.put(ObjectStorage(url), export.stem), local_parts.details)
    return export.stem


def put(url: str, name: str, content: bytes) -> None:
    """Put an object, replacing an existing one."""
    ObjectStorage(url).overwrite(name, content)


@pytest.mark.parametrize(
    "name", [lambda stem: part_path(stem, 0, ".csv"), lambda stem: state_part_path(stem, "arrow", 7)]
)
def test_a_worker_that_comes_too_late_leaves_nothing(bucket_url: str, name: Any) -> None:
    """Its export has failed meanwhile, and nothing would ever remove its part."""
    with (
        pytest.raises(ZeroDivisionError),
        ExportTransaction(ObjectStorage(bucket_url), NOW, TransactionOptions(key=SIGNER)) as export,
    ):
        _ = 1 / 0
    late = name(export.stem)
    form = FileFormat("arrow") if late.endswith(".arrow") else FileFormat()
    with PartWriter(ObjectStorage(bucket_url), late, form, {}) as part:
        part.append(pl.DataFrame({"a": [1]}))
        with pytest.raises(ExportFileError, match="ended while the part was written"):
            part.publish("pairs")
    assert [name for name in ObjectStorage(bucket_url).list_files() if "part-" in name] == []
    assert list_manifests(bucket_url) == []


@pytest.mark.served_store
def test_erase_and_list_report_unfinished_exports(
    bucket_url: str, local_parts: LocalParts, sqlite_database: Database
) -> None:
    """Their parts may hold the people; who is published leaves them out."""
    published(bucket_url, local_parts)
    with ExportTransaction(ObjectStorage(bucket_url), NOW, TransactionOptions(key=SIGNER)) as export:
        done = fe.privacy.erase(bucket_url, user_ids=[2], database=sqlite_database.url, keys=[KEY])
        assert done.unfinished == [export.stem]
        listed = feedback_etl("list", "--output", bucket_url)
        assert f"{export.stem}  unfinished: still running, or interrupted" in listed.stdout
        export.commit([])
    assert "unfinished" not in feedback_etl("list", "--output", bucket_url).stdout
    assert fe.privacy.erase(bucket_url, user_ids=[2], database=sqlite_database.url, keys=[KEY]).unfinished == []


def test_a_log_whose_tail_was_cut_with_its_tombstones_is_noticed(
    bucket_url: str, local_parts: LocalParts, sqlite_database: Database
) -> None:
    """The manifest still records that rows were erased, and a run."""
    published(bucket_url, local_parts)
    fe.privacy.erase(bucket_url, user_ids=[2], database=sqlite_database.url, keys=[KEY])
    for name in ObjectStorage(bucket_url).list_files(".feedback_etl"):
        if "tombstones" in name or name.endswith("/00000003.json"):
            ObjectStorage(bucket_url).delete(name)
    faults = verify_folder(bucket_url, [SIGNER]).problems
    assert any("the log records no erasure" in fault for fault in faults)
    ObjectStorage(bucket_url).delete(".feedback_etl/audit/00000002.json")
    ObjectStorage(bucket_url).delete(".feedback_etl/audit/00000001.json")
    faults = verify_folder(bucket_url, [SIGNER]).problems
    assert any("the log does not record how" in fault for fault in faults)


@pytest.mark.parametrize("change", ["moved", "beside", "empty"])
def test_names_of_records_are_verified(bucket_url: str, local_parts: LocalParts, change: str) -> None:
    """Eight digits, without gaps; an object with another name is not a record, and hides none."""
    published(bucket_url, local_parts)
    bucket, second = ObjectStorage(bucket_url), ".feedback_etl/audit/00000002.json"
    content = bucket.read(second)
    if change == "moved":
        bucket.delete(second)
        put(bucket_url, ".feedback_etl/audit/00000007.json", content)
    elif change == "beside":
        put(bucket_url, ".feedback_etl/audit/2.json", content)
        put(bucket_url, second, content.replace(b'"full"', b'"none"'))
    else:
        put(bucket_url, ".feedback_etl/audit/00000003.json", b"")
    assert verify_folder(bucket_url, [SIGNER]).problems


@pytest.mark.parametrize("number", [99_999_999, 99_999_998])
def test_last_number_is_reported(bucket_url: str, local_parts: LocalParts, number: int) -> None:
    """No one searches for the next one forever, and the lines in between are not created."""
    published(bucket_url, local_parts)
    name = f".feedback_etl/audit/{number}.json"
    put(bucket_url, name, b"{}")
    for _ in range(number, 99_999_999):
        append(bucket_url)
    with pytest.raises(ExportFileError, match=rf"^{bucket_url}/{name} was not written by feedback_etl: .* Remove it"):
        append(bucket_url)
    assert len(AuditLog(ObjectStorage(bucket_url)).lines()) <= 5
    assert verify_folder(bucket_url, [SIGNER]).problems
    for later in range(number, 100_000_000):
        ObjectStorage(bucket_url).delete(f".feedback_etl/audit/{later}.json")
    append(bucket_url)
    assert verify_folder(bucket_url, [SIGNER]).problems == []


def append(url: str) -> None:
    """A record for the log."""
    with AuditLog(ObjectStorage(url)).lock() as log:
        log.append("pruned", SIGNER, exports=[], keep_days=1)


def test_forged_record_removes_nothing(bucket_url: str, local_parts: LocalParts, sqlite_database: Database) -> None:
    """It is not signed by an available key, so it has no effect, also when its idempotency key is requested."""
    published(bucket_url, local_parts)
    stem = "feedback_training_20200101_000000"
    put(bucket_url, f"{stem}/mine.csv", b"mine")
    last = AuditLog(ObjectStorage(bucket_url)).records()[-1]
    forged = last | {"number": 3, "event": "started", "stem": stem, "run": "f" * 16, "at": "2020-01-01T00:00:00.000Z"}
    forged["request"] = "one"
    for key_id in (SIGNER.id, None):
        record = json.dumps(forged | {"key_id": key_id}).encode()
        put(bucket_url, ".feedback_etl/audit/00000003.json", record)
        transaction = ExportTransaction(ObjectStorage(bucket_url), NOW, TransactionOptions(key=SIGNER))
        with pytest.raises(ExportFileError, match="does not verify"), transaction:
            pass
        with pytest.raises(ExportFileError, match="does not verify"):
            exported(sqlite_database.url, bucket_url, key=KEY, idempotency_key="one")
        assert ObjectStorage(bucket_url).read(f"{stem}/mine.csv") == b"mine"
        assert manifest_path(stem) not in ObjectStorage(bucket_url).names()


@pytest.mark.parametrize(
    "path", ["other.csv", ".feedback_etl/audit.jsonl", "rejected/other.csv", "../x", "/etc/passwd"]
)
def test_a_manifest_reaches_its_own_files_alone(bucket_url: str, local_parts: LocalParts, path: str) -> None:
    """Not other objects beside them; a manifest that names such files is invalid."""
    stem = published(bucket_url, local_parts)
    (manifest,) = list_manifests(bucket_url)
    manifest.files[0].path = path
    content = asdict(manifest)
    content.pop("version", None)
    put(bucket_url, manifest_path(stem), json.dumps(content | {"settings_digest": ""}).encode())
    with pytest.raises(ExportFileError, match="is not a manifest"):
        fe.exports.prune(bucket_url, keep_days=0, key=SIGNER, now=NOW.replace(year=2026))


@pytest.mark.parametrize(
    "url",
    ["s3://one/a/../b", "s3://one/a%20b", "s3://one//dbl", "s3://one/a//b", "S3://KEY:SECRET@one/x", "s3://one/./a"],
)
def test_prefixes_that_could_be_read_in_two_ways_are_refused(url: str) -> None:
    """And nothing of them is repeated."""
    with pytest.raises(UsageError) as caught:
        open_storage(url)
    assert "SECRET" not in str(caught.value)


def test_a_scheme_may_be_written_in_capitals(bucket_url: str) -> None:
    """It is not a folder of that name."""
    assert str(open_storage(bucket_url.replace("s3:", "S3:"))) == bucket_url


@pytest.mark.served_store
def test_invalid_endpoint_is_reported(bucket_url: str) -> None:
    """In one sentence, after the client's own output."""
    done = feedback_etl("list", "--output", bucket_url, env={"AWS_ENDPOINT_URL": "garbage"})
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith("error: The client for")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_lost_scheduler_is_reported(shared_url: str, tmp_path: Path) -> None:
    """Dask's futures never complete then, and report nothing."""
    with dask(1) as (executor, client):

        def gone(rows: int, total: int) -> None:
            client.close()

        with pytest.raises(ExportFileError, match="lost its scheduler"):
            exported(shared_url, tmp_path, executor=executor, workers=16, on_progress=gone)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and ".feedback_etl" not in path.parts] == []


def test_missing_settings_of_a_worker_are_reported_as_the_workers(
    shared_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as if the coordinator had no key."""
    monkeypatch.delenv("FEEDBACK_ETL_KEY")
    with pytest.raises(UsageError, match=r"^On a worker: No pseudonym key is configured"):
        exported(shared_url, tmp_path, executor=Watched())
