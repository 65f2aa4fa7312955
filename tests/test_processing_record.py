"""The record of processing describes what the exports contain, and the checklist finds what their columns hide."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import NOW, as_earlier_version, exported, people
from pseudonym_keys import KEY

from feedback_etl.compliance.check import check
from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import read_contents
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.record import RECORD, write_record
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.compliance.rows import check_columns
from feedback_etl.errors import ValidationError
from feedback_etl.privacy.keys import Key, generate_key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.settings.model import Settings, load_settings
from feedback_etl.storage.location import open_storage

QUERY = """
SELECT f.id AS feedback_id, f.user_id, f.analysis_id, 'rec_1' AS recommendation_id, f.helpful_rating,
       f.product_satisfaction, f.routine_completion_pct, f.would_recommend, '[]' AS conditions_analyzed,
       '[]' AS rules_applied, f.timeframe, 30 AS age, f.created_at, {} AS extra
FROM recommendation_feedbacks f
"""
COMMENT = "'I am ' || f.id || ', and my neighbour Ms Example at number 7 says that it helps her very much'"
COMPLETE = {
    **dict.fromkeys(("controller", "contact", "purpose", "legal_basis", "recipients"), "x"),
    **{"transfers": "none", "data_protection_officer": "dpo@example.com", "retention_days": 90},
}


@pytest.fixture(autouse=True)
def few_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash fewer ids: a million take a second in every test."""
    monkeypatch.setattr("feedback_etl.compliance.rows.GUESSED_IDS", 1_000)


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create an application with ten users and twenty rows."""
    sqlite_database.fill(**people(10, each=2))
    return sqlite_database


@pytest.fixture
def settings(app: Database, tmp_path: Path) -> Settings:
    """Return settings that are complete, for an empty folder."""
    return load_settings(database_url=app.url, output_dir=tmp_path / "exports", **COMPLETE)


def run_check(settings: Settings) -> dict[str, ChecklistItem]:
    """Return the items of the checklist by name."""
    return {item.name: item for item in check(settings, keys=[Key(KEY)], now=NOW)}


def export_column(app: Database, settings: Settings, expression: str, *column: Any, **options: Any) -> None:
    """Export an expression as a declared column with the given name, role and type."""
    query = QUERY.format(expression).replace("AS extra", f"AS {column[0]}")
    exported(app, Path(settings.output_dir), query=query, extra_columns=[ExtraColumn(*column)], **options)


def read_record(settings: Settings) -> str:
    """Write the record and return it."""
    write_record(settings)
    return (Path(settings.output_dir) / RECORD).read_text()


def test_record_lists_every_column_with_role_and_origin(app: Database, settings: Settings) -> None:
    """Those of the default schema, requested ones and declared ones."""
    exported(app, Path(settings.output_dir), k=2, include_subject_hash=True)
    export_column(app, settings, COMMENT, "comment", now=NOW + timedelta(days=1))
    record = read_record(settings)
    for line in (
        "| analysis_hash | identifier | pseudonym of recommendation_feedbacks.analysis_id |",
        "| recommendation_id | identifier | recommendation_records.recommendation_id |",
        "| helpful_rating | sensitive | recommendation_feedbacks.helpful_rating |",
        "| age_range | quasi-identifier | range of profiles.age |",
        "| subject_hash | identifier | pseudonym of recommendation_feedbacks.user_id |",
        "| age_range | quasi-identifier | column of the query (instead of range of profiles.age) |",
        "| comment | insensitive | declared column of the query (text, exported unchanged) |",
    ):
        assert line in record
    columns = {name for manifest in list_manifests(settings.output_dir) for name in manifest.columns}
    assert [name for name in columns if f"\n| {name} | " not in record] == []
    assert "no free text" not in record
    assert run_check(settings)["record"].status == "ok"


def test_record_contains_k_and_consent_as_used(app: Database, settings: Settings) -> None:
    """Not as the settings of today would have them; equal exports are described once."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN agrees BOOLEAN DEFAULT true")
    app.fill(users=[{"id": user} for user in range(1, 11)])
    folder = Path(settings.output_dir)
    for day in (0, 1):
        exported(
            app,
            folder,
            k=2,
            quasi_identifiers=["timeframe"],
            opt_in_column="agrees",
            timestamp_precision="day",
            now=NOW + timedelta(days=day),
        )
    record = read_record(settings.model_copy(update={"k": 9}))
    assert record.count("## Exports, form ") == 1
    assert "- **k-anonymity**: equivalence classes of fewer than 2 people were suppressed: timeframe\n" in record
    assert "- **Consent**: recorded by users.agrees; rows without it were not read\n" in record
    assert "- **Times**: truncated to the day\n" in record
    assert "- **Pseudonyms**: hmac-sha256, 16 hex, with a key that is stored apart\n" in record


