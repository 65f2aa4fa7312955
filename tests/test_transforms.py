"""Raw feedback to training pairs, and no pair twice."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from frames import CANARY, NOW, PAIR_ROW, PAIR_SCHEMA, RAW_ROW, RAW_SCHEMA, pair_frame, raw_frame, raw_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pseudonym_keys import KEY

from feedback_etl.errors import KeyUnusableError, UsageError, ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.training.answers import latest_per_recommendation
from feedback_etl.transform.expressions import pair_hash
from feedback_etl.transform.raw_schema import split_valid
from feedback_etl.transform.transforms import (
    PAIR_KEY,
    RAW_KEY,
    anonymize,
    deduplicate,
    has_min_ratings,
)

FEWER = settings(max_examples=settings().max_examples // 3)
RATINGS = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend")


def pairs_of(frame: pl.DataFrame, **options: Any) -> pl.DataFrame:
    """`anonymize` without a key, at `NOW`."""
    given_or_usual: dict[str, Any] = {"now": NOW, "unkeyed": True} | options
    return anonymize(frame, **given_or_usual)


class TestAnonymize:
    """Raw feedback to training pairs."""

    def test_the_pairs_in_full(self) -> None:
        """The expected frame: every column of a row with all values, and of one with as few as there can be."""
        bare = dict.fromkeys(RAW_ROW) | {"analysis_id": 42, "recommendation_id": "rec_1", "created_at": NOW}
        expected_bare = dict.fromkeys(PAIR_ROW) | {
            "analysis_hash": "73475cb40a568e8d",
            "recommendation_id": "rec_1",
            "feedback_timestamp": NOW.replace(tzinfo=UTC),
            "export_date": datetime(2025, 10, 25, 12, tzinfo=UTC),
        }
        assert_frame_equal(pairs_of(raw_frame({}, bare)), pair_frame({}, expected_bare))

    def test_keyed_pseudonyms_are_hmac_with_the_domain_of_their_column(self) -> None:
        """The key may be a text or a Key; white space around it is not part of it."""
        expected = hmac.new(KEY.encode(), b"analysis_id:42", hashlib.sha256).hexdigest()[:16]
        for key in (KEY, Key(KEY), f"{KEY}\n"):
            pairs = anonymize(raw_frame({}), now=NOW, key=key)
            assert_frame_equal(pairs, pair_frame({"analysis_hash": expected}))

    def test_recommendations_can_be_pseudonymised_too(self) -> None:
        """In a domain of their own, so that equal ids differ; or as plain SHA-256."""
        frame = raw_frame({"analysis_id": 42, "recommendation_id": "42"})
        keyed = anonymize(frame, now=NOW, key=KEY, hash_recommendation_id=True)
        expected = hmac.new(KEY.encode(), b"recommendation_id:42", hashlib.sha256).hexdigest()[:16]
        assert keyed["recommendation_id"].item() == expected != keyed["analysis_hash"].item()
        assert pairs_of(frame, hash_recommendation_id=True)["recommendation_id"].item() == "73475cb40a568e8d"

    @FEWER
    @given(raw_frames(), st.booleans())
    def test_lazy_and_eager_give_the_same(self, frame: pl.DataFrame, is_hashed: bool) -> None:
        """A lazy frame stays lazy; every row gives one pair, in its order."""
        valid = split_valid(frame).valid
        eager = pairs_of(valid, hash_recommendation_id=is_hashed)
        lazy = anonymize(valid.lazy(), now=NOW, unkeyed=True, hash_recommendation_id=is_hashed)
        assert isinstance(lazy, pl.LazyFrame)
        assert_frame_equal(lazy.collect(), eager)
        assert eager.height == valid.height
        assert eager["feedback_timestamp"].dt.replace_time_zone(None).to_list() == valid["created_at"].to_list()

    def test_a_lazy_frame_is_not_run(self) -> None:
        """Its schema is looked at; what would compute its rows is not called."""
        plan = (
            raw_frame({})
            .lazy()
            .with_columns(pl.col("age").map_batches(lambda _: pytest.fail("it was run"), return_dtype=pl.Int64))
        )
        assert isinstance(anonymize(plan, now=NOW, unkeyed=True), pl.LazyFrame)

    @pytest.mark.parametrize("lazy", [False, True])
    def test_rows_keep_their_number_and_order(self, lazy: bool) -> None:
        """Duplicates stay, and lists that many rows share, or that are missing, neither drop nor double rows."""
        texts = ['["b"]', None, '["a"]', "[]", '["b"]', "null", None, '["a"]', '["a", "b"]'] * 3
        frame = raw_frame(*({"conditions_analyzed": text, "rules_applied": text} for text in texts))
        pairs = anonymize(frame.lazy(), now=NOW, unkeyed=True).collect() if lazy else pairs_of(frame)
        joined = ["b", None, "a", None, "b", None, None, "a", "a,b"] * 3
        assert pairs.select("conditions_detected", "rules_applied").rows() == [(text, text) for text in joined]

    def test_nothing_but_the_columns_of_the_contract_comes_out(self) -> None:
        """Above all no free text, whatever its column is called."""
        frame = raw_frame({"user_id": 471147114711})
        names = [
            "feedback_text",
            "s3_key",
            "email",
            "conditions_joined",
            "rules_joined",
            "analysis_hash",
            "export_date",
        ]
        pairs = pairs_of(frame.with_columns(pl.lit(CANARY).alias(name) for name in names))
        assert pairs.schema == pl.Schema(PAIR_SCHEMA)
        assert CANARY not in pairs.write_csv()
        assert "471147114711" not in pairs.write_csv()

    @pytest.mark.parametrize("columns", [RAW_ROW, ["conditions_analyzed"], ["created_at"], ["analysis_id", "age"]])
    def test_columns_of_nulls_alone(self, columns: Any) -> None:
        """Such columns have no type yet; the pairs have theirs."""
        pairs = pairs_of(raw_frame({}).with_columns(pl.lit(None).alias(name) for name in columns))
        assert pairs.schema == pl.Schema(PAIR_SCHEMA)

    def test_no_rows(self) -> None:
        """Typed or not, they give no pairs, with the types of the contract."""
        for frame in (raw_frame(), pl.DataFrame({name: [] for name in RAW_SCHEMA})):
            assert_frame_equal(pairs_of(frame), pair_frame())

    def test_an_empty_timeframe_is_none(self) -> None:
        """They are equal in a file."""
        assert pairs_of(raw_frame({"timeframe": ""}))["timeframe"].to_list() == [None]

    @pytest.mark.parametrize(
        "now",
        [
            datetime(2025, 10, 25, 12, 0, 0, 999_999),
            datetime(2025, 10, 25, 12, tzinfo=UTC),
            datetime(2025, 10, 25, 14, 30, 0, 5, tzinfo=timezone(timedelta(hours=2, minutes=30))),
        ],
    )
    def test_now_is_cut_to_seconds_in_utc(self, now: datetime) -> None:
        """A naive time is UTC; one with an offset is converted to UTC."""
        assert pairs_of(raw_frame({}), now=now)["export_date"].to_list() == [datetime(2025, 10, 25, 12, tzinfo=UTC)]

    @pytest.mark.parametrize("unit", ["ms", "us", "ns"])
    @pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
    def test_times_of_any_unit_and_zone_are_the_same_instant(self, unit: Any, zone: str | None) -> None:
        """In UTC and microseconds."""
        time = pl.col("created_at").dt.replace_time_zone("UTC").dt.convert_time_zone(zone or "UTC")
        frame = raw_frame({}).with_columns((time if zone else pl.col("created_at")).dt.cast_time_unit(unit))
        assert_frame_equal(pairs_of(frame), pair_frame({}))

    def test_ratings_of_other_types_are_the_same_values(self) -> None:
        """Whole numbers in a column of fractions, booleans kept as 0 and 1."""
        types = dict.fromkeys(("helpful_rating", "routine_completion_pct", "age"), pl.Float64)
        frame = raw_frame({"would_recommend": 1}, {"would_recommend": 0}, would_recommend=pl.Int64, **types)
        assert_frame_equal(pairs_of(frame), pair_frame({}, {"would_recommend": False}))

    @pytest.mark.parametrize(("dtype", "id_"), [(pl.UInt64, 42), (pl.Int32, 42), (pl.String, "42")])
    def test_an_id_has_one_pseudonym_in_all_types(self, dtype: Any, id_: int | str) -> None:
        """Integers of any width and text."""
        assert_frame_equal(pairs_of(raw_frame({"analysis_id": id_}, analysis_id=dtype)), pair_frame({}))

    @pytest.mark.parametrize("name", ["analysis_id", "recommendation_id"])
    @pytest.mark.parametrize("lazy", [False, True])
    def test_floating_point_ids_are_refused(self, name: str, lazy: bool) -> None:
        """42.0 would get another pseudonym than 42, and large ids would fall together; no id is shown."""
        frame = raw_frame({}).with_columns(pl.lit(471147.0).alias(name))
        with pytest.raises(ValidationError, match=rf"^Raw columns of a wrong type: {name} is Float64") as caught:
            anonymize(frame.lazy(), now=NOW, unkeyed=True) if lazy else pairs_of(frame)
        assert "471147" not in str(caught.value)

    def test_missing_columns_are_named(self) -> None:
        """As `split_valid` names them."""
        with pytest.raises(ValidationError, match="lacks the raw columns conditions_analyzed, age"):
            pairs_of(raw_frame({}).drop("age", "conditions_analyzed"))

    def test_it_wants_either_a_key_or_unkeyed(self) -> None:
        """Neither and both are mistakes, and a key that is too short is none."""
        frame = raw_frame({})
        with pytest.raises(UsageError):
            anonymize(frame, now=NOW)
        with pytest.raises(UsageError):
            anonymize(frame, now=NOW, key=KEY, unkeyed=True)
        with pytest.raises(KeyUnusableError):
            anonymize(frame, now=NOW, key="short")

    @pytest.mark.parametrize("value", ["hash", "keep", "", None, 1])
    def test_hash_recommendation_id_must_be_a_bool(self, value: Any) -> None:
        """A mistake must not export recommendations as they are."""
        with pytest.raises(UsageError, match=r"^`hash_recommendation_id` must be True or False\.$"):
            anonymize(raw_frame({}), now=NOW, unkeyed=True, hash_recommendation_id=value)


class TestDeduplicate:
    """No pair twice."""

    def test_the_first_row_of_each_pair_stays(self) -> None:
        """The expected frame: pairs are identified by pseudonym, recommendation and time alone."""
        frame = pair_frame(
            {"helpful_rating": 1},
            {"helpful_rating": 2},
            {"analysis_hash": "8f1c5a7d2e9b3c41"},
            {"recommendation_id": "rec_2"},
            {"feedback_timestamp": datetime(2025, 10, 25, 10, 0, 0, 1, tzinfo=UTC)},
            {"helpful_rating": 3, "recommendation_id": "rec_2"},
        )
        expected = pair_frame(
            {"helpful_rating": 1},
            {"analysis_hash": "8f1c5a7d2e9b3c41"},
            {"recommendation_id": "rec_2"},
            {"feedback_timestamp": datetime(2025, 10, 25, 10, 0, 0, 1, tzinfo=UTC)},
        )
        assert_frame_equal(deduplicate(frame), expected)
        assert_frame_equal(deduplicate(frame.lazy()).collect(), expected)
        assert_frame_equal(deduplicate(expected), expected)

    def test_a_lazy_frame_stays_lazy(self) -> None:
        """It composes with `.pipe` and runs when it is collected."""
        plan = raw_frame({}, {}).lazy().pipe(anonymize, now=NOW, unkeyed=True).pipe(deduplicate)
        assert isinstance(plan, pl.LazyFrame)
        assert_frame_equal(plan.collect(), pair_frame({}))

    @FEWER
    @given(raw_frames())
    def test_on_raw_keys_it_keeps_what_it_keeps_on_hashed_ones(self, frame: pl.DataFrame) -> None:
        """It may come before the hashing, since hashing maps keys one to one."""
        valid = split_valid(frame).valid
        before = pairs_of(deduplicate(valid, by=RAW_KEY))
        assert_frame_equal(before, deduplicate(pairs_of(valid)))

    @FEWER
    @given(raw_frames())
    def test_it_leaves_one_row_for_each_pair_hash(self, frame: pl.DataFrame) -> None:
        """The first of each, by a loop over the digests."""
        pairs = pairs_of(split_valid(frame).valid).with_row_index("n")
        digests = pairs.select(pair_hash()).to_series().to_list()
        first = {digest: n for n, digest in reversed(list(enumerate(digests)))}
        assert deduplicate(pairs)["n"].to_list() == sorted(first.values())

    def test_keys_are_those_of_the_pair_hash(self) -> None:
        """The raw key is what `anonymize` makes the pair's key of."""
        assert PAIR_KEY == ("analysis_hash", "recommendation_id", "feedback_timestamp")
        assert RAW_KEY == ("analysis_id", "recommendation_id", "created_at")


