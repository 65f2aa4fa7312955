"""What was forgotten stays so, whoever exports next and however; and an erasure reaches what it should."""

import gzip
import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from databases import Database
from folders import KEY, NOW, exported, people, rows_of
from test_erasure import OTHER, everything_in, forget, pseudonym

import feedback_etl as fe
from feedback_etl.errors import ExportFileError, KeyMissingError, UsageError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.audit_verification import verify
from feedback_etl.exports.catalog import list_manifests
from feedback_etl.privacy.keys import Key, write_key
from feedback_etl.results import ExportReport
from feedback_etl.settings import find_retired_folder


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Three users with four analyses each, of which one row each is rejected."""
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the exports go."""
    return tmp_path / "exports"


class TestAnotherKey:
    """Tombstones are of a key; who does not know it cannot tell who is forgotten."""

    def test_it_needs_the_old_one(self, application: Database, folder: Path) -> None:
        """Refused, rather than that somebody comes back; with the old one among the retired they stay away."""
        exported(application, folder)
        forget(application, folder, 2)
        with pytest.raises(KeyMissingError, match=rf"under the key {Key(KEY).id}, which is not available.*keys retire"):
            exported(application, folder, key=OTHER, allow_new_key=True)
        assert len(list_manifests(folder)) == 1
        place = find_retired_folder()
        assert place
        write_key(place / "made")
        (place / Key(KEY).id).write_text(KEY)
        (place / Key(KEY).id).chmod(0o600)
        report = exported(application, folder, key=OTHER, allow_new_key=True)
        assert (report.exported_records, report.excluded_records) == (6, 4)
        assert pseudonym(201, OTHER).encode() not in everything_in(folder)

    def test_an_erasure_may_know_both(self, application: Database, folder: Path) -> None:
        """Then either is enough."""
        exported(application, folder)
        forget(application, folder, 2, keys=[Key(KEY), Key(OTHER)])
        assert exported(application, folder).excluded_records == 4
        assert exported(application, folder, key=OTHER, allow_new_key=True).excluded_records == 4

    def test_unkeyed_folders_use_the_configured_key(
        self, application: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Plain digests of ids would tell everybody who asked to be forgotten."""
        unkeyed: dict[str, Any] = {"key": None, "unkeyed": True}
        exported(application, folder, **unkeyed)
        forget(application, folder, 2)
        lines = (folder / ".feedback_etl" / "tombstones.jsonl").read_text().splitlines()
        assert {json.loads(line)["key_id"] for line in lines} == {Key(KEY).id}
        with pytest.raises(KeyMissingError):
            exported(application, folder, **unkeyed)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        assert exported(application, folder, **unkeyed).excluded_records == 4


class TestUnderWay:
    """An export has read the rows before the erasure came."""

    def after(self, database: Database, folder: Path, act: Any, **options: Any) -> list[BaseException | ExportReport]:
        """What becomes of an export during which something happens."""
        read, done = threading.Event(), threading.Event()
        became: list[BaseException | ExportReport] = []

        def wait(_rows: int, _total: int) -> None:
            read.set()
            done.wait(60)

        def export() -> None:
            try:
                became.append(exported(database, folder, on_progress=wait, **options))
            except Exception as error:
                became.append(error)

        thread = threading.Thread(target=export)
        thread.start()
        read.wait(60)
        act()
        done.set()
        thread.join()
        return became

    def test_of_another_key(self, application: Database, folder: Path) -> None:
        """It cannot tell who was erased, so that it is not published."""
        exported(application, folder, key=OTHER)
        (became,) = self.after(
            application, folder, lambda: forget(application, folder, 2, keys=[Key(OTHER)]), allow_new_key=True
        )
        assert isinstance(became, ExportFileError)
        assert "under another key: nothing was published. Run again." in str(became)
        assert len(list(folder.glob("*.csv"))) == 1

    def test_of_a_sweep(self, application: Database, folder: Path) -> None:
        """A sweep looks at what is published; what is under way has to be read again."""
        exported(application, folder)

        def sweep() -> None:
            with application.engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 3")
            assert forget(application, folder, not_in_database=True).rows == 4

        (became,) = self.after(application, folder, sweep)
        assert isinstance(became, ExportFileError)
        assert "was swept" in str(became)
        assert pseudonym(301).encode() not in everything_in(folder)


class TestTheTombstones:
    """They are what keeps people out."""

    @pytest.mark.parametrize("harm", ["remove", "change", "cut"])
    def test_they_are_looked_after(self, application: Database, folder: Path, harm: str) -> None:
        """Exports and erasures refuse to go on without them, and the log tells."""
        exported(application, folder)
        forget(application, folder, 2)
        path = folder / ".feedback_etl" / "tombstones.jsonl"
        text = path.read_text()
        path.write_text({"remove": "", "change": text.replace("a", "b"), "cut": text[:-10]}[harm])
        for act in (exported, forget):
            with pytest.raises(ExportFileError, match=r"tombstones\.jsonl is missing or was changed"):
                act(application, folder, *([3] if act is forget else []))

    def test_a_link_is_not_followed(self, application: Database, folder: Path, tmp_path: Path) -> None:
        """It could lead anywhere."""
        exported(application, folder)
        (tmp_path / "elsewhere").write_text("")
        (folder / ".feedback_etl" / "tombstones.jsonl").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ExportFileError, match="symbolic link"):
            exported(application, folder)

    @pytest.mark.parametrize("line", ["[]", "{}", '"x"', '{"erasure": 1, "kind": "user", "digest": "", "key_id": ""}'])
    def test_what_is_none_is_told(self, application: Database, folder: Path, line: str) -> None:
        """Nothing is guessed."""
        exported(application, folder)
        (folder / ".feedback_etl" / "tombstones.jsonl").write_text(line + "\n")
        with pytest.raises(ExportFileError, match="no tombstone"):
            exported(application, folder)


class TestFiles:
    """Whatever is in them."""

    @pytest.mark.parametrize(
        "text", ['"analysis_hash","x"\r\n"{0}","1"\r\n', "analysis_hash\n{0}\n", "x,analysis_hash\n1,{1}\n"]
    )
    def test_adopted_ones_of_other_writers(self, application: Database, folder: Path, text: str) -> None:
        """Quoted, alone in its row, or in upper case."""
        folder.mkdir()
        path = folder / "old.csv"
        path.write_bytes(text.format(pseudonym(201), pseudonym(201).upper()).encode())
        fe.exports.adopt(path, key=Key(KEY))
        assert forget(application, folder, 2).rows == 1
        assert pseudonym(201) not in path.read_text().lower()
        assert path.read_text().count("\n") == 1

    def test_damaged_ones_do_not_stop_it(self, application: Database, folder: Path) -> None:
        """They are named, and the others are done."""
        for form in ({"format": "parquet"}, {"compression": "gzip"}, {}):
            exported(application, folder, **form)
        names = [file.path for each in list_manifests(folder) if (file := each.file("pairs"))]
        (folder / names[0]).write_bytes((folder / names[0]).read_bytes()[:-20])
        (folder / names[1]).write_bytes(gzip.compress(b"x" * 100)[:-12])
        done = forget(application, folder, 2)
        assert done.damaged == names[:2]
        assert pseudonym(201).encode() not in (folder / names[2]).read_bytes()

    def test_they_stay_shared_as_they_were(self, application: Database, folder: Path) -> None:
        """Who could read a file before can read what takes its place."""
        path = Path(exported(application, folder).export_filename)
        path.chmod(0o640)
        forget(application, folder, 2)
        assert path.stat().st_mode & 0o777 == 0o640

    def test_rejected_rows_without_an_analysis(self, application: Database, folder: Path) -> None:
        """Go by their feedback ids."""
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

    def test_a_manifest_does_not_lead_elsewhere(self, application: Database, folder: Path, tmp_path: Path) -> None:
        """Nor does the log: both could have been edited."""
        report = exported(application, folder)
        victim = tmp_path / "victim.csv"
        victim.write_text("analysis_hash\n")
        manifest = folder / f"{Path(report.export_filename).stem}.manifest.json"
        text = manifest.read_text()
        for path in (str(victim), "../victim.csv", "a/../../victim.csv", "rejected/../../victim.csv", ""):
            values = json.loads(text)
            values["files"][0]["path"] = path
            manifest.write_text(json.dumps(values))
            with pytest.raises(ExportFileError, match="no manifest"):
                fe.exports.prune(folder, keep_days=0, key=Key(KEY))
            with pytest.raises(ExportFileError, match="no manifest"):
                forget(application, folder, 2)
        manifest.write_text(text)
        (tmp_path / ".pwn.csv.tmp").write_text("")
        with (folder / ".feedback_etl" / "audit.jsonl").open("a") as log:
            record = {"mac": "x", "previous": "x", "key_id": None, "number": 9, "at": "3", "user": "u", "host": "h"}
            log.write(json.dumps(record | {"event": "started", "run": "zz", "stem": "../pwn"}) + "\n")
        exported(application, folder)
        assert victim.exists()
        assert (tmp_path / ".pwn.csv.tmp").exists()

    def test_a_link_in_place_of_the_rejected_folder(self, application: Database, folder: Path, tmp_path: Path) -> None:
        """Is refused by all."""
        exported(application, folder)
        (folder / "rejected").rename(tmp_path / "elsewhere")
        (folder / "rejected").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ExportFileError, match="symbolic link"):
            fe.exports.prune(folder, keep_days=0, now=NOW.replace(year=2026), key=Key(KEY))
        with pytest.raises(ExportFileError, match="symbolic link"):
            forget(application, folder, 2)
        assert len(list((tmp_path / "elsewhere").iterdir())) == 1


class TestIds:
    """Of whom."""

    @pytest.mark.parametrize("ids", ["663", 663, [663.0], [None], [True], ["a\0b"], [b"1"]])
    def test_what_is_no_list_of_ids_is_refused(self, application: Database, folder: Path, ids: Any) -> None:
        """A text is no list of its characters."""
        folder.mkdir()
        for name in ("user_ids", "analysis_ids"):
            with pytest.raises(UsageError, match=name):
                fe.privacy.erase(folder, database=application.url, keys=KEY, **{name: ids})

    def test_ids_of_any_kind(self, application: Database, folder: Path) -> None:
        """Integers, text, UUIDs; one key or several, as keys or as text."""
        exported(application, folder)
        done = fe.privacy.erase(folder, analysis_ids=[101, "102", uuid4()], keys=KEY)
        assert (done.rows, len(done.not_found)) == (2, 1)

    def test_two_users_of_one_analysis(self, application: Database, folder: Path) -> None:
        """Both are found."""
        application.fill(feedbacks=[people(1)["feedbacks"][0] | {"id": 999, "user_id": 9}])
        exported(application, folder)
        assert forget(application, folder, 1, 9).not_found == []

    def test_a_folder_that_is_not_there(self, application: Database, folder: Path) -> None:
        """Is not made."""
        with pytest.raises(UsageError, match="There is no folder"):
            forget(application, folder, 1)
        with pytest.raises(UsageError, match="There is no folder"):
            fe.exports.prune(folder, keep_days=1, key=None)
        assert not folder.exists()


def test_a_log_that_was_forged_without_a_key(application: Database, folder: Path) -> None:
    """Exports of a key have signed records."""
    exported(application, folder)
    log = AuditLog(folder)
    forged = AuditLog(folder.parent / "forged")
    with forged.lock() as opened:
        for record in log.records():
            opened.append(record["event"], None, run=record["run"], stem=record["stem"])
    verdict = verify(forged, [Key(KEY)], {"manifest": forged.head()}, signed=True)
    assert verdict.problems == [
        "line 1: it is not signed by a key, as it has to be",
        "line 2: it is not signed by a key, as it has to be",
    ]


def test_an_incremental_export_that_found_nothing_leaves_no_hole(application: Database, folder: Path) -> None:
    """The next one begins where it began, also where it failed."""
    application.clear()
    usual: dict[str, Any] = {"incremental": True, "days_back": 1}
    assert exported(application, folder, **usual).export_filename == ""
    application.fill(**people(2))
    report = exported(application, folder, now=NOW + timedelta(days=30), **usual)
    assert report.exported_records == 6
    assert report.window == (NOW - timedelta(days=1), NOW + timedelta(days=30))
