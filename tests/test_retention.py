"""Maintenance of a folder: manifests, listing, adoption and pruning; unmanaged files are never removed."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from databases import Database
from folders import NOW, exported, people, visible
from processes import Here
from pseudonym_keys import KEY

from feedback_etl.errors import ExportFileError, KeyMissingError, UsageError
from feedback_etl.exports.adoption import adopt
from feedback_etl.exports.maintenance import list_exports, prune, select_expired
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests, mark_pruned, read_manifest
from feedback_etl.records.manifest_details import ExportRun, ManifestDetails, build_manifest
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.posix import hash_file
from feedback_etl.training import scan_training
from feedback_etl.transform.row_schema import build_row_schema


@pytest.fixture
def folder(sqlite_database: Database, tmp_path: Path) -> Path:
    """Create three exports, ten days apart, the newest one now."""
    sqlite_database.fill(**people(2, each=4, days_ago=30))
    for days in (20, 10, 0):
        exported(sqlite_database, tmp_path / "exports", now=NOW - timedelta(days=days) + timedelta(hours=1))
    return tmp_path / "exports"


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Return a runner of command lines in this process, with the key of the exports."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    return Here(capfd, monkeypatch)


class TestManifest:
    """The manifest of an export."""

    def test_manifest_describes_the_export(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Its window, settings, statistics, files and key."""
        sqlite_database.fill(**people(2, each=4))
        report = exported(sqlite_database, tmp_path / "exports", days_back=3, min_feedback_fields=1)
        (manifest,) = list_manifests(tmp_path / "exports")
        assert manifest.stem == "feedback_training_20251025_120000"
        assert (manifest.mode, manifest.source, manifest.key_id) == ("full", "sqlite", Key(KEY).id)
        assert manifest.window == ["2025-10-22T12:00:00", "2025-10-25T12:00:00"]
        assert manifest.statistics["exported_records"] == report.exported_records == 6
        assert manifest.statistics["errors"] == 2
        for file in manifest.files:
            path = tmp_path / "exports" / file.path
            assert (file.bytes, file.sha256) == (path.stat().st_size, hash_file(path))
        assert [(file.kind, file.rows) for file in manifest.files] == [("rejected", 2), ("pairs", 6)]
        path = tmp_path / "exports" / f"{manifest.stem}.manifest.json"
        assert path.stat().st_mode & 0o777 == 0o600
        assert KEY not in path.read_text()
        assert json.loads(path.read_text())["settings_digest"] == manifest.settings_digest

    def test_equal_settings_have_equal_digests(self, sqlite_database: Database, tmp_path: Path) -> None:
        """The window, the file format and --max-rejected do not change them."""
        sqlite_database.fill(**people(1))
        exported(sqlite_database, tmp_path, days_back=3)
        exported(sqlite_database, tmp_path, days_back=4)
        exported(sqlite_database, tmp_path, max_rejected=0.5, format="parquet")
        exported(sqlite_database, tmp_path, hash_recommendation_id=True)
        first, *same, other = (manifest.settings_digest for manifest in list_manifests(tmp_path))
        assert {first} == {*same} != {other}

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": 1, "settings_digest": ""}', "\xff"])
    def test_invalid_manifest_is_refused(self, tmp_path: Path, content: str) -> None:
        """Nothing is guessed."""
        (tmp_path / "a.manifest.json").write_text(content, encoding="latin-1")
        with pytest.raises(ExportFileError, match=r"a\.manifest\.json is not a manifest"):
            list_manifests(tmp_path)


class TestContents:
    """The listing of a folder."""

    def test_files_without_a_manifest_are_unmanaged(self, folder: Path) -> None:
        """Whatever their names are."""
        assert len(list_exports(folder).exports) == 3
        assert list_exports(folder).unmanaged == []
        for name in ("copy.csv", "feedback_training_20200101_000000.parquet", "rejected/other.csv.gz"):
            (folder / name).write_text("analysis_hash\n")
        (folder / "notes.txt").write_text("not data")
        assert [path.name for path in list_exports(folder).unmanaged] == [
            "copy.csv",
            "feedback_training_20200101_000000.parquet",
            "other.csv.gz",
        ]


