"""Looking after exports in an object store: erase, prune, list, audit, scan, risk, report and the rest."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from exports_in_parts import export_parts, read_pairs
from folders import FORMS, NOW, exported, people
from object_store import Proxy, Trouble
from polars.testing import assert_frame_equal
from processes import Here
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import manifest_path, part_folders
from feedback_etl.records.manifest import Manifest
from feedback_etl.settings.model import load_settings
from feedback_etl.storage.object_store import ObjectStorage

KEYS = [Key(KEY)]


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """Three users with feedback."""
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


@pytest.fixture
def url(bucket_url: str, database: Database) -> str:
    """An export of them, in parts."""
    export_parts(database, bucket_url)
    return bucket_url


def only(url: str) -> Manifest:
    (manifest,) = list_manifests(url)
    return manifest


def assert_true(url: str) -> None:
    """Manifests and log say what is there."""
    for manifest in list_manifests(url):
        for file in manifest.files if not manifest.pruned_at else []:
            assert ObjectStorage(url).stat_with_digest(file.path) == (file.bytes, file.sha256)
            assert file.becoming == {}
    assert verify_folder(ObjectStorage(url), KEYS).problems == []


def fill_more(database: Database) -> None:
    """Twenty-four users instead of three."""
    database.clear()
    database.fill(**people(24, each=4))


class TestErase:
    """People leave every part, and stay out."""

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_their_rows_leave_all_parts(self, bucket_url: str, database: Database, form: dict[str, str]) -> None:
        """By user ids, which are looked up."""
        export_parts(database, bucket_url, **form)
        before = read_pairs(ObjectStorage(bucket_url), only(bucket_url).all("pairs"))
        done = fe.privacy.erase(bucket_url, user_ids=[2], database=database.url, keys=KEYS)
        manifest = only(bucket_url)
        after = read_pairs(ObjectStorage(bucket_url), manifest.all("pairs"))
        assert (done.rows, done.not_found) == (4, [])
        assert (before.height, after.height, manifest.erased_rows, manifest.risk["stale"]) == (9, 6, 4, True)
        assert_frame_equal(before.filter(pl.col("analysis_hash").is_in(after["analysis_hash"].implode())), after)
        assert_true(bucket_url)

    def test_a_second_one_changes_nothing(self, url: str) -> None:
        """The tombstones name the erased people."""
        fe.privacy.erase(url, analysis_ids=[202], keys=KEYS)
        objects = {name: entry for name, entry in ObjectStorage(url).list_files().items() if "audit" not in name}
        again = fe.privacy.erase(url, analysis_ids=[202, 777], keys=KEYS)
        assert (again.rows, again.not_found) == (0, ["777"])
        known = {name: entry for name, entry in ObjectStorage(url).list_files().items() if name in objects}
        assert known == objects

    def test_a_dry_run_puts_nothing(self, url: str) -> None:
        """It counts."""
        before = ObjectStorage(url).list_files()
        assert fe.privacy.erase(url, analysis_ids=[202], keys=KEYS, dry_run=True).rows == 1
        assert ObjectStorage(url).list_files() == before

    def test_a_sweep_takes_out_who_is_no_longer_there(self, url: str, database: Database) -> None:
        """And says in the log that it begins, for exports that are under way."""
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 3")
        assert fe.privacy.erase(url, not_in_database=True, database=database.url, keys=KEYS).rows == 4
        assert [record["event"] for record in AuditLog(url).records()] == [
            "started",
            "committed",
            "erasing",
            "erased",
        ]
        assert_true(url)

    def test_interrupted_replacement_is_completed(self, url: str, proxy: Proxy) -> None:
        """Between the part and its manifest: the next one determines which content exists."""

        def stop(method: str, path: str) -> None:
            if method == "PUT" and path.endswith(".parquet"):
                proxy.troubles = [Trouble("503", times=1000, holding=".manifest.json")]

        proxy.before = stop
        with pytest.raises(ExportFileError, match="failed repeatedly"):
            fe.privacy.erase(url, analysis_ids=[202], keys=KEYS)
        proxy.troubles, proxy.before = [], lambda _, __: None
        assert any(file.becoming for file in only(url).files)
        assert scan_rows(url) == 8
        fe.privacy.erase(url, analysis_ids=[202], keys=KEYS)
        assert only(url).rows == 8
        assert_true(url)

    @pytest.mark.slow
    def test_manifest_announces_many_parts_at_once(self, bucket_url: str, database: Database, proxy: Proxy) -> None:
        """Before and after the replacement: not twice for each file."""
        fill_more(database)
        export_parts(database, bucket_url)
        proxy.requests.clear()
        done = fe.privacy.erase(bucket_url, user_ids=[*range(1, 24)], database=database.url, keys=KEYS)
        puts = [request for request in proxy.requests if request.startswith("PUT")]
        assert len([request for request in puts if ".parquet" in request]) > 16
        assert len([request for request in puts if ".manifest.json" in request]) == 4
        assert (done.rows, done.not_found, scan_rows(bucket_url)) == (4 * 23, [], 3)
        assert_true(bucket_url)

    @pytest.mark.slow
    def test_replaced_parts_are_recorded(self, bucket_url: str, database: Database, proxy: Proxy) -> None:
        """One cannot be put: the next erasure takes that up, and nothing else."""
        fill_more(database)
        export_parts(database, bucket_url)
        proxy.troubles = [Trouble("503", times=1000, holding="part-00002.parquet")]
        with pytest.raises(ExportFileError, match="failed repeatedly"):
            fe.privacy.erase(bucket_url, user_ids=[*range(1, 24)], database=database.url, keys=KEYS)
        (left,) = [file.path for file in only(bucket_url).files if file.becoming]
        assert left.endswith("part-00002.parquet")
        assert scan_rows(bucket_url) == only(bucket_url).rows
        proxy.troubles = []
        proxy.requests.clear()
        fe.privacy.erase(bucket_url, user_ids=[*range(1, 24)], database=database.url, keys=KEYS)
        assert [request for request in proxy.requests if request.startswith("PUT") and "part-00001" in request] == []
        assert scan_rows(bucket_url) == 3
        assert_true(bucket_url)

    @pytest.mark.sample("lost")
    @pytest.mark.parametrize("how", ["503", "lost", "cut"])
    def test_trouble_does_not_harm_it(self, url: str, proxy: Proxy, how: str) -> None:
        """Each kind of put fails once, or its answer is lost."""
        kinds = ("tombstones/", "audit/", ".parquet", ".manifest.json")
        proxy.troubles = [Trouble(how, holding=kind) for kind in kinds]
        assert fe.privacy.erase(url, analysis_ids=[202, 302], keys=KEYS).rows == 2
        assert [trouble.times for trouble in proxy.troubles] == [0] * 4
        assert only(url).erased_rows == 2
        assert_true(url)

    def test_many_at_once_erase_all(self, bucket_url: str, database: Database) -> None:
        """An erasure is retried after a conflict; each row counts once, whichever erasure removes it."""
        for _ in range(2):
            export_parts(database, bucket_url)
        erased: list[int] = []

        def erase(analysis: int) -> None:
            erased.append(fe.privacy.erase(bucket_url, analysis_ids=[analysis], keys=KEYS).rows)

        side_by_side(*(lambda analysis=analysis: erase(analysis) for analysis in (102, 103, 202, 203, 302, 303)))
        assert sum(erased) == 12
        assert [manifest.rows for manifest in list_manifests(bucket_url)] == [3, 3]
        assert_true(bucket_url)

    def test_exports_and_erasures_at_once(self, bucket_url: str, database: Database) -> None:
        """In any order: in the end no export contains them."""
        export_parts(database, bucket_url)
        side_by_side(
            *(lambda: export_parts(database, bucket_url) for _ in range(3)),
            *(
                lambda analysis=analysis: fe.privacy.erase(bucket_url, analysis_ids=[analysis], keys=KEYS)
                for analysis in (102, 202, 302)
            ),
        )
        assert [manifest.rows for manifest in list_manifests(bucket_url)] == [6] * 4
        assert_true(bucket_url)

    def test_a_prefix_with_nothing_is_refused(self, bucket_url: str) -> None:
        """A mistake in the URL would erase no one."""
        with pytest.raises(UsageError, match="nothing at"):
            fe.privacy.erase(bucket_url, analysis_ids=[1], keys=KEYS)


def side_by_side(*acts: Callable[[], object]) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestPrune:
    """Old parts go, and manifests stay."""

    @pytest.mark.served_store
    def test_parts_of_old_exports_go(self, url: str, database: Database) -> None:
        """By the manifest's age."""
        export_parts(database, url, now=NOW + timedelta(days=9))
        pruned = fe.exports.prune(url, keep_days=5, key=KEYS[0], now=NOW + timedelta(days=10))
        assert (len(pruned.exports), len(pruned.kept)) == (1, 1)
        old, new = list_manifests(url)
        assert (old.pruned_at != "", ObjectStorage(url).names(old.stem), len(ObjectStorage(url).names(new.stem))) == (
            True,
            [],
            3,
        )
        assert scan_rows(url) == 9
        assert_true(url)

    def test_nothing_else_is_removed(self, url: str) -> None:
        """Files without a manifest are reported."""
        ObjectStorage(url).put_new("copy.csv", b"")
        pruned = fe.exports.prune(url, keep_days=0, key=KEYS[0], now=NOW + timedelta(days=10))
        assert pruned.unmanaged == [Path("copy.csv")]
        assert "copy.csv" in ObjectStorage(url).names()


