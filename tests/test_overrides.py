"""A subclass of the classic API that overrides a method changes the export, and what reads exports knows it."""

import hashlib
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import FunctionType
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from databases import Database
from folders import NOW, people, row_files
from frames import CANARY, all_said, raw_frame
from pseudonym_keys import KEY
from test_steps import outcome_of

import feedback_etl as fe
from feedback_etl import processor as classic
from feedback_etl.compliance.check import check
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.integrations.options import require_options
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.processor import FeedbackProcessor, FeedbackTrainingPair
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.manifest import Manifest
from feedback_etl.report.columns import list_columns
from feedback_etl.report.croissant import build_croissant
from feedback_etl.settings.model import load_settings
from feedback_etl.training import FeedbackFeatures, Vocabulary, features
from feedback_etl.transform.overrides import Overrides

FOUR = ["<30", "30-50", "50-65", "65+"]
AGES = [29, 30, 49, 50, 64, 65, 80, None]
LABELS = ["<30", "30-50", "30-50", "50-65", "50-65", "65+", "65+", None]


def four_ranges(age: int | None) -> str | None:
    """An application's own age ranges."""
    if age is None:
        return None
    return FOUR[sum(age >= edge for edge in (30, 50, 65))]


class FourRanges(FeedbackProcessor):
    """As the classic documentation shows it: the method is edited, here in a subclass."""

    def _bucket_age(self, age: float | None) -> str | None:
        return four_ranges(None if age is None else int(age))


class OwnHash(FeedbackProcessor):
    """Ids of a tenant: the built-in pseudonym with something before it."""

    def _hash_id(self, id: Any) -> str:  # noqa: A002  the classic name
        return f"T7-{super()._hash_id(id)}"


class OncePerPerson(FeedbackProcessor):
    """Only the first feedback of an analysis is wanted."""

    def _get_pair_hash(self, pair: FeedbackTrainingPair) -> str:
        return pair.analysis_hash


