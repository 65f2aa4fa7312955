"""Ratings of several items in one feedback, exported as rows of a second file."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
from databases import Database
from folders import NOW, exported, people, visible
from processes import Here
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report.contracts import build_contracts
from feedback_etl.report.croissant import build_croissant
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.settings.model import load_settings
from feedback_etl.training.items import scan_items

ITEMS = "product_ratings"
MAPS = ['{"SKU: 1": 4, "=\\"b\\"": 2.0, "none": null}', '{"SKU: 1": 1}', "{}", "null", None]


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run command lines in this process."""
    return Here(capfd, monkeypatch)


def fill(database: Database, count: int = 2, maps: list[str | None] = MAPS) -> None:
    """Feedback of so many people, who rated items."""
    rows = people(count)
    for number, row in enumerate(rows["feedbacks"]):
        row[ITEMS] = maps[number % len(maps)]
    database.fill(**rows)


def pseudonym(analysis: int) -> str:
    return pl.select(fe.hash_id(pl.lit(analysis), key=KEY, domain="analysis_id")).item()  # type: ignore[no-any-return]


def rows_of(folder: Path) -> list[tuple[Any, ...]]:
    return scan_items(folder).select("analysis_hash", "item", "rating").collect().rows()


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"format": "parquet"}, {"incremental": True}])
def test_items_are_rows_of_a_second_file(database: Database, tmp_path: Path, options: dict[str, Any]) -> None:
    """With the pseudonym and the time of their feedback, whatever their names are."""
    fill(database)
    report = exported(database, tmp_path / "items", items=ITEMS, **options)
    plain = exported(database, tmp_path / "plain", **options)
    first, second, last = map(pseudonym, (101, 102, 203))
    expected = [(first, "SKU: 1", 4), (first, '="b"', 2), (second, "SKU: 1", 1), (last, "SKU: 1", 4), (last, '="b"', 2)]
    assert sorted(rows_of(tmp_path / "items")) == sorted(expected)
    assert report.exported_items == 5
    pairs = fe.scan_training(tmp_path / "items").collect()
    assert pairs.equals(fe.scan_training(tmp_path / "plain").collect())
    times = dict(pairs.select("analysis_hash", "feedback_timestamp").rows())
    rows = scan_items(tmp_path / "items", verify=True, key=KEY).collect()
    assert all(times[row["analysis_hash"]] == row["feedback_timestamp"] for row in rows.iter_rows(named=True))
    assert rows.schema["rating"] == pl.Int8
    assert plain.exported_records == report.exported_records
    assert not any("items" in name for name in visible(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("map_", "reason"),
    [
        ('{"a": 6}', "product_ratings_out_of_range"),
        ('{"a": 1e999}', "product_ratings_out_of_range"),
        ('{"a": 1.5}', "product_ratings_not_whole"),
        ('{"a": "4"}', "product_ratings_not_a_map"),
        ("[4]", "product_ratings_not_a_map"),
        ('{"a": 4', "product_ratings_not_a_map"),
        ('{"a": 4, "a": 4}', "product_ratings_repeated_item"),
        ('{"": 4}', "product_ratings_empty_item"),
        ('{"a\\u0007": 4}', "control_character"),
    ],
)
def test_invalid_maps_reject_their_feedback(map_: str, reason: str) -> None:
    """With a reason; without --items nothing is read, and nothing is rejected."""
    schema = CLASSIC_SCHEMA.with_items(ITEMS)
    row = {"feedback_id": 1, "analysis_id": 1, "recommendation_id": "r", "created_at": NOW, "helpful_rating": 5}
    rows = [{name: row.get(name) for name in schema.raw_columns} | {ITEMS: text} for text in (map_, *MAPS)]
    valid, rejected = fe.split_valid(pl.DataFrame(rows, infer_schema_length=None), schema=schema)
    assert rejected["reasons"].to_list() == [reason]
    assert valid.height == len(MAPS)


def test_items_of_small_classes_are_suppressed(sqlite_database: Database, tmp_path: Path) -> None:
    """As their feedback is, and times have the precision of the feedback."""
    rows = people(4)
    for row in rows["feedbacks"]:
        row |= {ITEMS: '{"a": 3}', "timeframe": "rare" if row["user_id"] == 1 else "usual"}
    sqlite_database.fill(**rows)
    exported(sqlite_database, tmp_path, items=ITEMS, k=3, quasi_identifiers=["timeframe"], timestamp_precision="day")
    ratings = scan_items(tmp_path).collect()
    pairs = fe.scan_training(tmp_path).collect()
    assert {*ratings["analysis_hash"]} == {*pairs["analysis_hash"]}
    assert pseudonym(101) not in {*ratings["analysis_hash"]}
    assert {time.hour for time in ratings["feedback_timestamp"]} == {0}
    assert ratings.height == pairs.height == 9


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_erasure_removes_items(sqlite_database: Database, tmp_path: Path, form: str) -> None:
    """Of the person alone, and the second file verifies afterwards."""
    fill(sqlite_database)
    exported(sqlite_database, tmp_path, items=ITEMS, format=form)
    result = erase(tmp_path, user_ids=[1], database=sqlite_database.url, keys=[Key(KEY)])
    assert {row[0] for row in rows_of(tmp_path)} == {pseudonym(203)}
    assert result.rows == 3
    assert len(result.files) == 2
    assert not verify_folder(tmp_path, [Key(KEY)], data=True).problems


def test_erasure_with_k_removes_the_items_of_small_classes(sqlite_database: Database, tmp_path: Path) -> None:
    fill(sqlite_database, count=3, maps=['{"a": 3}'])
    exported(sqlite_database, tmp_path, items=ITEMS, k=3, quasi_identifiers=["timeframe"])
    assert len(rows_of(tmp_path)) == 9
    erase(tmp_path, user_ids=[1], database=sqlite_database.url, keys=[Key(KEY)], keep_k=True)
    assert rows_of(tmp_path) == []


def test_changed_items_are_found(sqlite_database: Database, tmp_path: Path) -> None:
    """By `audit verify`, the checklist and the reader; recorded in the manifest are their rows."""
    fill(sqlite_database)
    report = exported(sqlite_database, tmp_path, items=ITEMS)
    (manifest,) = list_manifests(tmp_path)
    (file,) = manifest.all("items")
    assert (file.path, file.rows) == (str(Path(report.items_filename).relative_to(tmp_path)), 5)
    path = Path(report.items_filename)
    path.write_bytes(path.read_bytes().replace(b",4,", b",5,"))
    assert verify_folder(tmp_path, [Key(KEY)], data=True).problems == [f"{file.path} was changed"]
    with pytest.raises(ExportFileError, match="does not match its manifest"):
        scan_items(tmp_path, verify=True)
    contents = next(
        item for item in check(load_settings(output_dir=tmp_path), keys=[Key(KEY)]) if item.name == "contents"
    )
    assert contents.status == "failed"
    assert file.path in contents.detail


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": "unknown"}, "declared: product_ratings"),
        ({"items": ITEMS, "hash_recommendation_id": True}, "hash_recommendation_id"),
        ({"items": ITEMS, "recipient": "acme"}, "Shared data"),
        ({"items": ITEMS, "incremental": True, "cursor": "updated_at"}, "cannot follow changes"),
        ({"items": ITEMS, "output_dir": "s3://bucket/exports"}, "one file"),
    ],
)
def test_what_items_cannot_do_is_refused(sqlite_database: Database, options: dict[str, Any], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match=message):
        fe.export_feedback(sqlite_database.url, key=KEY, **options)


