"""No command deletes or changes the files of other programs in a folder."""

from datetime import timedelta
from pathlib import Path

import pytest
from databases import Database
from folders import FORMS, NOW, exported, people
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests

STEM = "feedback_training_20251025_120000"
OTHERS = [
    "feedback_training_20230101_000000.csv",
    "feedback_training_20230101_000000_1.csv.gz",
    f"{STEM}.csv",
    f"{STEM}_1.parquet",
    f"{STEM}_2.csv.zst",
    f".{STEM}_3.csv.tmp",
    f".{STEM}_3.manifest.json.tmp",
    f".{STEM}_4.csv.tmp2",
    f"rejected/{STEM}_5_rejected.txt",
    f"rejected/.{STEM}_6_rejected.txt.tmp",
    f".feedback_etl/{STEM}_7.rows",
    f".feedback_etl/.{STEM}_8.rows.tmp",
    f"{STEM}_9",
    "manifest.json",
    "notes.txt",
    "rejected/mine.csv",
    "sub folder/feedback_training_20240101_000000.csv",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of others, under every name that resembles ours."""
    folder = tmp_path / "exports"
    for name in OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"analysis_hash\n{name}\n")
    (folder / "elsewhere.csv").symlink_to(folder / "notes.txt")
    return folder


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_all_of_it_stays(sqlite_database: Database, folder: Path, form: dict[str, str]) -> None:
    """Exports, incremental exports, erasures and prunes do their work beside it."""
    sqlite_database.fill(**people(3))
    for number in range(3):
        now = NOW + timedelta(seconds=number // 2)
        exported(sqlite_database, folder, now=now, **form)
        exported(sqlite_database, folder, now=now, incremental=True, hash_recommendation_id=True, **form)
        everybody = {"not_in_database": True, "user_ids": [1, 2], "analysis_ids": [301]}
        fe.privacy.erase(folder, database=sqlite_database.url, keys=[Key(KEY)], **everybody)  # type: ignore[arg-type]
        fe.exports.prune(folder, keep_days=0, now=NOW + timedelta(days=9), key=Key(KEY))
    assert len(list_manifests(folder)) == 4
    for name in OTHERS:
        assert (folder / name).read_text() == f"analysis_hash\n{name}\n", name
    assert (folder / "elsewhere.csv").is_symlink()


def test_it_is_listed_and_can_be_adopted(folder: Path) -> None:
    """Data files without a manifest are foreign; a file that is adopted keeps its bytes until it has to change."""
    foreign = {path.relative_to(folder).as_posix() for path in fe.exports.list_exports(folder).unmanaged}
    assert foreign == {
        "elsewhere.csv",
        "rejected/mine.csv",
        *(name for name in OTHERS if name.startswith(("feedback_training_", "rejected/f")) and "." in name),
    }
    before = (folder / OTHERS[0]).read_bytes()
    fe.exports.adopt(folder / OTHERS[0], key=Key(KEY))
    assert (folder / OTHERS[0]).read_bytes() == before
    assert len(fe.exports.list_exports(folder).unmanaged) == len(foreign) - 1
    fe.exports.prune(folder, keep_days=10, now=NOW, key=Key(KEY))
    assert not (folder / OTHERS[0]).exists()
    assert all((folder / name).exists() for name in OTHERS[1:])


def test_an_empty_folder_of_theirs_stays_empty_where_nothing_is_written(tmp_path: Path) -> None:
    """Looking makes nothing."""
    assert fe.exports.list_exports(tmp_path) == fe.exports.list_exports(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
