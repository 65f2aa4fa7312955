"""Column expressions, each against the standard library's way of saying the same."""

import bisect
import hashlib
import hmac
import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import polars.selectors as cs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal
from pseudonym_keys import KEY, SECRET_KEY

from feedback_etl.errors import KeyUnusableError, UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.schema.feedback_columns import AGE_EDGES
from feedback_etl.transform.expressions import (
    AGE_RANGE,
    bucket_age,
    hash_id,
    iso_timestamp,
    pair_hash,
)
from feedback_etl.transform.json_lists import decode_list, is_string_list, join_list

INTEGERS: dict[Any, tuple[int, int]] = {
    **{pl.Int8: (-(2**7), 2**7 - 1), pl.Int16: (-(2**15), 2**15 - 1), pl.Int32: (-(2**31), 2**31 - 1)},
    **{pl.Int64: (-(2**63), 2**63 - 1), pl.Int128: (-(2**127), 2**127 - 1)},
    **{pl.UInt8: (0, 2**8 - 1), pl.UInt16: (0, 2**16 - 1), pl.UInt32: (0, 2**32 - 1), pl.UInt64: (0, 2**64 - 1)},
}


def one(expression: pl.Expr) -> Any:
    """The single value of an expression of literals."""
    return pl.select(expression).item()


def over(values: list[Any], dtype: Any, expression: pl.Expr) -> list[Any]:
    """Return the values of an expression of the column `x`."""
    return pl.DataFrame({"x": pl.Series(values, dtype=dtype)}).select(expression).to_series().to_list()


def keyed(text: str, *, domain: str, key: str = KEY) -> str:
    return hmac.new(key.encode(), f"{domain}:{text}".encode(), hashlib.sha256).hexdigest()[:16]


def unkeyed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@st.composite
def integer_columns(draw: st.DrawFn) -> pl.Series:
    """A column `x` of ids of any integer width, its least and greatest value and nulls among them."""
    dtype = draw(st.sampled_from(sorted(INTEGERS, key=str)))
    least, greatest = INTEGERS[dtype]
    values = st.none() | st.integers(least, greatest) | st.sampled_from([least, greatest])
    return pl.Series("x", draw(st.lists(values, max_size=8)), dtype=dtype)


TEXT_COLUMNS = st.lists(st.none() | st.text(), max_size=8).map(lambda values: pl.Series("x", values, dtype=pl.String))


