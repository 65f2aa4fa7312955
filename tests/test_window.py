"""The window: half-open, UTC, and refused where it cannot be meant."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_etl.clock import to_naive_utc
from feedback_etl.database.window import Window, parse_time, window_between, window_of_days
from feedback_etl.errors import UsageError

NOW = datetime(2025, 10, 25, 12)
TIMES = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize("days_back", [0, -2, -10, 1.5, 1.0, True, False, "3", None, 10**12, 10**30, float("nan")])
def test_invalid_days_back_is_refused_with_allowed_values(days_back: Any) -> None:
    """Neither a bool nor a float nor a text is accepted as a number of days."""
    message = r"^`days_back` must be a whole number of days, 1 or more, or -1 for everything"
    with pytest.raises(UsageError, match=message):
        window_of_days(days_back, now=NOW)


@given(now=st.datetimes(min_value=datetime(2000, 1, 1)), days_back=st.integers(1, 700_000))
def test_day_is_24_hours(now: datetime, days_back: int) -> None:
    """The window reaches back the number of days times 24 hours, even across changes of local time."""
    assert window_of_days(days_back, now=now) == (now - timedelta(hours=24 * days_back), now)


def test_minus_one_is_everything_before_now() -> None:
    """It has no start."""
    assert window_of_days(-1, now=NOW) == Window(None, NOW)


def test_longest_window_begins_in_year_1() -> None:
    """One day more is refused, with the number that is possible."""
    longest = (NOW - datetime.min).days
    assert window_of_days(longest, now=NOW).start == datetime(1, 1, 1, 12)
    with pytest.raises(UsageError, match=f"{longest} is the maximum"):
        window_of_days(longest + 1, now=NOW)


@pytest.mark.parametrize(
    ("given_time", "expected"),
    [
        ("2025-10-24", datetime(2025, 10, 24)),
        ("20251024", datetime(2025, 10, 24)),
        ("2025-10-24T10", datetime(2025, 10, 24, 10)),
        ("2025-10-24 10:30", datetime(2025, 10, 24, 10, 30)),
        ("2025-10-24T10:30:00.5", datetime(2025, 10, 24, 10, 30, 0, 500_000)),
        ("2025-10-24T10:30:00.123456", datetime(2025, 10, 24, 10, 30, 0, 123_456)),
        ("2025-10-24T10:30:00Z", datetime(2025, 10, 24, 10, 30)),
        ("2025-10-24T10:30:00+02:00", datetime(2025, 10, 24, 8, 30)),
        ("2025-10-24T23:30:00-02:30", datetime(2025, 10, 25, 2)),
        (date(2025, 10, 24), datetime(2025, 10, 24)),
        (datetime(2025, 10, 24, 10), datetime(2025, 10, 24, 10)),
        (datetime(2025, 10, 24, 10, tzinfo=timezone(timedelta(hours=2))), datetime(2025, 10, 24, 8)),
    ],
)
def test_iso_8601_date_or_datetime_becomes_utc(given_time: Any, expected: datetime) -> None:
    """A date is its first instant; a time without an offset is UTC, whatever the local time zone."""
    assert parse_time(given_time) == expected
    assert window_between(given_time, None, now=NOW) == (expected, NOW)


@pytest.mark.parametrize(
    "given_time",
    ["", "yesterday", "2025-13-01", "25.10.2025", "2025-10-25T25:00", 20251025, None, "0001-01-01T00:00+14:00"],
)
def test_invalid_time_is_refused(given_time: Any) -> None:
    """Also a number, and a time that in UTC would lie before the calendar."""
    with pytest.raises(UsageError, match="ISO 8601 date or time"):
        parse_time(given_time)


@given(TIMES, ZONES)
def test_offset_does_not_change_the_instant(time: datetime, zone: timezone) -> None:
    """Written with any offset, as text or not, an instant is the same naive UTC."""
    local = time.replace(tzinfo=UTC).astimezone(zone)
    assert to_naive_utc(local) == time
    assert parse_time(local.isoformat()) == time


def test_end_in_the_future_is_refused() -> None:
    """Feedback of then does not exist yet; the present itself is allowed."""
    assert window_between("2025-10-24", NOW, now=NOW).end == NOW
    with pytest.raises(UsageError, match="is in the future"):
        window_between("2025-10-24", NOW + timedelta(microseconds=1), now=NOW)


@pytest.mark.parametrize(("since", "until"), [("2025-10-24", "2025-10-23"), ("2025-10-24", "2025-10-24")])
def test_empty_window_is_refused(since: str, until: str) -> None:
    """Reversed, or with the start at its end."""
    with pytest.raises(UsageError, match="must be before"):
        window_between(since, until, now=NOW)


def test_start_in_the_future_is_refused() -> None:
    """It does not lie before the end, which is the present."""
    with pytest.raises(UsageError, match="must be before"):
        window_between("2025-10-26", None, now=NOW)


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window(datetime(2025, 10, 24, 12), NOW), "2025-10-24 12:00:00 to 2025-10-25 12:00:00 UTC"),
        (Window(None, NOW), "the beginning to 2025-10-25 12:00:00 UTC"),
    ],
)
def test_window_is_printed_readably(window: Window, text: str) -> None:
    """As text it says that it is in UTC."""
    assert str(window) == text
