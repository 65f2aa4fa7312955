"""Feedback of another application, from its declaration to its training set."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from databases import Database
from folders import NOW, as_earlier_version, people
from processes import feedback_etl
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report.croissant import write_croissant
from feedback_etl.report.write import write_report
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.feedback_columns import Rating
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.settings.model import load_settings
from feedback_etl.training.dataset import open_dataset
from feedback_etl.training.feature_matrix import features
from feedback_etl.training.labels import label
from feedback_etl.training.vocabulary import Vocabulary
from feedback_etl.transform.row_schema import build_row_schema

CLASSIC = """
[ratings.helpful_rating]
min = 1
max = 5
label = "helpful"
threshold = 4
description = "How helpful, 1 to 5."
[ratings.product_satisfaction]
min = 1
max = 5
label = "satisfied"
threshold = 4
description = "Satisfaction, 1 to 5."
[ratings.routine_completion_pct]
min = 0
max = 100
label = "completed"
threshold = 80
description = "Share of the routine that was completed, in percent; 0 is a value."
[ratings.would_recommend]
type = "boolean"
label = "recommended"
description = "Whether the user would recommend it; False is a value."
[lists.conditions_detected]
column = "conditions_analyzed"
raw_name = "conditions_analyzed"
reason = "conditions_not_a_list"
role = "quasi_identifier"
joined = true
description = "Conditions, joined by commas."
[lists.rules_applied]
reason = "rules_not_a_list"
joined = true
description = "Rules behind it, joined by commas."
[columns.recommendation_id]
role = "item"
[columns.timeframe]
role = "quasi_identifier"
[columns.age_range]
column = "age"
role = "quasi_identifier"
type = "integer"
bucket = [18, 25, 35, 50]
[items.product_ratings]
min = 1
max = 5
description = "Rating of a product, 1 to 5."
"""
COURSES = """
[source]
table = "answers"
feedback_id = "no"
user_id = "person"
created_at = "sent"
[ratings.stars]
column = "mark"
min = 1
max = 10
step = 0.5
[ratings.again]
type = "boolean"
[ratings.pace]
min = -2
max = 2
[lists.tags]
[columns.course]
role = "item"
[columns.country]
role = "quasi_identifier"
[columns.age_range]
column = "born"
role = "quasi_identifier"
type = "date"
bucket = [30, 60]
[dedup]
key = ["user_id", "course", "created_at"]
"""
ROWS = [
    # no, person, course, mark, again, pace, tags, country, born, sent
    (1, 7, "math", 9.5, True, -2, '["slow, clear", "a\\"b"]', "AT", "1990-10-25", "2025-10-24 10:00:00"),
    (2, 7, "art", 10, None, None, "[]", "AT", "1990-10-25", "2025-10-24 10:00:00"),  # the same person and time
    (3, 7, "math", 1, None, None, "[]", "AT", "1990-10-25", "2025-10-24 10:00:00"),  # a duplicate of the first
    (4, 8, "math", None, False, 0, '["=1+1"]', "DE", "1965-10-24", "2025-10-24 11:00:00"),
    (5, 8, "art", 9.25, None, None, "[]", "DE", None, "2025-10-24 12:00:00"),  # between the steps
    (6, 8, "art", 11, None, None, "{}", "DE", None, "2025-10-24 13:00:00"),  # off the scale, no list
    (7, 9, "art", None, None, None, "[]", "DE", None, "2025-10-24 14:00:00"),  # no rating
]
EXPECTED = [
    {"course": "math", "stars": "9.5", "again": "True", "pace": "-2", "tags": '["slow, clear","a\\"b"]'}
    | {"country": "AT", "age_range": "30-60"},
    {"course": "art", "stars": "10.0", "again": "", "pace": "", "tags": "", "country": "AT", "age_range": "30-60"},
    {"course": "math", "stars": "", "again": "False", "pace": "0", "tags": '["=1+1"]'}
    | {"country": "DE", "age_range": "60+"},
]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of course ratings with its declaration in the working directory."""
    monkeypatch.chdir(tmp_path)
    declare(COURSES)
    url = f"sqlite:///{tmp_path / 'courses.db'}"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE answers (no INTEGER PRIMARY KEY, person INTEGER, course TEXT, mark REAL, again BOOLEAN, "
            "pace INTEGER, tags TEXT, country TEXT, born TEXT, sent TEXT)"
        )
        connection.exec_driver_sql(f"INSERT INTO answers VALUES ({', '.join('?' * 10)})", ROWS)
    yield url
    engine.dispose()


