"""k over a series, recounted by an independent checker from the published files and the database of random series."""

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from anonymity_checker import measured, pseudonym, published_rows
from databases import Database
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.storage.location import open_storage

NOW, DAY = datetime(2025, 10, 25, 12), timedelta(days=1)
NAMES = ("age_range", "conditions_detected", "timeframe")
CONDITIONS = {1: ["acne"], 2: ["acne", "dry"], 3: ["dry"]}
AGES = {20: "18-25", 30: "25-35"}
USERS = range(1, 13)


class Night(NamedTuple):
    """What a random series does on a day: rows as (user, recommendation, timeframe), and who is erased after it."""

    day: int
    rows: list[tuple[int, int, str | None]]
    erased: list[int]


class Draw(NamedTuple):
    """A random series: its folder, its options and its nights."""

    place: str
    options: dict[str, Any]
    max_pending: int
    nights: list[Night]


def draw_series(seed: int, *, has_erasures: bool = False) -> Draw:
    """Draw a series; its place and way follow from the seed, so that all of them have their turn."""
    draw = random.Random(seed)
    place, way = ("csv", "parquet", "store")[seed % 3], ("suppress", "generalize", "fail")[seed // 3 % 3]
    max_pending = draw.choice([0, 2, 90, 90])
    nights = []
    for day in range(1, draw.randint(4, 7)):
        people = draw.sample(USERS, draw.randint(0, 6))
        rows = [(user, draw.choice([1, 1, 2, 3]), draw.choice(["1_week", "1_week", None])) for user in people]
        erased = draw.sample(USERS, draw.choice([0, 0, 1, 2])) if has_erasures else []
        nights.append(Night(day, rows, erased))
    options = {"k": draw.choice([2, 3]), "on_small_class": way, "max_pending": f"{max_pending}d"}
    return Draw(place, options | ({"format": "parquet"} if place == "parquet" else {}), max_pending, nights)


class Series:
    """A database and the exports of it."""

    def __init__(self, app: Database, place: str, options: dict[str, Any]) -> None:
        self.app, self.place, self.options = app, place, options
        self.feedbacks = list[dict[str, Any]]()

    def export(self, night: Night) -> ExportReport:
        """Insert the rows of a night and export them; an analysis is a row."""
        rows = [
            {
                **{"id": night.day * 100 + user, "user_id": user, "analysis_id": night.day * 100 + user},
                **{"recommendation_id": recommendation, "helpful_rating": 5, "timeframe": timeframe},
                "created_at": NOW + night.day * DAY - timedelta(minutes=user),
            }
            for user, recommendation, timeframe in night.rows
        ]
        self.app.fill(feedbacks=rows)
        self.feedbacks += rows
        with self.app.engine.connect() as connection:
            usual: dict[str, Any] = {"incremental": True, "days_back": 30, "key": KEY, "output_dir": self.place}
            return fe.export_feedback(connection, now=NOW + night.day * DAY, **usual | self.options)

    def read(self) -> list[dict[str, str | None]]:
        """The rows of all exports, without the package's readers."""
        storage = open_storage(self.place)
        paths = [file.path for manifest in list_manifests(storage) for file in manifest.all("pairs")]
        with ExitStack() as stack:
            return published_rows([stack.enter_context(storage.local_copy(path)) for path in paths])

    def recount(self) -> int:
        """The fewest people of a class over all files; a large number without any."""
        rows = self.read()
        return measured(rows, self.feedbacks, KEY, NAMES, []).k if rows else 10**9


@contextmanager
def opened(app: Database, draw: Draw, folder: Path, bucket_url: str) -> Iterator[Series]:
    """Yield the series of a draw, whose application has a few recommendations and users with ages."""
    app.fill(
        records=[{"id": n, "recommendation_id": f"rec_{n}", "conditions_analyzed": c} for n, c in CONDITIONS.items()],
        profiles=[{"id": user, "user_id": user, "age": 20 if user % 2 else 30} for user in USERS],
    )
    yield Series(app, bucket_url if draw.place == "store" else str(folder), draw.options)


class Model:
    """What has to leave, in plain Python: classes are counted over all rows that left, wait or are new."""

    def __init__(self, k: int, max_pending: int) -> None:
        self.k, self.max_pending = k, max_pending
        self.waiting = list[tuple[int, int, Any]]()
        self.left = dict[str, Any]()
        self.people = defaultdict[Any, set[int]](set)

    def add(self, night: Night) -> int:
        """Add the rows of a night; return how many are pending for too long."""
        for user, recommendation, timeframe in night.rows:
            age = AGES[20 if user % 2 else 30]
            self.waiting.append((night.day, user, (age, ",".join(CONDITIONS[recommendation]), timeframe)))
        counted = defaultdict[Any, set[int]](set, {name: {*people} for name, people in self.people.items()})
        for _, user, name in self.waiting:
            counted[name].add(user)
        waiting, self.waiting = self.waiting, []
        expired = 0
        for day, user, name in waiting:
            if len(counted[name]) >= self.k:
                self.left[pseudonym(day * 100 + user, KEY)] = name
                self.people[name].add(user)
            elif night.day - day >= self.max_pending:
                expired += 1
            else:
                self.waiting.append((day, user, name))
        return expired


SEEDS = [
    *(0, 2, 4, 8),
    *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 5, 6, 7, *range(9, 18))),
    *(pytest.param(n, marks=pytest.mark.torture) for n in range(18, 200)),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_class_of_a_series_has_fewer_people(
    sqlite_database: Database, tmp_path: Path, bucket_url: str, seed: int
) -> None:
    """In CSV, Parquet and an object store, all ways; whoever shares a class with k people has left."""
    draw = draw_series(seed)
    model, has_generalized = Model(draw.options["k"], draw.max_pending), False
    with opened(sqlite_database, draw, tmp_path / "exports", bucket_url) as series:
        for night in draw.nights:
            expired, way = model.add(night), draw.options["on_small_class"]
            if expired and way == "fail":
                with pytest.raises(ValidationError, match="--max-pending has passed"):
                    series.export(night)
                return
            report = series.export(night)
            rows = series.read()
            by_analysis = {row["analysis_hash"]: tuple(row[name] for name in NAMES) for row in rows}
            assert len(by_analysis) == len(rows)
            assert series.recount() >= model.k
            assert report.total_feedback_records == report.exported_records + report.suppressed_records + (
                report.pending_records
            )
            has_generalized = has_generalized or (expired > 0 and way == "generalize")
            if has_generalized:  # of which the model knows nothing
                assert {*by_analysis} <= {pseudonym(row["analysis_id"], KEY) for row in series.feedbacks}
                continue
            assert by_analysis == model.left
            assert (report.suppressed_records, report.pending_records) == (expired, len(model.waiting))


