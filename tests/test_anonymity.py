"""k-anonymity: people per equivalence class are counted by person, and k is enforced before a file exists."""

import json
import random
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, rows_of, visible
from frames import raw_frame
from hypothesis import given
from hypothesis import strategies as st
from processes import Here
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.options.export import ExportOptions
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import ClassCounter, drop_small_classes
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.classic import CLASSIC_SCHEMA


def feedback(*classes: tuple[int | None, int, int]) -> dict[str, list[dict[str, Any]]]:
    """Feedback of classes: an age, so many people, so many rows each."""
    feedbacks: list[dict[str, Any]] = []
    profiles: list[dict[str, Any]] = []
    for age, people, rows in classes:
        for _ in range(people):
            user = len(profiles) + 1
            profiles.append({"id": user, "user_id": user, "age": age})
            for _ in range(rows):
                number = len(feedbacks) + 1
                times = {"created_at": NOW - timedelta(minutes=number)}
                ids = {"id": number, "user_id": user, "analysis_id": number, "recommendation_id": 1}
                feedbacks.append({**ids, **times, "helpful_rating": 5})
    return {"records": [{"id": 1, "recommendation_id": "rec_1"}], "feedbacks": feedbacks, "profiles": profiles}


class TestMeasuredK:
    """The report and the manifest of every export contain k."""

    def test_k_counts_people_instead_of_rows(self, database: Database, tmp_path: Path) -> None:
        """Two users with ten rows each in their own class are k = 1, not 10."""
        database.fill(**feedback((20, 1, 10), (30, 1, 10)))
        report = exported(database, tmp_path)
        (manifest,) = list_manifests(tmp_path)
        assert report.risk == manifest.risk
        assert report.risk == {
            **{"k": 1, "at_least": False, "required_k": None, "classes": 2, "stale": False},
            **{"rows_in_classes_under_5": 20, "people_in_classes_under_5": 2, "share_unique": 1.0},
            **{"average_risk": 1.0, "highest_risk": 1.0, "quasi_identifiers": list(CLASSIC_SCHEMA.quasi_identifiers)},
        }

    def test_people_are_counted_up_to_a_cap(self, sqlite_database: Database, tmp_path: Path) -> None:
        """More make no difference; the report says that it is at least so many."""
        sqlite_database.fill(**feedback((20, 60, 1)))
        assert exported(sqlite_database, tmp_path, batch_size=7).risk["at_least"]
        asked = exported(sqlite_database, tmp_path, k=60)
        assert (asked.risk["k"], asked.risk["at_least"], asked.suppressed_records) == (60, True, 0)

    def test_k_is_stale_after_an_erasure(self, sqlite_database: Database, tmp_path: Path) -> None:
        """The classes are smaller now, and who was in which is not stored."""
        sqlite_database.fill(**feedback((20, 5, 1)))
        exported(sqlite_database, tmp_path)
        fe.privacy.erase(tmp_path, analysis_ids=[1], keys=KEY)
        assert list_manifests(tmp_path)[0].risk["stale"] is True


