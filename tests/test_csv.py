"""CSV as the standard library reads it: the values that went in come out."""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feedback_etl.data_files import csv_files
from feedback_etl.data_files.csv_files import write_csv
from feedback_etl.transform.expressions import AGE_RANGE

SCHEMA = {
    "analysis_hash": pl.String(),
    "helpful_rating": pl.Int8(),
    "would_recommend": pl.Boolean(),
    "conditions_detected": pl.String(),
    "age_range": AGE_RANGE,
    "feedback_timestamp": pl.Datetime("us", "UTC"),
    "naive_time": pl.Datetime("us"),
}
"""A column of each type that training pairs have, and naive times."""

NASTY = ["a,b", '"', '""', "\n", "\r", "\r\n", " lead", "trail ", "", "null", "True", "é", "\u2028", "\x00", "😀", "'"]
texts = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"])))
times = st.datetimes()
whole_seconds = times.map(lambda time: time.replace(microsecond=0))
rows = st.lists(
    st.tuples(
        texts,
        st.none() | st.integers(-128, 127),
        st.none() | st.booleans(),
        st.none() | texts,
        st.none() | st.sampled_from(AGE_RANGE.categories.to_list()),
        st.one_of(times, whole_seconds).map(lambda time: time.replace(tzinfo=UTC)),
        st.none() | times | whole_seconds,
    ),
    max_size=8,
)

MIDNIGHT = datetime(2025, 10, 25, tzinfo=UTC)
NULLS = ("", None, None, None, None, MIDNIGHT, None)


def expected(value: Any) -> str:
    """What the contract says a field holds."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat()
    return str(value)


def written(*frames: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    for number, frame in enumerate(frames):
        write_csv(frame, file, header=number == 0)
    return file.getvalue()


def frame_of(values: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(values, schema=SCHEMA, orient="row")


@given(st.lists(rows, min_size=1, max_size=3))
@example([[NULLS], [NULLS]])
@example([[(text, 1, True, text, "<18", MIDNIGHT, None) for text in NASTY]])
def test_what_is_written_is_read_back(batches: list[list[tuple[Any, ...]]]) -> None:
    """For any text the standard library finds the same fields, and one header over all batches."""
    data = written(*map(frame_of, batches))
    found = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    assert found == [list(SCHEMA)] + [[expected(value) for value in row] for batch in batches for row in batch]


def test_the_bytes_of_a_row() -> None:
    """Booleans, nulls, quotes, line ends and times are written as the contract says."""
    second = timedelta(seconds=1, microseconds=120)
    frame = frame_of(
        [
            ("a", 5, True, "acne,oily_skin", "25-35", MIDNIGHT, datetime(2025, 10, 25) + second),
            ("b", None, False, 'a "b"', None, MIDNIGHT + second, None),
            ("c", 0, None, None, "<18", MIDNIGHT, None),
        ]
    )
    assert written(frame).decode().split("\n")[1:] == [
        'a,5,True,"acne,oily_skin",25-35,2025-10-25T00:00:00,2025-10-25T00:00:01.000120',
        'b,,False,"a ""b""",,2025-10-25T00:00:01.000120,',
        "c,0,,,<18,2025-10-25T00:00:00,",
        "",
    ]


def test_a_frame_without_rows_gives_the_header_alone() -> None:
    """The header ends its line like every row."""
    assert written(frame_of([])) == (",".join(SCHEMA) + "\n").encode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_what_the_operating_system_says_keeps_its_number() -> None:
    """A full disk is distinguished from a lost reader."""
    frame = pl.DataFrame({"text": ["x" * 1000] * 1000})
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left") as caught:
        write_csv(frame, full, header=True)
    assert caught.value.errno == 28


def test_what_a_file_of_python_says_is_not_changed() -> None:
    """A file object that is not of the operating system may raise any error."""

    class Refusing(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, _: Any) -> int:
            raise OSError("not today")

    with pytest.raises(OSError, match="not today"):
        write_csv(pl.DataFrame({"a": [1]}), cast("BinaryIO", Refusing()), header=True)


def test_rows_written_in_pieces_are_those_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces differ in whether times have fractions, are constant or null."""
    time = datetime(2025, 1, 1, 12, tzinfo=UTC)
    times = [time, time, None, None, time + timedelta(microseconds=1), time + timedelta(seconds=1), time]
    texts = ['a,"b"', "c\nd", None, "", "e", "f", "g"]
    rows = pl.DataFrame({"text": texts, "time": times, "is": [*[True, None] * 3, False]})
    at_once, in_pieces = io.BytesIO(), io.BytesIO()
    write_csv(rows, at_once, header=True)
    monkeypatch.setattr(csv_files, "_ROWS_AT_ONCE", 2)
    write_csv(rows, in_pieces, header=True)
    assert in_pieces.getvalue() == at_once.getvalue()