def erase_at_night(series: Series, erased: list[int], k: int) -> None:
    """Erase users and keep k."""
    users = [user for user in erased if any(row["user_id"] == user for row in series.feedbacks)]
    fe.privacy.erase(series.place, user_ids=users, keep_k=True, database=series.app.url, keys=[Key(KEY)])
    gone = {pseudonym(row["analysis_id"], KEY) for row in series.feedbacks if row["user_id"] in users}
    assert not gone & {row["analysis_hash"] for row in series.read()}
    assert series.recount() >= k


def keep_k_over_a_series(app: Database, draw: Draw, folder: Path, bucket_url: str) -> None:
    """Run the nights of a series with erasures, until its policy refuses one."""
    with opened(app, draw, folder, bucket_url) as series, suppress(ValidationError):
        for night in draw.nights:
            series.export(night)
            assert series.recount() >= draw.options["k"]
            if night.erased:
                erase_at_night(series, night.erased, draw.options["k"])


@pytest.mark.parametrize(
    "seed", [0, 20, *(pytest.param(n, marks=pytest.mark.torture) for n in range(1, 60) if n != 20)]
)
def test_keep_k_holds_over_a_series(sqlite_database: Database, tmp_path: Path, seed: int) -> None:
    """For any erased person, and the others in any files of the series."""
    draw = draw_series(seed, has_erasures=True)
    place = "csv" if draw.place == "store" else draw.place
    keep_k_over_a_series(sqlite_database, draw._replace(place=place), tmp_path / "exports", "")


@pytest.mark.parametrize(
    "seed",
    [
        *(0, 1),
        *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 6)),
        *(pytest.param(n, marks=pytest.mark.torture) for n in range(6, 200)),
    ],
)
def test_k_holds_where_pending_rows_are_generalised(sqlite_database: Database, tmp_path: Path, seed: int) -> None:
    """With released rows of the same night and of earlier ones, also after erasures; the values are true ones."""
    draw = draw_series(seed, has_erasures=seed % 2 == 1)
    limits = {"on_small_class": "generalize", "max_pending": f"{1 + seed % 3}d"}
    draw = draw._replace(place=("csv", "parquet")[seed % 2], options=draw.options | limits)
    with opened(sqlite_database, draw, tmp_path / "exports", "") as series:
        for night in draw.nights:
            series.export(night)
            assert series.recount() >= draw.options["k"]
            assert_true_values(series)
            if night.erased:
                erase_at_night(series, night.erased, draw.options["k"])


def assert_true_values(series: Series) -> None:
    """Each value is that of the row, a coarser one, or none."""
    feedbacks = {pseudonym(row["analysis_id"], KEY): row for row in series.feedbacks}
    for row in series.read():
        feedback = feedbacks[str(row["analysis_hash"])]
        age, conditions = AGES[20 if feedback["user_id"] % 2 else 30], CONDITIONS[feedback["recommendation_id"]]
        assert row["age_range"] in {age, {"18-25": "<25", "25-35": "25-50"}[age], "<50", None}
        assert row["conditions_detected"] in {",".join(conditions), conditions[0], None}
        assert row["timeframe"] in {feedback["timeframe"], None}


@pytest.mark.slow
@pytest.mark.served_store
@pytest.mark.parametrize("seed", [2, 5, 11])
def test_keep_k_holds_over_a_series_of_a_store(
    sqlite_database: Database, tmp_path: Path, bucket_url: str, seed: int
) -> None:
    """Polars reads its files there."""
    draw = draw_series(seed, has_erasures=True)
    assert draw.place == "store"
    keep_k_over_a_series(sqlite_database, draw, tmp_path / "exports", bucket_url)