def declare(text: str) -> None:
    """Write the settings file."""
    Path("feedback-etl.toml").write_text(text, encoding="utf-8")
    Path("feedback-etl.toml").chmod(0o600)


def export(url: str, key: str = KEY, **options: Any) -> fe.ExportReport:
    """Export with the settings of the working directory."""
    settings = load_settings().to_options(days_back=-1, **{"output_dir": "out"} | options)
    return fe.export_feedback(url, options=settings, key=key, now=NOW)


def test_declared_columns_are_exported_and_no_others(app: str) -> None:
    """With their names, scales and steps; ages from a date of birth that is not exported, rows of each item."""
    report = export(app)
    rows = list(csv.DictReader(io.StringIO(Path(report.export_filename).read_text(encoding="utf-8"))))
    assert [*rows[0]] == ["analysis_hash", *EXPECTED[0], "feedback_timestamp", "export_date"]
    assert [{name: row[name] for name in EXPECTED[0]} for row in rows] == EXPECTED
    assert "1990" not in Path(report.export_filename).read_text(encoding="utf-8")
    counts = (report.exported_records, report.deduplicated_records, report.errors, report.skipped_records)
    assert counts == (3, 1, 2, 1)
    assert report.rejected_reasons == {"stars_not_on_step": 1, "stars_out_of_range": 1, "tags_not_a_list": 1}
    assert report.risk["quasi_identifiers"] == ["age_range", "country"]