class TestHashId:
    """Pseudonyms of ids."""

    @pytest.mark.parametrize(
        ("id_", "digest"),
        [(42, "73475cb40a568e8d"), ("42", "73475cb40a568e8d"), (2**64 - 1, "2cdb26265b4dc65e")],
    )
    def test_unkeyed_digests_never_change(self, id_: int | str, digest: str) -> None:
        """Exports made with any version can be compared: these digests are in them."""
        assert one(hash_id(pl.lit(id_), unkeyed=True)) == digest

    def test_keyed_digest_never_changes(self) -> None:
        """HMAC-SHA256(KEY, "analysis_id:42") as computed once and written down."""
        assert one(hash_id(pl.lit(42), key=KEY, domain="analysis_id")) == "5cca56cd36b3f074"

    @given(st.one_of(integer_columns(), TEXT_COLUMNS))
    def test_unkeyed_equals_hashlib(self, ids: pl.Series) -> None:
        """SHA-256 of the id as text, for integers of all widths and for text; null stays null."""
        expected = [None if value is None else unkeyed(str(value)) for value in ids]
        assert ids.to_frame().select(hash_id("x", unkeyed=True)).to_dict(as_series=False) == {"x": expected}

    @given(st.one_of(integer_columns(), TEXT_COLUMNS), st.text(min_size=32).filter(lambda key: len(key.strip()) >= 32))
    def test_keyed_equals_hmac(self, ids: pl.Series, key: str) -> None:
        """HMAC-SHA256 of the column's name, a colon and the id as text; null stays null."""
        expected = [None if value is None else keyed(str(value), domain="x", key=key.strip()) for value in ids]
        pseudonyms = hash_id("x", key=Key(key, accept_weak=True))
        assert ids.to_frame().select(pseudonyms).to_dict(as_series=False) == {"x": expected}

    def test_it_gives_text_under_the_name_of_the_column(self) -> None:
        """The expected frame, with a null and an integer no float could hold."""
        frame = pl.DataFrame({"id": [1, None, 2**53 + 1]})
        expected = pl.DataFrame({"id": [unkeyed("1"), None, unkeyed("9007199254740993")]})
        assert_frame_equal(frame.select(hash_id("id", unkeyed=True)), expected)

    @pytest.mark.parametrize("key", [None, KEY])
    def test_a_column_of_nulls_alone_gives_nulls(self, key: str | None) -> None:
        """Such a column has no type yet, and the pseudonyms are text all the same."""
        nulls = pl.DataFrame({"x": [None, None]}).select(hash_id("x", key=key, unkeyed=key is None))
        assert_frame_equal(nulls, pl.DataFrame({"x": [None, None]}, schema={"x": pl.String}))

    def test_the_domain_is_the_columns_name_unless_given(self) -> None:
        """A name, an expression of it, and an alias."""
        frame = pl.DataFrame({"user_id": [42]})
        given_domain = hash_id("user_id", key=KEY, domain="analysis_id")
        aliased = hash_id(pl.col("user_id").alias("analysis_id"), key=KEY)
        assert frame.select(hash_id("user_id", key=KEY)).item() == keyed("42", domain="user_id")
        assert frame.select(hash_id(pl.col("user_id"), key=KEY)).item() == keyed("42", domain="user_id")
        assert frame.select(given_domain).item() == keyed("42", domain="analysis_id")
        assert frame.select(aliased).to_dict(as_series=False) == {"analysis_id": [keyed("42", domain="analysis_id")]}

    def test_one_number_has_two_pseudonyms_in_two_domains(self) -> None:
        """A user's pseudonym does not disclose the analysis with the same number."""
        pair = pl.DataFrame({"user_id": [42], "analysis_id": [42]}).select(
            hash_id("user_id", key=KEY), hash_id("analysis_id", key=KEY)
        )
        assert pair.row(0) == (keyed("42", domain="user_id"), keyed("42", domain="analysis_id"))
        assert len(set(pair.row(0))) == 2

    def test_unkeyed_knows_no_domain(self) -> None:
        """The plain form is SHA-256 of the id alone, as the classic API had it."""
        assert one(hash_id(pl.lit(42), unkeyed=True, domain="analysis_id")) == "73475cb40a568e8d"

    def test_a_key_object_and_its_text_are_the_same_key(self) -> None:
        """White space around a key, such as the end of its file's line, is not part of it."""
        pseudonyms = [
            one(hash_id(pl.lit("a"), key=key, domain="x")) for key in (KEY, Key(KEY), f" {KEY}\r\n", Key(f"{KEY}\n"))
        ]
        assert pseudonyms == [keyed("a", domain="x")] * 4

    @pytest.mark.parametrize("arguments", [{}, {"key": KEY, "unkeyed": True}, {"unkeyed": False}])
    def test_it_wants_either_a_key_or_unkeyed(self, arguments: Any) -> None:
        """Neither and both are mistakes; omitting an argument never gives unkeyed pseudonyms."""
        with pytest.raises(UsageError, match=r"either key=\.\.\. or unkeyed=True"):
            hash_id("id", **arguments)

    @pytest.mark.parametrize("key", ["", " " * 40, "k" * 31, " " + "k" * 31, "\u00e9" * 15 + "k"])
    def test_a_short_key_is_refused(self, key: str) -> None:
        """Fewer than 32 bytes without the white space around them; the message does not show it."""
        with pytest.raises(
            KeyUnusableError,
            match=r"^The key has fewer than 32 bytes; `feedback-etl keys new --file FILE` creates one\.$",
        ):
            hash_id("id", key=key)

    @pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
    @pytest.mark.parametrize("key", [None, "daa0871acd4ebc9edb39ffe5bb8b89c8"])
    def test_floats_are_refused(self, dtype: Any, key: str | None) -> None:
        """When the expression is evaluated, with a reason and without a value."""
        for frame in (pl.DataFrame({"id": [4711.5, None]}, {"id": dtype}), pl.DataFrame({"id": [None]}, {"id": dtype})):
            expression = hash_id("id", key=key, unkeyed=key is None)
            with pytest.raises(pl.exceptions.ComputeError, match="ids must be integers or text, not floats") as caught:
                frame.select(expression)
            assert "4711" not in str(caught.value)

    def test_several_columns_are_refused(self) -> None:
        """Each has a domain of its own, which one expression cannot have."""
        for columns in (pl.col("a", "b"), cs.integer(), pl.all()):
            with pytest.raises(UsageError, match=r"pass several, or a selector, to hash_ids\(frame"):
                hash_id(columns, unkeyed=True)

    def test_keys_of_bytes_are_refused(self) -> None:
        """With a remedy, without the key."""
        key: Any = b"daa0871acd4ebc9edb39ffe5bb8b89c8"
        with pytest.raises(KeyUnusableError, match=r"^The key is bytes, but must be text: decode it, with key\.decode"):
            hash_id("a", key=key)

    def test_grouped_and_windowed_ids_have_the_same_pseudonyms(self) -> None:
        """The check of the type adds no column."""
        frame = pl.DataFrame({"g": [1, 1, 2], "id": [42, None, 42]})
        wanted = ["73475cb40a568e8d", None, "73475cb40a568e8d"]
        expression = hash_id("id", unkeyed=True)
        assert frame.with_columns(expression.over("g"))["id"].to_list() == wanted
        assert frame.group_by("g", maintain_order=True).agg(expression).explode("id")["id"].to_list() == wanted
        assert frame.lazy().select(expression).collect(engine="streaming")["id"].to_list() == wanted
        assert frame.head(0).select(expression).height == 0

    def test_a_keys_length_is_counted_in_bytes(self) -> None:
        """Sixteen characters of two bytes each are 32 bytes."""
        text = "\u00e9" * 16
        key = Key(text, accept_weak=True)
        assert one(hash_id(pl.lit(1), key=key, domain="x")) == keyed("1", domain="x", key=text)

    def test_a_key_that_is_no_text_is_refused_and_not_shown(self) -> None:
        """Bytes that are not UTF-8 become lone surrogates in environment variables."""
        with pytest.raises(KeyUnusableError) as caught:
            hash_id("id", key=f"{SECRET_KEY}\udcff")
        assert "canary" not in repr(caught.value)
        assert caught.value.__context__ is None