def test_newest_row_of_each_feedback_and_item_is_read(sqlite_database: Database, tmp_path: Path) -> None:
    """Two exports of the same window; rows of one feedback are not dropped as duplicates of each other."""
    fill(sqlite_database)
    exported(sqlite_database, tmp_path, items=ITEMS)
    before = rows_of(tmp_path)
    exported(sqlite_database, tmp_path, items=ITEMS, format="parquet")
    assert sorted(rows_of(tmp_path)) == sorted(before)
    exported(sqlite_database, tmp_path / "plain")
    with pytest.raises(ExportFileError, match="contains no item rows"):
        scan_items(tmp_path / "plain")


@pytest.mark.parametrize("precision", ["exact", "day"])
def test_items_of_a_feedback_are_those_of_its_newest_export(
    sqlite_database: Database, tmp_path: Path, precision: str
) -> None:
    """Not those that were removed since, nor any where all were; feedback that the newest lacks keeps its own."""
    fill(sqlite_database, maps=['{"a": 4, "b": 5}'])
    options: dict[str, Any] = {"items": ITEMS, "timestamp_precision": precision}
    exported(sqlite_database, tmp_path, **options)
    with sqlite_database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET product_ratings = '{\"a\": 3}' WHERE id < 200")
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET product_ratings = '{}' WHERE id = 201")
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE id > 201")
    exported(sqlite_database, tmp_path, **options, format="parquet")
    changed = [(pseudonym(id_), "a", 3) for id_ in (101, 102, 103)]
    removed = [(pseudonym(id_), item, rating) for id_ in (202, 203) for item, rating in (("a", 4), ("b", 5))]
    assert sorted(rows_of(tmp_path)) == sorted([*changed, *removed])
    with sqlite_database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET product_ratings = NULL")
    assert exported(sqlite_database, tmp_path, **options, compression="zstd").exported_items == 0
    assert sorted(rows_of(tmp_path)) == sorted(removed)


