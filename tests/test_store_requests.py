"""Concurrent exports to an object store with one idempotency key: one of them is published."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from exports_in_parts import LocalParts
from folders import NOW, exported, people
from object_store import Proxy
from pseudonym_keys import KEY

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.idempotency import build_request_details
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.storage.object_store import ObjectStorage


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Three users with feedback."""
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


def asked(database: Database, url: str) -> ExportReport:
    """An export under the id that all of them use."""
    return exported(database, url, idempotency_key="one")


def first_put_of_the_log(proxy: Proxy, act: Any) -> None:
    """Have something done just before a record is put for the first time: its writer has looked at the log."""

    def before(method: str, path: str) -> None:
        if method == "PUT" and "/audit/" in path:
            proxy.before = lambda *_: None
            act()

    proxy.before = before


def test_what_was_published_since_it_looked_is_the_answer(
    bucket_url: str, application: Database, proxy: Proxy, object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another request is completed between the last check of the log and the record of the start."""
    first: list[ExportReport] = []

    def ask() -> None:
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", object_store)
            first.append(asked(application, bucket_url))

    first_put_of_the_log(proxy, ask)
    second = asked(application, bucket_url)
    assert len(list_manifests(bucket_url)) == 1
    assert second.export_filename == first[0].export_filename
    assert second.to_statistics() == first[0].to_statistics()


def test_what_was_begun_since_it_looked_is_given_up(
    bucket_url: str, application: Database, proxy: Proxy, tmp_path: Path
) -> None:
    """Another has begun, and can publish no more when this one has been recorded."""
    local_parts, bucket = LocalParts(application, tmp_path / "made"), ObjectStorage(bucket_url)
    first = ExportTransaction(bucket, NOW, TransactionOptions(key=Key(KEY), audit_details=build_request_details("one")))
    with ExitStack() as stack:
        first_put_of_the_log(proxy, lambda: stack.enter_context(first))
        second = asked(application, bucket_url)
        with pytest.raises(ExportFileError, match="considered this run dead"):
            first.commit(local_parts.put(bucket, first.stem), local_parts.details)
    assert [f"{bucket_url}/{export.stem}" for export in list_manifests(bucket_url)] == [second.export_filename]
    assert bucket.names(first.stem) == []
    assert [record["event"] for record in AuditLog(bucket).records()][:3] == ["started", "recovered", "started"]


def test_of_many_who_ask_at_once_one_publishes(bucket_url: str, application: Database) -> None:
    """The others are given its answer, or were given up."""

    def ask(_: int) -> str:
        try:
            return asked(application, bucket_url).export_filename
        except ExportFileError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        answers = {*pool.map(ask, range(4))} - {""}
    assert answers == {f"{bucket_url}/{export.stem}" for export in list_manifests(bucket_url)}
    assert len(answers) == 1
