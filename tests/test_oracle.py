"""The oracle's own answers, worked out by hand: what the other tests lean on has to stand by itself."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from databases import Database, Row
from oracle import OracleResult, oracle_export
from pseudonym_keys import KEY

NOW = datetime(2025, 10, 25, 12, 0, 0, 250_000)
HEADER = (
    "analysis_hash,recommendation_id,helpful_rating,product_satisfaction,routine_completion_pct,would_recommend,"
    "conditions_detected,rules_applied,timeframe,age_range,feedback_timestamp,export_date\n"
)
RECORD: dict[str, Any] = {"id": 1, "recommendation_id": "rec_1"}
FEEDBACK: dict[str, Any] = {
    "id": 1,
    "analysis_id": 42,
    "recommendation_id": 1,
    "helpful_rating": 5,
    "created_at": "2025-10-25 10:00:00",
}


def export(
    database: Database,
    feedbacks: Sequence[Row],
    record: Row = RECORD,
    **options: Any,
) -> OracleResult:
    """Fill the database with feedback on one recommendation and ask the oracle."""
    database.fill(feedbacks=feedbacks, records=[record])
    return oracle_export(Path(str(database.engine.url.database)), now=NOW, **options)


def reasons(result: OracleResult) -> set[str]:
    """The reasons given for all rejected rows."""
    return {reason for _, _, given in result.rejected for reason in given}


def test_a_full_row_is_written_as_the_contract_says(sqlite_database: Database) -> None:
    """Every column of DESIGN's contract at once: quoting, booleans, lists, times, the published digest."""
    sqlite_database.fill(profiles=[{"id": 1, "user_id": 7, "age": 25}])
    result = export(
        sqlite_database,
        [
            FEEDBACK
            | {
                "user_id": 7,
                "product_satisfaction": 4,
                "routine_completion_pct": 0,
                "would_recommend": False,
                "timeframe": 'two "long"\nweeks',
                "created_at": "2025-10-25T10:00:00.5",
            }
        ],
        RECORD | {"conditions_analyzed": ["acne", "oily_skin"], "rules_applied": ["r001"]},
    )
    assert result.csv_text == HEADER + (
        '73475cb40a568e8d,rec_1,5,4,0,False,"acne,oily_skin",r001,"two ""long""\nweeks",25-35,'
        "2025-10-25T10:00:00.500000,2025-10-25T12:00:00\n"
    )
    assert result[1:] == ([], 1, 0, 0, 0, 1)


def test_null_is_an_empty_field(sqlite_database: Database) -> None:
    """Nothing but what may not be null is filled, and an empty timeframe is null."""
    result = export(sqlite_database, [FEEDBACK | {"helpful_rating": 1, "timeframe": ""}])
    assert result.csv_text == HEADER + ("73475cb40a568e8d,rec_1,1,,,,,,,,2025-10-25T10:00:00,2025-10-25T12:00:00\n")


def test_a_key_gives_the_keyed_pseudonym(sqlite_database: Database) -> None:
    """The digest is OpenSSL's HMAC-SHA256 of `analysis_id:42`; white space around a key is not part of it."""
    result = export(sqlite_database, [FEEDBACK], key=f" {KEY}\n")
    assert result.csv_text.splitlines()[1].startswith("5cca56cd36b3f074,")


def test_the_window_is_half_open(sqlite_database: Database) -> None:
    """The start is inside and the end is not, in both text forms; a row without a time is in no window."""
    times = {
        1: "2025-10-24 12:00:00.249999",
        2: "2025-10-24T12:00:00.25",
        3: "2025-10-25T12:00:00.249999",
        4: "2025-10-25 12:00:00.250",
        5: None,
    }
    feedbacks = [FEEDBACK | {"id": number, "created_at": time} for number, time in times.items()]
    result = export(sqlite_database, feedbacks, days_back=1)
    written = [line.split(",")[-2] for line in result.csv_text.splitlines()[1:]]
    assert written == ["2025-10-24T12:00:00.250000", "2025-10-25T12:00:00.249999"]
    assert (result.total, result.errors) == (2, 0)


def test_everything_ends_at_now_and_holds_rows_without_a_time(sqlite_database: Database) -> None:
    """days_back=-1 takes the oldest row and the one without a time, which is rejected, but not the future."""
    times = ["2025-10-25 12:00:00.25", None, "0001-01-01 00:00:00"]
    feedbacks = [FEEDBACK | {"id": 3 - place, "created_at": time} for place, time in enumerate(times)]
    result = export(sqlite_database, feedbacks, days_back=-1)
    assert result.csv_text.splitlines()[1].split(",")[-2] == "0001-01-01T00:00:00"
    assert result.rejected == [(2, "73475cb40a568e8d", frozenset({"created_at_missing"}))]
    assert result.total == 2


def test_of_duplicates_the_lowest_id_stays(sqlite_database: Database) -> None:
    """The same pair at the same time in another text form is a duplicate; a rejected row is not one."""
    feedbacks = [
        FEEDBACK | {"id": 3, "helpful_rating": 3},
        FEEDBACK | {"id": 2, "helpful_rating": 2, "created_at": "2025-10-25T10:00:00.000"},
        FEEDBACK | {"id": 1, "helpful_rating": 6},
        FEEDBACK | {"id": 4, "helpful_rating": 4, "created_at": "2025-10-25 10:00:00.000001"},
    ]
    result = export(sqlite_database, feedbacks)
    assert [line.split(",")[2] for line in result.csv_text.splitlines()[1:]] == ["2", "4"]
    assert (result.total, result.errors, result.deduplicated, result.exported) == (4, 1, 1, 2)


