"""The export and the oracle agree on any content of a database, and servers give the same rows as SQLite."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, new_mysql_database, new_postgres_database, opened
from folders import row_files
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import OracleResult, oracle_export
from pseudonym_keys import KEY

import feedback_etl as fe

Rows = list[dict[str, Any]]

FEWER = settings(max_examples=settings().max_examples // 10)
NOWS = [
    datetime(2025, 10, 25, 12, 0, 0),
    datetime(2025, 10, 25, 12, 0, 0, 500_000),
    datetime(2024, 3, 1, 0, 0, 0, 1),
    datetime(2025, 3, 9, 6, 59, 59, 999_999),
]
NUDGES = [timedelta(microseconds=n) for n in (0, 0, 0, 0, -1, -1, 1, 1, -500_000, 500_000, -1_000_000, 1_000_000)]
SHIFTS = [timedelta(hours=n) for n in (0, 0, 0, 0, 0, 0, -1, 1, -24, 24)]

RATINGS = [None, 1, 2, 3, 4, 5]
AGES = [None, 0, 17, 18, 24, 25, 34, 35, 49, 50, 130]
BAD_AGES = [-1, 131]
TIMEFRAMES = [None, "", "1_week", "2_weeks", "4_weeks", "8_weeks", 'a,"b"', "a\rb", "\u00e9\n", " =1"]
FAULTS: list[tuple[str, Any]] = [
    ("analysis_id", None),
    ("recommendation_id", None),
    ("created_at", None),
    ("helpful_rating", 0),
    ("helpful_rating", 6),
    ("product_satisfaction", 0),
    ("product_satisfaction", 6),
    ("routine_completion_pct", -1),
    ("routine_completion_pct", 101),
    *(("timeframe", start + "1") for start in "=+-@\t\r\n"),
]
NO_SUCH_RECORD = ("recommendation_id", 99)
SMALL_IDS = [1, 2, 3, 42, 0, -7, 2**31 - 1]
LARGE_IDS = [*SMALL_IDS, 2**53 + 1, 2**53 + 2, 2**63 - 1]
NAMES = ["rec_1", "rec_2", 'r\u00e9c,"3"', "rec\n4", " rec =5", "\U0001f600", "rec\r7"]
BAD_NAMES = [None, "", "=rec", "+", "-rec", "@rec", "\trec", "\rrec", "\nrec"]

GOOD_LISTS = [
    None,
    "null",
    "[]",
    '["acne"]',
    '["acne", "oily_skin"]',
    ' [ "b","a" ,"b"\t]\r\n',
    r'["\u0061cn\u00e9", "\ud83d\ude00", "a\/b"]',
    r'["say \"hi\"", "line\nbreak", "back\\slash"]',
    '["é😀", " =1 ", "a\'b", "a;b"]',
    r'["nul\u0000", "\u001f", "\u2028"]',
    " null ",
]
BAD_LISTS = [
    '{"acne": 1}',
    '{"a": "b"}',
    '"acne"',
    "5",
    "0",
    "true",
    "[1]",
    '["a", null]',
    '["a", 1.5]',
    '[["a"]]',
    '["a", {"b": "c"}]',
    '["a", "b,c"]',
    '[""]',
    '["a", ""]',
    '["=1"]',
    '["a", "+1"]',
    r'["a", "\t-1"]',
    r'["\u003d1"]',
    r'["\u002c"]',
    r'["\ud800"]',
    r'["\ud83d", "\ude00"]',
    r'["\ude00\ud83d"]',
]
NO_JSON = [
    "",
    "  ",
    "not json",
    "['a']",
    '["a"',
    '["a",]',
    '["a"] x',
    '["a" "b"]',
    '["a", NaN]',
    "NaN",
    "[01]",
    '["raw\nnewline"]',
    '["raw\ttab"]',
    r'["\x41"]',
    r'["\u00e"]',
    '\ufeff["a"]',
    '\u00a0["a"]',
    '["a"]\x0b',
]


@dataclass(frozen=True)
class Scenario:
    """A database's rows and the options of one export."""

    feedbacks: Rows
    records: Rows
    profiles: Rows
    now: datetime
    days_back: int
    min_feedback_fields: int
    key: str | None

    def fill(self, database: Database) -> None:
        """Insert the rows, with a user for each profile."""
        database.fill(feedbacks=self.feedbacks, records=self.records, profiles=self.profiles)

    def ask_the_oracle(self, database: Database) -> OracleResult:
        """What the oracle makes of the SQLite database that holds the rows."""
        path = Path(str(database.engine.url.database))
        return oracle_export(
            path,
            now=self.now,
            days_back=self.days_back,
            min_feedback_fields=self.min_feedback_fields,
            key=self.key,
        )

    def options(self) -> dict[str, Any]:
        """The same options as our functions want them."""
        how = {"unkeyed": True} if self.key is None else {"key": self.key}
        return how | {
            "now": self.now.replace(tzinfo=UTC),
            "days_back": self.days_back,
            "min_feedback_fields": self.min_feedback_fields,
            "max_rejected": 1.0,
        }


