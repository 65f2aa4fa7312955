"""Exports in an object store: what is published, races with erasures, killed runs and what becomes of them."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from exports_in_parts import LocalParts, export_parts, read_pairs
from folders import NOW, people
from object_store import Proxy, Trouble
from processes import environment
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.errors import ExportFileError, UsageError, ValidationError
from feedback_etl.exports import recovery
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.exports.preconditions import TransactionOptions, require_consent
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests, read_manifest
from feedback_etl.records.layout import manifest_path, part_path, state_part_path
from feedback_etl.records.manifest import DataFile
from feedback_etl.records.tombstones import add_tombstones
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.transform.expressions import hash_id

SIGNER = Key(KEY)


@pytest.fixture
def local_parts(sqlite_database: Database, tmp_path: Path) -> LocalParts:
    """Three users with feedback, as the parts of an export."""
    sqlite_database.fill(**people(3, each=4))
    return LocalParts(sqlite_database, tmp_path / "made")


def begun(url: str, **options: object) -> ExportTransaction:
    return ExportTransaction(ObjectStorage(url), NOW, TransactionOptions(**{"key": SIGNER, **options}))  # type: ignore[arg-type]


def attempt(
    url: str,
    local_parts: LocalParts,
    meanwhile: Callable[[ExportTransaction, list[DataFile]], object] | None = None,
    **options: object,
) -> ExportTransaction:
    """An export, with something that happens between its parts and its manifest."""
    with begun(url, **options) as export:
        parts = local_parts.put(ObjectStorage(url), export.stem)
        if meanwhile:
            meanwhile(export, parts)
        export.commit(parts, local_parts.details)
    return export


def announce_sweep(url: str) -> None:
    """Record the start of `erase --not-in-database`, before it inspects the exports."""
    with AuditLog(ObjectStorage(url)).lock() as log:
        log.append("erasing", SIGNER, swept=True)


def events(url: str) -> list[str]:
    return [record["event"] for record in AuditLog(ObjectStorage(url)).records()]


def pseudonym(analysis: int) -> str:
    return str(pl.select(hash_id(pl.lit(str(analysis)), key=SIGNER, domain="analysis_id")).item())


def forget(url: str, *analyses: int, key: Key = SIGNER) -> None:
    """Write tombstones, the first step of an erasure."""
    log = AuditLog(ObjectStorage(url))
    if not log.records():
        with log.lock() as opened:
            opened.append("erasing", key, swept=False)
    head = log.head()
    add_tombstones(ObjectStorage(url), f"{analyses}", [], map(pseudonym, analyses), key, head=head)


def assert_whole(url: str) -> None:
    """Every object belongs to a manifest, and the log is complete."""
    bucket = ObjectStorage(url)
    expected = {name for name in bucket.names() if b'"mode": "abandoned"' in bucket.read(name)}
    for manifest in list_manifests(url):
        expected |= {manifest_path(manifest.stem), *(file.path for file in manifest.files)}
        for file in manifest.files:
            assert bucket.stat_with_digest(file.path) == (file.bytes, file.sha256)
            assert bucket.list_files()[file.path][:2] == (file.bytes, file.etag)
    assert {name for name in bucket.list_files() if not name.startswith(".")} == expected
    anchors = {export.stem: export.audit_head for export in list_manifests(url)}
    assert verify_lines(AuditLog(bucket).lines(), [SIGNER], anchors, signed=True).problems == []


class TestPublishing:
    """Parts that are published, and parts that are not."""

    def test_parts_and_a_manifest_are_an_export(self, bucket_url: str, local_parts: LocalParts) -> None:
        """In the order of the parts, with the digests and ETags of all."""
        bucket = ObjectStorage(bucket_url)
        with begun(bucket_url) as export:
            parts = local_parts.put(bucket, export.stem)
            assert list_manifests(bucket_url) == []
            export.commit(parts, local_parts.details)
        (manifest,) = list_manifests(bucket_url)
        assert [file.path for file in manifest.files] == [part.path for part in parts]
        assert len(manifest.all("pairs")) == 3
        assert read_pairs(bucket, manifest.all("pairs")).height == manifest.rows == 9
        assert events(bucket_url) == ["started", "committed"]
        assert export.audit_head == AuditLog(bucket).head()
        assert_whole(bucket_url)

    def test_without_parts_nothing_is_published(self, bucket_url: str) -> None:
        """And the log says that it is done."""
        with begun(bucket_url) as export:
            export.commit([])
        assert list_manifests(bucket_url) == []
        assert events(bucket_url) == ["started", "committed"]

    def test_what_was_not_published_is_removed(self, bucket_url: str, local_parts: LocalParts) -> None:
        """After any kind of failure."""

        def stop(*_: object) -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            attempt(bucket_url, local_parts, stop)
        left = [name for name in ObjectStorage(bucket_url).list_files() if not name.startswith(".")]
        assert left == ["feedback_training_20251025_120000.manifest.json"]  # which stops late workers
        assert list_manifests(bucket_url) == []
        assert events(bucket_url) == ["started", "failed"]

    def test_what_an_attempt_left_is_removed(self, bucket_url: str, local_parts: LocalParts) -> None:
        """A part that no task has reported."""
        with begun(bucket_url) as export:
            parts = local_parts.put(ObjectStorage(bucket_url), export.stem)
            ObjectStorage(bucket_url).put_new(part_path(export.stem, 77, ".parquet"), b"left")
            export.commit(parts, local_parts.details)
        assert_whole(bucket_url)

    @pytest.mark.slow
    def test_part_put_while_the_manifest_is_published_is_removed(
        self, bucket_url: str, local_parts: LocalParts, proxy: Proxy
    ) -> None:
        """Of a worker that was presumed dead: it sees no manifest yet, and the publisher lists the parts afterwards."""
        late: list[str] = []

        def put_late(method: str, path: str) -> None:
            if method == "PUT" and path.endswith(".manifest.json") and not late:
                late.append(state_part_path("feedback_training_20251025_120000", "arrow", 7))
                with PartWriter(ObjectStorage(bucket_url), late[0], FileFormat("arrow"), {}) as part:
                    part.append(pl.DataFrame({"analysis_hash": [pseudonym(201)]}))
                    part.publish("pairs")

        proxy.before = put_late
        attempt(bucket_url, local_parts)
        assert late
        assert not {*late} & {*ObjectStorage(bucket_url).list_files()}
        assert_whole(bucket_url)

    def test_part_put_after_an_empty_export_is_removed(self, bucket_url: str) -> None:
        """And pending rows are removed, as if all classes were too small."""
        with begun(bucket_url) as export:
            waiting, late = (state_part_path(export.stem, "arrow", number) for number in (0, 1))
            ObjectStorage(bucket_url).put_new(waiting, b"rows")
            export.commit([])
        with PartWriter(ObjectStorage(bucket_url), late, FileFormat("arrow"), {}) as part:
            part.append(pl.DataFrame({"analysis_hash": [pseudonym(201)]}))
            with pytest.raises(ExportFileError, match="ended while the part was written"):
                part.publish("pairs")
        assert [name for name in ObjectStorage(bucket_url).list_files() if "part-" in name] == []
        assert events(bucket_url) == ["started", "committed"]

    def test_a_part_that_is_not_there_fails_it(self, bucket_url: str, local_parts: LocalParts) -> None:
        """It was reported, and then removed."""
        with pytest.raises(ExportFileError, match="not there"):
            attempt(bucket_url, local_parts, lambda _, parts: ObjectStorage(bucket_url).delete(parts[0].path))
        assert list_manifests(bucket_url) == []

    def test_two_of_a_second_have_names_of_their_own(self, bucket_url: str, local_parts: LocalParts) -> None:
        """The run that records it first gets the first."""
        with begun(bucket_url) as one, begun(bucket_url) as other:
            for export in (other, one):
                export.commit(local_parts.put(ObjectStorage(bucket_url), export.stem), local_parts.details)
        assert other.stem == f"{one.stem}_1"
        assert len(list_manifests(bucket_url)) == 2
        assert_whole(bucket_url)

    @pytest.mark.sample("lost")
    @pytest.mark.parametrize("how", ["503", "lost"])
    def test_trouble_does_not_harm_it(self, bucket_url: str, local_parts: LocalParts, proxy: Proxy, how: str) -> None:
        """Each kind of put fails once, or its answer is lost."""
        proxy.troubles = [Trouble(how, holding=part) for part in ("audit/", "part-00000.parquet", ".manifest.json")]
        with begun(bucket_url) as export:
            export.commit(local_parts.put(ObjectStorage(bucket_url), export.stem), local_parts.details)
        assert [trouble.times for trouble in proxy.troubles] == [0] * 3
        assert events(bucket_url) == ["started", "committed"]
        assert_whole(bucket_url)

    def test_the_guards_of_a_folder_hold(self, bucket_url: str, local_parts: LocalParts) -> None:
        """Of one key, and of consent."""
        with begun(bucket_url, consent=["users.training_data_opt_in"]) as export:
            export.commit(local_parts.put(ObjectStorage(bucket_url), export.stem), local_parts.details)
        with pytest.raises(ValidationError, match="consent"), begun(bucket_url):
            pass
        with pytest.raises(UsageError, match="--allow-new-key"), begun(bucket_url, key=Key(OTHER_KEY)):
            pass
        assert events(bucket_url) == ["started", "committed"]

    def test_of_exports_side_by_side_one_key_wins(self, bucket_url: str, local_parts: LocalParts) -> None:
        """The other one publishes nothing."""
        others = []
        with pytest.raises(UsageError, match="--allow-new-key"):
            attempt(
                bucket_url,
                local_parts,
                lambda *_: others.append(attempt(bucket_url, local_parts, key=Key(OTHER_KEY)).stem),
            )
        assert [export.stem for export in list_manifests(bucket_url)] == others

    def test_of_two_keys_that_publish_at_once_no_two_stay(
        self, bucket_url: str, local_parts: LocalParts, proxy: Proxy
    ) -> None:
        """Both check before either manifest exists; one that then finds a manifest of another key withdraws its own."""
        both, met, errors = threading.Barrier(2, timeout=30), set[str](), list[UsageError]()

        def meet(method: str, path: str) -> None:
            if method == "PUT" and path.endswith(".manifest.json") and path not in met:
                met.add(path)
                both.wait()

        def publish(key: Key) -> None:
            try:
                attempt(bucket_url, local_parts, key=key)
            except UsageError as error:
                errors.append(error)

        proxy.before = meet
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(publish, [SIGNER, Key(OTHER_KEY)]))
        assert len(met) == 2
        assert len(list_manifests(bucket_url)) == 2 - len(errors) < 2
        assert all("--allow-new-key" in str(error) for error in errors)

    @pytest.mark.sample("if-match")
    @pytest.mark.parametrize("header", ["if-none-match", "if-match"])
    def test_a_store_without_conditional_puts_is_refused(self, bucket_url: str, proxy: Proxy, header: str) -> None:
        """Exports and records would overwrite each other; it is tested once, before the log begins."""
        proxy.dropped = {header}
        with pytest.raises(ExportFileError, match=f"(?i){header}.*nothing was written"), begun(bucket_url):
            pass
        assert not ObjectStorage(bucket_url).exists()
        proxy.dropped = set()
        for _ in range(2):
            with begun(bucket_url) as export:
                export.commit([])
        assert len({request for request in proxy.requests if "PUT" in request and "/conditions-" in request}) == 2


class TestErasuresMeanwhile:
    """A person erased while an export runs is not in it."""

    def test_before_the_manifest_is_put(self, bucket_url: str, local_parts: LocalParts) -> None:
        """Parts are replaced without them, before they are an export."""
        with begun(bucket_url) as export:
            parts = local_parts.put(ObjectStorage(bucket_url), export.stem)
            forget(bucket_url, 201, 202)
            export.commit(parts, local_parts.details)
        (manifest,) = list_manifests(bucket_url)
        assert (manifest.rows, manifest.erased_rows, manifest.risk["stale"]) == (7, 0, True)
        assert_forgotten(bucket_url, 201, 202)

    def test_while_the_manifest_is_put(self, bucket_url: str, local_parts: LocalParts, proxy: Proxy) -> None:
        """The eraser has seen no manifest; the exporter sees the tombstones."""
        done: list[str] = []

        def erase_at(method: str, path: str) -> None:
            if method == "PUT" and path.endswith(".manifest.json") and not done:
                done.append(path)
                forget(bucket_url, 202, 303)

        proxy.before = erase_at
        with begun(bucket_url) as export:
            export.commit(local_parts.put(ObjectStorage(bucket_url), export.stem), local_parts.details)
        (manifest,) = list_manifests(bucket_url)
        assert done
        assert (manifest.rows, manifest.erased_rows) == (7, 2)
        assert_forgotten(bucket_url, 202, 303)

    @pytest.mark.slow
    def test_when_the_answer_is_lost_and_the_eraser_is_quick(
        self, bucket_url: str, local_parts: LocalParts, proxy: Proxy, object_store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The existing manifest differs from the one that was put, and is still of this run."""
        proxy.troubles = [Trouble("lost", holding=".manifest.json")]

        def erase_at(method: str, path: str) -> None:
            put = [request for request in proxy.requests if request.startswith("PUT") and ".manifest.json" in request]
            if len(put) == 2 and method == "PUT" and path.endswith(".manifest.json"):
                with monkeypatch.context() as patch:
                    patch.setenv("AWS_ENDPOINT_URL", object_store)
                    fe.privacy.erase(bucket_url, analysis_ids=[202], keys=[SIGNER])

        proxy.before = erase_at
        attempt(bucket_url, local_parts)
        (manifest,) = list_manifests(bucket_url)
        assert (manifest.rows, manifest.erased_rows) == (8, 1)
        assert_forgotten(bucket_url, 202)

    def test_a_sweep_meanwhile_fails_it(self, bucket_url: str, local_parts: LocalParts) -> None:
        """It compared published exports with the database, and not this one."""
        with pytest.raises(ExportFileError, match="swept"):
            attempt(bucket_url, local_parts, lambda *_: announce_sweep(bucket_url))
        assert list_manifests(bucket_url) == []

    def test_a_sweep_that_begins_when_the_manifest_is_put_fails_it(
        self, bucket_url: str, local_parts: LocalParts, proxy: Proxy
    ) -> None:
        """The manifest is withdrawn."""
        done: list[str] = []

        def sweep_at(method: str, path: str) -> None:
            if method == "PUT" and path.endswith(".manifest.json") and not done:
                done.append(path)
                announce_sweep(bucket_url)

        proxy.before = sweep_at
        with pytest.raises(ExportFileError, match="swept"):
            attempt(bucket_url, local_parts)
        assert list_manifests(bucket_url) == []
        assert events(bucket_url) == ["started", "erasing", "failed"]

    def test_an_erasure_under_another_key_fails_it(self, bucket_url: str, local_parts: LocalParts) -> None:
        """The erased people are unknown."""
        with pytest.raises(ExportFileError, match="another key"):
            attempt(bucket_url, local_parts, lambda *_: forget(bucket_url, 201, key=Key(OTHER_KEY)))
        assert list_manifests(bucket_url) == []

    def test_rows_with_own_pseudonyms_of_the_application_fail_it(
        self, bucket_url: str, local_parts: LocalParts
    ) -> None:
        """No key finds the rows of the erased people in them."""
        with pytest.raises(ExportFileError, match="the application makes itself"):
            attempt(bucket_url, local_parts, lambda *_: forget(bucket_url, 201), own_pseudonyms=True)
        assert list_manifests(bucket_url) == []

    def test_erased_people_are_known_to_the_transaction(self, bucket_url: str, local_parts: LocalParts) -> None:
        """So that readers leave out their rows."""
        forget(bucket_url, 201)
        with begun(bucket_url) as export:
            assert [len(tombstones.pseudonyms) for tombstones in export.tombstones] == [1]
            assert len(export.erasures) == 1
            export.commit(local_parts.put(ObjectStorage(bucket_url), export.stem), local_parts.details)