class TestAdopt:
    """The adoption of an existing file."""

    def test_adopted_file_gets_a_manifest_and_is_unchanged(self, folder: Path) -> None:
        """Its time of creation is that in its name."""
        path = folder / "feedback_training_20200101_030405.csv"
        path.write_text('recommendation_id,analysis_hash\n"a\nb",0123456789abcdef\nc,0123456789abcdef\n')
        before = path.read_bytes()
        manifest = adopt(path, key=Key(KEY))
        assert path.read_bytes() == before
        assert (manifest.mode, manifest.created_at, manifest.files[0].rows) == ("adopted", "2020-01-01T03:04:05", 2)
        assert list_exports(folder).unmanaged == []
        assert AuditLog(folder).records()[-1]["event"] == "adopted"
        assert read_manifest(open_storage(folder), "feedback_training_20200101_030405") == manifest

    def test_other_files_are_not_adopted(self, folder: Path) -> None:
        """Links, files with a manifest, and files without pseudonyms."""
        (folder / "other.csv").write_text("a,b\n1,2\n")
        (folder / "link.csv").symlink_to(folder / "other.csv")
        for name, why in (
            ("link.csv", "not a CSV or Parquet file"),
            ("other.csv", "no column analysis_hash"),
            (visible(folder)[0], "" if visible(folder)[0].endswith("manifest.json") else "has a manifest"),
        ):
            with pytest.raises(ExportFileError, match=why):
                adopt(folder / name, key=Key(KEY))
        with pytest.raises(UsageError, match=r"^There is no file .*missing\.csv\.$"):
            adopt(folder / "missing.csv", key=Key(KEY))


class TestPrune:
    """Expired exports are removed by the time in their manifest."""

    def test_expired_files_are_removed_and_manifests_kept(self, folder: Path) -> None:
        """An export of exactly --keep-days is kept."""
        later = NOW + timedelta(hours=1)
        dry = prune(folder, key=Key(KEY), keep_days=10, now=later, dry_run=True)
        assert [manifest.stem[-15:] for manifest in dry.exports] == ["20251005_130000"]
        assert len(list_exports(folder).exports[0].files) == 2
        assert len(visible(folder)) == 9
        done = prune(folder, key=Key(KEY), keep_days=10, now=later)
        assert [manifest.stem for manifest in done.exports] == [manifest.stem for manifest in dry.exports]
        assert len(done.kept) == 2
        gone, *there = list_manifests(folder)
        assert gone.pruned_at == "2025-10-25T13:00:00"
        assert not any((folder / file.path).exists() for file in gone.files)
        assert all((folder / file.path).exists() for manifest in there for file in manifest.files)
        assert AuditLog(folder).records()[-1]["exports"] == [gone.stem]
        again = prune(folder, key=Key(KEY), keep_days=10, now=later)
        assert (again.exports, len(again.kept)) == ([], 2)

    def test_newest_exports_are_kept(self, folder: Path) -> None:
        """By --keep-last, however old they are."""
        pruned = prune(folder, key=Key(KEY), keep_days=0, keep_last=2, now=NOW + timedelta(days=100))
        assert (len(pruned.exports), len(pruned.kept)) == (1, 2)

    def test_unmanaged_files_are_kept(self, folder: Path) -> None:
        """Also one with the name of an export."""
        (folder / "feedback_training_20200101_000000.csv").write_text("mine")
        pruned = prune(folder, key=Key(KEY), keep_days=0, now=NOW + timedelta(days=100))
        assert len(pruned.exports) == 3
        assert [path.name for path in pruned.unmanaged] == ["feedback_training_20200101_000000.csv"]
        assert (folder / "feedback_training_20200101_000000.csv").read_text() == "mine"

    def test_clock_that_went_back_prunes_nothing(self, folder: Path) -> None:
        """An export with a later time shows that the clock is wrong."""
        with pytest.raises(ExportFileError, match="was created later than this machine's clock shows"):
            prune(folder, key=Key(KEY), keep_days=1, now=NOW)
        assert len(visible(folder)) == 9

    def test_interrupted_prune_is_resumed(self, folder: Path) -> None:
        """The manifest says pruned, and the files still exist."""
        (manifest,) = [each for each in list_manifests(folder) if "20251005" in each.stem]
        mark_pruned(open_storage(folder), manifest, "2025-10-25T00:00:00", Key(KEY))
        assert len(prune(folder, key=Key(KEY), keep_days=1000, now=NOW + timedelta(hours=2)).exports) == 1
        assert not list(folder.glob("*20251005*.csv"))

    def test_named_export_is_removed_however_young(self, folder: Path, here: Here) -> None:
        """Also if its file is missing, so that every reader knows that it was removed."""
        first, second, third = [manifest.stem for manifest in list_manifests(folder)]
        (folder / f"{second}.csv").unlink()
        assert "missing: removed, but not by prune" in here("list", "--output", folder).out
        done = here("prune", "--export", third, "--export", second, "--output", folder)
        assert (done.code, done.out) == (0, f"removed {second}\nremoved {third}\n")
        assert [manifest.stem for manifest in list_manifests(folder) if not manifest.pruned_at] == [first]
        assert AuditLog(folder).records()[-1]["exports"] == [second, third]
        assert not list(folder.glob(f"rejected/{third}*"))
        assert "missing" not in here("list", "--output", folder).out
        assert scan_training(folder).collect().height == list_manifests(folder)[0].rows

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--export", "nothing"], "There is no export nothing in this folder"),
            (["--export", "nothing", "--keep-days", "3"], "--export removes the named exports"),
            (["--export", "nothing", "--keep-last", "3"], "--export removes the named exports"),
        ],
    )
    def test_named_export_has_to_exist_and_excludes_other_options(
        self, folder: Path, here: Here, options: list[str], message: str
    ) -> None:
        """Nothing is removed then."""
        done = here("prune", *options, "--output", folder)
        assert (done.code, message in done.err, len(visible(folder))) == (2, True, 9)

    @pytest.mark.parametrize("wrong", [{}, {"exports": ["x"], "keep_days": 1}, {"exports": "x"}])
    def test_either_exports_or_days_are_named(self, folder: Path, wrong: dict[str, Any]) -> None:
        """As a list, since a text would be a list of letters."""
        with pytest.raises(UsageError, match="Name exports as a list, or give keep_days"):
            prune(folder, key=Key(KEY), now=NOW, **wrong)

    @pytest.mark.parametrize("wrong", [{"keep_days": -1}, {"keep_days": True}, {"keep_days": 1, "keep_last": -1}])
    def test_invalid_options_are_refused(self, folder: Path, wrong: dict[str, Any]) -> None:
        """The message names the option."""
        with pytest.raises(UsageError, match="must be a whole number"):
            prune(folder, key=Key(KEY), now=NOW, **wrong)