class TestEnforcedK:
    """Small classes are suppressed, or the export fails, before a file exists."""

    @pytest.mark.sample("sqlite-2-{'format': 'parquet'}", "sqlite-65536-{'format': 'csv'}")
    @pytest.mark.any_database
    @pytest.mark.parametrize("form", FORMS, ids=str)
    @pytest.mark.parametrize("batch_size", [2, 65_536])
    def test_small_classes_are_suppressed(
        self, database: Database, tmp_path: Path, form: dict[str, Any], batch_size: int
    ) -> None:
        """No other class is; null is a value of its own; no spooled row remains."""
        database.fill(**feedback((20, 3, 2), (30, 2, 9), (None, 4, 1)))
        report = exported(database, tmp_path / "out", k=3, batch_size=batch_size, **form)
        assert (report.exported_records, report.suppressed_records, report.anonymized_records) == (10, 18, 28)
        assert report.total_feedback_records == 28
        assert (report.risk["k"], report.risk["required_k"], report.risk["classes"]) == (3, 3, 2)
        ages = rows_of(Path(report.export_filename))["age_range"]
        assert sorted(ages.fill_null("")) == [""] * 4 + ["18-25"] * 6
        assert len(visible(tmp_path / "out")) == 2  # the rows and their manifest
        assert not list((tmp_path / "out").rglob("*.spool*"))
        loaded = fe.load_training(database.url, days_back=-1, now=NOW, key=KEY, k=3)
        assert loaded.height == 10

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"on_small_class": "fail"}, "`on_small_class` is fail"),
            ({"max_suppressed": 0.1}, "`max_suppressed` allows 0.1"),
            ({"k": 100}, "no row would be left"),
        ],
    )
    def test_export_fails_when_suppression_is_not_allowed(
        self, sqlite_database: Database, tmp_path: Path, options: dict[str, Any], why: str
    ) -> None:
        """Nothing is published by on_small_class="fail", above max_suppressed, and where no row would remain."""
        sqlite_database.fill(**feedback((20, 5, 2), (30, 2, 2)))
        with pytest.raises(ValidationError, match=rf"^Nothing was exported: \d+ of 14 rows .*{why}"):
            exported(sqlite_database, tmp_path / "out", **{"k": 5} | options)
        assert visible(tmp_path / "out") == []

    def test_without_small_classes_k_changes_nothing(self, sqlite_database: Database, tmp_path: Path) -> None:
        """The file is the same, byte for byte."""
        sqlite_database.fill(**feedback((20, 5, 2), (30, 6, 2)))
        files = [exported(sqlite_database, tmp_path, k=k).export_filename for k in (None, 5)]
        assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"k": 0},
            {"k": True},
            {"k": 2.5},
            {"k": 10**6},
            {"on_small_class": "hide"},
            {"max_suppressed": 1.5},
            {"quasi_identifiers": ["zip"]},
            {"quasi_identifiers": []},
            {"timestamp_precision": "year"},
        ],
    )
    def test_invalid_options_are_refused(self, tmp_path: Path, wrong: dict[str, Any]) -> None:
        """Before anything is read: a mistake must not leave people exposed."""
        with pytest.raises(UsageError, match=next(iter(wrong))):
            fe.export_feedback("sqlite:///nowhere.db", key=KEY, output_dir=tmp_path / "out", **wrong)
        assert not (tmp_path / "out").exists()


ROWS = st.lists(
    st.tuples(st.sampled_from([10, 20, 30, None]), st.sampled_from(["1_week", "2_weeks", None]), st.integers(0, 6)),
    min_size=1,
    max_size=40,
)


@given(ROWS, st.integers(1, 5), st.integers(1, 9), st.sampled_from([["age_range"], ["timeframe", "age_range"]]))
def test_no_class_has_fewer_than_k_people(
    rows: list[tuple[int | None, str | None, int]], k: int, batch: int, names: list[str]
) -> None:
    """For random data, quasi-identifiers and batch sizes, with nulls; no more rows are suppressed than necessary."""
    raw = raw_frame(
        *(
            {"feedback_id": n, "analysis_id": n, "age": age, "timeframe": time, "user_id": user or None}
            for n, (age, time, user) in enumerate(rows)
        )
    )
    options = ExportOptions.from_keywords(min_feedback_fields=0, k=k, quasi_identifiers=names)
    processor = BatchProcessor(TransformOptions.from_options(options, NOW, Key(KEY)))
    pairs = pl.concat([processor.process(part).pairs for part in raw.iter_slices(batch)])
    classes: dict[tuple[Any, ...], set[int | None]] = defaultdict(set)
    row_classes = list(pairs.select(names).rows())
    for row_class, (*_, user) in zip(row_classes, rows, strict=True):
        classes[row_class].add(user or None)
    expected = [len(classes[row_class]) >= k for row_class in row_classes]
    if not any(expected):
        with pytest.raises(ValidationError):
            processor.plan_release()
        return
    kept = drop_small_classes(pairs, processor.plan_release(), names)
    assert kept["analysis_hash"].to_list() == pairs.filter(pl.Series(expected))["analysis_hash"].to_list()


def test_people_are_distinguished_when_the_type_of_their_ids_changes() -> None:
    """As a source without types may give them: a number in one batch, text in the next."""
    people = ClassCounter(["age_range"])
    people.add(pl.DataFrame({"age_range": ["a", "a"]}), pl.Series([1, 2]))
    people.add(pl.DataFrame({"age_range": ["a", "a"]}), pl.Series(["2", "x"]))
    assert people.classes().rows() == [("a", 3, 4)]


def test_many_rows_of_one_person_count_once() -> None:
    """Also with more rows than the cap, in one batch and in several."""
    people = ClassCounter(["age_range"], cap=10)
    for _ in range(2):
        people.add(pl.DataFrame({"age_range": ["a"] * 20}), pl.Series([1] * 20))
    assert people.classes().rows() == [("a", 1, 40)]