def test_minimum_counts_all_declared_ratings(app: str) -> None:
    """The first row has three, none has four."""
    assert export(app, min_feedback_fields=3).exported_records == 1
    with pytest.raises(UsageError, match="from 0 to 3"):
        export(app, min_feedback_fields=4)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_training_set_is_read_without_the_settings_file(app: str, form: str) -> None:
    """Its manifest contains the schema: scales, lists and the order of ages."""
    export(app, format=form)
    Path("feedback-etl.toml").unlink()
    dataset = open_dataset("out", verify=True, key=KEY)
    frame = dataset.frame.collect()
    assert frame["tags"].to_list() == [["slow, clear", 'a"b'], None, ["=1+1"]]
    assert frame.schema["stars"] == pl.Float64
    assert frame.schema["pace"] == pl.Int8
    assert frame.schema["age_range"] == pl.Enum(["<30", "30-60", "60+"])
    fe.validate(frame, schema=dataset.schema)
    labelled = label(frame, "stars", threshold=9.6, schema=dataset.schema)
    assert labelled["label"].to_list() == [0, 1, None]
    assert label(frame, "stars", kind="ordinal", schema=dataset.schema)["label"].to_list() == [17, 18, None]
    with pytest.raises(UsageError, match="greater than 1, which every stars reaches, and at most 10"):
        label(frame, "stars", threshold=11, schema=dataset.schema)
    with pytest.raises(ValidationError, match=r"pass `schema=open_dataset\(folder\).schema`"):
        label(frame, "helpful")
    unknown_before = Vocabulary.fit(frame, schema=dataset.schema)
    assert features(frame, vocabulary=unknown_before, schema=dataset.schema).columns == ["age", "age_missing"]
    with pytest.raises(UsageError, match="`lists` must be distinct lists of the schema: tags"):
        Vocabulary.fit(frame, schema=dataset.schema, lists=["topics"])
    vocabulary = Vocabulary.fit(frame, schema=dataset.schema, lists=["tags"])
    vocabulary.save("vocabulary.json")
    assert Vocabulary.load("vocabulary.json") == vocabulary
    numbers = features(frame, vocabulary=vocabulary, ratings=["pace", "again"], schema=dataset.schema)
    assert numbers.columns == [
        *numbers.columns[:3],  # one for each tag
        *("tags_other", "tags_missing", "age", "age_missing"),
        *("pace", "pace_missing", "again", "again_missing"),
    ]
    assert numbers["pace"].to_list() == [-2, 0, 0]
    write_report("report.html", ["out"], keys=[])
    page = Path("report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("stars", "again", "tags", "course"))
    if form == "parquet":
        assert pl.read_parquet(next(Path("out").glob("*.parquet"))).schema["tags"] == pl.List(pl.String)


def test_overlapping_exports_are_combined_by_the_declared_key(app: str) -> None:
    """The rows of two exports are read once."""
    export(app)
    export(app, format="parquet")
    assert fe.scan_training("out").collect().height == 3


def test_schemas_are_not_mixed(app: str) -> None:
    """Unless that is requested."""
    export(app)
    declare(COURSES.replace("max = 10", "max = 20"))
    export(app)
    with pytest.raises(UsageError, match="2 schemas"):
        fe.scan_training("out")


def test_erased_person_is_removed(app: str) -> None:
    """From files of a declared schema, too."""
    export(app, format="parquet")
    export(app)
    erased = erase("out", user_ids=[7], database=app, keys=KEY, **load_settings().to_database_keywords())
    assert erased.rows == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ratings.stars]\nmin = 1\nmax = 5\nfoo = 1", "ratings.stars.foo"),
        ("[ratings.stars]\nmin = 'a'\nmax = 5", "ratings.stars.min"),
        ("[dedup]\nkeys = []", "dedup.keys"),
    ],
)
def test_wrong_keys_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    """As those of other settings."""
    monkeypatch.chdir(tmp_path)
    declare(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[columns.who]\ncolumn = 'Person'\nrole = 'insensitive'\ntype = 'integer'",
            "would export Person",
        ),
        ("[ratings.person]\nmin = 1\nmax = 9", "ratings.person] would export person"),
        ("[columns.no]\nrole = 'quasi_identifier'\ntype = 'integer'", "names as `feedback_id`"),
    ],
)
def test_ids_are_exported_as_pseudonyms_only(app: str, text: str, message: str) -> None:
    """A file with both would undo the pseudonyms."""
    declare(f"{COURSES}{text}")
    with pytest.raises(UsageError, match=re.escape(message)):
        export(app)


def test_person_is_no_item(app: str) -> None:
    """Unlike the feedback itself, whose item can be pseudonymised."""
    declare(COURSES.replace('role = "item"', 'role = "item"\ncolumn = "person"'))
    with pytest.raises(UsageError, match="names as `user_id`"):
        export(app)
    declare(COURSES.replace('role = "item"', 'role = "item"\ncolumn = "no"'))
    assert export(app).exported_records


def test_id_of_the_joined_person_is_refused(app: str) -> None:
    """It is equal to that of the feedback."""
    join = '[source.join]\ntable = "people"\non = { person = "id" }\n[ratings.stars]'
    declare(COURSES.replace("[ratings.stars]", join) + "[columns.who]\ncolumn = 'people.id'\nrole = 'sensitive'")
    with pytest.raises(UsageError, match=r"would export people\.id"):
        export(app)


@pytest.mark.parametrize("item", ["user_id", "Analysis_ID", "feedback_id", "Person", "no"])
def test_id_is_no_item_of_a_table(app: str, item: str) -> None:
    """By the name of a raw column, and of a column of the source."""
    table = f"table = 'marks'\non = {{ no = 'answer' }}\nitem = '{item}'\nrating = 'mark'\nmin = 1\nmax = 5"
    declare(f"{COURSES}[items.marks]\n{table}")
    with pytest.raises(UsageError, match=f"would export {item} as the item"):
        export(app, items="marks")


def test_pseudonym_of_a_person_is_exported(app: str) -> None:
    declare(f"{COURSES}[columns.who]\ncolumn = 'person'\nrole = 'identifier'\ntype = 'integer'")
    assert export(app).exported_records == 3


