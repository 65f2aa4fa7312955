"""Adoption verifies that the pseudonyms of a file can be those of the key."""

import hashlib
import shutil
from pathlib import Path

import polars as pl
import pytest
from databases import Database
from folders import exported, people
from processes import Here
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.adoption import UNKNOWN_SCHEME, adopt
from feedback_etl.privacy.keys import Key, generate_key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.settings.model import load_settings
from feedback_etl.transform.expressions import hash_id

ANALYSES = [101, 102, 103, 201, 202, 203]


def pseudonyms(analyses: list[int], key: str | None = KEY) -> list[str]:
    ids = pl.Series("id", analyses)
    return pl.select(hash_id(pl.lit(ids), key=key, domain="analysis_id", unkeyed=key is None)).to_series().to_list()


def salted(analyses: list[int]) -> list[str]:
    """Return hashes as an earlier exporter made them."""
    return [hashlib.sha256(f"salt{analysis}".encode()).hexdigest()[:16] for analysis in analyses]


def write(path: Path, hashes: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("analysis_hash,timeframe\n" + "".join(f"{hash_},week\n" for hash_ in hashes))
    return path


@pytest.fixture
def folder(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configure the key and the database of two users, and return the default folder."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
    sqlite_database.fill(**people(2))
    return Path("ml/feedback_training")


def test_file_of_an_unknown_scheme_is_never_called_clean(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People in it are not erased, and `erase`, `check` and `list` report it."""
    here, path = Here(capfd, monkeypatch), write(folder / "old.csv", salted(ANALYSES))
    adopted = here("adopt", path)
    assert adopted.code == 0
    assert "Key: an unknown scheme\n" in adopted.out
    assert "erase cannot search it" in adopted.err
    Path("ids").write_text("201\n")
    erased = here("erase", "--analysis-ids-file", "ids")
    assert erased.code == 1
    assert "not inspected, adopted with pseudonyms of an unknown scheme: old. People to erase may remain" in erased.err
    items = {item.name: item for item in check(load_settings(), keys=[Key(KEY)])}
    assert items["erasure"].status == "failed"
    assert items["erasure"].detail == "old cannot be searched: its pseudonyms are of an unknown scheme."
    assert not items["pseudonyms"].passed
    assert not items["consent"].passed
    result = fe.privacy.erase(folder, analysis_ids=[201], keys=[Key(KEY)])
    assert (result.unknown_scheme, result.without_key, result.rows) == (["old"], [], 0)


def test_pseudonyms_are_compared_with_the_database(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command; the file is then erased from."""
    path = write(folder / "old.csv", pseudonyms(ANALYSES))
    assert Here(capfd, monkeypatch)("adopt", path).err == ""
    assert fe.privacy.erase(folder, analysis_ids=[201], keys=[Key(KEY)]).rows == 1


def test_pseudonyms_are_compared_with_exports_of_the_same_key(sqlite_database: Database, folder: Path) -> None:
    """Not with those of another key."""
    exported(sqlite_database, folder)
    exported(sqlite_database, folder, key=OTHER_KEY, allow_new_key=True)
    assert adopt(write(folder / "mine.csv", pseudonyms(ANALYSES)), key=Key(KEY)).key_id == Key(KEY).id
    wrong = adopt(write(folder / "others.csv", pseudonyms(ANALYSES, OTHER_KEY)), key=Key(KEY))
    assert (wrong.scheme, wrong.key_id) == (UNKNOWN_SCHEME, None)


def test_unknown_half_of_a_file_is_never_called_clean(
    sqlite_database: Database, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`adopt`, `erase` and `check` report it, until a sweep removes the rows that are not in the database."""
    here, path = Here(capfd, monkeypatch), write(folder / "old.csv", pseudonyms(ANALYSES[:3]) + salted(ANALYSES[3:]))
    adopted = here("adopt", path)
    assert (adopted.code, "Key: s-" in adopted.out) == (0, True)
    assert "erase cannot search these rows" in adopted.err
    Path("ids").write_text("201\n")
    assert here("erase", "--analysis-ids-file", "ids").code == 1  # it is not found
    Path("ids").write_text("101\n")
    erased = here("erase", "--analysis-ids-file", "ids")
    assert erased.code == 7
    assert "not inspected: rows of old with unknown pseudonyms, or without one." in erased.err
    items = {item.name: item for item in check(load_settings(), keys=[Key(KEY)])}
    assert (items["erasure"].status, "rows of old with unknown" in items["erasure"].detail) == ("skipped", True)
    sweep, remove = items["erasure"].remedy.splitlines()
    assert (sweep, remove) == (
        f"feedback-etl erase --not-in-database {folder}",
        f"feedback-etl prune --export old {folder}",
    )
    assert here(*sweep.split()[1:]).code == 0
    assert path.read_text().splitlines()[1:] == [f"{pseudonym},week" for pseudonym in pseudonyms(ANALYSES[1:3])]
    items = {item.name: item for item in check(load_settings(), keys=[Key(KEY)])}
    assert (items["erasure"].status, fe.privacy.erase(folder, analysis_ids=[102], keys=[Key(KEY)]).partly_searched) == (
        "ok",
        [],
    )


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_without_a_pseudonym_are_never_called_clean(sqlite_database: Database, folder: Path, form: str) -> None:
    """Whose they are is not known: a file of such rows alone is of an unknown scheme."""
    empty, mixed = folder / f"empty.{form}", folder / f"mixed.{form}"
    folder.mkdir(parents=True)
    for path, hashes in ((empty, [None, None]), (mixed, [*pseudonyms(ANALYSES), None])):
        frame = pl.DataFrame(
            {"analysis_hash": hashes, "timeframe": "week"}, schema_overrides={"analysis_hash": pl.String}
        )
        frame.write_parquet(path) if form == "parquet" else frame.write_csv(path)
        manifest = adopt(path, key=Key(KEY), analyses=ANALYSES)
        assert (manifest.scheme == UNKNOWN_SCHEME) == (path == empty)
    result = fe.privacy.erase(folder, not_in_database=True, database=sqlite_database.url, keys=[Key(KEY)])
    assert (result.unknown_scheme, result.partly_searched, result.rows) == (["empty"], ["mixed"], 0)


@pytest.mark.parametrize(("known", "is_recognized"), [(0, False), (2, False), (3, True), (6, True)])
def test_half_of_the_pseudonyms_must_be_known(tmp_path: Path, known: int, is_recognized: bool) -> None:
    """Since others may have left the database; upper case makes no difference."""
    hashes = [pseudonym.upper() for pseudonym in pseudonyms(ANALYSES[:known])] + salted(ANALYSES[known:])
    manifest = adopt(write(tmp_path / "old.csv", hashes), key=Key(KEY), analyses=map(str, ANALYSES))
    assert (manifest.scheme != UNKNOWN_SCHEME) == is_recognized


def test_unkeyed_pseudonyms_are_compared_too(tmp_path: Path) -> None:
    """A file without rows contains no one."""
    assert adopt(write(tmp_path / "old.csv", pseudonyms([42], None)), key=None, analyses=[42]).key_id is None
    assert list_manifests(tmp_path)[0].pseudonyms is None
    assert adopt(write(tmp_path / "salted.csv", salted([42])), key=None, analyses=[42]).scheme == UNKNOWN_SCHEME
    assert adopt(write(tmp_path / "empty.csv", []), key=Key(KEY)).key_id == Key(KEY).id


def test_file_of_an_unknown_scheme_is_not_combined_with_exports(sqlite_database: Database, folder: Path) -> None:
    """Its people are others to a reader; `prune` removes it."""
    path = Path(exported(sqlite_database, folder).export_filename)
    table = pl.read_csv(path, infer_schema=False)
    table.with_columns(analysis_hash=pl.Series(salted(list(range(table.height))))).write_csv(folder / "old.csv")
    adopt(folder / "old.csv", key=Key(KEY))
    with pytest.raises(UsageError, match="2 keys"):
        fe.scan_training(folder)
    fe.exports.prune(folder, keep_days=0, key=Key(KEY))
    assert not (folder / "old.csv").exists()


def test_copy_that_contains_erased_people_is_not_adopted(
    sqlite_database: Database, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would bring them back; `erase` says with its exit code that it did not search the copy."""
    here = Here(capfd, monkeypatch)
    export = Path(exported(sqlite_database, folder, include_subject_hash=True).export_filename)
    copy = export.with_name("copy.csv")
    copy.write_bytes(export.read_bytes())
    Path("ids").write_text("1\n")
    erased = here("erase", "--user-ids-file", "ids")
    assert erased.code == 7
    assert "People to erase may remain in 1 file that no erasure searches" in erased.err
    refused = here("adopt", copy)
    assert refused.code == 5
    assert "of people who were erased from this folder: nothing was adopted. Delete the file" in refused.err
    copy.unlink()
    assert here("erase", "--user-ids-file", "ids").code != 7


def test_export_is_pruned_by_the_name_of_its_file(
    sqlite_database: Database, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `list` prints it."""
    export = Path(exported(sqlite_database, folder).export_filename)
    assert Here(capfd, monkeypatch)("prune", "--export", export.name).code == 0
    assert not export.exists()


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_files_without_pairs_are_not_adopted(sqlite_database: Database, tmp_path: Path, format_: str) -> None:
    """Rated items, rejected rows and links would be erased and read as pairs; the original has a manifest."""
    rows = people(5, each=4)
    for row in rows["feedbacks"]:
        row["product_ratings"] = '{"a": 4}'
    sqlite_database.fill(**rows)
    key = generate_key()
    options = {"key": key, "format": format_}
    exported(sqlite_database, tmp_path / "own", items="product_ratings", include_subject_hash=True, **options)
    exported(sqlite_database, tmp_path / "shared", recipient="acme", **options)
    kinds = set()
    for folder in (tmp_path / "own", tmp_path / "shared"):
        (manifest,) = list_manifests(folder)
        for number, file in enumerate(file for file in manifest.files if file.kind != "pairs"):
            suffix = ".parquet" if file.path.endswith(".parquet") else ".csv"
            copy = shutil.copy(folder / file.path, folder / f"copy{number}{suffix}")
            with pytest.raises(ExportFileError, match="and no training pairs"):
                adopt(copy, key=key)
            kinds.add(file.kind)
        assert list_manifests(folder) == [manifest]
    assert kinds == {"items", "rejected", "links"}