def test_recipients_of_shared_exports_are_in_the_record(app: Database, settings: Settings) -> None:
    """Those of the settings are compared with those who got data."""
    key = generate_key()
    exported(app, Path(settings.output_dir), recipient="acme-research", k=5, key=key)
    assert "- **Shared with**: acme-research; each row has a pseudonym of its own\n" in read_record(settings)
    record = next(item for item in check(settings, keys=[key], now=NOW) if item.name == "record")
    assert record.status == "failed"
    assert "does not name the recipients acme-research of shared exports" in record.detail
    assert record.remedy.startswith("name acme-research in the setting recipients\nfeedback-etl check --write-record ")
    similar = settings.model_copy(update={"recipients": "acme-researchers"})
    assert "does not name" in next(i for i in check(similar, keys=[key], now=NOW) if i.name == "record").detail
    named = settings.model_copy(update={"recipients": "Acme-Research, for a study"})
    write_record(named)
    assert next(item for item in check(named, keys=[key], now=NOW) if item.name == "record").status == "ok"


def test_new_form_of_export_makes_the_record_outdated(app: Database, settings: Settings) -> None:
    """An export of the same form does not."""
    folder = Path(settings.output_dir)
    exported(app, folder)
    write_record(settings)
    exported(app, folder, now=NOW + timedelta(days=1))
    assert run_check(settings)["record"].status == "ok"
    exported(app, folder, now=NOW + timedelta(days=2), hash_recommendation_id=True)
    item = run_check(settings)["record"]
    assert (item.status, "does not match the settings and the exports" in item.detail) == ("failed", True)


@pytest.mark.parametrize("name", ["transfers", "data_protection_officer", "controller", "retention_days"])
def test_missing_entry_is_reported(app: Database, settings: Settings, name: str) -> None:
    """Also if the record was written without it."""
    exported(app, Path(settings.output_dir))
    lacking = settings.model_copy(update={name: None})
    assert "(missing)" in read_record(lacking)
    assert f"The record of processing lacks {name}" in run_check(lacking)["record"].detail


def test_record_of_an_object_store_is_kept_there(app: Database, bucket_url: str) -> None:
    """Not in a local folder that is called like its address."""
    settings = load_settings(database_url=app.url, output_dir=bucket_url, **COMPLETE)
    write_record(settings)
    assert open_storage(bucket_url).read(RECORD).startswith(b"# Record of processing")
    assert run_check(settings)["record"].status == "ok"
    assert not Path("s3:").exists()


@pytest.mark.parametrize("role", ["insensitive", "sensitive", "quasi_identifier"])
def test_undeclared_free_text_is_reported(app: Database, settings: Settings, role: str) -> None:
    """By its values, which the message does not contain."""
    export_column(app, settings, COMMENT, "comment", role)
    item = run_check(settings)["columns"]
    assert item.status == "failed"
    assert item.detail.endswith(" contains free text in comment.")
    assert item.remedy.startswith('set role = "free_text" in [columns.comment], or leave the column out of the query\n')


@pytest.mark.parametrize("text", ["'word' || (f.id + 7)", "'ask ann@example.org'"], ids=["distinct texts", "addresses"])
def test_free_text_of_an_earlier_version_is_reported(app: Database, settings: Settings, text: str) -> None:
    """Which exported what is refused today."""
    app.fill(feedbacks=people(60, each=2)["feedbacks"][20:])
    export_column(app, settings, text, "comment", "free_text")
    storage = open_storage(settings.output_dir)
    (manifest,) = list_manifests(storage)
    manifest.settings["extra_columns"] = [["comment", "insensitive", "text"]]
    contents = read_contents(storage, manifest)
    assert contents is not None
    context = CheckContext(storage=storage, remedies=Remedies(settings), files=[contents])
    assert check_columns(context).detail.endswith(" contains free text in comment.")