class TestBucketAge:
    """Ages to ranges."""

    @pytest.mark.parametrize(
        ("age", "bucket"),
        [
            (-1, "<18"),
            (0, "<18"),
            (17, "<18"),
            (18, "18-25"),
            (24, "18-25"),
            (25, "25-35"),
            (34, "25-35"),
            (35, "35-50"),
            (49, "35-50"),
            (50, "50+"),
            (130, "50+"),
            (131, "50+"),
        ],
    )
    def test_ranges_are_half_open(self, age: int, bucket: str | None) -> None:
        """Each edge with its neighbours; both ends are open, as in the classic API."""
        assert one(bucket_age(pl.lit(age))) == bucket

    @given(st.lists(st.none() | st.floats() | st.integers(-5, 140).map(float) | st.floats(-1, 131), max_size=10))
    def test_it_equals_bisect(self, ages: list[float | None]) -> None:
        """Also for fractions, infinities and NaN, which is not an age; null stays null."""
        labels = AGE_RANGE.categories.to_list()

        def expected(age: float | None) -> str | None:
            if age is None or math.isnan(age):
                return None
            return str(labels[bisect.bisect_right(AGE_EDGES, age)])

        assert over(ages, pl.Float64, bucket_age("x")) == [expected(age) for age in ages]

    @pytest.mark.parametrize(
        "dtype", [*INTEGERS, pl.Float32, pl.Float64, pl.Decimal(10, 2)], ids=lambda dtype: str(dtype).partition("(")[0]
    )
    def test_every_numeric_type_gives_the_same(self, dtype: Any) -> None:
        """Also those that cannot hold 130."""
        values = [Decimal(age) if dtype == pl.Decimal else age for age in (0, 18, 25, 35, 50, 127)]
        assert over([*values, None], dtype, bucket_age("x")) == ["<18", "18-25", "25-35", "35-50", "50+", "50+", None]

    def test_it_gives_an_enum_under_the_name_of_the_column(self) -> None:
        """The expected frame: ranges sort by age, not by letter."""
        frame = pl.DataFrame({"age": [60, 17, None, 18]}).select(bucket_age("age"))
        ranges = pl.Enum(["<18", "18-25", "25-35", "35-50", "50+"])
        assert_frame_equal(frame, pl.DataFrame({"age": ["50+", "<18", None, "18-25"]}, schema={"age": ranges}))
        assert frame.sort("age")["age"].to_list() == [None, "<18", "18-25", "50+"]

    def test_a_column_of_nulls_alone_gives_nulls(self) -> None:
        """Such a column has no type yet; the result has its type all the same."""
        frame = pl.DataFrame({"age": [None, None]}).select(bucket_age("age"))
        assert_series_equal(frame["age"], pl.Series("age", [None, None], dtype=AGE_RANGE))


