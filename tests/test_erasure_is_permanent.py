"""Erasure is permanent: later exports exclude erased people, and an erasure reaches every file."""

import gzip
import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from databases import Database
from folders import NOW, exported, people, rows_of
from pseudonym_keys import KEY, OTHER_KEY
from test_erasure import everything_in, forget, pseudonym

import feedback_etl as fe
from feedback_etl.errors import ExportFileError, KeyMissingError, UsageError
from feedback_etl.exports.rewrite import remove_rows
from feedback_etl.privacy import eraser
from feedback_etl.privacy.keys import Key, write_key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.settings.keys import find_retired_folder


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Create an application of three users with four analyses each; one row of each user is rejected."""
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the exports."""
    return tmp_path / "exports"


class TestAnotherKey:
    """Tombstones are hashed by a key, and cannot be compared without it."""

    def test_new_key_needs_the_key_of_the_tombstones(self, application: Database, folder: Path) -> None:
        """The export is refused without it; with the retired key it excludes the erased people."""
        exported(application, folder)
        forget(application, folder, 2)
        with pytest.raises(KeyMissingError, match=rf"under the key {Key(KEY).id}, which is not available.*keys retire"):
            exported(application, folder, key=OTHER_KEY, allow_new_key=True)
        assert len(list_manifests(folder)) == 1
        retired_folder = find_retired_folder()
        assert retired_folder
        write_key(retired_folder / "made")
        (retired_folder / Key(KEY).id).write_text(KEY)
        (retired_folder / Key(KEY).id).chmod(0o600)
        report = exported(application, folder, key=OTHER_KEY, allow_new_key=True)
        assert (report.exported_records, report.erased_records) == (6, 4)
        assert pseudonym(201, OTHER_KEY).encode() not in everything_in(folder)

    def test_load_training_leaves_out_people_erased_from_a_folder(
        self, application: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As an export into the folder does; without it, or without a key of the tombstones, it cannot know them."""
        exported(application, folder)
        forget(application, folder, 2)
        gone = {pseudonym(number) for number in (201, 202, 203, 204)}

        def load(**options: Any) -> set[str]:
            usual: dict[str, Any] = {"days_back": -1, "now": NOW, "key": KEY}
            frame = fe.load_training(application.url, **usual | options)
            return {*frame["analysis_hash"]}

        assert load() & gone
        assert load(output_dir=folder) == load() - gone
        with pytest.raises(KeyMissingError):
            load(output_dir=folder, key=OTHER_KEY)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        assert len(load(output_dir=folder, key=OTHER_KEY)) == len(load() - gone)
        with pytest.raises(UsageError, match="There is no folder"):
            load(output_dir=folder / "nowhere")
        (folder / ".feedback_etl/tombstones.jsonl").unlink()
        with pytest.raises(ExportFileError, match="is missing or was changed"):
            load(output_dir=folder)

    def test_erasure_under_two_keys_is_known_to_both(self, application: Database, folder: Path) -> None:
        """Either key is enough for a later export."""
        exported(application, folder)
        forget(application, folder, 2, keys=[Key(KEY), Key(OTHER_KEY)])
        assert exported(application, folder).erased_records == 4
        assert exported(application, folder, key=OTHER_KEY, allow_new_key=True).erased_records == 4

    def test_unkeyed_folders_use_the_configured_key(
        self, application: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Plain digests of ids would disclose who was erased."""
        unkeyed: dict[str, Any] = {"key": None, "unkeyed": True}
        exported(application, folder, **unkeyed)
        forget(application, folder, 2)
        lines = (folder / ".feedback_etl" / "tombstones.jsonl").read_text().splitlines()
        assert {json.loads(line)["key_id"] for line in lines} == {Key(KEY).id}
        with pytest.raises(KeyMissingError):
            exported(application, folder, **unkeyed)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        assert exported(application, folder, **unkeyed).erased_records == 4


class TestConcurrentExport:
    """An export that has read rows before an erasure."""

    def export_during(
        self, database: Database, folder: Path, act: Any, **options: Any
    ) -> list[BaseException | ExportReport]:
        """Return the result of an export during which `act` is called."""
        read, done = threading.Event(), threading.Event()
        results: list[BaseException | ExportReport] = []

        def wait(_rows: int, _total: int) -> None:
            read.set()
            done.wait(60)

        def export() -> None:
            try:
                results.append(exported(database, folder, on_progress=wait, **options))
            except Exception as error:
                results.append(error)

        thread = threading.Thread(target=export)
        thread.start()
        read.wait(60)
        act()
        done.set()
        thread.join()
        return results

    def test_erasure_under_another_key_fails_the_export(self, application: Database, folder: Path) -> None:
        """It cannot determine who was erased."""
        exported(application, folder, key=OTHER_KEY)
        (result,) = self.export_during(
            application, folder, lambda: forget(application, folder, 2, keys=[Key(OTHER_KEY)]), allow_new_key=True
        )
        assert isinstance(result, ExportFileError)
        assert "under another key: nothing was published. Run again." in str(result)
        assert len(list(folder.glob("*.csv"))) == 1

    def test_sweep_fails_the_export(self, application: Database, folder: Path) -> None:
        """A sweep compares published exports; rows of the unfinished one have to be read again."""
        exported(application, folder)

        def sweep() -> None:
            with application.engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 3")
            assert forget(application, folder, not_in_database=True).rows == 4

        (result,) = self.export_during(application, folder, sweep)
        assert isinstance(result, ExportFileError)
        assert "was swept" in str(result)
        assert pseudonym(301).encode() not in everything_in(folder)


class TestTombstones:
    """Missing, changed and invalid tombstones."""

    @pytest.mark.parametrize("harm", ["remove", "change", "cut"])
    def test_missing_or_changed_tombstones_are_an_error(self, application: Database, folder: Path, harm: str) -> None:
        """Exports and erasures are refused; the log records their digest."""
        exported(application, folder)
        forget(application, folder, 2)
        path = folder / ".feedback_etl" / "tombstones.jsonl"
        text = path.read_text()
        path.write_text({"remove": "", "change": text.replace("a", "b"), "cut": text[:-10]}[harm])
        for act in (exported, forget):
            with pytest.raises(ExportFileError, match=r"tombstones\.jsonl is missing or was changed"):
                act(application, folder, *([3] if act is forget else []))

    def test_symbolic_link_is_refused(self, application: Database, folder: Path, tmp_path: Path) -> None:
        """It could lead out of the folder."""
        exported(application, folder)
        (tmp_path / "elsewhere").write_text("")
        (folder / ".feedback_etl" / "tombstones.jsonl").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ExportFileError, match="symbolic link"):
            exported(application, folder)

    @pytest.mark.parametrize("line", ["[]", "{}", '"x"', '{"erasure": 1, "kind": "user", "digest": "", "key_id": ""}'])
    def test_invalid_tombstone_is_an_error(self, application: Database, folder: Path, line: str) -> None:
        """No part of it is used."""
        exported(application, folder)
        (folder / ".feedback_etl" / "tombstones.jsonl").write_text(line + "\n")
        with pytest.raises(ExportFileError, match="not a tombstone"):
            exported(application, folder)


