"""Raw feedback and training pairs as frames: good, but for what a test changes; and strategies for all the rest."""

import json
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl
from hypothesis import strategies as st

Row = Mapping[str, Any]

LIMITS = {"helpful_rating": (1, 5), "product_satisfaction": (1, 5), "routine_completion_pct": (0, 100)}
CANARY = "canary-4711"
NOW = datetime(2025, 10, 25, 12, 0, 0, 654321)
RAW_ROW: dict[str, Any] = {
    "feedback_id": 1,
    "user_id": 7,
    "analysis_id": 42,
    "recommendation_id": "rec_1",
    "helpful_rating": 5,
    "product_satisfaction": 4,
    "routine_completion_pct": 80,
    "would_recommend": True,
    "conditions_analyzed": '["acne", "oily_skin"]',
    "rules_applied": '["r001"]',
    "timeframe": "2_weeks",
    "age": 25,
    "created_at": datetime(2025, 10, 25, 10),
}
RAW_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(RAW_ROW, pl.String),
    **dict.fromkeys(("feedback_id", "user_id", "analysis_id"), pl.Int64),
    **dict.fromkeys(("helpful_rating", "product_satisfaction", "routine_completion_pct", "age"), pl.Int64),
    "would_recommend": pl.Boolean,
    "created_at": pl.Datetime("us"),
}
PAIR_ROW: dict[str, Any] = {
    "analysis_hash": "73475cb40a568e8d",
    "recommendation_id": "rec_1",
    "helpful_rating": 5,
    "product_satisfaction": 4,
    "routine_completion_pct": 80,
    "would_recommend": True,
    "conditions_detected": "acne,oily_skin",
    "rules_applied": "r001",
    "timeframe": "2_weeks",
    "age_range": "25-35",
    "feedback_timestamp": datetime(2025, 10, 25, 10, tzinfo=UTC),
    "export_date": datetime(2025, 10, 25, 12, tzinfo=UTC),
}
PAIR_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(PAIR_ROW, pl.String),
    **dict.fromkeys(("helpful_rating", "product_satisfaction", "routine_completion_pct"), pl.Int8),
    "would_recommend": pl.Boolean,
    "age_range": pl.Enum(["<18", "18-25", "25-35", "35-50", "50+"]),
    "feedback_timestamp": pl.Datetime("us", "UTC"),
    "export_date": pl.Datetime("us", "UTC"),
}


def raw_frame(*changes: Row, **types: Any) -> pl.DataFrame:
    """One raw row for each mapping of changes; without any, no rows."""
    return pl.DataFrame([RAW_ROW | dict(change) for change in changes], schema=RAW_SCHEMA | types)


def pair_frame(*changes: Row) -> pl.DataFrame:
    """One training pair for each mapping of changes; what `raw_frame` becomes without a key at `NOW`."""
    return pl.DataFrame([PAIR_ROW | dict(change) for change in changes], schema=PAIR_SCHEMA)


def all_said(error: BaseException | None) -> str:
    """Everything an error reveals: its texts, arguments, traceback and all errors that it is chained to."""
    if error is None:
        return ""
    texts = [str(error), repr(error), repr(error.args), repr(vars(error)), *traceback.format_exception(error)]
    return "\n".join([*texts, all_said(error.__cause__), all_said(error.__context__)])


def pandera_is_asked(what: Callable[[], object]) -> bool:
    """Whether a call runs code of pandera's, as Python's profiler sees it."""
    called: set[str] = set()
    sys.setprofile(lambda caller, *_: called.add(caller.f_code.co_filename))
    try:
        what()
    finally:
        sys.setprofile(None)
    return any("/pandera/" in name for name in called)


class Values(NamedTuple):
    """Some values of a column of one type: those in which nothing is wrong, and others."""

    valid: list[Any]
    wrong: list[Any]


def _json(*texts: str | None, words: list[list[str]]) -> list[str | None]:
    return [*texts, *map(json.dumps, words)]


def _as_float(value: int | None) -> float | None:
    return value if value is None else float(value)


_LISTS = Values(
    _json(None, "null", "", "[]", '[ "a",\n"b" ]', words=[["acne"], ["dry skin", "\u00e9"], ['x"y', " =1", "a=b"]]),
    _json("oops", "[1]", '{"a": "b"}', " ", words=[["a,b"], ["", "a"], ["=1", "\x1f"], ["a", "\t"], ["a,b", ""]]),
)
_WHOLE = {name: ([None, least, greatest], [least - 1, greatest + 1]) for name, (least, greatest) in LIMITS.items()}
_FRACTIONS = [0.5, -0.5, math.nan, math.inf, -math.inf]
_AGES = [None, -1, 0, 17, 18, 130, 131]
_TIMES = [datetime(2025, 10, 25, 10, 0, 0, microsecond) for microsecond in (0, 0, 1, 2)]
_VALUES: dict[str, dict[Any, Values]] = {
    **{
        name: {
            pl.Int64: Values([1, 2, -(2**63)], [None]),
            pl.UInt64: Values([1, 2, 2**64 - 1], [None]),
            pl.String: Values(["1", "2", "0b9f7c1e-0d3c-4a52-8f5e-6f1b9d6e7a11"], [None]),
        }
        for name in ("feedback_id", "user_id", "analysis_id")
    },
    "recommendation_id": {
        pl.String: Values(["rec_1", "rec_2", "1", "\u00e9,\n", " =1"], [None, "", "=1", "-", "rec\x00"]),
        pl.Int64: Values([1, 2], [None, -1]),
    },
    **{
        name: {
            pl.Int64: Values(valid, wrong),
            pl.Float64: Values([*map(_as_float, valid)], [*wrong, *_FRACTIONS]),
        }
        for name, (valid, wrong) in _WHOLE.items()
    },
    "age": {pl.Int64: Values(_AGES, []), pl.Float64: Values([*map(_as_float, _AGES), *_FRACTIONS], [])},
    "would_recommend": {pl.Boolean: Values([None, True, False], []), pl.Int64: Values([None, 0, 1], [2, -1])},
    "conditions_analyzed": {pl.String: _LISTS},
    "rules_applied": {pl.String: _LISTS},
    "timeframe": {pl.String: Values([None, "", "1_week", "\u00e9,\n", " =1"], ["=1", "\t", "1\x85"])},
    "created_at": {pl.Datetime("us"): Values(_TIMES, [None])},
}


@st.composite
def raw_frames(draw: st.DrawFn, max_size: int = 24) -> pl.DataFrame:
    """Raw feedback of every type a column may have, many duplicates in it; in some columns a few values are wrong."""
    size = draw(st.integers(0, max_size))
    columns = []
    for name in RAW_ROW:
        kinds = _VALUES[name]
        dtype = draw(st.sampled_from(list(kinds)))
        valid, wrong = kinds[dtype]
        pool = valid * 4 + wrong if draw(st.integers(0, 4)) == 0 else valid
        values = draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size))
        untyped = values.count(None) == size  # as in a frame made of Python values
        columns.append(pl.Series(name, values, dtype=pl.Null if untyped else dtype))
    return pl.DataFrame(columns)