class TestIsoTimestamp:
    """Times to text."""

    @given(st.lists(st.none() | st.datetimes(), max_size=8), st.sampled_from([None, "UTC", "Asia/Kathmandu"]))
    def test_it_equals_isoformat(self, times: list[datetime | None], zone: str | None) -> None:
        """Years 1 to 9999, microseconds or none; times with a zone are printed in UTC."""
        column = pl.Series("x", times, dtype=pl.Datetime("us"))
        if zone:
            column = column.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        expected = [None if time is None else time.isoformat() for time in times]
        assert column.to_frame().select(iso_timestamp("x")).to_dict(as_series=False) == {"x": expected}

    @pytest.mark.parametrize("unit", ["ms", "us", "ns"])
    def test_units_print_the_same(self, unit: Any) -> None:
        """No fraction where it is zero, else six digits, whatever the unit."""
        times = [datetime(2025, 10, 25, 10), datetime(2025, 10, 25, 10, 0, 0, 120_000)]
        assert over(times, pl.Datetime(unit), iso_timestamp("x")) == [
            "2025-10-25T10:00:00",
            "2025-10-25T10:00:00.120000",
        ]

    def test_a_zone_with_summer_time_is_converted_not_relabelled(self) -> None:
        """Two instants an hour apart that a wall clock in Berlin shows alike."""
        instants = [datetime(2025, 10, 26, 0, 30, tzinfo=UTC), datetime(2025, 10, 26, 1, 30, tzinfo=UTC)]
        walls = [instant.astimezone(ZoneInfo("Europe/Berlin")) for instant in instants]
        assert [wall.hour for wall in walls] == [2, 2]
        expected = ["2025-10-26T00:30:00", "2025-10-26T01:30:00"]
        assert over(walls, pl.Datetime("us", "Europe/Berlin"), iso_timestamp("x")) == expected

    def test_a_literal_in_another_zone_becomes_utc(self) -> None:
        """An aware datetime of the standard library."""
        east = datetime(2025, 10, 25, 10, tzinfo=timezone(timedelta(hours=2)))
        assert one(iso_timestamp(pl.lit(east))) == "2025-10-25T08:00:00"

    @pytest.mark.parametrize("values", [[SECRET_KEY], [date(2025, 10, 25)]])
    def test_what_is_no_time_is_refused(self, values: list[Any]) -> None:
        """Text is not parsed, and the refusal does not show it."""
        with pytest.raises(pl.exceptions.PolarsError) as caught:
            pl.DataFrame({"x": values}).select(iso_timestamp("x"))
        assert "canary" not in str(caught.value)