class TestLatest:
    """What people said last."""

    def test_the_newest_row_of_each_recommendation_stays(self) -> None:
        """In the order of the frame; of equal times the last, and rows without a time are the oldest."""
        at = [datetime(2025, 10, day, tzinfo=UTC) for day in (1, 2, 3)]
        rows = [(0, "a", at[2]), (1, "b", at[0]), (2, "a", at[1]), (3, "b", at[0]), (4, "c", None), (5, "a", None)]
        frame = pl.DataFrame(rows, schema=["n", "recommendation_id", "feedback_timestamp"], orient="row")
        frame = frame.with_columns(analysis_hash=pl.lit("73475cb40a568e8d"))
        assert latest_per_recommendation(frame)["n"].to_list() == [0, 3, 4]
        assert latest_per_recommendation(frame.lazy()).collect()["n"].to_list() == [0, 3, 4]
        two = pl.concat([frame, frame.with_columns(analysis_hash=pl.lit("8f1c5a7d2e9b3c41"))])
        assert latest_per_recommendation(two).height == 6


class TestEnoughRatings:
    """Which rows have enough of the four ratings."""

    @pytest.mark.parametrize("least", range(5))
    def test_zero_and_false_are_ratings_and_null_is_none(self, least: int) -> None:
        """Rows with 0 to 4 ratings."""
        values = {"helpful_rating": 0, "product_satisfaction": 5, "routine_completion_pct": 0, "would_recommend": False}
        rows = [dict.fromkeys(RATINGS) | dict(list(values.items())[:count]) for count in range(5)]
        enough = raw_frame(*rows).select(has_min_ratings(least)).to_series().to_list()
        assert enough == [count >= least for count in range(5)]

    @pytest.mark.parametrize("least", [-1, 5, 1.0, True, False, "1", None])
    def test_other_numbers_are_refused(self, least: Any) -> None:
        """The message names the allowed values."""
        with pytest.raises(UsageError, match=r"^`min_feedback_fields` must be a whole number from 0 to 4\.$"):
            has_min_ratings(least)


def test_what_is_no_rating_becomes_null_without_a_word_of_it() -> None:
    """A rating that is not whole or too large, and an answer other than 0 and 1, are never rounded or shown."""
    frame = pl.DataFrame(
        {name: [None, None] for name in CLASSIC_SCHEMA.raw_columns}
        | {"helpful_rating": [4.5, 4.0], "would_recommend": [7, 1]}
    )
    pairs = anonymize(frame, now=datetime(2025, 10, 25), unkeyed=True)
    assert pairs.select("helpful_rating", "would_recommend").rows() == [(None, None), (4, True)]
    large = anonymize(frame.with_columns(helpful_rating=pl.lit(300)), now=datetime(2025, 10, 25), unkeyed=True)
    assert large["helpful_rating"].to_list() == [None, None]