def test_free_text_over_several_exports_is_reported(app: Database, settings: Settings) -> None:
    """Each has too few texts to be refused; rows that two exports contain count once."""
    app.fill(feedbacks=people(60, each=2)["feedbacks"][20:])
    for part in range(3):
        until = NOW - timedelta(hours=20 * part)
        now, window = NOW + timedelta(days=part), {"since": until - timedelta(hours=20), "until": until}
        export_column(app, settings, "'word' || (f.id + 7)", "comment", "sensitive", days_back=None, now=now, **window)
        if part < 2:
            assert run_check(settings)["columns"].status == "ok"
    item = run_check(settings)["columns"]
    assert item.detail == "3 files together contain free text in comment: 118 of 118 are distinct."
    assert 'set role = "free_text" in [columns.comment]' in item.remedy


def test_labels_over_overlapping_exports_are_no_free_text(app: Database, settings: Settings) -> None:
    app.fill(feedbacks=people(60, each=2)["feedbacks"][20:])
    for day in range(3):
        export_column(app, settings, "'word' || f.id % 50", "comment", "sensitive", now=NOW + timedelta(days=day))
    assert run_check(settings)["columns"].status == "ok"


def test_free_text_in_a_column_of_the_default_schema_is_reported(app: Database, settings: Settings) -> None:
    """A query can select anything as timeframe."""
    query = QUERY.replace(", {} AS extra", "").replace("f.timeframe", f"{COMMENT} AS timeframe")
    exported(app, Path(settings.output_dir), query=query)
    assert "contains free text in timeframe" in run_check(settings)["columns"].detail


@pytest.mark.parametrize(
    ("expression", "kind", "status"),
    [
        ("49170000000 + f.id", "integer", "skipped"),
        ("49170000000.0 + f.id", "number", "skipped"),
        ("f.id / 1000.0 + 0.00001", "number", "ok"),
        ("f.id % 40", "integer", "ok"),
    ],
)
def test_distinct_numbers_are_not_called_ok(
    sqlite_database: Database, tmp_path: Path, expression: str, kind: str, status: str
) -> None:
    """They may be customer or telephone numbers; fractions and numbers that repeat are measurements."""
    sqlite_database.fill(**people(40))
    settings = load_settings(database_url=sqlite_database.url, output_dir=tmp_path / "exports", **COMPLETE)
    export_column(sqlite_database, settings, expression, "phone", "insensitive", kind)
    item = run_check(settings)["columns"]
    assert item.status == status
    assert ("120 different numbers in 120 rows, which may be ids" in item.detail) is (status == "skipped")


def test_labels_are_no_free_text(app: Database, settings: Settings) -> None:
    """The item names the columns that were requested."""
    export_column(app, settings, "CASE WHEN f.user_id < 5 THEN 'Bern' ELSE 'Wien' END", "city")
    item = run_check(settings)["columns"]
    assert (item.status, item.detail) == (
        "ok",
        "1 file with columns of the contract only. Extra columns: city.",
    )


def test_declared_free_text_is_said_loudly(app: Database, settings: Settings) -> None:
    """No test can rule out that it contains a name."""
    app.fill(feedbacks=[row | {"user_id": 1_000_001} for row in people(11, each=1)["feedbacks"][10:]])
    export_column(app, settings, COMMENT, "comment", "free_text")
    items = run_check(settings)
    for name in ("columns", "raw ids"):
        assert (items[name].status, "FREE TEXT in comment" in items[name].detail) == ("skipped", True)
    assert "**FREE TEXT: comment** may contain anything that people wrote" in read_record(settings)