class TestPairHash:
    """The columns by which two rows are the same feedback."""

    @given(*[st.none() | st.text()] * 3)
    def test_it_equals_hashlib(self, pseudonym: str | None, recommendation: str | None, time: str | None) -> None:
        """SHA-256 of the three texts joined by a bar; null if one of them is null."""
        texts = (pseudonym, recommendation, time)
        known = [text for text in texts if text is not None]
        expected = hashlib.sha256("|".join(known).encode()).hexdigest() if len(known) == 3 else None
        assert one(pair_hash(*(pl.lit(text, pl.String) for text in texts))) == expected

    @given(st.datetimes(), st.sampled_from([None, "UTC"]))
    def test_times_and_their_text_give_the_same(self, time: datetime, zone: str | None) -> None:
        """A frame holds times where a file holds their text: both are the same feedback."""
        texts = pl.DataFrame(
            {"analysis_hash": "8f1c", "recommendation_id": "rec", "feedback_timestamp": time.isoformat()}
        )
        times = texts.with_columns(feedback_timestamp=pl.lit(time, pl.Datetime("us")).dt.replace_time_zone(zone))
        expected = hashlib.sha256(f"8f1c|rec|{time.isoformat()}".encode()).hexdigest()
        assert_frame_equal(texts.select(pair_hash()), pl.DataFrame({"pair_hash": [expected]}))
        assert_frame_equal(times.lazy().select(pair_hash()).collect(), pl.DataFrame({"pair_hash": [expected]}))

    def test_other_column_names_can_be_given(self) -> None:
        """The three parts in their order."""
        frame = pl.DataFrame({"a": ["1"], "b": ["2"], "c": ["3"]})
        assert frame.select(pair_hash("a", "b", "c")).item() == hashlib.sha256(b"1|2|3").hexdigest()

    def test_a_missing_column_is_an_error(self) -> None:
        """It is not left out of the hash."""
        with pytest.raises(pl.exceptions.ColumnNotFoundError):
            pl.DataFrame({"analysis_hash": ["a"], "recommendation_id": ["b"]}).select(pair_hash())


def strings_of(text: str | None) -> list[str] | None:
    """The strings of a JSON array by the json module; empty for no array, None for anything else."""
    if text is None or text == "":
        return []
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is not text
    except (ValueError, RecursionError):
        return None
    value = [] if value is None else value
    return value if isinstance(value, list) and all(isinstance(element, str) for element in value) else None


_SPACES = st.text(" \t\n\r", max_size=2)
_RAW_STRINGS = st.lists(
    st.sampled_from([*"ab,[]{}:/ ", "\u00e9", "\U0001f600", "\x7f", "\u2028", "\ufeff", "\x00", "\n", "\t", '"', "\\"])
    | st.sampled_from([r"\"", r"\\", r"\/", r"\b", r"\n", r"\x", r"\u0041", r"\u0000", r"\u00e", r"\uD7FF", r"\uE000"])
    | st.sampled_from([r"\ud83d\ude00", r"\uDBFF\uDFFF", r"\ud83d", r"\ude00", r"\ude00\ud83d", r"\ud83d\u0041"])
    | st.sampled_from(["\x1f", r"\ud800\udc00", r"\ud83d\udbff", r"\udbff\ue000"]),
    max_size=4,
).map("".join)
_ELEMENTS = st.one_of(
    st.text().map(json.dumps),
    st.text().map(lambda text: json.dumps(text, ensure_ascii=False)),
    _RAW_STRINGS.map('"{}"'.format),
    st.sampled_from(["1", "NaN", "null", "true", "[]", '["a"]', "{}", '{"a": "b"}', "a", "", "''"]),
)