def scan_rows(url: str, **options: Any) -> int:
    return fe.scan_training(url, **options).collect().height


@pytest.mark.served_store
class TestScan:
    """Parts as one frame, read by Polars where they are."""

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_it_is_the_same_as_from_a_folder(
        self, bucket_url: str, database: Database, tmp_path: Path, form: dict[str, str]
    ) -> None:
        """Row by row, in every format."""
        export_parts(database, bucket_url, **form)
        exported(database, tmp_path / "local", **form)
        here = fe.scan_training(tmp_path / "local").collect()
        assert_frame_equal(fe.scan_training(bucket_url).collect(), here)
        assert_frame_equal(fe.scan_training(Path(bucket_url), verify=True).collect(), here)

    def test_a_pattern_chooses_some(self, url: str, database: Database) -> None:
        """Of their names."""
        export_parts(database, url, now=NOW + timedelta(days=1))
        newest = f"{url}/feedback_training_20251026_120000"
        assert (
            fe.training.latest_export(url) == fe.training.latest_export(f"{url}/feedback_training_20251026*") == newest
        )
        assert scan_rows(url) == 9
        with pytest.raises(ExportFileError, match="contains no export"):
            fe.scan_training(f"{url}/nothing*")

    def test_what_has_changed_is_refused(self, url: str) -> None:
        """By its size or its ETag; a part that is missing as well."""
        bucket, part = ObjectStorage(url), only(url).all("pairs")[1].path
        content, version = bucket.read_version(part)
        version = bucket.replace(part, content[:-1] + b"X", if_match=version)
        for broken in (content[:-2], None):
            with pytest.raises(ExportFileError, match=r"part-00001\.parquet does not match its manifest"):
                fe.scan_training(url)
            if broken:
                bucket.replace(part, broken, if_match=version)
                bucket.delete(part)

    def test_object_without_an_etag_is_identified_by_its_digest(self, url: str) -> None:
        """As one of a store that gives none."""
        manifest = only(url)
        for file in manifest.files:
            file.etag = ""
        name = manifest_path(manifest.stem)
        ObjectStorage(url).replace(name, manifest.to_json().encode(), if_match=manifest.version)
        assert scan_rows(url) == 9