@pytest.mark.parametrize(
    ("expression", "column"),
    [
        ("'19' || (50 + f.user_id) || '-03-02'", ("x", "insensitive")),
        ("'2.3.19' || (50 + f.user_id)", ("x", "quasi_identifier")),
        ("'2020-01-01'", ("date_of_birth", "insensitive")),
        ("datetime('1970-01-01', f.user_id || ' days')", ("x", "insensitive", "time")),
        ("20 + f.user_id", ("age", "insensitive", "integer")),
        ("'4' || f.user_id", ("person_alter", "sensitive")),
        ("CASE WHEN f.user_id = 7 THEN 'n/a' ELSE '1951-03-0' || f.user_id END", ("x", "insensitive")),
        ("'195103' || (10 + f.user_id)", ("x", "insensitive")),
        ("' 1951-03-0' || f.user_id", ("x", "insensitive")),
        ("19510310.0 + f.user_id", ("x", "insensitive", "number")),
        ("19510310 + f.user_id", ("x", "insensitive", "integer")),
        ("'1951-0' || (f.user_id % 9 + 1)", ("x", "insensitive")),
        ("240 + f.user_id", ("age_months", "insensitive", "integer")),
        ("CASE WHEN f.user_id = 7 THEN 'n/a' ELSE '' || (20 + f.user_id) END", ("age", "insensitive")),
        ("(20 + f.user_id) || ' years old'", ("age", "insensitive")),
        ("f.user_id || ' March 1951'", ("x", "insensitive")),
    ],
    ids=[
        *("ISO dates", "other dates", "a name", "times", "ages", "ages as text"),
        *(
            "n/a among dates",
            "compact dates",
            "dates after a blank",
            "compact numbers",
            "compact integers",
            "months of birth",
            "named months",
        ),
        *("n/a among ages", "ages with a unit", "words"),
    ],
)
def test_ages_and_dates_of_birth_are_refused_and_reported(
    app: Database, settings: Settings, expression: str, column: tuple[str, ...]
) -> None:
    """In declared columns of every role and type; the message contains no value."""
    if column[0] == "age":
        column = ("user_age", *column[1:])
    with pytest.raises(
        ValidationError, match=rf"contains ages or dates of birth \(of the values in {column[0]}, \d+ of \d+ "
    ):
        export_column(app, settings, expression, *column)
    with as_earlier_version():
        export_column(app, settings, expression, *column)
    item = run_check(settings)["ages"]
    assert (item.status, f"contains ages or dates of birth in {column[0]}" in item.detail) == ("failed", True)


@pytest.mark.parametrize(
    ("expression", "column", "status"),
    [
        ("(f.id + 9) % 97", ("x", "insensitive", "integer"), "skipped"),
        ("1950 + f.user_id", ("x", "insensitive", "integer"), "skipped"),
        ("f.id + 7", ("x", "insensitive", "integer"), "ok"),
        ("f.user_id % 5", ("x", "insensitive", "integer"), "ok"),
        ("CASE WHEN f.user_id = 7 THEN 'n/a' ELSE '' || (f.id + 9) % 97 END", ("x", "insensitive"), "skipped"),
        ("((f.id + 9) % 97) || ' years'", ("x", "insensitive"), "skipped"),
        ("240 + 7 * f.user_id", ("x", "insensitive", "integer"), "skipped"),
        ("20240100 + f.user_id % 28", ("x", "insensitive", "integer"), "ok"),
        ("'type ' || f.user_id % 5", ("x", "insensitive"), "ok"),
        ("'2024-03-02'", ("joined", "insensitive"), "ok"),
        ("'18-25'", ("age_group", "insensitive"), "ok"),
        ("'\uff15'", ("floor", "insensitive"), "ok"),
        ("'\u0662\u0660\u0662\u0664-03-02'", ("joined", "insensitive"), "ok"),
    ],
)
def test_numbers_that_may_be_ages_are_not_called_harmless(
    app: Database, settings: Settings, expression: str, column: tuple[str, ...], status: str
) -> None:
    """Few or large numbers, dates of these years and labels are not ages; other digits than 0 to 9 stop nothing."""
    app.fill(feedbacks=people(40, each=1)["feedbacks"][10:])
    export_column(app, settings, expression, *column)
    assert run_check(settings)["ages"].status == status