@st.composite
def documents(draw: st.DrawFn) -> str | None:
    """JSON arrays of strings, things like them, and broken ones."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from(
                [None, "", " ", "null", " null\n", "nul", "NULL", "null,", '"a"', "0", "{}", "[[]]", "\ufeff[]"]
            )
        )
    elements = [draw(_SPACES) + element + draw(_SPACES) for element in draw(st.lists(_ELEMENTS, max_size=4))]
    text = draw(_SPACES) + "[" + (",".join(elements) or draw(_SPACES)) + "]" + draw(_SPACES)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from([*',"[]x\\\x0b', "\u00a0", "//", ""]))
            + text[at + draw(st.integers(0, 1)) :]
        )
    return text


class TestLists:
    """JSON arrays of strings."""

    @given(st.lists(documents(), max_size=12))
    def test_they_are_read_as_the_json_module_reads_them(self, texts: list[str | None]) -> None:
        """Strictly by RFC 8259, for any error in a document and any content beside it."""
        frame = pl.DataFrame({"x": pl.Series(texts, dtype=pl.String)}).select(
            valid=is_string_list("x"), decoded=decode_list("x"), joined=join_list("x")
        )
        strings = [strings_of(text) for text in texts]
        arrays = [
            None if text is None or "[" not in text else found for text, found in zip(texts, strings, strict=True)
        ]
        expected = {
            "valid": [found is not None for found in strings],
            "decoded": arrays,
            "joined": [",".join(found) if found else None for found in arrays],
        }
        types: dict[str, Any] = {"valid": pl.Boolean, "decoded": pl.List(pl.String), "joined": pl.String}
        assert_frame_equal(frame, pl.DataFrame(expected, schema=types))

    @pytest.mark.parametrize(
        ("text", "joined"),
        [
            ('["acne", "oily_skin"]', "acne,oily_skin"),
            ('["dry skin"]', "dry skin"),
            (' [ "a" ,\n"b" ] ', "a,b"),
            (r'["say \"hi\"", "\u00e9", "\ud83d\ude00"]', 'say "hi",\u00e9,\U0001f600'),
            ('["\u00e9", "\U0001f600"]', "\u00e9,\U0001f600"),
            ('["b", "a", "b"]', "b,a,b"),
            ("[]", None),
            ("null", None),
            ("", None),
            (None, None),
        ],
    )
    def test_elements_are_joined_in_their_order(self, text: str | None, joined: str | None) -> None:
        """Spaces, quotes, escapes and non-ASCII are elements' own; no elements give null."""
        assert over([text], pl.String, is_string_list("x")) == [True]
        assert over([text], pl.String, join_list("x")) == [joined]

    @pytest.mark.parametrize(
        "text",
        [
            *(" ", "nul", "NaN", "[NaN]", "[Infinity]", "['a']", '["a"', '["a",]', "[,]", '["a" "b"]', '["a"]["b"]'),
            *('["a", 1]', '["a", null]', "[true]", '[["a"]]', '{"a": "b"}', '"a"', "1", '// c\n["a"]', '\ufeff["a"]'),
            *(
                '["\n"]',
                '["\t"]',
                '["\x00"]',
                r'["\x41"]',
                r'["\u12"]',
                r'["\ud83d"]',
                r'["\ude00"]',
                r'["\ud83d\u0041"]',
                r'["\ud83d\udbff"]',
                '["\x1f"]',
            ),
            "[" * 100_000 + "]" * 100_000,
        ],
        ids=lambda text: text[:12],
    )
    def test_other_json_is_distinguished_from_an_empty_array(self, text: str) -> None:
        """Broken JSON, other types, control characters, halves of surrogate pairs."""
        assert over([text], pl.String, is_string_list("x")) == [False]
        assert over([text], pl.String, join_list("x")) == [None]

    def test_a_column_of_nulls_alone_holds_empty_lists(self) -> None:
        """Such a column has no type yet; the results have theirs, and the column's name."""
        frame = pl.DataFrame({"x": [None]})
        assert_frame_equal(frame.select(is_string_list("x")), pl.DataFrame({"x": [True]}))
        assert_frame_equal(
            frame.select(decode_list("x")), pl.DataFrame({"x": [None]}, schema={"x": pl.List(pl.String)})
        )
        assert_frame_equal(frame.select(join_list("x")), pl.DataFrame({"x": [None]}, schema={"x": pl.String}))