@pytest.mark.served_store
class TestFaces:
    """How they are reported."""

    @pytest.fixture
    def here(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
        """The command line, with the key."""
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        return Here(capsys, monkeypatch)

    def test_the_commands_take_a_url(self, url: str, here: Here, tmp_path: Path) -> None:
        """List, audit, erase, prune, report, contracts."""
        listed = here("list", "--output", url)
        assert "feedback_training_20251025_120000/ (3 parts)     9  full  " in listed.out
        assert json.loads(here("list", "--json", "--output", url).out)["exports"][0]["stem"] == only(url).stem
        ids = tmp_path / "ids.txt"
        ids.write_text("202\n")
        erased = here("erase", "--analysis-ids-file", str(ids), "--output", url)
        assert (erased.code, erased.err) == (0, "1 row erased from 1 file\n")
        assert "erased" in here("audit", "show", "--output", url).out
        assert here("audit", "verify", "--output", url).out.startswith("3 records, head ")
        assert here("contracts", "--croissant", url).out == f"{url}/croissant.json\n"
        assert len(json.loads(ObjectStorage(url).read("croissant.json"))["distribution"]) == 3
        assert here("report", url, "-o", "report.html").code == 0
        assert url in Path("report.html").read_text()
        assert "1 export pruned" in here("prune", "--keep-days", "0", "--output", url).err

    def test_parts_without_a_manifest_are_listed(self, url: str, here: Here) -> None:
        """They hold people whom it does not reach."""
        stem, bucket = only(url).stem, ObjectStorage(url)
        lost = {name for folder in part_folders(stem) for name in bucket.names(folder)}
        bucket.delete(f"{stem}.manifest.json")
        assert {str(path) for path in fe.privacy.erase(url, analysis_ids=["101"], keys=KEYS).unmanaged} == lost != set()
        listing = here("list", "--output", url).out
        assert all(f"{name}  unmanaged: the manifest of this part is missing" in listing for name in lost)

    def test_the_settings_name_it(self, url: str, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a folder; they are shown as they were written."""
        monkeypatch.setenv("FEEDBACK_ETL_OUTPUT_DIR", url)
        assert json.loads(here("config", "--json").out)["output_dir"]["value"] == url
        assert only(url).stem in here("list").out

    def test_risk_is_measured_of_a_part_or_of_all(self, url: str, here: Here) -> None:
        """By their URL."""
        part = only(url).all("pairs")[0].path
        for path, rows in ((f"{url}/{part}", 4), (f"{url}/{only(url).stem}", 9)):
            assert json.loads(here("risk", path, "--json").out)["rows"] == rows
        assert "is a folder" in here("risk", url).err

    def test_an_object_is_not_adopted(self, url: str, here: Here) -> None:
        """The message names the remedy."""
        ended = here("adopt", f"{url}/copy.csv")
        assert (ended.code, "adopt requires a local folder" in ended.err) == (2, True)

    def test_the_checklist_is_gone_through(self, url: str, database: Database) -> None:
        """Modes cannot be tested there; all other items pass."""
        settings = load_settings(output_dir=url, database_url=database.url)
        found = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}
        assert (found["modes"].status, "object store" in found["modes"].detail) == ("skipped", True)
        names = ("columns", "pseudonyms", "ages", "contents", "duplicates", "audit log", "erasure")
        assert [name for name in names if not found[name].passed] == []

    def test_a_log_that_was_changed_or_cut_is_found_out(self, url: str) -> None:
        """A record that was removed or changed is found."""
        bucket = ObjectStorage(url)
        name = ".feedback_etl/audit/00000001.json"
        content, version = bucket.read_version(name)
        bucket.replace(name, content.replace(b"started", b"stopped"), if_match=version)
        assert verify_folder(bucket, KEYS).problems == ["line 1: it was changed"]
        bucket.delete(".feedback_etl/audit/00000002.json")
        bucket.delete(name)
        faults = verify_folder(bucket, KEYS).problems
        assert ["the log was cut" in faults[0], "does not record how" in faults[1]] == [True, True]

    def test_tombstones_that_were_removed_are_missed(self, url: str) -> None:
        """Whom the bucket has forgotten could come back."""
        fe.privacy.erase(url, analysis_ids=[202], keys=KEYS)
        ObjectStorage(url).delete(".feedback_etl/tombstones/00000001.json")
        with pytest.raises(ExportFileError, match=r"tombstones\.jsonl is missing or was changed"):
            fe.privacy.erase(url, analysis_ids=[203], keys=KEYS)