def test_class_above_the_cap_is_only_a_count() -> None:
    """In a batch, between batches, or between tasks; its people are not recorded any more."""
    ages = pl.Series([str(number % 100) for number in range(100_000)])
    people = ClassCounter(["age_range"], cap=10)
    for first in range(0, 100_000, 20_000):
        batch = ages[first : first + 20_000]
        people.add(pl.DataFrame({"age_range": batch}), pl.Series(range(first, first + 20_000)))
    people.add(pl.DataFrame({"age_range": ["rare"] * 4}), pl.Series([1, 2, 2, None]))
    people_digests = people.to_digests(Key(KEY))
    assert len(people_digests) < 2_000  # a digest alone has 8 bytes
    merged = people.empty_copy()
    other = people.empty_copy()
    other.add(pl.DataFrame({"age_range": ["rare"] * 7 + ["1"]}), pl.Series([2, 3, 4, 5, 6, 7, 8, 9]))
    for digests in (people_digests, other.to_digests(Key(KEY))):
        merged.merge_digests(digests)
    sizes = {age: (count, rows) for age, count, rows in merged.classes().rows()}
    assert sizes.pop("rare") == (9, 11)  # 1 to 8, and one who is unknown
    assert sizes.pop("1") == (10, 1_001)
    assert set(sizes.values()) == {(10, 1_000)}


class TestTimes:
    """`timestamp_precision`, after duplicates are dropped."""

    def test_times_are_truncated(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Rows of one hour stay different rows; the manifest records the precision."""
        sqlite_database.fill(**feedback((20, 3, 2)))
        report = exported(sqlite_database, tmp_path, timestamp_precision="hour")
        times = rows_of(Path(report.export_filename))["feedback_timestamp"]
        assert (times.to_list(), report.deduplicated_records) == (["2025-10-25T11:00:00"] * 6, 0)
        assert list_manifests(tmp_path)[0].settings["timestamp_precision"] == "hour"

    @pytest.mark.parametrize(
        ("precision", "start"), [("week", "2025-10-20"), ("month", "2025-10-01"), ("quarter", "2025-10-01")]
    )
    def test_coarse_precisions_are_starts_of_periods(
        self, sqlite_database: Database, tmp_path: Path, precision: Any, start: str
    ) -> None:
        """25 October 2025 is a Saturday; a week begins on Monday."""
        sqlite_database.fill(**feedback((20, 3, 2)))
        report = exported(sqlite_database, tmp_path, timestamp_precision=precision)
        assert {*rows_of(Path(report.export_filename))["feedback_timestamp"]} == {f"{start}T00:00:00"}

    def test_documented_share_of_unique_times(self) -> None:
        """At 1,000 rows a day at random: what docs/privacy.md says."""
        generator = random.Random(7)
        share = {"exact": 0.0, "hour": 0.0}
        for _ in range(20):
            seconds = [generator.randrange(86_400) * 1_000_000 for _ in range(1000)]
            times = pl.DataFrame({"feedback_timestamp": pl.Series(seconds).cast(pl.Datetime("us", "UTC"))})
            for precision in share:
                unique = fe.privacy.coarsen(times, precision)["feedback_timestamp"].is_unique()  # type: ignore[arg-type]
                share[precision] += int(unique.sum()) / 20_000
        assert share["exact"] == pytest.approx(0.989, abs=0.002)
        assert share["hour"] == 0


class TestShare:
    """`--share`, and the settings."""

    @pytest.fixture
    def here(
        self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sqlite_database: Database
    ) -> Here:
        """Runs command lines in this process, on a database of two classes."""
        sqlite_database.fill(**feedback((20, 6, 2), (30, 2, 2)))
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", OTHER_KEY)
        return Here(capfd, monkeypatch)

    def test_share_applies_its_preset(self, here: Here) -> None:
        """Five people, months, known to the attacker; small classes generalised; pseudonyms for recommendations."""
        ended = here("export", "--days", "-1", "--share", "--recipient", "acme", "--output", "shared", "--json")
        report = json.loads(ended.out)
        assert (ended.code, report["exported_records"], report["suppressed_records"]) == (0, 16, 0)
        assert report["risk"]["quasi_identifiers"] == [*CLASSIC_SCHEMA.quasi_identifiers, "feedback_timestamp"]
        rows = rows_of(Path(report["export_filename"]))
        assert {*rows["feedback_timestamp"]} == {"2025-10-01T00:00:00"}
        assert rows["recommendation_id"].str.len_bytes().unique().to_list() == [16]

    def test_settings_apply_and_flags_override_them(self, here: Here) -> None:
        """A flag takes precedence over the settings file."""
        Path("feedback-etl.toml").write_text('k = 3\nquasi_identifiers = ["age_range"]\ntimestamp_precision = "day"\n')
        report = json.loads(here("export", "--days", "-1", "--json", "--k", "2").out)
        assert (report["suppressed_records"], report["risk"]["required_k"]) == (0, 2)
        assert here("export", "--days", "-1", "--on-small-class", "fail").code == 4
