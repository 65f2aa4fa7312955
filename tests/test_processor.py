"""The classic API, one class of tests for each of its faces."""

import csv
import hashlib
import hmac
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
import sqlalchemy as sa
from databases import Database, create_schema, fill, make_engine
from folders import row_files
from frames import CANARY, PAIR_ROW, all_said
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import is_formula
from pseudonym_keys import KEY
from sqlalchemy.orm import Session

from feedback_etl.cli.summary import print_summary
from feedback_etl.database import tables
from feedback_etl.errors import ExportFileError, KeyMissingError, KeyUnusableError, UsageError, ValidationError
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.processor import FeedbackProcessingStats, FeedbackProcessor, FeedbackTrainingPair
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.training.dataset import scan_training
from feedback_etl.training.export_scan import TRAINING_TYPES
from feedback_etl.transform.expressions import pair_hash

FEWER = settings(max_examples=settings().max_examples // 3)
HEADER = ",".join(PAIR_ROW)
TWO_HOURS_AGO = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(hours=2)
RECORDS = [
    {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne", "dry skin"], "rules_applied": ["r1"]}
]
PROFILES = [{"id": 1, "user_id": 7, "age": 25}]
FEEDBACK: dict[str, Any] = {
    **{"user_id": 7, "analysis_id": 42, "recommendation_id": 1, "helpful_rating": 5, "would_recommend": False},
    **{"timeframe": "2_weeks", "feedback_text": CANARY, "created_at": TWO_HOURS_AGO},
}
FEEDBACKS = [
    FEEDBACK | {"id": 1},
    FEEDBACK | {"id": 2},
    FEEDBACK | {"id": 3, "helpful_rating": 6},
    FEEDBACK | {"id": 4, "helpful_rating": None, "would_recommend": None},
    FEEDBACK | {"id": 5, "created_at": TWO_HOURS_AGO - timedelta(days=2)},
]
PAIR = FeedbackTrainingPair(
    analysis_hash="8f1c5a7d2e9b3c41",
    recommendation_id="rec_20251025_001",
    helpful_rating=5,
    product_satisfaction=4,
    routine_completion_pct=80,
    would_recommend=True,
    conditions_detected="acne,oily_skin",
    rules_applied="r001,r002",
    timeframe="2_weeks",
    age_range="25-35",
    feedback_timestamp="2025-10-25T10:00:00",
    export_date="2025-10-25T12:00:00",
)


def pair(**changes: Any) -> FeedbackTrainingPair:
    """The pair of the documentation, but for these fields."""
    return FeedbackTrainingPair(**(PAIR.to_dict() | changes))


def processor(database: Any = "sqlite://", **options: Any) -> FeedbackProcessor:
    """With a key and a folder of its own, unless a test says otherwise."""
    usual: dict[str, Any] = {"output_dir": "out", "key": KEY}
    return FeedbackProcessor(db_session=database, **(usual | options))


def pseudonym(id_: object) -> str:
    return hmac.new(KEY.encode(), f"analysis_id:{id_}".encode(), hashlib.sha256).hexdigest()[:16]


def in_memory() -> sa.Engine:
    """A SQLite database that only its own connection sees."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    create_schema(engine)
    return engine


@pytest.fixture(params=["sqlite file", "sqlite in memory", "postgresql", "mysql"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A Session on a filled database, as an application has it."""
    if request.param == "sqlite in memory":
        engine = in_memory()
    elif request.param == "sqlite file":
        engine = request.getfixturevalue("sqlite_database").engine
    else:
        server = {"postgresql": "postgres_database", "mysql": "mysql_database"}[request.param]
        engine = make_engine(request.getfixturevalue(server))
        create_schema(engine)
    fill(engine, records=RECORDS, profiles=PROFILES, feedbacks=FEEDBACKS)
    with Session(engine) as session:
        yield session
    engine.dispose()


class TestConstructor:
    """FeedbackProcessor(db_session=..., output_dir=...)."""

    def test_its_arguments_are_kept(self) -> None:
        """By name and by position; exports go to ml/feedback_training by default."""
        classic = FeedbackProcessor("sqlite://")
        assert (classic.db_session, classic.output_dir) == ("sqlite://", Path("ml/feedback_training"))
        assert FeedbackProcessor(db_session="sqlite://", output_dir=Path("x")).output_dir == Path("x")
        assert FeedbackProcessor("sqlite://", "x").output_dir == "x"

    def test_it_touches_nothing(self, tmp_path: Path) -> None:
        """Neither database, key nor folder is needed before there is something to do."""
        FeedbackProcessor("postgresql://nobody@nowhere/nothing", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_key_may_be_text_or_a_key(self) -> None:
        """White space around it is not part of it."""
        for key in (KEY, f"{KEY}\n", Key(KEY)):
            assert processor(key=key)._hash_id(42) == pseudonym(42)

    def test_a_key_and_unkeyed_exclude_each_other(self) -> None:
        """And an invalid key is refused at once."""
        with pytest.raises(UsageError, match=r"^Give a key or unkeyed=True, not both\.$"):
            processor(unkeyed=True)
        with pytest.raises(KeyUnusableError):
            processor(key="short")

    def test_its_repr_does_not_show_the_key(self) -> None:
        """Nor do its fields."""
        assert KEY not in repr(processor())
        assert KEY not in repr(vars(processor()))


class TestProcessAndExport:
    """process_and_export(days_back=1, min_feedback_fields=1)."""

    def test_it_exports_the_last_day(self, session: Session) -> None:
        """The file and the figures in full, from every kind of database."""
        stats = processor(session).process_and_export()
        time = stats.export_filename.removeprefix("out/feedback_training_").removesuffix(".csv")
        exported = datetime.strptime(time, "%Y%m%d_%H%M%S")
        times = f"{TWO_HOURS_AGO.isoformat()},{exported.isoformat()}"
        row = f'{pseudonym(42)},rec_1,5,,,False,"acne,dry skin",r1,2_weeks,25-35,{times}'
        assert Path(stats.export_filename).read_text(encoding="utf-8") == f"{HEADER}\n{row}\n"
        assert isinstance(stats, FeedbackProcessingStats)
        counts = {name: value for name, value in asdict(stats).items() if name.endswith("_records") or name == "errors"}
        assert counts == {
            "total_feedback_records": 4,
            "exported_records": 1,
            "deduplicated_records": 1,
            "anonymized_records": 1,
            "skipped_records": 1,
            "errors": 1,
            "suppressed_records": 0,
            "excluded_records": 0,
            "erased_records": 0,
            "known_records": 0,
            "pending_records": 0,
            "late_records": 0,
            "changed_records": 0,
        }
        assert 0 < stats.execution_time_seconds < 60
        assert CANARY not in "".join(path.read_text() for path in row_files(Path("out")))

    @pytest.mark.sample("sqlite file", "sqlite in memory")
    def test_days_and_fields_can_be_chosen(self, session: Session) -> None:
        """By position and by name."""
        classic = processor(session)
        assert classic.process_and_export(3).total_feedback_records == 5
        assert classic.process_and_export(-1, 0).skipped_records == 0
        assert classic.process_and_export(days_back=1, min_feedback_fields=3).skipped_records == 4

    @pytest.mark.sample("sqlite file", "sqlite in memory")
    @pytest.mark.any_database
    def test_figures_are_of_one_run_alone(self, session: Session) -> None:
        """Nothing is carried over, and each run writes a file of its own."""
        classic = processor(session)
        first, second = classic.process_and_export(), classic.process_and_export()
        own = {"execution_time_seconds", "export_filename", "rejected_filename", "window", "audit_head"}
        figures = [{name: value for name, value in asdict(run).items() if name not in own} for run in (first, second)]
        assert figures[0] == figures[1]
        assert sorted(Path("out").glob("*.csv")) == sorted([Path(first.export_filename), Path(second.export_filename)])

    @pytest.mark.any_database
    def test_all_rows_rejected_give_figures_without_a_file(
        self, session: Session, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As the classic API did, with a warning that counts the reasons; nothing is published."""
        session.execute(tables.recommendation_feedbacks.update().values(helpful_rating=6))
        session.commit()
        stats = processor(session).process_and_export()
        assert (stats.total_feedback_records, stats.exported_records, stats.errors) == (4, 0, 4)
        assert (stats.export_filename, stats.skipped_records) == ("", 0)
        assert stats.execution_time_seconds > 0
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert warning.getMessage() == (
            "Nothing was exported: 4 of 4 rows (100.0 %) are rejected, so no valid row is left. "
            "Reasons: helpful_rating_out_of_range 4."
        )
        assert row_files(Path("out")) == []

    @pytest.mark.parametrize("age", [-1, 131])
    def test_an_implausible_age_costs_no_row(
        self, sqlite_database: Database, age: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also where it is the only feedback: age_range is empty, and report, manifest and summary count it."""
        sqlite_database.fill(
            records=RECORDS, profiles=[{"id": 1, "user_id": 7, "age": age}], feedbacks=[FEEDBACK | {"id": 1}]
        )
        stats = processor(sqlite_database.engine).process_and_export()
        assert pl.read_csv(stats.export_filename)["age_range"].to_list() == [None]
        assert isinstance(stats, ExportReport)
        assert (stats.exported_records, stats.errors, stats.implausible_ages) == (1, 0, 1)
        (manifest,) = list_manifests(Path("out"))
        assert manifest.statistics["implausible_ages"] == 1
        print_summary(stats, min_fields=1)
        assert "ages       1 below 0 or above 130; age_range is empty\n" in capsys.readouterr().err

    def test_nothing_to_export(self, sqlite_database: Database) -> None:
        """No file, no error, all figures zero."""
        stats = processor(sqlite_database.url).process_and_export()
        assert (stats.export_filename, stats.total_feedback_records, stats.exported_records) == ("", 0, 0)
        assert list(Path("out").glob("[!.]*")) == []

    def test_only_what_is_committed_is_read(self, database: Database) -> None:
        """A session's own pending rows are not feedback yet, and stay pending."""
        database.fill(records=RECORDS, profiles=PROFILES, feedbacks=FEEDBACKS[:1])
        count = sa.select(sa.func.count()).select_from(tables.recommendation_feedbacks)
        with Session(database.engine) as session:
            session.execute(tables.recommendation_feedbacks.insert(), [FEEDBACK | {"id": 2, "analysis_id": 43}])
            assert processor(session).process_and_export().total_feedback_records == 1
            assert session.scalar(count) == 2
        assert processor(database.url).process_and_export().total_feedback_records == 1

    @pytest.mark.parametrize("days", [0, -2, 1.5, True, 10**12])
    def test_other_days_are_refused(self, sqlite_database: Database, days: Any) -> None:
        """With the allowed values."""
        with pytest.raises(UsageError, match="`days_back` must be a whole number of days, 1 or more, or -1"):
            processor(sqlite_database.url).process_and_export(days_back=days)

    @pytest.mark.any_database
    def test_the_configured_key_is_used(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """FEEDBACK_ETL_KEY, read when the export begins."""
        classic = processor(session, key=None)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        assert first_pseudonym(classic.process_and_export()) == pseudonym(42)

    def test_without_a_key_nothing_is_exported(self, session: Session, tmp_path: Path) -> None:
        """The error names the command that creates one, and the option for unkeyed pseudonyms."""
        with pytest.raises(KeyMissingError, match="feedback-etl keys new"):
            processor(session, key=None).process_and_export()
        assert not (tmp_path / "out").exists()

    def test_unkeyed_is_the_classic_form(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """Plain SHA-256, also where a key is configured."""
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        stats = processor(session, key=None, unkeyed=True).process_and_export()
        assert first_pseudonym(stats) == "73475cb40a568e8d"

    @pytest.mark.sample("sqlite file")
    def test_it_can_be_called_from_threads(self, session: Session) -> None:
        """As a scheduler or a web server does, several at once; no two write one file."""
        classic = processor(session)
        one_connection = session.get_bind().engine.url.database is None  # in memory: its threads take turns
        with ThreadPoolExecutor(1 if one_connection else 4) as pool:
            done = list(pool.map(lambda _: classic.process_and_export(), range(4)))
        assert [stats.exported_records for stats in done] == [1] * 4
        assert len({stats.export_filename for stats in done}) == 4
        assert {first_pseudonym(stats) for stats in done} == {pseudonym(42)}


def first_pseudonym(stats: FeedbackProcessingStats) -> str:
    """The first cell of the first row of a run's file."""
    return Path(stats.export_filename).read_text(encoding="utf-8").splitlines()[1].split(",")[0]


class TestHashId:
    """_hash_id(id) -> str."""

    @pytest.mark.parametrize("id_", [42, 0, -1, 2**63, 10**30, "42", "a:b", "\u00e9", UUID(int=2**100)])
    def test_it_equals_hmac(self, id_: Any) -> None:
        """Integers of any size, text, UUIDs in lower case with hyphens."""
        assert processor()._hash_id(id_) == pseudonym(id_)

    def test_unkeyed(self) -> None:
        """The digest every version has given."""
        assert processor(key=None, unkeyed=True)._hash_id(42) == "73475cb40a568e8d"

    def test_the_configured_key_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And there must be one."""
        with pytest.raises(KeyMissingError):
            processor(key=None)._hash_id(42)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", f" {KEY} ")
        assert processor(key=None)._hash_id(42) == pseudonym(42)

    @pytest.mark.parametrize("id_", [None, 42.0, float("nan"), [42]])
    def test_what_is_no_id_is_refused(self, id_: Any) -> None:
        """Null has no pseudonym, and 42.0 is not 42."""
        message = r"^An id must be an integer, text or a UUID, not (NoneType|float|list)\.$"
        with pytest.raises(UsageError, match=message):
            processor()._hash_id(id_)

    @pytest.mark.parametrize(
        ("kind", "id_"),
        [
            ("bigint", 2**62),
            ("text", "Analysis-1"),
            ("uuid", UUID("0B9F7C1E-0D3C-4A52-8F5E-6F1B9D6E7A11")),
        ],
    )
    def test_it_is_the_analysis_hash_of_an_export(self, postgres_database: str, kind: str, id_: Any) -> None:
        """Whatever type the application's ids have."""
        engine = make_engine(postgres_database)
        create_schema(engine)
        with engine.begin() as connection:
            alter = f"ALTER TABLE recommendation_feedbacks ALTER analysis_id TYPE {kind} USING NULL"
            connection.exec_driver_sql(alter)
        fill(engine, records=RECORDS, feedbacks=[FEEDBACK | {"id": 1, "analysis_id": str(id_)}])
        classic = processor(engine)
        assert first_pseudonym(classic.process_and_export()) == classic._hash_id(id_) == pseudonym(id_)


class TestBucketAge:
    """_bucket_age(age) -> str | None."""

    @pytest.mark.parametrize(
        ("age", "bucket"),
        [
            *[(None, None), (float("nan"), None), (float("inf"), "50+")],
            *[(-1, "<18"), (-0.5, "<18"), (130.5, "50+"), (131, "50+"), (10**30, "50+")],
            *[(0, "<18"), (17, "<18"), (17.99, "<18"), (18, "18-25"), (18.0, "18-25"), (24, "18-25")],
            *[(25, "25-35"), (34.9, "25-35"), (35, "35-50"), (49, "35-50"), (50, "50+"), (130, "50+")],
        ],
    )
    def test_ages(self, age: float | None, bucket: str | None) -> None:
        """Half-open ranges, open at both ends as in the classic API; None for None and NaN."""
        assert processor()._bucket_age(age) == bucket


class TestGetPairHash:
    """_get_pair_hash(pair) -> str."""

    def test_it_equals_hashlib(self) -> None:
        """SHA-256 of pseudonym, recommendation and time, joined by bars."""
        text = b"8f1c5a7d2e9b3c41|rec_20251025_001|2025-10-25T10:00:00"
        assert processor()._get_pair_hash(PAIR) == hashlib.sha256(text).hexdigest()

    def test_other_fields_do_not_matter(self) -> None:
        """And each of the three does."""
        digest = processor()._get_pair_hash
        assert digest(pair(helpful_rating=1, age_range=None, export_date="2026-01-01T00:00:00")) == digest(PAIR)
        for name in ("analysis_hash", "recommendation_id", "feedback_timestamp"):
            assert digest(pair(**{name: "x"})) != digest(PAIR)

    def test_it_is_the_pair_hash_of_the_frame(self) -> None:
        """The vectorised form, on the same fields."""
        assert pl.DataFrame([PAIR.to_dict()]).select(pair_hash()).item() == processor()._get_pair_hash(PAIR)


class TestExportToCsv:
    """_export_to_csv(pairs) -> str."""

    def test_the_file_in_full(self) -> None:
        """Names, quoting, null as an empty field, False and 0 as values, fractions of seconds."""
        bare: dict[str, Any] = dict.fromkeys(PAIR.to_dict()) | {
            **{"analysis_hash": "0" * 16, "recommendation_id": 'say "hi"', "routine_completion_pct": 0},
            **{"would_recommend": False, "conditions_detected": "\u00e9\n"},
            **{"feedback_timestamp": "2025-10-25T10:00:00.120000", "export_date": "2025-10-25T12:00:00"},
        }
        path = processor()._export_to_csv([PAIR, FeedbackTrainingPair(**bare)])
        assert Path(path).read_bytes().decode() == (
            "analysis_hash,recommendation_id,helpful_rating,product_satisfaction,routine_completion_pct,would_recommend,"
            "conditions_detected,rules_applied,timeframe,age_range,feedback_timestamp,export_date\n"
            '8f1c5a7d2e9b3c41,rec_20251025_001,5,4,80,True,"acne,oily_skin","r001,r002",2_weeks,25-35,'
            "2025-10-25T10:00:00,2025-10-25T12:00:00\n"
            '0000000000000000,"say ""hi""",,,0,False,"\u00e9\n",,,,2025-10-25T10:00:00.120000,2025-10-25T12:00:00\n'
        )

    def test_the_path_is_that_of_the_folder_as_given(self, tmp_path: Path) -> None:
        """As a text; the file at this path is private."""
        assert processor()._export_to_csv([PAIR]).startswith("out/feedback_training_")
        path = processor(output_dir=tmp_path / "other")._export_to_csv([PAIR])
        assert Path(path).parent == tmp_path / "other"
        assert Path(path).stat().st_mode & 0o777 == 0o600

    def test_an_empty_list_writes_nothing(self, tmp_path: Path) -> None:
        """Not even the folder, and no key is required."""
        assert processor(key=None)._export_to_csv([]) == ""
        assert processor(key=None)._export_to_csv(()) == ""
        assert list(tmp_path.iterdir()) == []

    def test_files_of_one_second_have_names_of_their_own(self) -> None:
        """Five calls take less than five seconds."""
        paths = [processor()._export_to_csv([PAIR]) for _ in range(5)]
        assert sorted(map(str, Path("out").glob("*.csv"))) == sorted(paths)
        assert len(set(paths)) == 5
        assert any(path.endswith("_1.csv") for path in paths)

    @FEWER
    @given(st.data())
    def test_the_csv_module_reads_back_what_was_written(self, data: st.DataObject) -> None:
        """Any valid pairs, every field as its text."""
        characters = st.characters(exclude_characters=",", exclude_categories=["Cc", "Cs"]) | st.sampled_from("\t\r\n")
        words = st.text(characters, min_size=1).map(lambda word: f"x{word}" if is_formula(word) else word)
        changes = {
            **{"recommendation_id": words, "timeframe": st.none() | words},
            **dict.fromkeys(
                ("conditions_detected", "rules_applied"), st.none() | st.lists(words, min_size=1).map(",".join)
            ),
            **dict.fromkeys(("helpful_rating", "product_satisfaction"), st.none() | st.integers(1, 5)),
            **{"routine_completion_pct": st.none() | st.integers(0, 100), "would_recommend": st.none() | st.booleans()},
            **{"age_range": st.sampled_from([None, "<18", "18-25", "25-35", "35-50", "50+"])},
            **{"feedback_timestamp": st.datetimes().map(datetime.isoformat)},
        }
        pairs = [
            pair(**change) for change in data.draw(st.lists(st.fixed_dictionaries(changes), min_size=1, max_size=5))
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = processor(output_dir=folder)._export_to_csv(pairs)
            with open(path, encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file))
        expected = [
            {name: "" if value is None else str(value) for name, value in one.to_dict().items()} for one in pairs
        ]
        assert found == expected

    @pytest.mark.parametrize("name", PAIR.to_dict())
    @pytest.mark.parametrize("value", [f"={CANARY}", f"{CANARY}\ud800", [CANARY], {CANARY: 1}, CANARY.encode(), 4711.5])
    def test_a_bad_pair_publishes_nothing(self, name: str, value: Any, tmp_path: Path) -> None:
        """The error names the column; neither it nor an error in its chain contains the value."""
        with pytest.raises(ValidationError) as caught:
            processor()._export_to_csv([PAIR, pair(**{name: value})])
        assert name in str(caught.value)
        assert CANARY not in all_said(caught.value)
        assert "4711" not in all_said(caught.value)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "change",
        [
            *[{"helpful_rating": 0}, {"helpful_rating": 6}, {"helpful_rating": 300}, {"helpful_rating": 2**70}],
            *[{"product_satisfaction": 5.0}, {"routine_completion_pct": 101}, {"would_recommend": 1}],
            *[{"analysis_hash": None}, {"analysis_hash": ""}, {"recommendation_id": ""}, {"timeframe": 2}],
            *[{"rules_applied": "a,=1"}, {"conditions_detected": ",@b"}, {"age_range": "-24"}],
            *[{"feedback_timestamp": datetime(2025, 10, 25)}, {"feedback_timestamp": "yesterday"}],
            *[{"export_date": None}, {"export_date": ""}, {"export_date": "0001-01-01T00:00:00+05:00"}],
        ],
        ids=str,
    )
    def test_nothing_is_coerced_that_does_not_fit(self, change: dict[str, Any]) -> None:
        """The final validation checks the values as they are."""
        with pytest.raises(ValidationError, match=next(iter(change))):
            processor()._export_to_csv([pair(**change)])

    def test_all_columns_with_impossible_values_are_named(self) -> None:
        """In the order of the contract, in one message."""
        with pytest.raises(ValidationError) as caught:
            processor()._export_to_csv([pair(age_range=25, export_date="now", helpful_rating=4.5)])
        assert str(caught.value) == (
            "Nothing was written: pairs contain invalid values in helpful_rating, age_range, export_date. "
            "Ratings are int, times ISO 8601 text; None is a missing value."
        )

    def test_pseudonyms_and_labels_may_be_of_any_form(self) -> None:
        """The documentation's own row, whose hash has 8 characters; readers of exports accept it unchanged."""
        rows = [
            pair(analysis_hash="8f1c5a7d", timeframe="", age_range="18-24"),
            pair(analysis_hash="Analysis 7", conditions_detected="", rules_applied="a,,b", age_range="Senior"),
        ]
        path = processor()._export_to_csv(rows)
        times = "2025-10-25T10:00:00,2025-10-25T12:00:00"
        assert Path(path).read_text(encoding="utf-8").splitlines()[1:] == [
            f'8f1c5a7d,rec_20251025_001,5,4,80,True,"acne,oily_skin","r001,r002",,18-24,{times}',
            f'Analysis 7,rec_20251025_001,5,4,80,True,,"a,,b",2_weeks,Senior,{times}',
        ]
        pairs = scan_training("out").collect()
        assert pairs["analysis_hash"].to_list() == ["8f1c5a7d", "Analysis 7"]
        assert pairs["age_range"].to_list() == ["18-24", "Senior"]

    def test_usual_pairs_are_read_as_those_of_an_export(self) -> None:
        """Pseudonyms of 16 hex characters and built-in ranges: the types are the usual ones."""
        processor()._export_to_csv([PAIR])
        assert scan_training("out").collect_schema() == TRAINING_TYPES
        (manifest,) = list_manifests(Path("out"))
        assert (manifest.settings, manifest.pseudonyms) == ({}, Key(KEY).id)

    @pytest.mark.parametrize(
        ("written", "time"),
        [
            ("2025-10-25T10:00:00Z", "2025-10-25T10:00:00"),
            ("2025-10-25T12:00:00.250000+02:00", "2025-10-25T10:00:00.250000"),
            ("2025-10-25T04:30-05:30", "2025-10-25T10:00:00"),
            ("2025-10-25T10:00", "2025-10-25T10:00:00"),
            ("2025-10-25 10:00:00", "2025-10-25T10:00:00"),
            ("2025-10-25", "2025-10-25T00:00:00"),
        ],
    )
    def test_times_of_every_iso_form_are_understood(self, written: str, time: str) -> None:
        """With Z, an offset or without seconds; the file has them in UTC, without an offset."""
        path = processor()._export_to_csv([pair(feedback_timestamp=written, export_date=written)])
        assert Path(path).read_text(encoding="utf-8").splitlines()[1].endswith(f",{time},{time}")

    def test_people_erased_meanwhile_are_not_published(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The people of pseudonyms of another form are unknown: nothing is published, and the message says so."""

        def erase_and_publish(files: ExportTransaction, *arguments: Any, **options: Any) -> Any:
            erase("out", analysis_ids=[42], keys=[KEY])
            return publish(files, *arguments, **options)

        publish = ExportTransaction.commit
        monkeypatch.setattr(ExportTransaction, "commit", erase_and_publish)
        with pytest.raises(ExportFileError, match=r"Meanwhile people were erased.*run again"):
            processor()._export_to_csv([pair(analysis_hash="8f1c5a7d")])
        assert row_files(Path("out")) == []
        assert Path(processor()._export_to_csv([PAIR])).exists()


class TestFeedbackTrainingPair:
    """The twelve fields of a row."""

    def test_to_dict_has_the_order_of_the_export(self) -> None:
        """And the values are unchanged."""
        assert list(PAIR.to_dict()) == HEADER.split(",")
        assert PAIR.to_dict() == {field.name: getattr(PAIR, field.name) for field in fields(PAIR)}

    def test_pairs_with_equal_fields_are_equal(self) -> None:
        """As dataclasses are."""
        assert pair() == PAIR != pair(age_range=None)


class TestFeedbackProcessingStats:
    """The figures of a run."""

    def test_classic_fields_come_first_in_the_classic_order(self) -> None:
        """An application that fills them by position puts each figure where it belongs."""
        stats = FeedbackProcessingStats(10, 5, 1, 6, 2, 2, 0.5, "out/feedback_training_20251025_120000.csv")
        assert stats == FeedbackProcessingStats(
            total_feedback_records=10,
            exported_records=5,
            deduplicated_records=1,
            anonymized_records=6,
            skipped_records=2,
            errors=2,
            execution_time_seconds=0.5,
            export_filename="out/feedback_training_20251025_120000.csv",
        )
        assert [field.name for field in fields(ExportReport)][:8] == [
            *["total_feedback_records", "exported_records", "deduplicated_records", "anonymized_records"],
            *["skipped_records", "errors", "execution_time_seconds", "export_filename"],
        ]

    def test_they_are_zero_by_default(self) -> None:
        """The classic eight by their names, and the text where a file would be."""
        stats = FeedbackProcessingStats()
        classic = ["total_feedback_records", "exported_records", "anonymized_records", "deduplicated_records"]
        assert [getattr(stats, name) for name in [*classic, "skipped_records", "errors", "execution_time_seconds"]] == [
            0
        ] * 7
        assert stats.export_filename == ""
