"""Small equivalence classes are generalised: nothing is below k, l or above t, and little is lost."""

import itertools
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from anonymity_checker import measured, pseudonym, published_rows
from databases import Database
from folders import NOW, exported
from processes import Here
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.cli.summary import format_summary
from feedback_etl.demo.sample import sample_database
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.k_anonymity import ClassCounter
from feedback_etl.privacy.release_plan import ReleasePlan, apply_changes, plan_release
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report.contracts import build_manifest_schema
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.training import Vocabulary, features, scan_training

NAMES = ("age_range", "conditions_detected", "timeframe", "feedback_timestamp")
WIDER = {"<25": 1.5, "25-50": 3.5, "<50": 2.5}
BY_MONTH: dict[str, Any] = {"timestamp_precision": "month", "quasi_identifiers": NAMES}
REFUSALS = {"suppress": "no row would be left", "generalize": "no (row|value) would be left", "fail": "is fail"}
WAYS = tuple(REFUSALS)
FORMS: list[dict[str, Any]] = [{}, {"format": "parquet"}, {"parted": True}]


def random_feedback(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Feedback of a few people in half a year; one analysis for each row."""
    rng = random.Random(seed)
    people = rng.randint(6, 60)
    profiles = [
        {"id": user, "user_id": user, "age": rng.choice([None, 16, 20, 24, 30, 40, 45, 60])}
        for user in range(1, people + 1)
    ]
    conditions = rng.sample([["acne"], ["acne", "dry"], ["dry"], ["dry", "red"], ["red"], []], rng.randint(1, 6))
    records = [
        {"id": number, "recommendation_id": f"rec_{number}", "conditions_analyzed": condition}
        for number, condition in enumerate(conditions, 1)
    ]
    feedbacks = [
        {
            "id": number,
            "analysis_id": number,
            "user_id": rng.randint(1, people),
            "recommendation_id": rng.randint(1, len(records)),
            "helpful_rating": rng.choice([None, 1, 5, 5]),
            "product_satisfaction": rng.choice([1, 3, 5, 5]),
            "routine_completion_pct": rng.choice([None, 0, 50, 100]),
            "would_recommend": rng.choice([True, True, False]),
            "timeframe": rng.choice([None, "1_week", "2_weeks", "3_months"]),
            "created_at": NOW - timedelta(hours=rng.randint(1, 24 * rng.choice([30, 180]))),
        }
        for number in range(1, rng.randint(20, 150))
    ]
    return {"records": records, "feedbacks": feedbacks, "profiles": profiles}


def random_limits(seed: int) -> dict[str, Any]:
    rng = random.Random(-seed)
    limits = {"k": rng.randint(2, 7), "l": rng.choice([None, 2, 3]), "t": rng.choice([None, 0.3, 0.6])}
    precision = rng.choice(["day", "week", "month", "quarter"])
    names = rng.choice([NAMES, NAMES[:3], ("feedback_timestamp", "age_range"), ("timeframe", "conditions_detected")])
    return limits | {"timestamp_precision": precision, "quasi_identifiers": names}


def contains(published: str, age: int | None) -> bool:
    """Whether a label of a range contains an age."""
    if published.startswith("<"):
        return age is not None and age < int(published[1:])
    low, _, high = published.partition("-")
    return age is not None and int(low.rstrip("+")) <= age < int(high or 131)


class TestIndependentCount:
    """k, l and t, counted again from the files and the database by code that shares nothing with the package."""

    @pytest.fixture
    def files(self, sqlite_database: Database, tmp_path: Path) -> Any:
        """Export in a way, and return the rows of the files and the report."""
        numbers = itertools.count()

        def export(**options: Any) -> tuple[list[dict[str, str | None]], Any]:
            folder = tmp_path / str(next(numbers))
            if options.pop("parted", False):
                with ThreadPoolExecutor(2) as executor:
                    report = exported(sqlite_database, folder, executor=executor, batch_size=7, **options)
            else:
                report = exported(sqlite_database, folder, batch_size=7, **options)
            found = Path(report.export_filename)
            return published_rows(sorted(found.glob("*")) if found.is_dir() else [found]), report

        return export

    @pytest.mark.parametrize(
        "seed",
        [
            *(0, 1, 4, 5, 6),
            *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, *range(7, 40))),
            *(pytest.param(n, marks=pytest.mark.torture) for n in range(40, 200)),
        ],
    )
    def test_no_published_class_violates_a_limit(self, sqlite_database: Database, files: Any, seed: int) -> None:
        """Random databases, limits and quasi-identifiers x all ways x CSV, Parquet, parts; most in the torture tier."""
        data, limits = random_feedback(seed), random_limits(seed)
        sqlite_database.fill(**data)
        for way, form in itertools.product(WAYS, FORMS):
            try:
                rows, report = files(on_small_class=way, **form, **limits)
            except ValidationError as error:
                assert re.search(REFUSALS[way], str(error))  # noqa: PT017
                continue
            counted = measured(rows, data["feedbacks"], KEY, limits["quasi_identifiers"], CLASSIC_SCHEMA.rating_names)
            assert counted.k >= limits["k"]
            assert counted.l >= (limits["l"] or 1)
            assert counted.t <= (limits["t"] or 1) + 1e-6
            assert len(rows) == report.exported_records
            assert report.total_feedback_records == report.exported_records + report.suppressed_records + (
                report.skipped_records + report.errors + report.deduplicated_records
            )
            assert report.risk["k"] == min(counted.k, 50 if limits["l"] is limits["t"] is None else counted.k)
            if limits["l"] or limits["t"]:
                assert min(each["l"] for each in report.risk["diversity"].values()) == counted.l
                assert max(each["t"] for each in report.risk["diversity"].values()) == pytest.approx(counted.t)

    @pytest.mark.parametrize("seed", range(3))
    def test_generalised_values_are_true(self, sqlite_database: Database, files: Any, seed: int) -> None:
        """A wider range contains the age, a period the time; the first condition is one; all else is as it was."""
        data = random_feedback(seed)
        sqlite_database.fill(**data)
        rows, report = files(k=6, on_small_class="generalize", **BY_MONTH)
        ages = {profile["user_id"]: profile["age"] for profile in data["profiles"]}
        conditions = {record["id"]: record["conditions_analyzed"] for record in data["records"]}
        feedbacks = {pseudonym(feedback["analysis_id"], KEY): feedback for feedback in data["feedbacks"]}
        cells: Counter[str] = Counter()
        for row in rows:
            feedback = feedbacks[str(row["analysis_hash"])]
            names = conditions[feedback["recommendation_id"]]
            start = datetime.fromisoformat(str(row["feedback_timestamp"])[:19])
            assert row["age_range"] is None or contains(row["age_range"], ages[feedback["user_id"]])
            assert row["conditions_detected"] in (None, ",".join(names), *names[:1])
            assert row["timeframe"] in (None, feedback["timeframe"])
            assert timedelta(0) <= feedback["created_at"] - start < timedelta(days=92)
            assert start.day == 1
            assert row["would_recommend"] == str(feedback["would_recommend"])
            cells["timeframe"] += row["timeframe"] != feedback["timeframe"]
            cells["conditions_detected"] += (row["conditions_detected"] or "") != ",".join(names)
        columns = report.risk["generalization"]["columns"]
        assert {name: sum(columns[name].values()) for name in cells} == cells

    def test_all_ways_of_writing_give_the_same_rows(self, sqlite_database: Database, files: Any) -> None:
        """CSV, Parquet, parts, and the frame in memory."""
        sqlite_database.fill(**random_feedback(2))
        options: dict[str, Any] = {"k": 5, "l": 2, "on_small_class": "generalize", **BY_MONTH}
        rows = [files(**options, **form)[0] for form in FORMS]
        loaded = fe.load_training(sqlite_database.url, days_back=-1, now=NOW, key=KEY, **options)
        found = [[[row[name] for name in NAMES[:3]] for row in each] for each in rows]
        assert found[0] == found[1] == found[2] == [list(row) for row in loaded.select(NAMES[:3]).rows()]


class TestSampleData:
    """What generalisation keeps of the sample data at k = 5, with months."""

    @pytest.mark.parametrize(("rows", "suppressed"), [(5_000, 0.63), (20_000, 0.09)])
    def test_all_rows_are_kept(self, rows: int, suppressed: float) -> None:
        """Suppression loses 63 % and 9 %."""
        with sample_database(rows, now=NOW) as url:
            options: dict[str, Any] = {"days_back": -1, "now": NOW, "key": KEY, "k": 5, **BY_MONTH}
            whole = fe.load_training(url, **options | {"k": None})
            kept = fe.load_training(url, **options, on_small_class="generalize")
            few = fe.load_training(url, **options)
        assert kept.height == whole.height
        assert 1 - few.height / whole.height == pytest.approx(suppressed, abs=0.02)
        empty = {name: (kept[name].null_count() - whole[name].null_count()) / whole.height for name in NAMES}
        assert all(share < 0.1 for share in empty.values())


def plan_of(table: pl.DataFrame, people: pl.Series, **options: Any) -> tuple[ReleasePlan, pl.DataFrame]:
    """The plan for a table, and the table that is published by it."""
    policy = KAnonymityPolicy(on_small_class="generalize", **options)
    counter = ClassCounter(policy.quasi_identifiers)
    counter.add(table, people)
    plan = plan_release(counter, policy)
    return plan, apply_changes(table, plan.changes, policy)


class TestPlan:
    """The decision, from the class table alone."""

    def test_the_last_column_is_generalised_first(self) -> None:
        """Classes that have k people keep their values; order of the rows makes no difference."""
        table = pl.DataFrame(
            {
                "age_range": ["18-25"] * 5 + ["25-35"] * 4,
                "timeframe": ["1_week"] * 3 + ["2_weeks", "3_weeks"] + ["1_week"] * 3 + [None],
            }
        )
        users, names = pl.Series(range(9)), ["age_range", "timeframe"]
        _, published = plan_of(table, users, k=3, quasi_identifiers=names)
        assert published["timeframe"].to_list() == ["1_week"] * 3 + [None] * 2 + ["1_week"] * 3 + [None]
        assert published["age_range"].to_list() == ["18-25"] * 3 + ["<50"] * 2 + ["25-35"] * 3 + ["<50"]
        order = random.Random(7).sample(range(9), 9)
        _, shuffled = plan_of(table[order], users[order], k=3, quasi_identifiers=names)
        assert shuffled.rows() == published[order].rows()

    def test_neighbouring_age_ranges_are_joined(self) -> None:
        """Two ranges, then four; an unbounded one last."""
        ages = ["<18", "18-25", "25-35", "35-50", "50+"]
        table = pl.DataFrame({"age_range": ages[:2] * 2 + ages[2:4] + ages[4:] * 4})
        _, published = plan_of(table, pl.Series(range(10)), k=4, quasi_identifiers=["age_range"])
        assert published["age_range"].cast(pl.String).to_list() == ["<25"] * 4 + [None] * 6

    def test_what_remains_takes_one_class_with_it(self) -> None:
        """A single person joins the smallest class that is large enough; the others stay as they are."""
        table = pl.DataFrame({"timeframe": ["a"] * 4 + ["b"] * 3 + ["c"]})
        plan, published = plan_of(table, pl.Series(range(8)), k=3, quasi_identifiers=["timeframe"])
        assert published["timeframe"].to_list() == ["a"] * 4 + [None] * 4
        assert plan.suppressed == 0

    def test_people_are_counted_over_joined_classes(self) -> None:
        """One person in three classes is one person when they are joined, and is dropped."""
        table = pl.DataFrame({"timeframe": ["a", "b", "c"], "recommendation_id": ["r"] * 3})
        with pytest.raises(ValidationError, match="3 of 3 rows"):
            plan_of(table, pl.Series([1, 1, 1]), k=2, quasi_identifiers=["recommendation_id", "timeframe"])

    def test_columns_that_are_never_null_are_not_emptied(self) -> None:
        """Rows of such a class are dropped."""
        table = pl.DataFrame({"recommendation_id": ["a"] * 3 + ["b"]})
        plan, published = plan_of(table, pl.Series(range(4)), k=3, quasi_identifiers=["recommendation_id"])
        assert (plan.suppressed, published["recommendation_id"].to_list()) == (1, ["a"] * 3)

    def test_own_hierarchies_come_before_emptying(self) -> None:
        """Level by level; a value without coarser ones stays until it is emptied."""
        table = pl.DataFrame({"timeframe": ["1_week", "2_weeks", "1_month", "other", "other", "last"]})
        weeks = {"1_week": ["weeks", "early"], "2_weeks": ["weeks", "early"], "1_month": ["months", "early"]}
        options: dict[str, Any] = {"quasi_identifiers": ["timeframe"], "hierarchies": {"timeframe": weeks}}
        _, published = plan_of(table[:5], pl.Series(range(5)), k=2, **options)
        assert published["timeframe"].to_list() == ["weeks"] * 2 + [None] * 3
        _, published = plan_of(table[:5], pl.Series(range(5)), k=1, **options)
        assert published.rows() == table[:5].rows()

    def test_information_loss_is_that_of_the_papers(self) -> None:
        """Gionis and Tassa (2009), LeFevre et al. (2006), calculated by hand."""
        table = pl.DataFrame({"timeframe": ["a"] * 4 + ["b"] * 2 + ["c"] * 2})
        plan, _ = plan_of(table, pl.Series(range(8)), k=4, quasi_identifiers=["timeframe"])
        loss = plan.measures["generalization"]
        whole = 4 * math.log2(8 / 4) + 4 * math.log2(8 / 2)
        assert loss["columns"] == {"timeframe": {"generalized": 0, "emptied": 4}}
        assert loss["non_uniform_entropy"] == pytest.approx(4 * math.log2(8 / 2) / whole)
        assert loss["average_class_size"] == 8 / (2 * 4)

    def test_weeks_and_quarters_follow_days(self) -> None:
        """A week begins on Monday; a level is calculated from the original day."""
        days = [datetime(2025, 9, 29), datetime(2025, 10, 5), datetime(2025, 10, 6), datetime(2025, 12, 31)]
        table = pl.DataFrame({"feedback_timestamp": days}, schema={"feedback_timestamp": pl.Datetime("us", "UTC")})
        options: dict[str, Any] = {"quasi_identifiers": ["feedback_timestamp"], "timestamp_precision": "day"}
        _, published = plan_of(table, pl.Series(range(4)), k=2, **options)
        found = published["feedback_timestamp"].dt.date().cast(pl.String).to_list()
        assert found == ["2025-09-29"] * 2 + ["2025-10-01"] * 2


def adult_table(rows: int = 30_162) -> pl.DataFrame:
    """A generated table of the size and the skew of the Adult data set: seven columns of categories."""
    rng = random.Random(7)
    falling = [1 / number for number in range(1, 42)]
    weights = {
        "sex": [2.0, 1.0],
        "race": [86.0, 9.0, 3.0, 1.0, 1.0],
        "marital_status": [share**1.2 for share in falling[:7]],
        "workclass": [share**1.8 for share in falling[:7]],
        "education": falling[:16],
        "occupation": [share**0.5 for share in falling[:14]],
        "country": [30.0, *falling[:40]],
    }
    return pl.DataFrame({name: rng.choices(range(len(each)), each, k=rows) for name, each in weights.items()}).cast(
        pl.String
    )


def suppress_locally(rows: list[tuple[Any, ...]], k: int) -> Iterator[tuple[tuple[Any, ...], tuple[int, ...]]]:
    """Reference: empty as few cells as possible, by all sets of columns from the smallest on; the rest is dropped."""
    published, left = Counter(rows), Counter[tuple[Any, ...]]()
    for row, count in list(published.items()):
        if count < k:
            left[row] = published.pop(row)
    width = len(rows[0])
    for size in range(1, width + 1):
        for emptied in itertools.combinations(reversed(range(width)), size):
            groups = defaultdict(list)
            for row in left:
                groups[tuple(None if number in emptied else value for number, value in enumerate(row))].append(row)
            for group, members in groups.items():
                if published[group] + sum(left[row] for row in members) >= k:
                    for row in members:
                        published[group] += left[row]
                        yield from [(row, emptied)] * left.pop(row)
    yield from ((row, tuple(range(width))) for row in left.elements())


@pytest.mark.parametrize("width", [5, pytest.param(7, marks=pytest.mark.slow)])
def test_loss_is_within_reach_of_local_suppression(width: int) -> None:
    """At k = 5: at most 5 % more information is lost than by a search over all sets of columns; nothing is dropped."""
    table = adult_table().select(adult_table(1).columns[:width])
    columns = [ExtraColumn(name, "quasi_identifier") for name in table.columns]
    plan, published = plan_of(
        table,
        pl.Series(range(table.height)),
        k=5,
        quasi_identifiers=table.columns,
        schema=CLASSIC_SCHEMA.with_extra_columns(columns),
    )
    rows = table.rows()
    shares = [{value: math.log2(len(rows) / count) for value, count in Counter(column).items()} for column in table]
    lost = sum(shares[number][row[number]] for row, emptied in suppress_locally(rows, 5) for number in emptied)
    reference = lost / sum(shares[number][value] for row in rows for number, value in enumerate(row))
    assert plan.suppressed == 0
    assert min(Counter(published.rows()).values()) >= 5
    assert plan.measures["generalization"]["non_uniform_entropy"] <= 1.05 * reference


class TestReaders:
    """Readers of a generalised export: contract, data set, features."""

    def test_contract_and_features_accept_wider_ranges(self, sqlite_database: Database, tmp_path: Path) -> None:
        """The schema lists them, and a wider range has the mean rank; an export beside it has the usual ranges."""
        sqlite_database.fill(**random_feedback(3))
        options: dict[str, Any] = {"timestamp_precision": "month", "quasi_identifiers": ("timeframe", "age_range")}
        exported(sqlite_database, tmp_path, k=6, on_small_class="generalize", **options)
        exported(sqlite_database, tmp_path, now=NOW + timedelta(hours=1), **options)
        manifests = list_manifests(tmp_path)
        assert manifests[0].settings["on_small_class"] == "generalize"
        assert "25-50" in build_manifest_schema(manifests[0])["properties"]["age_range"]["enum"]
        assert "25-50" not in build_manifest_schema(manifests[1])["properties"]["age_range"]["enum"]
        for path in (manifests[0].stem + ".csv", ""):
            pairs = scan_training(tmp_path / path).collect()
            encoded = features(pairs, vocabulary=Vocabulary.fit(pairs))
            ages = dict(zip(pairs["age_range"].cast(pl.String), encoded["age"], strict=True))
            ranks = {
                None: 0,
                "<18": 1,
                "18-25": 2,
                "25-35": 3,
                "35-50": 4,
                "50+": 5,
                "<25": 1.5,
                "25-50": 3.5,
                "<50": 2.5,
            }
            assert ages == {name: ranks[name] for name in ages}
        assert {*scan_training(tmp_path / (manifests[0].stem + ".csv")).collect()["age_range"]} & {
            "<25",
            "25-50",
            "<50",
        }

    def test_erasure_removes_rows_of_a_generalised_export(self, sqlite_database: Database, tmp_path: Path) -> None:
        """It finds rows by their pseudonyms, and k of what is left."""
        sqlite_database.fill(**random_feedback(3))
        exported(sqlite_database, tmp_path, k=4, on_small_class="generalize", **BY_MONTH)
        before = scan_training(tmp_path).collect().height
        fe.privacy.erase(tmp_path, analysis_ids=[1], keys=KEY)
        assert scan_training(tmp_path).collect().height == before - 1


class TestOptions:
    """Settings and flags."""

    @pytest.fixture
    def here(
        self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sqlite_database: Database
    ) -> Here:
        """Runs command lines in this process."""
        sqlite_database.fill(**random_feedback(2))
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        return Here(capfd, monkeypatch)

    def test_flags_and_hierarchies_of_the_settings_apply(self, here: Here) -> None:
        """`[hierarchies.COLUMN]` contains the coarser values of each value."""
        Path("feedback-etl.toml").write_text(
            'quasi_identifiers = ["timeframe"]\n[hierarchies.timeframe]\n1_week = ["weeks"]\n2_weeks = ["weeks"]\n'
        )
        flags = ("--k", "20", "--l", "2", "--t", "0.9", "--on-small-class", "generalize")
        ended = here("export", "--days", "-1", "--json", *flags)
        assert ended.code == 0, ended.err
        report = json.loads(ended.out)
        assert {row["timeframe"] for row in published_rows([Path(report["export_filename"])])} <= {
            *(None, "weeks", "1_week", "2_weeks", "3_months")
        }
        assert report["risk"]["diversity"]["would_recommend"]["l"] >= 2
        settings = list_manifests(Path("ml/feedback_training"))[0].settings
        assert (settings["l"], settings["t"], settings["on_small_class"]) == (2, 0.9, "generalize")
        assert "weeks" not in json.dumps(settings)  # only the digest of the hierarchies

    def test_summary_counts_the_changed_cells(self, here: Here) -> None:
        """It has the figures of the manifest."""
        ended = here("export", "--days", "-1", "--k", "5", "--on-small-class", "generalize")
        measured = list_manifests(Path("ml/feedback_training"))[0].risk["generalization"]
        lines = dict(line.split(maxsplit=1) for line in ended.err.splitlines() if line[0] != " ")
        for label, figure in (("coarser", "generalized"), ("emptied", "emptied")):
            changed = {name: cells[figure] for name, cells in measured["columns"].items() if cells[figure]}
            assert lines.get(label, "") == ", ".join(f"{name} {count:,}" for name, count in changed.items())
        assert lines["loss"].startswith(f"{measured['non_uniform_entropy']:.1%} of the information")
        assert {"coarser", "emptied"} & lines.keys()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"l": 2}, "`l` and `t` have no effect without `k`"),
            ({"t": 0.3}, "`l` and `t` have no effect without `k`"),
            ({"k": 5, "l": 0}, "`l` must be"),
            ({"k": 5, "t": 1.5}, "`t` must be"),
            ({"hierarchies": {"age_range": {"18-25": ["young"]}}}, "age_edges define age ranges"),
            ({"hierarchies": {"timeframe": {"1_week": []}}}, "each value of timeframe"),
            ({"hierarchies": {"timeframe": {"1_week": ["=1+1"]}}}, "each value of timeframe"),
            ({"hierarchies": {"timeframe": {"1_week": [""]}}}, "each value of timeframe"),
        ],
    )
    def test_invalid_options_are_refused(self, tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
        """Before anything is read."""
        with pytest.raises(UsageError, match=message):
            fe.export_feedback("sqlite:///nowhere.db", key=KEY, output_dir=tmp_path / "out", **wrong)


def test_column_is_not_emptied_unnoticed(sqlite_database: Database, tmp_path: Path) -> None:
    """All rows would stay, but no timeframe: refused with l, and reported; nor are more values emptied than allowed."""
    rows = [
        {**dict.fromkeys(("id", "user_id", "analysis_id"), user), "recommendation_id": 1, "helpful_rating": 5}
        | {"timeframe": f"{min(user, 8)}_weeks", "created_at": NOW}
        for user in range(1, 12)
    ]
    sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}], feedbacks=rows)
    url, now = sqlite_database.url, NOW + timedelta(1)
    options: dict[str, Any] = {"on_small_class": "generalize", "output_dir": tmp_path, "now": now, "key": KEY}
    remedy = r"no value would be left\. Export more rows, or lower `k` or `l`\.$"
    with pytest.raises(ValidationError, match=rf"11 of 11 values of timeframe .* {remedy}"):
        fe.export_feedback(url, k=5, l=1, **options)
    with pytest.raises(ValidationError, match=r"Export more rows, lower `k` or `l`, or raise `t`\.$"):
        fe.export_feedback(url, k=5, l=1, t=0.9, **options)
    remedy = r"`max_suppressed` allows 0\.5\. Export more rows, lower `k`, or raise `max_suppressed`\.$"
    with pytest.raises(ValidationError, match=rf"7 of 11 values of timeframe .* {remedy}"):
        fe.export_feedback(url, k=4, max_suppressed=0.5, **options)
    for changed in ({"k": 4, "l": 1}, {"k": 1, "max_suppressed": 0.5}, {"k": 4, "max_suppressed": 0.7}):
        assert fe.export_feedback(url, **changed, **options).exported_records == 11
    report = fe.export_feedback(url, k=5, **options)
    assert report.risk["generalization"]["empty_columns"] == ["timeframe"]
    assert "           timeframe: no value is left" in [*format_summary(report, 1)]
    report = fe.export_feedback(url, k=4, **options)
    assert (report.exported_records, report.suppressed_records) == (11, 0)