def test_checklist_reads_items(sqlite_database: Database, tmp_path: Path) -> None:
    """They could contain what people wrote, or an id."""
    fill(sqlite_database, maps=['{"someone@example.org": 3}'])
    exported(sqlite_database, tmp_path, items=ITEMS)
    items = {item.name: item for item in check(load_settings(output_dir=tmp_path), keys=[Key(KEY)])}
    assert items["columns"].status == "failed"
    assert "contains contact or account details in product_ratings" in items["columns"].detail


def test_items_of_a_series_wait_with_their_feedback(sqlite_database: Database, tmp_path: Path) -> None:
    """And are exported with it."""
    fill(sqlite_database, maps=['{"a": 3}'])
    options: dict[str, Any] = {"items": ITEMS, "incremental": True, "k": 3, "quasi_identifiers": ["timeframe"]}
    first = exported(sqlite_database, tmp_path, **options)
    assert (first.pending_records, first.exported_items) == (6, 0)
    rows = people(3)["feedbacks"][-3:]
    sqlite_database.fill(feedbacks=[row | {ITEMS: '{"b": 4}', "created_at": NOW} for row in rows])
    second = exported(sqlite_database, tmp_path, **options | {"now": NOW + timedelta(hours=1)})
    assert (second.exported_records, second.exported_items) == (9, 9)
    assert sorted({row[1:] for row in rows_of(tmp_path)}) == [("a", 3), ("b", 4)]


def test_item_rows_are_listed_and_described(here: Here, sqlite_database: Database, tmp_path: Path) -> None:
    """By `list`, the report and Croissant, with file, number and columns, until they are pruned."""
    fill(sqlite_database)
    exported(sqlite_database, tmp_path, items=ITEMS, include_subject_hash=True)
    (manifest,) = list_manifests(tmp_path)
    (file,) = manifest.all("items")
    columns = ["analysis_hash", "subject_hash", "item", "rating", "feedback_timestamp"]
    assert pl.read_csv(tmp_path / file.path).columns == columns
    listed = here("list", str(tmp_path)).out.splitlines()
    assert [line.split()[:3] for line in listed if file.path in line] == [[file.path, "5", "items"]]
    page = fe.write_report(tmp_path / "report.html", tmp_path, keys=KEY).read_text(encoding="utf-8")
    for cell in (file.path, ITEMS, "5", ", ".join(columns)):
        assert f">{cell}</t" in page.partition("Item rows by export as a table")[2].partition("</table>")[0]
    described = build_croissant(tmp_path, [manifest])
    assert [part["name"] for part in described["distribution"]] == [manifest.data, file.path]
    records = described["recordSet"][1]
    assert {field["name"]: field["dataType"] for field in records["field"]} == dict.fromkeys(columns, "sc:Text") | {
        "rating": "sc:Integer",
        "feedback_timestamp": "sc:DateTime",
    }
    assert records["description"].startswith(f"5 rows of items ({ITEMS}) of ")
    Path(tmp_path, file.path).unlink()
    assert f"{file.path}  missing  items" in here("list", str(tmp_path)).out


def test_json_schema_of_item_rows_accepts_them(sqlite_database: Database, tmp_path: Path) -> None:
    """And no rating off the scale, no empty rating, and no other column."""
    fill(sqlite_database)
    exported(sqlite_database, tmp_path, items=ITEMS)
    (path,) = tmp_path.glob("items/*.csv")
    contract = json.loads(build_contracts()[f"items.{ITEMS}.schema.json"])
    jsonschema.Draft202012Validator.check_schema(contract)
    validator = jsonschema.Draft202012Validator(contract)
    rows = pl.read_csv(path).to_dicts()
    assert all(map(validator.is_valid, rows))
    for change in ({"rating": 6}, {"rating": None}, {"item": None}, {"note": ""}):
        assert not validator.is_valid(rows[0] | change)