class TestFiles:
    """Files of other programs, damaged files, modes, and paths in manifests."""

    @pytest.mark.parametrize(
        "text", ['"analysis_hash","x"\r\n"{0}","1"\r\n', "analysis_hash\n{0}\n", "x,analysis_hash\n1,{1}\n"]
    )
    def test_adopted_files_of_other_programs_are_erased(self, application: Database, folder: Path, text: str) -> None:
        """Pseudonyms are quoted, alone in their row, or in upper case."""
        folder.mkdir()
        path = folder / "old.csv"
        path.write_bytes(text.format(pseudonym(201), pseudonym(201).upper()).encode())
        fe.exports.adopt(path, key=Key(KEY), analyses=[201])
        assert forget(application, folder, 2).rows == 1
        assert pseudonym(201) not in path.read_text().lower()
        assert path.read_text().count("\n") == 1

    def test_damaged_files_do_not_stop_an_erasure(self, application: Database, folder: Path) -> None:
        """They are reported, and the other files are rewritten."""
        for form in ({"format": "parquet"}, {"compression": "gzip"}, {}):
            exported(application, folder, **form)
        names = [file.path for manifest in list_manifests(folder) for file in manifest.all("pairs")]
        (folder / names[0]).write_bytes((folder / names[0]).read_bytes()[:-20])
        (folder / names[1]).write_bytes(gzip.compress(b"x" * 100)[:-12])
        done = forget(application, folder, 2)
        assert done.damaged == names[:2]
        assert pseudonym(201).encode() not in (folder / names[2]).read_bytes()

    @pytest.mark.parametrize("with_subject", [False, True])
    def test_interrupted_erasure_is_completed_without_the_database(
        self, application: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, *, with_subject: bool
    ) -> None:
        """By the tombstones: neither the database nor a file knows the analyses of the person any more."""
        for subject in (with_subject, False):
            exported(application, folder, include_subject_hash=subject)
        calls: list[Any] = []

        def remove_first(*args: Any, **options: Any) -> Any:
            calls.append(args)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return remove_rows(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(eraser, "remove_rows", remove_first)
            with pytest.raises(KeyboardInterrupt):
                forget(application, folder, 2)
        with application.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 2")
        assert pseudonym(201).encode() in everything_in(folder)
        assert forget(application, folder, 2).not_found == []
        assert pseudonym(201).encode() not in everything_in(folder)

    def test_mode_of_a_rewritten_file_is_kept(self, application: Database, folder: Path) -> None:
        """Users who could read the file can read its replacement."""
        path = Path(exported(application, folder).export_filename)
        path.chmod(0o640)
        forget(application, folder, 2)
        assert path.stat().st_mode & 0o777 == 0o640

    def test_rejected_rows_without_an_analysis_are_erased(self, application: Database, folder: Path) -> None:
        """By their feedback ids."""
        rows = [
            {"id": 900 + user, "user_id": user, "helpful_rating": 3, "created_at": NOW.replace(hour=1)}
            for user in (2, 3)
        ]
        application.fill(feedbacks=rows)
        exported(application, folder)
        assert forget(application, folder, 2).rows == 5
        rejected = rows_of(next((folder / "rejected").iterdir()))
        assert "902" not in rejected["feedback_id"].to_list()
        assert "903" in rejected["feedback_id"].to_list()
        assert forget(application, folder, not_in_database=True).rows == 0

    def test_paths_out_of_the_folder_are_refused(self, application: Database, folder: Path, tmp_path: Path) -> None:
        """In manifests and in the log, which could have been edited."""
        report = exported(application, folder)
        victim = tmp_path / "victim.csv"
        victim.write_text("analysis_hash\n")
        manifest = folder / f"{Path(report.export_filename).stem}.manifest.json"
        text = manifest.read_text()
        for path in (str(victim), "../victim.csv", "a/../../victim.csv", "rejected/../../victim.csv", ""):
            values = json.loads(text)
            values["files"][0]["path"] = path
            manifest.write_text(json.dumps(values))
            with pytest.raises(ExportFileError, match="not a manifest"):
                fe.exports.prune(folder, keep_days=0, key=Key(KEY))
            with pytest.raises(ExportFileError, match="not a manifest"):
                forget(application, folder, 2)
        manifest.write_text(text)
        (tmp_path / ".pwn.csv.tmp").write_text("")
        with (folder / ".feedback_etl" / "audit.jsonl").open("a") as log:
            record = {"mac": "x", "previous": "x", "key_id": None, "number": 9, "at": "3", "user": "u", "host": "h"}
            log.write(json.dumps(record | {"event": "started", "run": "zz", "stem": "../pwn"}) + "\n")
        with pytest.raises(ExportFileError, match="does not verify"):
            exported(application, folder)
        assert victim.exists()
        assert (tmp_path / ".pwn.csv.tmp").exists()

    def test_symbolic_link_in_place_of_the_rejected_folder_is_refused(
        self, application: Database, folder: Path, tmp_path: Path
    ) -> None:
        """By prune and by erase."""
        exported(application, folder)
        (folder / "rejected").rename(tmp_path / "elsewhere")
        (folder / "rejected").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ExportFileError, match="symbolic link"):
            fe.exports.prune(folder, keep_days=0, now=NOW.replace(year=2026), key=Key(KEY))
        with pytest.raises(ExportFileError, match="symbolic link"):
            forget(application, folder, 2)
        assert len(list((tmp_path / "elsewhere").iterdir())) == 1