def test_too_few_ratings_come_before_faults(sqlite_database: Database) -> None:
    """A row with fewer ratings than required is skipped, even if it has other errors."""
    feedbacks = [FEEDBACK | {"analysis_id": None}, FEEDBACK | {"id": 2, "would_recommend": False}]
    result = export(sqlite_database, feedbacks, min_feedback_fields=2)
    assert (result.total, result.skipped, result.errors, result.exported) == (2, 1, 0, 1)


def test_the_lowest_profile_gives_the_age(sqlite_database: Database) -> None:
    """Also where it holds none and a later profile does; a row without a user has no profile."""
    sqlite_database.fill(
        users=[{"id": 7}, {"id": 8}],
        profiles=[
            {"id": 4, "user_id": 7, "age": 60},
            {"id": 3, "user_id": 7, "age": 17},
            {"id": 1, "user_id": 8},
            {"id": 2, "user_id": 8, "age": 60},
            {"id": 5, "user_id": None, "age": 60},
        ],
    )
    feedbacks = [FEEDBACK | {"id": user, "analysis_id": user, "user_id": user or None} for user in (7, 8, 0)]
    result = export(sqlite_database, feedbacks)
    assert sorted(line.split(",")[9] for line in result.csv_text.splitlines()[1:]) == ["", "", "<18"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"analysis_id": None}, "analysis_id_missing"),
        ({"recommendation_id": 9}, "recommendation_missing"),
        ({"recommendation_id": None}, "recommendation_missing"),
        ({"helpful_rating": 0}, "helpful_rating_out_of_range"),
        ({"product_satisfaction": 6}, "product_satisfaction_out_of_range"),
        ({"routine_completion_pct": 101}, "routine_completion_pct_out_of_range"),
        ({"timeframe": "1_\x07week"}, "control_character"),
    ],
)
def test_a_fault_of_the_feedback_has_its_name(sqlite_database: Database, change: dict[str, Any], reason: str) -> None:
    """Each fault alone gives its own reason and no other."""
    assert reasons(export(sqlite_database, [FEEDBACK | change])) == {reason}


@pytest.mark.parametrize(("age", "bucket"), [(-1, ""), (0, "<18"), (130, "50+"), (131, "")])
def test_ages_outside_0_to_130_are_left_empty(sqlite_database: Database, age: int, bucket: str) -> None:
    """Both ends of the plausible ages are inside; no row is rejected."""
    sqlite_database.fill(profiles=[{"id": 1, "user_id": 7, "age": age}])
    result = export(sqlite_database, [FEEDBACK | {"user_id": 7}])
    assert reasons(result) == set()
    assert result.csv_text.splitlines()[1].split(",")[9] == bucket


@pytest.mark.parametrize(
    ("age", "bucket"),
    {
        0: "<18",
        17: "<18",
        18: "18-25",
        24: "18-25",
        25: "25-35",
        34: "25-35",
        35: "35-50",
        49: "35-50",
        50: "50+",
    }.items(),
)
def test_age_ranges_are_half_open(sqlite_database: Database, age: int, bucket: str) -> None:
    """An edge belongs to the range that it opens."""
    sqlite_database.fill(profiles=[{"id": 1, "user_id": 7, "age": age}])
    assert f",{bucket}," in export(sqlite_database, [FEEDBACK | {"user_id": 7}]).csv_text


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (None, ""),
        ("", ""),
        ("null", ""),
        (" null\n", ""),
        ("[]", ""),
        ('[ "b" , "a", "b" ]', '"b,a,b"'),
        (r'["\u00e9t\u00e9", "\ud83d\ude00"]', '"été,😀"'),
        (r'["a\u0020\"b\"\/"]', '"a ""b""/"'),
        (' \t\r\n["a"]\n', "a"),
    ],
)
def test_lists_are_joined(sqlite_database: Database, text: str | None, field: str) -> None:
    """A JSON array of strings becomes one field, in order; what holds no string becomes an empty one."""
    result = export(sqlite_database, [FEEDBACK], RECORD | {"conditions_analyzed": text})
    assert f",5,,,,{field},,,,2025" in result.csv_text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("acne", "rules_not_a_list"),
        ("  ", "rules_not_a_list"),
        ('"acne"', "rules_not_a_list"),
        ('{"acne": 1}', "rules_not_a_list"),
        ("0", "rules_not_a_list"),
        ('["a", 1]', "rules_not_a_list"),
        ('["a", null]', "rules_not_a_list"),
        ("[NaN]", "rules_not_a_list"),
        ('["a",]', "rules_not_a_list"),
        ('["a\nb"]', "rules_not_a_list"),
        (r'["\ud800"]', "rules_not_a_list"),
        (r'["\ud83d", "\ude00"]', "rules_not_a_list"),
        ('["a", ""]', "empty_element"),
        ('["a", "b,c"]', "comma_in_element"),
        (r'["a", "-b\u0000"]', "control_character"),
        (r'["a", "\u0085"]', "control_character"),
    ],
)
def test_a_fault_of_a_list_has_its_name(sqlite_database: Database, text: str, reason: str) -> None:
    """All that is not an array of strings, and each kind of forbidden element."""
    assert reasons(export(sqlite_database, [FEEDBACK], RECORD | {"rules_applied": text})) == {reason}


def test_a_row_can_have_many_faults(sqlite_database: Database) -> None:
    """All reasons are given; a list that is none is not looked into."""
    record = {"id": 1, "recommendation_id": "", "conditions_analyzed": '[""', "rules_applied": ["", "\x1ba,b"]}
    assert export(sqlite_database, [FEEDBACK | {"analysis_id": None}], record).rejected == [
        (
            1,
            None,
            frozenset(
                {
                    "analysis_id_missing",
                    "recommendation_missing",
                    "conditions_not_a_list",
                    "empty_element",
                    "comma_in_element",
                    "control_character",
                }
            ),
        )
    ]