def test_parquet_metadata_contain_contract_and_key_id(sqlite_database: Database, tmp_path: Path) -> None:
    """The columns have their types, and are compressed with zstd."""
    sqlite_database.fill(**people(2))
    report = exported(sqlite_database, tmp_path, format="parquet")
    metadata = pq.read_metadata(report.export_filename)
    values = {name.decode(): value.decode() for name, value in metadata.metadata.items()}
    assert json.loads(values["feedback_etl.contract"]) == build_row_schema()
    assert values["feedback_etl.key_id"] == Key(KEY).id
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    frame = pl.read_parquet(report.export_filename)
    assert frame.columns == list(CLASSIC_SCHEMA.training_columns)
    assert frame.schema["helpful_rating"] == pl.Int8
    assert frame.schema["feedback_timestamp"] == pl.Datetime("us", "UTC")


def test_log_records_settings_and_results(sqlite_database: Database, tmp_path: Path) -> None:
    """Also those of an empty export."""
    exported(sqlite_database, tmp_path)
    sqlite_database.fill(**people(2))
    exported(sqlite_database, tmp_path, days_back=9)
    nothing, something = (record for record in AuditLog(tmp_path).records() if record["event"] == "committed")
    assert (nothing["files"], nothing["statistics"]["exported_records"]) == ([], 0)
    assert something["window"] == ["2025-10-16T12:00:00", "2025-10-25T12:00:00"]
    assert something["statistics"]["exported_records"] == 6
    assert something["settings"]["min_feedback_fields"] == 1
    (manifest,) = list_manifests(tmp_path)
    assert [(file["path"], file["sha256"]) for file in something["files"]] == [
        (file.path, file.sha256) for file in manifest.files
    ]


def test_signed_log_is_not_continued_without_a_key(folder: Path) -> None:
    """Neither by prune nor by erase: anyone could have written such a record."""
    for act in (lambda: prune(folder, keep_days=0, key=None), lambda: erase(folder, analysis_ids=[1], keys=[])):
        with pytest.raises(KeyMissingError, match="is signed"):
            act()
    assert len(visible(folder)) == 9


@pytest.mark.parametrize(
    ("keep_days", "keep_last", "expired"),
    [(10, 0, ["old", "older"]), (10, 3, ["older"]), (40, 0, ["older"]), (0, 4, ["older"]), (100, 0, ["older"])],
)
def test_expired_exports_are_selected_by_age_and_number(keep_days: int, keep_last: int, expired: list[str]) -> None:
    """An interrupted pruning ("older") is resumed by any later pruning."""
    exports = [
        replace(
            build_manifest(ManifestDetails(), ExportRun(stem, "run", NOW - timedelta(days=age), None), [], ""),
            pruned_at=pruned,
        )
        for stem, age, pruned in (
            ("older", 50, "2025-10-01T00:00:00"),
            ("old", 30, ""),
            ("new", 5, ""),
            ("today", 0, ""),
        )
    ]
    selected = select_expired(exports, NOW, keep_days=keep_days, keep_last=keep_last)
    assert sorted(export.stem for export in selected) == expired