class Everything(FeedbackProcessor):
    """No two rows are the same feedback unless all their values are."""

    def _get_pair_hash(self, pair: FeedbackTrainingPair) -> str:
        return hashlib.sha256(repr(pair).encode()).hexdigest()


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Eight users of different ages with two feedbacks each, and a rejected one of the first user."""
    rows = people(8, each=2)
    rows["feedbacks"].append(rows["feedbacks"][0] | {"id": 999, "analysis_id": 999, "helpful_rating": 9})
    profiles = [{"id": user, "user_id": user, "age": age} for user, age in enumerate(AGES, 1)]
    sqlite_database.fill(**rows, profiles=profiles)
    return sqlite_database


def export(application: Database, kind: type[FeedbackProcessor] = FeedbackProcessor, **options: Any) -> Path:
    """The data file of an export of everything, read in this process."""
    with application.engine.connect() as connection:
        processor = kind(connection, **{"output_dir": "out", "key": KEY} | options)
        return Path(processor.process_and_export(days_back=-1).export_filename)


def only_manifest(folder: str = "out") -> Manifest:
    (manifest,) = list_manifests(Path(folder))
    return manifest


class TestBucketAge:
    """An application's own age ranges."""

    def test_a_subclass_with_four_ranges_exports_four_ranges(self, application: Database) -> None:
        """Null is null by the method's own rule; the manifest records whose labels they are."""
        rows = pl.read_csv(export(application, FourRanges), infer_schema=False)
        assert rows["age_range"].unique().drop_nulls().sort().to_list() == sorted(FOUR)
        assert rows.reverse()["age_range"].gather_every(2).to_list() == LABELS
        assert only_manifest().overridden == {"bucket_age": f"{__name__}.FourRanges._bucket_age"}

    @pytest.mark.parametrize("way", ["static", "class", "instance", "assigned to it", "assigned to its class"])
    def test_every_way_of_overriding_counts(
        self, application: Database, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For any kind of method, wherever it is defined."""

        class Own(FeedbackProcessor):
            pass

        plain: dict[str, Any] = {
            "static": staticmethod(four_ranges),
            "class": classmethod(lambda _, age: four_ranges(age)),
            "instance": lambda _, age: four_ranges(age),
        }
        with application.engine.connect() as connection:
            if way in plain:
                Own._bucket_age = plain[way]  # type: ignore[method-assign]
            if way == "assigned to its class":
                monkeypatch.setattr(FeedbackProcessor, "_bucket_age", staticmethod(four_ranges))
            processor = Own(connection, "out", key=KEY)
            if way == "assigned to it":
                processor._bucket_age = four_ranges  # type: ignore[method-assign, assignment]
            rows = pl.read_csv(processor.process_and_export(days_back=-1).export_filename, infer_schema=False)
        assert rows["age_range"].unique().drop_nulls().sort().to_list() == sorted(FOUR)

    @pytest.mark.parametrize(("label", "status"), [("\u0661\u0668-\u0662\u0665", "ok"), ("18-20", "failed")])
    def test_labels_in_any_script_are_checked(self, application: Database, label: str, status: str) -> None:
        """Digits other than 0 to 9 are not numbers, and stop nothing."""
        own = type("Own", (FeedbackProcessor,), {"_bucket_age": staticmethod(lambda _: label)})
        export(application, own)
        settings = load_settings(database_url=application.url, output_dir=Path("out"))
        items = {item.name: item for item in check(settings, keys=[Key(KEY)], now=NOW)}
        assert items["ages"].status == status

    def test_it_is_called_once_for_each_value_of_a_batch(self) -> None:
        """None among them, which NaN is too; the same values again in the next batch."""
        ages: list[float | None] = []
        values: list[list[float | None]] = [[34.5, None, 34.5, 200.0, math.nan], [34.5, 34.5]]
        rows = [
            [{"age": age, "analysis_id": n, "created_at": datetime(2025, 10, 25, hour)} for n, age in enumerate(batch)]
            for hour, batch in enumerate(values)
        ]
        batches = [raw_frame(*batch, age=pl.Float64) for batch in rows]
        own = Overrides(bucket_age=lambda age: ages.append(age) or f"about {age}")  # type: ignore[func-returns-value]
        pairs = outcome_of(batches, overrides=own).pairs
        assert ages == [34.5, None, 200.0, 34.5]
        about = ["about 34.5", "about None", "about 34.5", "about 200.0", "about None", "about 34.5", "about 34.5"]
        assert pairs["age_range"].to_list() == about

    def test_an_implausible_age_is_counted_where_it_is_left_empty(self) -> None:
        """An own method that has a label for it has decided otherwise."""
        rows = raw_frame({"age": 200}, {"age": -1, "analysis_id": 2}, {"age": None, "analysis_id": 3})
        own = Overrides(bucket_age=lambda age: None if age == 200 else "unknown")
        report = outcome_of([rows], overrides=own).report
        assert report.implausible_ages == 1

    def test_an_empty_text_is_an_empty_field(self) -> None:
        """As the classic file had it."""
        own = Overrides(bucket_age=lambda _: "")
        assert outcome_of([raw_frame({})], overrides=own).pairs["age_range"].to_list() == [None]

    def test_classes_are_those_of_the_labels(self, application: Database) -> None:
        """For k, people of one label are together: the one of 29 years and the one without an age are alone."""
        rows = pl.read_csv(export(application, FourRanges, k=2, quasi_identifiers=["age_range"]), infer_schema=False)
        assert rows["age_range"].sort().to_list() == sorted(filter(None, 2 * LABELS[1:7]))

    def test_an_unusable_label_is_refused_by_the_gate(self, application: Database) -> None:
        """A text that spreadsheet programs would run is not accepted."""

        class Formulas(FeedbackProcessor):
            def _bucket_age(self, age: float | None) -> str | None:  # noqa: ARG002
                return "=1+1"

        with pytest.raises(ValidationError, match=r"age_range formula \(16 rows\)"):
            export(application, Formulas)


class TestReading:
    """Readers of exports know an application's own labels."""

    @pytest.mark.parametrize("form", ["csv", "parquet"])
    def test_scan_training_has_them_as_text(self, application: Database, form: str) -> None:
        """In their own words."""
        export(application, FourRanges, format=form)
        pairs = fe.scan_training("out").collect()
        assert pairs.schema["age_range"] == pl.String
        assert {*pairs["age_range"]} == {*FOUR, None}

    @pytest.mark.served_store
    def test_an_object_store_has_them_too(self, application: Database, bucket_url: str) -> None:
        """Its parts are written in this process, by the same method."""
        with application.engine.connect() as connection:
            FourRanges(connection, bucket_url, key=KEY).process_and_export(days_back=-1)
        assert {*fe.scan_training(bucket_url).collect()["age_range"]} == {*FOUR, None}

    def test_labels_of_different_rules_are_not_mixed(self, application: Database) -> None:
        """Unless it is requested; then all are text."""
        export(application, FourRanges)
        export(application)
        with pytest.raises(UsageError, match=r"have 2 age ranges \(by .*FourRanges._bucket_age, from 18, 25, 35, 50\)"):
            fe.scan_training("out")
        both = fe.scan_training("out", mixed=True).collect()
        assert both.height == 16
        assert both.schema["age_range"] == pl.String

    def test_features_put_them_in_their_order(self, application: Database) -> None:
        """Ranges have a natural order; other labels are named from the youngest on."""
        export(application, FourRanges)
        pairs = fe.scan_training("out").collect()
        assert Vocabulary.fit(pairs).age_ranges == ("<30", "30-50", "50-65", "65+")
        words = pairs.with_columns(pl.col("age_range").replace_strict(FOUR, ["young", "middle", "older", "old"]))
        with pytest.raises(ValidationError, match=r"labels unlike .* \(4\).*age_ranges=\(\.\.\.\)"):
            Vocabulary.fit(words)
        named = Vocabulary.fit(words, age_ranges=("young", "middle", "older", "old"))
        of_ranges = features(pairs, vocabulary=Vocabulary.fit(pairs))
        assert features(words, vocabulary=named)["age"].to_list() == of_ranges["age"].to_list()
        step = FeedbackFeatures(age_ranges=("young", "middle", "older", "old")).fit(words)
        assert step.vocabulary_ == named
        with pytest.raises(ValidationError, match="1 values that are not among age_ranges"):
            Vocabulary.fit(words, age_ranges=("young", "middle", "older"))

    def test_the_contract_in_a_parquet_file_allows_them(self, application: Database) -> None:
        """Any text that is not a formula."""
        path = export(application, FourRanges, format="parquet")
        contract = json.loads(pq.read_schema(path).metadata[b"feedback_etl.contract"])
        assert contract["properties"]["age_range"]["type"] == ["string", "null"]
        assert contract["properties"]["analysis_hash"]["pattern"] == "^([0-9a-f]{16}){1,2}$"

    def test_a_report_and_a_description_show_them(self, application: Database) -> None:
        """In the order of the ages."""
        export(application, FourRanges)
        fe.write_report("report.html", "out", keys=KEY)
        (column,) = [column for column in list_columns(only_manifest()) if column.name == "age_range"]
        assert (column.kind, column.type, column.ordered) == ("label", "text, or empty", True)
        assert "a label of the application&#39;s own" in Path("report.html").read_text(encoding="utf-8")
        fields = build_croissant("out", list_manifests(Path("out")))["recordSet"][0]["field"]
        assert [field["dataType"] for field in fields if field["name"] == "age_range"] == ["sc:Text"]

    def test_frames_with_them_are_validated_and_measured(self, application: Database) -> None:
        """`validate` needs the argument `overridden`; `risk` accepts any labels."""
        export(application, FourRanges)
        pairs = fe.scan_training("out").collect()
        with pytest.raises(ValidationError, match="age_range dtype"):
            fe.validate(pairs)
        assert fe.validate(pairs, overridden=["bucket_age"]) is pairs
        assert fe.privacy.risk(pairs, quasi_identifiers=["age_range"]).k == 2


class TestHashId:
    """An application's own pseudonyms."""

    def test_they_are_in_the_export_and_in_the_list_of_rejected_rows(self, application: Database) -> None:
        """Called once for each id of a batch; the built-in method can be called by the own one."""
        path = export(application, OwnHash)
        own = OwnHash("sqlite://", key=KEY)
        assert pl.read_csv(path)["analysis_hash"][-1] == own._hash_id(101)
        rejected = pl.read_csv(Path("out/rejected") / f"{path.stem}_rejected.txt")
        assert rejected["analysis_hash"].to_list() == [own._hash_id(999)]
        assert {*fe.scan_training("out").collect()["analysis_hash"].str.head(3)} == {"T7-"}

    def test_manifest_names_the_functions_of_the_application(self, application: Database) -> None:
        """They are not pseudonyms of the key, and not mixed with those."""
        export(application, OwnHash)
        manifest = only_manifest()
        assert manifest.pseudonyms == f"{__name__}.OwnHash._hash_id"
        assert manifest.scheme == f"by {__name__}.OwnHash._hash_id"
        export(application)
        with pytest.raises(UsageError, match="have 2 keys"):
            fe.scan_training("out")

    def test_an_erasure_says_that_it_cannot_look_into_them(self, application: Database) -> None:
        """Instead of finding no one; erased people are in no later export."""
        before = pl.read_csv(export(application, OwnHash)).height
        done = erase("out", analysis_ids=[101], keys=[KEY])
        assert done.without_key == [only_manifest().stem]
        assert pl.read_csv(export(application, OwnHash)).height == before - 1

    def test_the_checklist_says_that_it_cannot_test_them(self, application: Database) -> None:
        """And does not pass."""
        export(application, OwnHash)
        settings = load_settings(database_url=application.url, output_dir=Path("out"))
        items = {item.name: item for item in check(settings, keys=[Key(KEY)], now=NOW)}
        detail = f"its pseudonyms are created by the application ({__name__}.OwnHash._hash_id)"
        for name in ("pseudonyms", "erasure"):
            assert (items[name].status, detail in items[name].detail) == ("skipped", True)

    def test_settings_and_key_are_looked_up_once(self, application: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not for each of a thousand ids, though the own method calls the built-in one."""
        calls: list[str] = []

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def count(*arguments: Any, **named: Any) -> Any:
                calls.append(function.__name__)
                return function(*arguments, **named)

            return count

        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        for name in ("load_settings", "find_active_key"):
            monkeypatch.setattr(classic, name, counted(getattr(classic, name)))
        export(application, OwnHash, key=None)
        assert sorted(calls) == ["find_active_key", "load_settings"]


class TestGetPairHash:
    """Duplicates by the application's own rule."""

    def test_the_first_of_each_stays_however_far_apart(self) -> None:
        """Also of batches, where the built-in rule remembers the last time alone."""
        rows = [{"analysis_id": n % 2, "created_at": datetime(2025, 10, 25, n)} for n in range(6)]
        own = Overrides(pair_hash=lambda pair: pair.analysis_hash)
        pairs, _, report = outcome_of([raw_frame(*rows[:3]), raw_frame(*rows[3:])], overrides=own)
        assert pairs["feedback_timestamp"].dt.hour().to_list() == [0, 1]
        assert (report.exported_records, report.deduplicated_records) == (2, 4)

    def test_it_takes_pairs_as_the_classic_api_has_them(self) -> None:
        """Plain values, exact times as text; equal rows of a batch are hashed once."""
        seen: list[FeedbackTrainingPair] = []
        own = Overrides(pair_hash=lambda pair: seen.append(pair) or pair.feedback_timestamp)  # type: ignore[func-returns-value]
        outcome_of([raw_frame({}, {})], overrides=own, timestamp_precision="day")
        assert seen == [
            FeedbackTrainingPair(
                *("73475cb40a568e8d", "rec_1", 5, 4, 80, True, "acne,oily_skin", "r001", "2_weeks", "25-35"),
                feedback_timestamp="2025-10-25T10:00:00",
                export_date="2025-10-25T12:00:00",
            )
        ]

    def test_a_finer_rule_keeps_more_rows(self, application: Database) -> None:
        """The built-in one would drop the second; what reads exports keeps both, and the checklist knows."""
        row = people(1, each=1)["feedbacks"][0] | {"created_at": datetime(2025, 10, 1)}
        application.fill(feedbacks=[row | {"id": 7001}, row | {"id": 7002, "timeframe": "8_weeks"}])
        for folder, kind, rows in (
            ("built-in", FeedbackProcessor, 17),
            ("out", Everything, 18),
            ("out", Everything, 18),
        ):
            assert pl.read_csv(export(application, kind, output_dir=folder)).height == rows
        assert fe.scan_training("out").collect().height == 18
        settings = load_settings(output_dir=Path("out"))
        items = {item.name: item for item in check(settings, keys=[Key(KEY)], now=NOW)}
        assert (items["duplicates"].status, "recognises duplicates itself" in items["duplicates"].detail) == (
            "skipped",
            True,
        )


class TestErrors:
    """Errors of an application's own method."""

    @pytest.mark.parametrize(
        ("name", "method", "problem"),
        [
            ("_bucket_age", lambda _: int(CANARY), r"raised ValueError \(test_overrides\.py, line \d+\)"),
            ("_bucket_age", lambda: None, "raised TypeError"),
            ("_bucket_age", lambda _: 25, "returned int instead of str or None"),
            ("_bucket_age", lambda _: "\ud800", "raised UnicodeEncodeError"),
            ("_hash_id", lambda _: None, "returned NoneType instead of str"),
            ("_hash_id", lambda id_: [][id_], r"raised IndexError \(test_overrides\.py, line \d+\)"),
            ("_get_pair_hash", lambda _: b"7", "returned bytes instead of str"),
            ("_get_pair_hash", lambda pair: pair.age, r"raised AttributeError \(test_overrides\.py, line \d+\)"),
        ],
    )
    def test_error_contains_no_value_and_nothing_is_published(
        self, application: Database, name: str, method: FunctionType, problem: str
    ) -> None:
        """Which method, what it did and where; the message is not chained to an error that could contain a value."""
        with application.engine.connect() as connection:
            processor = FeedbackProcessor(connection, "out", key=KEY)
            setattr(processor, name, method)
            with pytest.raises(
                ValidationError, match=f"^{name} is overridden, and {problem}; nothing was exp"
            ) as caught:
                processor.process_and_export(days_back=-1)
        assert CANARY not in all_said(caught.value)
        assert caught.value.__context__ is None
        assert row_files(Path("out")) == []

    def test_an_executor_does_not_get_them(self, application: Database) -> None:
        """A method knows its processor, and with it the database and the key."""
        with ThreadPoolExecutor() as pool, pytest.raises(UsageError, match="leave executor out"):
            export(application, FourRanges, executor=pool)

    def test_what_needs_to_know_all_rows_is_refused_elsewhere(self, application: Database) -> None:
        """Earlier exports are known by the built-in pair hash; parts do not know each other's rows."""
        with pytest.raises(UsageError, match="leave `incremental` out, or do not override _get_pair_hash"):
            export(application, OncePerPerson, incremental=True)
        for kind in (OncePerPerson, OwnHash):
            with pytest.raises(UsageError, match="name a folder, not an object store"):
                export(application, kind, output_dir="s3://bucket/exports")

    def test_they_are_kept_in_no_job_store(self) -> None:
        """A scheduler's options are plain values."""
        with pytest.raises(UsageError, match="overrides is determined anew for every export"):
            require_options({"overrides": Overrides()})


class TestNotOverridden:
    """All others are as fast as they were."""

    def test_a_subclass_without_such_methods_overrides_nothing(self) -> None:
        """Nor does one that names the built-in method itself."""

        class Named(FeedbackProcessor):
            _bucket_age = FeedbackProcessor._bucket_age

            def own(self) -> None:
                """An object of the application."""

        assert Named("sqlite://")._overrides() == Overrides() == FeedbackProcessor("sqlite://")._overrides()
        assert Overrides().names() == {}

    def test_an_incremental_export_takes_own_labels(self, application: Database) -> None:
        """Once; the next one has nothing new."""
        export(application, FourRanges, incremental=True)
        assert {*fe.scan_training("out").collect()["age_range"]} == {*FOUR, None}
        with application.engine.connect() as connection:
            again = FourRanges(connection, "out", key=KEY, incremental=True).process_and_export(days_back=-1)
        assert again.exported_records == 0


class TestOptions:
    """Options of `export_feedback`, and the settings."""

    def test_options_are_keywords(self, application: Database) -> None:
        """Those that every export can have; `_bucket_age` follows the edges."""
        path = export(application, age_edges=(30, 65), format="parquet", timestamp_precision="day", k=2)
        pairs = fe.scan_training("out").collect()
        assert path.suffix == ".parquet"
        assert pairs["age_range"].dtype == pl.Enum(["<30", "30-65", "65+"])
        assert pairs["feedback_timestamp"].dt.hour().unique().to_list() == [0]
        assert FeedbackProcessor("sqlite://", age_edges=[30, 65])._bucket_age(64) == "30-65"

    def test_the_settings_file_counts_and_keywords_come_before_it(self, application: Database) -> None:
        """As for servers and schedulers."""
        Path("feedback-etl.toml").write_text(
            'age_edges = [40]\noutput_dir = "configured"\ntimestamp_precision = "day"\n'
        )
        with application.engine.connect() as connection:
            processor = FeedbackProcessor(connection, key=KEY)
            assert processor.output_dir == Path("configured")
            assert processor._bucket_age(39) == "<40"
            processor.process_and_export(days_back=-1)
        pairs = fe.scan_training("configured").collect()
        assert pairs["age_range"].dtype == pl.Enum(["<40", "40+"])
        assert pairs["feedback_timestamp"].dt.hour().unique().to_list() == [0]
        export(application, age_edges=(50,))
        pairs = fe.scan_training("out").collect()
        assert pairs["age_range"].dtype == pl.Enum(["<50", "50+"])
        assert pairs["feedback_timestamp"].dt.hour().unique().to_list() == [0]

    def test_the_folder_can_be_assigned(self, application: Database) -> None:
        """As an attribute of the classic API can."""
        with application.engine.connect() as connection:
            processor = FeedbackProcessor(connection, key=KEY)
            processor.output_dir = "assigned"
            assert processor.process_and_export(days_back=-1).export_filename.startswith("assigned/")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"age_edgs": (30,)}, "no option age_edgs. Did you mean age_edges"),
            ({"age_edges": (65, 30)}, "age_edges must be ascending"),
            ({"days_back": 7}, "days_back cannot be set for all exports"),
            ({"idempotency_key": "1"}, "idempotency_key is determined anew"),
        ],
        ids=str,
    )
    def test_wrong_options_are_refused_at_once(self, options: dict[str, Any], message: str) -> None:
        """Not in the first night."""
        with pytest.raises(UsageError, match=message):
            FeedbackProcessor("sqlite://", **options)