def seldom(strategy: st.SearchStrategy[Any], otherwise: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The strategy once in six times: most rows have to be valid though every value can be wrong."""
    return st.integers(0, 5).flatmap(lambda chance: strategy if chance == 4 else otherwise)


@st.composite
def record_tables(draw: st.DrawFn, portable: bool) -> tuple[Rows, Rows]:
    """Valid recommendations, at least one, and some that are mostly rejected."""
    good_list = st.sampled_from(GOOD_LISTS)
    words = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=3)
    any_list = st.builds(json.dumps, words, ensure_ascii=st.booleans())
    odd_list = st.sampled_from(BAD_LISTS if portable else BAD_LISTS + NO_JSON) | any_list
    bad_name = {"recommendation_id": st.sampled_from(BAD_NAMES)}
    odd_lists: dict[str, Any] = {"conditions_analyzed": odd_list, "rules_applied": odd_list}
    oddity = st.one_of(
        *(st.fixed_dictionaries({name: odd_list}) for name in odd_lists),
        st.fixed_dictionaries(odd_lists),
        st.fixed_dictionaries(bad_name, optional=odd_lists),
    )
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    oddities = draw(st.lists(oddity, max_size=5, unique_by=lambda row: row.get("recommendation_id", object())))
    good: Rows = [
        {
            "id": number,
            "recommendation_id": name,
            "conditions_analyzed": draw(good_list),
            "rules_applied": draw(good_list),
        }
        for number, name in enumerate([*names, *(f"odd_{n}" for n in range(len(oddities)))])
    ]
    return good[: len(names)], [row | odd for row, odd in zip(good[len(names) :], oddities, strict=True)]


def profile_tables() -> st.SearchStrategy[Rows]:
    """Profiles of some of the users, in any order: none, one or several for each."""
    ages = seldom(st.sampled_from(BAD_AGES), st.sampled_from(AGES))
    profile = st.fixed_dictionaries({"id": st.integers(1, 9), "user_id": st.integers(1, 4), "age": ages})
    return st.lists(profile, max_size=6, unique_by=lambda row: row["id"])


@st.composite
def moments(draw: st.DrawFn, now: datetime, days: int) -> datetime:
    """Times in the middle of the window and around both its edges."""
    middle, start = now - timedelta(days=days / 2), now - timedelta(days=days)
    edge = draw(st.sampled_from([middle, now, start]))
    return edge + draw(st.sampled_from(NUDGES)) + draw(st.sampled_from(SHIFTS))


@st.composite
def stored_forms(draw: st.DrawFn, moment: datetime) -> str:
    """The ways to write a moment: ' ' or 'T', and as many digits of fraction as it needs, or more."""
    digits = f"{moment.microsecond:06d}"
    digits = digits[: draw(st.integers(len(digits.rstrip("0")), 6))]
    return f"{moment:%Y-%m-%d}{draw(st.sampled_from(' T'))}{moment:%H:%M:%S}" + (f".{digits}" if digits else "")


@st.composite
def scenarios(draw: st.DrawFn, portable: bool = False) -> Scenario:
    """Whole small databases, crowded where exports go wrong; `portable` ones keep to PostgreSQL's types."""
    now = draw(st.sampled_from(NOWS))
    days_back = draw(st.sampled_from([-1, 1, 30]))
    records, odd_records = draw(record_tables(portable))
    record = st.sampled_from(records * 3 + odd_records)
    pool = draw(st.lists(moments(now, abs(days_back)), min_size=1, max_size=6))
    faults = st.sampled_from(FAULTS if portable else [*FAULTS, NO_SUCH_RECORD])
    count = draw(st.integers(0, 25) | st.integers(10, 25))
    ids = draw(st.lists(st.integers(1, 60), min_size=count, max_size=count, unique=True))
    feedbacks = []
    for feedback_id in ids:
        feedback = {
            "id": feedback_id,
            "user_id": draw(st.sampled_from([None, 1, 2, 3, 4])),
            "analysis_id": draw(st.sampled_from(SMALL_IDS if portable else LARGE_IDS)),
            "recommendation_id": draw(record)["id"],
            "helpful_rating": draw(st.sampled_from(RATINGS)),
            "product_satisfaction": draw(st.sampled_from(RATINGS)),
            "routine_completion_pct": draw(st.sampled_from([None, 0, 1, 80, 100])),
            "would_recommend": draw(st.sampled_from([None, True, False])),
            "timeframe": draw(st.sampled_from(TIMEFRAMES)),
            "created_at": draw(stored_forms(draw(st.sampled_from(pool)))),
        }
        feedbacks.append(feedback | dict(draw(seldom(st.lists(faults, min_size=1, max_size=3), st.just([])))))
    return Scenario(
        feedbacks=feedbacks,
        records=records + odd_records,
        profiles=draw(profile_tables()),
        now=now,
        days_back=days_back,
        min_feedback_fields=draw(st.sampled_from([1, 0, 2, 3, 4])),
        key=draw(st.sampled_from([None, KEY])),
    )


@pytest.fixture(scope="module")
def one_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One SQLite file for all examples of this module, cleared between them."""
    with opened(f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'application.db'}") as database:
        yield database


def published(folder: Path) -> dict[str, bytes]:
    """Every file with rows below an export folder."""
    return {path.name: path.read_bytes() for path in row_files(folder)}


def rejections(path: str) -> list[tuple[int, str | None, frozenset[str]]]:
    """The rows of a file of rejected rows, in the oracle's form."""
    if not path:
        return []
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [
            (int(row["feedback_id"]), row["analysis_hash"] or None, frozenset(row["reasons"].split(",")))
            for row in csv.DictReader(file)
        ]


def as_written(value: Any) -> str:
    """A value of the frame as the file has it; a time without a zone would be taken for local and differ."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat()
    return "" if value is None else str(value)


@settings(max_examples=settings().max_examples // 6)
@given(scenario=scenarios())
def test_an_export_agrees_with_the_oracle(one_sqlite: Database, scenario: Scenario) -> None:
    """The same file to the byte, the same rejected rows with the same reasons, the same statistics."""
    one_sqlite.clear()
    scenario.fill(one_sqlite)
    expected = scenario.ask_the_oracle(one_sqlite)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "exports"
        if expected.errors and expected.errors == expected.total - expected.skipped:
            with pytest.raises(fe.errors.ValidationError):
                fe.export_feedback(one_sqlite.url, output_dir=folder, **scenario.options())
            assert not published(folder)
            return
        result = fe.export_feedback(one_sqlite.url, output_dir=folder, **scenario.options())
        assert (
            result.total_feedback_records,
            result.skipped_records,
            result.errors,
            result.deduplicated_records,
            result.exported_records,
        ) == (expected.total, expected.skipped, expected.errors, expected.deduplicated, expected.exported)
        assert result.total_feedback_records == (
            result.exported_records
            + result.deduplicated_records
            + result.skipped_records
            + result.errors
            + result.suppressed_records
        )
        assert rejections(result.rejected_filename) == expected.rejected
        written = Path(result.export_filename).read_bytes().decode() if result.export_filename else ""
        assert written == expected.csv_text


@FEWER
@given(scenario=scenarios())
def test_the_frame_for_training_holds_the_same_rows(one_sqlite: Database, scenario: Scenario) -> None:
    """`load_training` gives what the file says, without the apostrophes before formulas, and writes nothing."""
    one_sqlite.clear()
    scenario.fill(one_sqlite)
    expected = scenario.ask_the_oracle(one_sqlite)
    assume(expected.exported)
    frame = fe.load_training(one_sqlite.url, **scenario.options())
    cells = list(csv.reader(io.StringIO(expected.csv_text, newline="")))
    assert not list(Path.cwd().iterdir())
    assert frame.columns == cells[0]
    restored = [[cell.removeprefix("'") for cell in row] for row in cells[1:]]
    assert [[as_written(value) for value in row] for row in frame.iter_rows()] == restored


@pytest.fixture(scope="module")
def one_postgres(postgres_admin: sa.Engine) -> Iterator[Database]:
    """One PostgreSQL database for all examples of this module, cleared between them."""
    with new_postgres_database(postgres_admin) as url, opened(url) as database:
        yield database


@pytest.fixture(scope="module")
def one_mysql(mysql_admin: sa.Engine) -> Iterator[Database]:
    """One MySQL database for all examples of this module, cleared between them.

    Texts that differ in a byte are different ones there, and what should be JSON may be any text.
    """
    with new_mysql_database(mysql_admin) as url, opened(url) as database:
        with database.engine.begin() as connection:
            types = "recommendation_id varchar(64) COLLATE utf8mb4_nopad_bin", "conditions_analyzed text"
            changes = ", ".join(f"MODIFY {column}" for column in (*types, "rules_applied text"))
            connection.exec_driver_sql(f"ALTER TABLE recommendation_records {changes}")
        yield database


@pytest.mark.slow
@FEWER
@given(scenario=scenarios(portable=True))
def test_postgresql_gives_what_sqlite_gives(one_sqlite: Database, one_postgres: Database, scenario: Scenario) -> None:
    """The same rows in both databases give the same files to the byte."""
    assert files_of(one_postgres, scenario) == files_of(one_sqlite, scenario)


@pytest.mark.slow
@FEWER
@given(scenario=scenarios(portable=True))
def test_mysql_gives_what_sqlite_gives(one_sqlite: Database, one_mysql: Database, scenario: Scenario) -> None:
    """Likewise, though its texts compare and its times are written in another way."""
    assert files_of(one_mysql, scenario) == files_of(one_sqlite, scenario)


def files_of(database: Database, scenario: Scenario) -> dict[str, bytes]:
    """The files that come of a scenario in a database, or what is said instead."""
    database.clear()
    scenario.fill(database)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "exports"
        try:
            fe.export_feedback(database.url, output_dir=folder, **scenario.options())
        except fe.errors.ValidationError as error:
            return {"refused": str(error).encode()}
        return published(folder)