class TestIds:
    """The ids of users and analyses."""

    @pytest.mark.parametrize("ids", ["663", 663, [663.0], [None], [True], ["a\0b"], [b"1"]])
    def test_invalid_list_of_ids_is_refused(self, application: Database, folder: Path, ids: Any) -> None:
        """A string is not a list of its characters."""
        folder.mkdir()
        for name in ("user_ids", "analysis_ids"):
            with pytest.raises(UsageError, match=name):
                fe.privacy.erase(folder, database=application.url, keys=KEY, **{name: ids})

    def test_ids_and_keys_of_any_type_are_accepted(self, application: Database, folder: Path) -> None:
        """Integers, strings and UUIDs; one key or several, as keys or strings."""
        exported(application, folder)
        done = fe.privacy.erase(folder, analysis_ids=[101, "102", uuid4()], keys=KEY)
        assert (done.rows, len(done.not_found)) == (2, 1)

    def test_two_users_of_one_analysis_are_found(self, application: Database, folder: Path) -> None:
        """Neither is reported as not found."""
        application.fill(feedbacks=[people(1)["feedbacks"][0] | {"id": 999, "user_id": 9}])
        exported(application, folder)
        assert forget(application, folder, 1, 9).not_found == []

    def test_missing_folder_is_an_error(self, application: Database, folder: Path) -> None:
        """It is not created."""
        with pytest.raises(UsageError, match="There is no folder"):
            forget(application, folder, 1)
        with pytest.raises(UsageError, match="There is no folder"):
            fe.exports.prune(folder, keep_days=1, key=None)
        assert not folder.exists()


def test_unsigned_forged_log_is_reported(application: Database, folder: Path) -> None:
    """Exports with a key have signed records."""
    exported(application, folder)
    log = AuditLog(folder)
    forged = AuditLog(folder.parent / "forged")
    with forged.lock() as opened:
        for record in log.records():
            opened.append(record["event"], None, run=record["run"], stem=record["stem"])
    verified = verify_lines(forged.lines(), [Key(KEY)], {"manifest": forged.head()}, signed=True)
    assert verified.problems == [
        "line 1: it is not signed by a key, as it has to be",
        "line 2: it is not signed by a key, as it has to be",
    ]


def test_empty_incremental_export_leaves_no_gap(application: Database, folder: Path) -> None:
    """The next one begins where the empty one began."""
    application.clear()
    usual: dict[str, Any] = {"incremental": True, "days_back": 1}
    assert exported(application, folder, **usual).export_filename == ""
    application.fill(**people(2))
    report = exported(application, folder, now=NOW + timedelta(days=30), **usual)
    assert report.exported_records == 6
    assert report.window == (NOW - timedelta(days=1), NOW + timedelta(days=30))