def assert_forgotten(url: str, *analyses: int) -> None:
    """Nothing of them is in any part."""
    for manifest in list_manifests(url):
        for file in manifest.files:
            hashes = read_pairs(ObjectStorage(url), [file])["analysis_hash"]
            assert not {*map(pseudonym, analyses)} & {*hashes}
    assert_whole(url)


KILLED = f"""
import os, signal, sys
from datetime import datetime
from pathlib import Path
from typing import Any
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.posix import hash_file
from feedback_etl.records.layout import part_path
from feedback_etl.privacy.keys import Key
url, path, moment = sys.argv[1:]
bucket, path = ObjectStorage(url), Path(path)
options = TransactionOptions(key=Key({KEY!r}))
with ExportTransaction(bucket, datetime(2025, 10, 25, 12), options) as export:
    name = part_path(export.stem, 0, ".parquet")
    bucket.put_new(name, path)
    if moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    export._end = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    export.commit([DataFile(name, "pairs", 9, path.stat().st_size, hash_file(path))])
"""


@pytest.mark.served_store
class TestKilledRuns:
    """What a killed run leaves is finished or removed by a later one."""

    @pytest.fixture
    def killed(self, bucket_url: str, local_parts: LocalParts) -> "Killed":
        """Runs that put a part, and are killed."""
        return Killed(bucket_url, local_parts.folder / local_parts.manifest.all("pairs")[0].path)

    def test_one_that_has_put_its_manifest_is_finished(self, bucket_url: str, killed: "Killed") -> None:
        """And people erased since are erased from it."""
        stem = killed("after")
        forget(bucket_url, 202)
        with begun(bucket_url) as export:
            export.commit([])
        assert events(bucket_url) == ["started", "recovered", "started", "committed"]
        assert AuditLog(ObjectStorage(bucket_url)).records()[1]["outcome"] == "committed"
        assert [(export.stem, export.rows) for export in list_manifests(bucket_url)] == [(stem, 8)]
        assert_forgotten(bucket_url, 202)

    def test_what_it_had_not_removed_yet_is_removed(self, bucket_url: str, killed: "Killed") -> None:
        """The manifest is put first, and then everything that it does not list is deleted."""
        stem = killed("after")
        ObjectStorage(bucket_url).put_new(state_part_path(stem, "arrow", 7), b"rows")
        with begun(bucket_url) as export:
            export.commit([])
        assert [name for name in ObjectStorage(bucket_url).list_files(".feedback_etl") if "part-" in name] == []
        assert AuditLog(ObjectStorage(bucket_url)).records()[1]["removed"] == [state_part_path(stem, "arrow", 7)]
        assert_whole(bucket_url)

    def test_one_without_a_manifest_is_left_alone_for_a_day(self, bucket_url: str, killed: "Killed") -> None:
        """It may be alive, on another machine."""
        stem = killed("before")
        with begun(bucket_url) as export:
            export.commit([])
        assert events(bucket_url) == ["started", "started", "committed"]
        assert ObjectStorage(bucket_url).names(stem) != []

    def test_then_it_is_removed(
        self, bucket_url: str, killed: "Killed", monkeypatch: pytest.MonkeyPatch, local_parts: LocalParts
    ) -> None:
        """And its name is not used again."""
        stem = killed("before")
        monkeypatch.setattr(recovery, "STALE_AFTER", timedelta(0))
        with begun(bucket_url) as export:
            export.commit(local_parts.put(ObjectStorage(bucket_url), export.stem), local_parts.details)
        assert events(bucket_url) == ["started", "recovered", "started", "committed"]
        assert [export.stem for export in list_manifests(bucket_url)] == [f"{stem}_1"]
        assert ObjectStorage(bucket_url).names(stem) == []

    def test_one_that_a_sweep_may_have_passed_by_is_removed(
        self, bucket_url: str, killed: "Killed", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a day, since until then it may finish by itself."""
        stem = killed("after")
        announce_sweep(bucket_url)
        for patience, left in ((timedelta(days=1), [stem]), (timedelta(0), [])):
            monkeypatch.setattr(recovery, "STALE_AFTER", patience)
            with begun(bucket_url) as export:
                export.commit([])
            assert [export.stem for export in list_manifests(bucket_url)] == left
        assert ObjectStorage(bucket_url).names(stem) == []

    def test_aborted_run_cannot_publish(
        self, bucket_url: str, local_parts: LocalParts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was only slow; none of its objects remains."""

        def recover(slow: ExportTransaction, _: object) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(recovery, "STALE_AFTER", timedelta(0))
                with begun(bucket_url) as export:
                    export.commit([])
            local_parts.put(ObjectStorage(bucket_url), slow.stem)
            stems.append(slow.stem)

        stems: list[str] = []
        with pytest.raises(ExportFileError, match="considered this run dead"):
            attempt(bucket_url, local_parts, recover)
        (stem,) = stems
        assert list_manifests(bucket_url) == []
        assert ObjectStorage(bucket_url).names(stem) == []
        found = read_manifest(ObjectStorage(bucket_url), stem)
        assert found
        assert found.mode == "abandoned"

    def test_killed_recovery_is_completed(
        self, bucket_url: str, killed: "Killed", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name is reserved, and parts still exist."""
        stem = killed("before")
        monkeypatch.setattr(recovery, "STALE_AFTER", timedelta(0))
        with monkeypatch.context() as patch:
            patch.setattr(recovery, "remove_unlisted", killed.dies)
            with pytest.raises(KeyboardInterrupt), begun(bucket_url):
                pass
        with begun(bucket_url) as export:
            export.commit([])
        assert ObjectStorage(bucket_url).names(stem) == []
        assert events(bucket_url) == ["started", "recovered", "started", "committed"]


class Killed:
    """Start runs that are killed."""

    def __init__(self, url: str, part: Path) -> None:
        self.url, self.part = url, part

    def __call__(self, moment: str) -> str:
        """Kill a run at a moment, and return its stem."""
        command = [sys.executable, "-c", KILLED, self.url, str(self.part), moment]
        ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")
        return str(AuditLog(ObjectStorage(self.url)).records()[-1]["stem"])

    @staticmethod
    def dies(*_: object) -> None:
        """Interrupt a call."""
        raise KeyboardInterrupt


def test_stem_reserved_concurrently_is_not_reused(
    bucket_url: str, local_parts: LocalParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another export begins while this one checks the log."""
    others = list[ExportTransaction]()

    def begin_another(*arguments: Any) -> None:
        if not others:
            others.append(begun(bucket_url))  # which passes by here as well
            stack.enter_context(others[0])
        require_consent(*arguments)

    monkeypatch.setattr("feedback_etl.exports.preconditions.require_consent", begin_another)
    with ExitStack() as stack:
        mine = attempt(bucket_url, local_parts)
        assert mine.stem == f"{others[0].stem}_1"


def test_many_who_record_at_once_make_one_chain(bucket_url: str, sqlite_database: Database) -> None:
    """Eight concurrent exports: each has its own name, and the log is complete."""
    sqlite_database.fill(**people(2, each=2))
    with ThreadPoolExecutor(8) as pool:
        stems = set(pool.map(lambda _: export_parts(sqlite_database, bucket_url), range(8)))
    assert len(stems) == 8 == len(list_manifests(bucket_url))
    assert_whole(bucket_url)


def test_what_was_read_of_the_log_is_not_read_again(
    bucket_url: str, sqlite_database: Database, tmp_path: Path, proxy: Proxy
) -> None:
    """Nor are tombstones: an export, which checks them repeatedly, reads each object once."""
    sqlite_database.fill(**people(3, each=4))
    local_parts = LocalParts(sqlite_database, tmp_path / "made")
    for analysis in range(5):
        announce_sweep(bucket_url)
        forget(bucket_url, 900 + analysis)
    proxy.requests.clear()
    attempt(bucket_url, local_parts)
    read = [request for request in proxy.requests if request.startswith("GET") and request.endswith(".json")]
    assert len([request for request in read if "/audit/" in request or "/tombstones/" in request]) == 10
