"""The sample database: the same each time, realistic, and never written over another file."""

import sqlite3
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from feedback_etl.database import tables
from feedback_etl.demo.data import CHUNK_ROWS, generate_tables
from feedback_etl.demo.sample import APPLICATION_ID, DEMO_KEY, create_sample_database
from feedback_etl.errors import ExportFileError, UsageError

NOW = datetime(2025, 10, 25, 12, 0, 0, 123456)
ROWS = 5_000
RATINGS = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend")
UNRATED = " AND ".join(f"{rating} IS NULL" for rating in RATINGS)
JOINED = "recommendation_feedbacks f JOIN recommendation_records r ON r.id = f.recommendation_id"

Query = Callable[[str], list[Any]]


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def select(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.db"
    create_sample_database(path, rows=ROWS, now=NOW)
    return path


@pytest.fixture(scope="module")
def query(sample: Path) -> Query:
    return lambda sql: select(sample, sql)


@pytest.fixture(scope="module")
def share(query: Query) -> Callable[[str], float]:
    """The share of feedback rows that meet a condition."""

    def measure(condition: str) -> float:
        ((count,),) = query(f"SELECT count(*) FROM recommendation_feedbacks WHERE {condition}")
        return int(count) / ROWS

    return measure


def test_same_arguments_give_same_content(sample: Path, tmp_path: Path) -> None:
    """Rows, seed and now decide everything in the database."""
    create_sample_database(tmp_path / "again.db", rows=ROWS, now=NOW)
    assert dump(tmp_path / "again.db") == dump(sample)


@pytest.mark.parametrize("change", [{"seed": 8}, {"now": datetime(2025, 10, 26)}, {"rows": 51}])
def test_other_arguments_give_other_content(tmp_path: Path, change: dict[str, object]) -> None:
    """Each of the three arguments has an effect."""
    arguments: dict[str, object] = {"rows": 50, "seed": 7, "now": NOW}
    create_sample_database(tmp_path / "one.db", **arguments)  # type: ignore[arg-type]
    create_sample_database(tmp_path / "two.db", **(arguments | change))  # type: ignore[arg-type]
    assert dump(tmp_path / "one.db") != dump(tmp_path / "two.db")


@pytest.mark.parametrize("rows", [0, 1, 2, 333])
def test_number_of_rows_is_exact(tmp_path: Path, rows: int) -> None:
    """The requested number is written and returned, and all tables exist."""
    path = tmp_path / "demo.db"
    assert create_sample_database(path, rows=rows, now=NOW) == rows
    assert select(path, "SELECT count(*) FROM recommendation_feedbacks") == [(rows,)]
    assert {name for (name,) in select(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")} >= set(
        tables.metadata.tables
    )


def test_tables_hang_together(query: Query) -> None:
    """Recommendations are a third of the feedback, each with its own analysis; photos and users exist."""
    ((records,),) = query("SELECT count(*) FROM recommendation_records")
    assert 0.30 * ROWS < records < 0.40 * ROWS
    assert query("SELECT count(*) FROM analyses") == [(records,)]
    assert query(f"SELECT count(DISTINCT f.analysis_id) = count(DISTINCT r.id) FROM {JOINED}") == [(1,)]
    assert query("SELECT count(*) FROM recommendation_feedbacks WHERE user_id NOT IN (SELECT id FROM users)") == [(0,)]
    assert query("SELECT count(*) FROM analyses WHERE photo_id NOT IN (SELECT id FROM photos)") == [(0,)]
    assert query(
        "SELECT count(*) FROM recommendation_feedbacks WHERE analysis_id NOT IN (SELECT id FROM analyses)"
    ) == [(0,)]


def test_indexes_and_statistics_are_there(query: Query) -> None:
    """The time index of the schema exists, and ANALYZE has run."""
    ((plan,),) = query("SELECT sql FROM sqlite_schema WHERE tbl_name = 'recommendation_feedbacks' AND type = 'index'")
    assert "created_at" in plan
    assert query(f"SELECT DISTINCT 1 FROM sqlite_stat1 WHERE stat LIKE '{ROWS} %'") == [(1,)]


def test_ids_grow_with_time(query: Query) -> None:
    """A later feedback has a larger id; the same time is only found in repetitions."""
    times = [time for (time,) in query("SELECT created_at FROM recommendation_feedbacks ORDER BY id")]
    parsed = [datetime.fromisoformat(time) for time in times]
    assert parsed == sorted(parsed)
    assert query(
        "SELECT count(*) FROM recommendation_feedbacks f JOIN recommendation_feedbacks g"
        " ON g.created_at = f.created_at AND g.analysis_id <> f.analysis_id"
    ) == [(0,)]


def test_times_fill_half_a_year_and_end_before_now(query: Query) -> None:
    """180 days up to just before now, more in the second half, some with microseconds and some without."""
    times = [time for (time,) in query("SELECT created_at FROM recommendation_feedbacks")]
    ages = [NOW - datetime.fromisoformat(time) for time in times]
    assert 0 < min(ages).total_seconds() < 86_400
    assert 178 <= max(ages).days <= 180
    assert 0.52 < sum(age.days < 90 for age in ages) / ROWS < 0.65
    assert 0.4 < sum("." in time for time in times) / ROWS < 0.6


def test_evenings_and_sundays_are_busy(share: Callable[[str], float]) -> None:
    """The day and the week have a rhythm."""
    hour, weekday = "strftime('%H', created_at)", "strftime('%w', created_at)"
    assert share(f"{hour} IN ('19', '20', '21')") > 4 * share(f"{hour} IN ('02', '03', '04')")
    assert share(f"{weekday} = '0'") > 1.3 * share(f"{weekday} = '5'") > 0


def test_feedback_comes_one_to_eight_weeks_after_its_recommendation(query: Query) -> None:
    """The delay in days, counted from the date in the recommendation's name, fits the timeframe."""
    delays: dict[str, list[int]] = {}
    for frame, created_at, name in query(f"SELECT timeframe, created_at, r.recommendation_id FROM {JOINED}"):
        made = date.fromisoformat(name.split("_")[1])
        delays.setdefault(frame, []).append((date.fromisoformat(created_at[:10]) - made).days)
    assert {frame: (min(days), max(days)) for frame, days in delays.items()} == {
        "1_week": (7, 9),
        "2_weeks": (13, 16),
        "4_weeks": (26, 32),
        "8_weeks": (52, 56),
    }


def test_recommendations_are_numbered_by_day(query: Query) -> None:
    """rec_20251025_001 is the first of its day, and the numbers of a day have no gap."""
    names = [name for (name,) in query("SELECT recommendation_id FROM recommendation_records ORDER BY id")]
    days = Counter(name[:12] for name in names)
    assert names == [f"{day}_{number:03d}" for day in sorted(days) for number in range(1, days[day] + 1)]


@pytest.mark.parametrize("rating", RATINGS)
def test_some_ratings_are_missing(share: Callable[[str], float], rating: str) -> None:
    """Each rating is missing in 8 to 15 % of the rows."""
    assert 0.075 < share(f"{rating} IS NULL") < 0.155


def test_some_rows_are_unrated(share: Callable[[str], float]) -> None:
    """About one row in a hundred has no rating at all."""
    assert 0.006 < share(UNRATED) < 0.015


def test_some_rows_are_repeated(query: Query) -> None:
    """About 2 % repeat the analysis, recommendation and time of an earlier row, next to it."""
    key = "analysis_id, recommendation_id, created_at"
    groups = query(f"SELECT count(*), max(id) - min(id) FROM recommendation_feedbacks GROUP BY {key}")
    assert all(distance == size - 1 for size, distance in groups)
    assert 0.013 < 1 - len(groups) / ROWS < 0.027


@pytest.mark.parametrize(
    "condition",
    [
        "helpful_rating = 0",
        "helpful_rating = 6",
        "routine_completion_pct = 120",
        "recommendation_id IS NULL",
        "recommendation_id NOT IN (SELECT id FROM recommendation_records)",
        "recommendation_id IN (SELECT id FROM recommendation_records WHERE json_type(conditions_analyzed) <> 'array')",
        "recommendation_id IN (SELECT r.id FROM recommendation_records r, json_each(r.conditions_analyzed) e"
        " WHERE e.value LIKE '%,%')",
    ],
)
def test_each_kind_of_wrong_row_is_there_and_rare(share: Callable[[str], float], condition: str) -> None:
    """Every flaw that an export rejects can be seen in the sample of the default size."""
    assert 0 < share(condition) < 0.004


def test_wrong_rows_are_few_and_all_others_are_right(share: Callable[[str], float]) -> None:
    """About 0.3 % of the rows are wrong."""
    good_records = (
        "SELECT id FROM recommendation_records WHERE json_type(conditions_analyzed) = 'array'"
        " AND conditions_analyzed NOT LIKE '%acne,oily%'"
    )
    right = (
        "coalesce(helpful_rating, 1) BETWEEN 1 AND 5 AND coalesce(product_satisfaction, 1) BETWEEN 1 AND 5"
        " AND coalesce(routine_completion_pct, 0) BETWEEN 0 AND 100"
        f" AND coalesce(would_recommend, 0) IN (0, 1) AND coalesce(recommendation_id, -1) IN ({good_records})"
    )
    assert 0.0015 < 1 - share(right) < 0.0055


def test_conditions_are_lists_of_up_to_four(query: Query) -> None:
    """Conditions are JSON arrays from a limited set, empty ones and one name with a space included."""
    texts = "SELECT DISTINCT conditions_analyzed AS c FROM recommendation_records"
    lengths = query(f"SELECT DISTINCT json_array_length(c) FROM ({texts}) WHERE json_type(c) = 'array' ORDER BY 1")
    assert lengths == [(0,), (1,), (2,), (3,), (4,)]
    names = {name for (name,) in query(f"SELECT DISTINCT e.value FROM ({texts}), json_each(c) e")}
    assert {"acne", "oily_skin", "rosacea", "wrinkles", "dark circles", "café_au_lait_spots"} < names
    assert len(names) < 20


def test_users_come_back_and_profiles_have_gaps(query: Query) -> None:
    """Few users give much feedback; some have no profile, no age or two profiles."""
    counts = sorted(n for (n,) in query("SELECT count(*) FROM recommendation_feedbacks GROUP BY user_id"))
    assert counts[-1] > 5 * counts[len(counts) // 2] > 5
    sizes = dict(
        query(
            "SELECT profiles, count(*) FROM (SELECT count(p.id) AS profiles FROM users u"
            " LEFT JOIN profiles p ON p.user_id = u.id GROUP BY u.id) GROUP BY profiles"
        )
    )
    assert sizes.keys() == {0, 1, 2}
    ((lowest, highest, known),) = query("SELECT min(age), max(age), avg(age IS NOT NULL) FROM profiles")
    assert 14 <= lowest < 18 < 65 < highest <= 80
    assert 0.8 < known < 0.97


def test_ratings_can_be_learned(query: Query) -> None:
    """Behaviour, skin, age and recommendation predict the rating."""

    def mean(condition: str, column: str = "helpful_rating") -> float:
        ((value,),) = query(
            f"SELECT avg({column}) FROM {JOINED} LEFT JOIN profiles p USING (user_id) WHERE {condition}"
        )
        return float(value)

    assert mean("routine_completion_pct > 80") > mean("routine_completion_pct < 40") + 0.5
    assert mean("would_recommend = 1") > mean("would_recommend = 0") + 0.8
    assert mean("product_satisfaction > 3") > mean("product_satisfaction < 3") + 0.8
    assert mean("conditions_analyzed LIKE '[\"dryness%'") > mean("conditions_analyzed LIKE '%rosacea%'") + 0.5
    assert mean("timeframe = '8_weeks'") > mean("timeframe = '1_week'") + 0.2
    assert mean("age >= 45", "routine_completion_pct") > mean("age < 25", "routine_completion_pct") + 3
    assert mean("conditions_analyzed LIKE '%wrinkles%'", "age") > mean("conditions_analyzed LIKE '%acne%'", "age") + 8


def test_completion_of_zero_is_a_value(share: Callable[[str], float]) -> None:
    """Some people report that they did nothing."""
    assert 0.02 < share("routine_completion_pct = 0") < 0.08


def test_chunks_are_bounded_and_parents_come_first() -> None:
    """Chunks suit executemany and COPY: one tuple per row, as wide as the table, of plain values."""
    rows = CHUNK_ROWS + 1
    seen: list[str] = []
    sizes: Counter[str] = Counter()
    for table, chunk in generate_tables(rows, seed=1, now=NOW):
        assert 0 < len(chunk) <= CHUNK_ROWS
        assert {len(row) for row in chunk} == {len(table.columns)}
        assert {type(value) for row in chunk for value in row} <= {int, bool, str, type(None)}
        seen.append(table.name)
        sizes[table.name] += len(chunk)
    assert [name for name in dict.fromkeys(seen) if name in ("users", "profiles")] == ["users", "profiles"]
    assert [name for name in dict.fromkeys(seen) if name in ("photos", "analyses")] == ["photos", "analyses"]
    assert seen[-3:] == ["recommendation_records", "recommendation_feedbacks", "recommendation_feedbacks"]
    assert sizes["recommendation_feedbacks"] == rows


@pytest.mark.parametrize("arguments", [{"rows": -1, "now": NOW}, {"rows": 1, "now": NOW.replace(tzinfo=UTC)}])
def test_wrong_arguments_are_refused_before_a_file_is_made(tmp_path: Path, arguments: dict[str, object]) -> None:
    """A negative number of rows and a time with a zone are errors, at once."""
    with pytest.raises(UsageError):
        create_sample_database(tmp_path / "demo.db", **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        generate_tables(**({"seed": 7} | arguments))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_file_is_marked_private_and_alone(tmp_path: Path) -> None:
    """Mode 0600, our application id, and nothing else left in the folder."""
    path = tmp_path / "demo.db"
    create_sample_database(path, rows=10, now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert select(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert list(tmp_path.iterdir()) == [path]


def test_own_sample_is_replaced(tmp_path: Path) -> None:
    """A second run puts a new file in the place of the first."""
    path = tmp_path / "demo.db"
    create_sample_database(path, rows=10, now=NOW)
    first = path.stat().st_ino
    with path.open("rb") as still_open:
        create_sample_database(path, rows=20, now=NOW)
        assert select(path, "SELECT count(*) FROM recommendation_feedbacks") == [(20,)]
        assert path.stat().st_ino != first
        assert still_open.read(15) == b"SQLite format 3"
    assert list(tmp_path.iterdir()) == [path]


def foreign_text(path: Path) -> None:
    path.write_text("notes")


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE precious (id)")


def foreign_empty_file(path: Path) -> None:
    path.touch()


def foreign_folder(path: Path) -> None:
    path.mkdir()


def link_to_own_sample(path: Path) -> None:
    create_sample_database(path.with_name("real.db"), rows=1, now=NOW)
    path.symlink_to(path.with_name("real.db"))


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.db"))


def own_sample_in_use(path: Path) -> None:
    create_sample_database(path, rows=1, now=NOW)
    path.with_name(path.name + "-wal").touch()


@pytest.mark.parametrize(
    "make",
    [
        foreign_text,
        foreign_database,
        foreign_empty_file,
        foreign_folder,
        link_to_own_sample,
        dangling_link,
        own_sample_in_use,
    ],
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Files, folders and links that are not a sample database at rest are refused and stay as they are."""
    path = tmp_path / "demo.db"
    make(path)

    def state() -> dict[Path, tuple[int, bytes]]:
        return {p: (p.lstat().st_ino, p.read_bytes() if p.is_file() else b"") for p in tmp_path.iterdir()}

    before = state()
    with pytest.raises(ExportFileError, match="choose another path"):
        create_sample_database(path, rows=5, now=NOW)
    assert state() == before


def test_foreign_file_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is looked at again before it is replaced, and the unfinished file is removed."""
    path = tmp_path / "demo.db"

    def appear(name: str, contents: object) -> None:
        path.write_text("notes")

    monkeypatch.setattr("feedback_etl.demo.sample._fill", appear)
    with pytest.raises(ExportFileError, match="not a sample database"):
        create_sample_database(path, rows=5, now=NOW)
    assert [(p, p.read_text()) for p in tmp_path.iterdir()] == [(path, "notes")]


def test_failure_leaves_the_old_sample_and_no_stump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the database while writing becomes ExportFileError; the earlier sample stays."""
    path = tmp_path / "demo.db"
    create_sample_database(path, rows=10, now=NOW)

    def fail(name: str, contents: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("feedback_etl.demo.sample._fill", fail)
    with pytest.raises(ExportFileError, match="disk is full"):
        create_sample_database(path, rows=20, now=NOW)
    assert list(tmp_path.iterdir()) == [path]
    assert select(path, "SELECT count(*) FROM recommendation_feedbacks") == [(10,)]


def test_missing_folder_is_made_private(tmp_path: Path) -> None:
    """A missing folder is created for its owner alone; the error names a file in its place."""
    create_sample_database(tmp_path / "new" / "demo.db", rows=1, now=NOW)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    with pytest.raises(ExportFileError, match="cannot be written"):
        create_sample_database(tmp_path / "new" / "demo.db" / "demo.db", rows=1, now=NOW)


def test_demo_key_is_long_enough_and_says_what_it_is() -> None:
    """The published key satisfies the rules for keys and cannot be mistaken for a real one."""
    assert len(DEMO_KEY.text.encode()) >= 32
    assert DEMO_KEY.text.strip() == DEMO_KEY.text
    assert "demo" in DEMO_KEY.text