def test_item_with_contact_details_is_refused(app: str) -> None:
    """`check` finds it in an export of an earlier version; no message contains it."""
    engine = sa.create_engine(app, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE answers SET course = 'ann@example.org' WHERE no = 1")
    with pytest.raises(ValidationError, match=r"\(of the texts in course, e-mail addresses are in 1\)") as caught:
        export(app)
    assert "ann@" not in str(caught.value)
    with as_earlier_version():
        export(app)
    settings = load_settings(database_url=app, output_dir="out")
    columns = next(item for item in check(settings, keys=[Key(KEY)]) if item.name == "columns")
    assert "contact or account details in course" in str(columns)
    assert "ann@" not in str(columns)


def test_declared_schema_needs_a_source(app: str) -> None:
    """The default tables do not have its columns."""
    declare(COURSES[COURSES.index("[ratings") :])
    with pytest.raises(UsageError, match=r"needs .source. or a query"):
        export(app)


def test_classic_declaration_is_documented() -> None:
    """As tested below."""
    page = Path(__file__).parents[1] / "docs" / "reference" / "feedback-schema.md"
    assert CLASSIC.strip() in page.read_text(encoding="utf-8")


def test_classic_declaration_equals_the_classic_schema(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its files and manifests are the same, byte for byte."""
    monkeypatch.chdir(tmp_path)
    declare(CLASSIC)
    assert load_settings().declaration == (CLASSIC_SCHEMA, {}, {}, {})
    database.fill(**people(3))
    for form in ("csv", "parquet"):
        declared = export(database.url, format=form, output_dir=f"declared_{form}")
        options: Any = {"format": form, "output_dir": f"classic_{form}"}
        classic = fe.export_feedback(database.url, days_back=-1, key=KEY, now=NOW, **options)
        assert Path(declared.export_filename).read_bytes() == Path(classic.export_filename).read_bytes()
        settings = [list_manifests(Path(f"{name}_{form}"))[0].settings for name in ("declared", "classic")]
        assert settings[0] == settings[1]
        assert json.dumps(settings[0]).count("schema") == json.dumps(settings[0]).count("db_schema")


def add_people(url: str) -> None:
    """Add a rating of each of 24 people with equal quasi-identifiers."""
    same = ("art", 7.5, None, None, '["a, b", "fun"]', "AT", "1990-10-25", "2025-10-20 10:00:00")
    rows = [(person, person, *same) for person in range(20, 44)]
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO answers VALUES ({', '.join('?' * 10)})", rows)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_declared_schema_is_shared(app: str, form: str) -> None:
    """Lists stay, and rows cannot be linked by their item, whatever its name."""
    add_people(app)
    path = export(app, key=OTHER_KEY, recipient="acme", output_dir="shared", format=form).export_filename
    rows = pl.read_csv(path) if form == "csv" else pl.read_parquet(path)
    assert "recommendation_id" not in rows.columns
    assert rows["course"].n_unique() == rows["analysis_hash"].n_unique() == rows.height
    tags = [json.loads(text) if form == "csv" else [*text] for text in rows["tags"].drop_nulls()]
    assert sum(tag == ["a, b", "fun"] for tag in tags) == 24


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_lists_are_described_and_measured(app: str, form: str) -> None:
    """By the report, which counts their elements, by Croissant, and by `risk`."""
    add_people(app)
    path = export(app, format=form).export_filename
    again = export(app, format=form, output_dir="again", timestamp_precision="day").export_filename
    page = write_report("report.html", "out", keys=KEY, now=NOW).read_text(encoding="utf-8")
    assert ">a, b<" in page[page.index("Values of tags") :]
    assert all(f"they identify {noun}." in page for noun in ("a person", "what was rated"))
    assert ("Exact times identify single rows" in page, "recommendation id" in page, "`" in page) == (
        True,
        False,
        False,
    )
    coarse = write_report("coarse.html", "again", keys=KEY, now=NOW).read_text(encoding="utf-8")
    assert "identify single rows" not in coarse
    fields = json.loads(Path(write_croissant("out")).read_text(encoding="utf-8"))["recordSet"][0]["field"]
    (tags,) = [field for field in fields if field["name"] == "tags"]
    assert (tags["dataType"], tags.get("repeated", False)) == ("sc:Text", form == "parquet")
    done = feedback_etl("risk", path, again, "--quasi-identifier", "tags", "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert (measured["linked_k"], measured["linked_by"], measured["repeated_rows"]) == (None, None, None)
    assert "k of linked rows was not measured" in done.stderr
    assert "A row in several files counts in each" in done.stderr


def checklist_items() -> dict[str, ChecklistItem]:
    """Run the checklist on the exports in "out"."""
    return {item.name: item for item in check(load_settings(output_dir="out", k=1), keys=[Key(KEY)])}


def test_rows_with_own_pseudonyms_are_not_linked_by_them(app: str) -> None:
    """Each row has an analysis_hash of its own, so the checklist reports no linkage, but why."""
    export(app, k=1)
    item = checklist_items()["k"]
    assert (item.status, "linked by" in item.detail) == ("skipped", False)
    assert "each row has an analysis_hash of its own" in item.detail
    export(app, k=1, output_dir="people", include_subject_hash=True)
    settings = load_settings(output_dir="people", k=1)
    detail = next(item.detail for item in check(settings, keys=[Key(KEY)]) if item.name == "k")
    assert "linked by subject_hash over 1 file" in detail


def test_rows_of_other_people_are_no_duplicates(app: str) -> None:
    """The key of [dedup] contains the user, whom the export lacks: the checklist reports no duplicates."""
    declare(COURSES.replace('user_id = "person"', 'user_id = "person"\nanalysis_id = "course"'))
    with sa.create_engine(app, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("UPDATE answers SET sent = '2025-10-24 10:00:00'")
    export(app, k=1)
    items = checklist_items()
    assert items["duplicates"].status == "skipped"
    assert "lacks a column of the key of [dedup]" in items["duplicates"].detail


def test_age_edges_do_not_override_the_buckets_of_a_schema() -> None:
    """The setting is one of the default schema."""
    Path("feedback-etl.toml").write_text(f"age_edges = [40]\n{COURSES}", encoding="utf-8")
    with pytest.raises(
        UsageError, match=r"`age_edges` is for the default schema: set `bucket` of \[columns.age_range\]"
    ):
        load_settings().to_options()


def test_status_names_the_columns_of_a_schema(app: str) -> None:
    """In words, on one line."""
    export(app, incremental=True)
    lines = feedback_etl("status", "out").stdout.splitlines()
    (line,) = [line for line in lines if line.strip().startswith("schema")]
    assert "stars 1 to 10, again yes or no, " in line
    assert line.rstrip(" |").endswith("tags, country, age_range, item course")
    assert not any("{" in line for line in lines)


def test_check_names_what_is_declared(app: str) -> None:
    """The time, and the key of [source] that names consent."""
    export(app)
    items = checklist_items_of(app)
    assert items["index"].detail == "sent has no index."
    assert (items["consent"].status, items["consent"].detail) == ("failed", "[source] names no column of consent.")
    assert items["consent"].remedy.startswith('add consent = "COLUMN" to [source], or set legal_basis')


def checklist_items_of(url: str) -> dict[str, ChecklistItem]:
    """Run the checklist on the exports in "out" with their database."""
    return {item.name: item for item in check(load_settings(output_dir="out", database_url=url), keys=[Key(KEY)])}


def test_raw_feedback_of_a_declared_schema_is_loaded(app: str) -> None:
    """With its columns, from options or from keywords."""
    options = load_settings().to_options(days_back=-1)
    raw = fe.load_feedback(app, options=options, now=NOW)
    assert raw["stars"].to_list()[:3] == [9.5, 10, 1]
    source, schema = options.read.source, options.privacy.schema
    assert fe.load_feedback(app, source=source, schema=schema, days_back=-1, now=NOW).equals(raw)


def test_contract_describes_the_pseudonym_of_a_declared_source() -> None:
    """It is not that of a table of the default schema."""
    properties = build_row_schema(FeedbackSchema(ratings=(Rating(name="stars"),)))["properties"]
    assert properties["analysis_hash"]["description"].startswith(
        "Pseudonym of the analysis_id of [source], or of the feedback itself"
    )
