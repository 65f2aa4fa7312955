"""Transforms accept frames of any kind and return the same kind; all kinds give the same values."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pytest
from frames import CANARY, NOW, all_said, fitted_features, pair_frame, raw_frame, raw_frames
from hypothesis import given, settings
from polars.testing import assert_frame_equal

import feedback_etl as fe
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.privacy import coarsen, risk
from feedback_etl.training import (
    Vocabulary,
    features,
    interactions,
    k_folds,
    label,
    latest_per_recommendation,
    one_horizon,
    rolling_origins,
    split_by_hash,
    split_by_time,
)
from feedback_etl.transform import bucket_ages, hash_ids
from feedback_etl.transform.dataframes import accepts_any_dataframe, to_polars

LABELS = ["first", "second", "third", "fourth"]
RAW = raw_frame(
    {},
    {"feedback_id": 2},
    {"feedback_id": 3, "helpful_rating": 9},
    {"feedback_id": 4, "analysis_id": 43, "helpful_rating": None, "would_recommend": None, "age": None},
)
PAIRS = fe.anonymize(RAW, now=NOW, unkeyed=True)


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """With index labels of its own, and integers with nulls as pandas has them exactly."""
    table = frame.to_arrow()
    nullable = {pa.int8(): pd.Int8Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    found = table.to_pandas(types_mapper=nullable.get)
    return found.set_index(pd.Index(LABELS[: frame.height]))


KINDS: dict[str, tuple[type, Callable[[pl.DataFrame], Any]]] = {
    "polars": (pl.DataFrame, lambda frame: frame),
    "lazy": (pl.LazyFrame, lambda frame: frame.lazy()),
    "pandas": (pd.DataFrame, to_pandas),
    "arrow": (pa.Table, lambda frame: frame.to_arrow()),
}
TRANSFORMS: dict[str, tuple[pl.DataFrame, Callable[[Any], Any]]] = {
    "anonymize": (RAW, lambda frame: fe.anonymize(frame, now=NOW, unkeyed=True)),
    "bucket_ages": (RAW, lambda frame: bucket_ages(frame, cs.by_name("age"), plausible_only=True)),
    "coarsen": (PAIRS, lambda frame: coarsen(frame, "day")),
    "deduplicate": (PAIRS, fe.deduplicate),
    "features": (PAIRS, fitted_features),
    "label": (PAIRS, lambda frame: label(frame, "helpful")),
    "latest_per_recommendation": (PAIRS, latest_per_recommendation),
    "one_horizon": (PAIRS, lambda frame: one_horizon(frame, "2_weeks")),
    "hash_ids": (RAW, lambda frame: hash_ids(frame, ["user_id", "analysis_id"], unkeyed=True)),
    "interactions": (PAIRS, lambda frame: interactions(frame, user="analysis_hash")),
    "k_folds": (PAIRS, lambda frame: k_folds(frame, by="timeframe")),
    "rolling_origins": (
        PAIRS,
        lambda frame: rolling_origins(frame, at=["2025-10-01", "2025-11-01"], by="timeframe", exclude_seen=True)[0],
    ),
    "split_by_time": (PAIRS, lambda frame: split_by_time(frame, at="2025-10-01", by="timeframe", exclude_seen=True)),
    "split_by_hash": (PAIRS, lambda frame: split_by_hash(frame, {"a": 0.5, "b": 0.5}, by="timeframe")),
    "split_valid": (RAW, fe.split_valid),
    "validate": (pair_frame({}, {"helpful_rating": None}), fe.validate),
}


def frames_in(result: Any) -> list[Any]:
    """The frames of a result."""
    return [*result.values()] if isinstance(result, dict) else [*result] if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_comes_in_goes_out(name: str, kind: str) -> None:
    """The same kind, and the rows of Polars in their order."""
    frame, transform = TRANSFORMS[name]
    expected = frames_in(transform(frame))
    results = frames_in(transform(KINDS[kind][1](frame)))
    for result, wanted in zip(results, expected, strict=True):
        assert isinstance(result, KINDS[kind][0])
        found = to_polars(result).lazy().collect()
        assert_frame_equal(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_risk_takes_all_of_them(kind: str) -> None:
    """Its figures are not a frame."""
    assert risk(KINDS[kind][1](PAIRS)) == risk(PAIRS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (fe.deduplicate, r"has no column analysis_hash, feedback_timestamp\. It has: feedback_id, .*`anonymize` makes"),
        (
            latest_per_recommendation,
            r"lacks the training columns analysis_hash, feedback_timestamp\. `anonymize`",
        ),
        (
            lambda frame: coarsen(frame, "day"),
            r"lacks the training columns feedback_timestamp\. `anonymize`",
        ),
        (
            features,
            r"lacks the training columns conditions_detected, .*`anonymize` creates them from raw feedback\.$",
        ),
        (
            lambda frame: coarsen(frame, "day", also=["x"]),
            r"lacks the training columns feedback_timestamp, x\.",
        ),
        (lambda frame: fe.deduplicate(frame, by="zip"), r"^The data has no column zip\. It has: feedback_id, .*\w\.$"),
        (risk, r"^The data has no column age_range, conditions_detected\. It has: feedback_id,"),
    ],
)
def test_raw_feedback_where_pairs_belong(kind: str, transform: Callable[[Any], Any], message: str) -> None:
    """Says which columns are missing and what makes them, before anything is run."""
    with pytest.raises((UsageError, ValidationError), match=message):
        transform(KINDS[kind][1](RAW))


def test_texts_are_no_times() -> None:
    """Of an export that was read without types: their order may be another one."""
    texts = PAIRS.with_columns(pl.col("feedback_timestamp").dt.to_string("%d.%m.%Y"))
    with pytest.raises(ValidationError, match="feedback_timestamp is String, expected times"):
        latest_per_recommendation(texts)
    with pytest.raises(ValidationError, match="feedback_timestamp is String, expected times"):
        coarsen(texts, "day")


def test_every_transform_that_is_public_is_tried() -> None:
    """Those that take a frame first."""
    packages = (fe, fe.exports, fe.privacy, fe.report, fe.training, fe.transform)
    public = {name: getattr(package, name) for package in packages for name in package.__all__}
    wrapped = {name for name, value in public.items() if hasattr(value, "__wrapped__")}
    assert wrapped | {"validate"} == set(TRANSFORMS)


@settings(max_examples=settings().max_examples // 5)
@given(raw_frames())
def test_the_steps_of_an_export_agree(frame: pl.DataFrame) -> None:
    """Arrow contains all that Polars does: for all types and values the pairs are the same."""
    wanted = fe.deduplicate(fe.anonymize(fe.split_valid(frame).valid, now=NOW, unkeyed=True))
    valid, _ = fe.split_valid(frame.to_arrow())
    assert_frame_equal(pl.DataFrame(fe.deduplicate(fe.anonymize(valid, now=NOW, unkeyed=True))), wanted)


class TestPandas:
    """What pandas has and others do not."""

    def test_integers_with_nulls_are_refused_as_ids(self) -> None:
        """pandas makes floats of them, and 42.0 would get another pseudonym than 42; the message names the way out."""
        frame = to_pandas(RAW).astype({"analysis_id": "float64"})
        with pytest.raises(ValidationError, match=r"analysis_id is Float64.*pandas: the dtype Int64"):
            fe.anonymize(frame, now=NOW, unkeyed=True)
        with pytest.raises(UsageError, match=r"analysis_id is Float64.*pandas: use the dtype Int64"):
            split_by_hash(frame, {"a": 1.0}, by="analysis_id")

    def test_a_column_that_is_all_missing_has_no_type(self) -> None:
        """pandas makes floats of it, as of the single row that a model is asked about, read from CSV."""
        row = pair_frame({"age_range": None, "timeframe": None, "conditions_detected": None})
        frame = pd.read_csv(io.StringIO(row.write_csv()), parse_dates=["feedback_timestamp"])
        assert str(frame["age_range"].dtype) == "float64"
        known = Vocabulary(conditions=("acne",))
        assert_frame_equal(pl.from_pandas(features(frame, vocabulary=known)), features(row, vocabulary=known))
        kept = label(frame, "helpful")
        assert kept["age_range"].isna().all()
        assert str(kept["age_range"].dtype) == "float64"

    def test_the_same_as_int64_are_exact(self) -> None:
        """Also those that no float holds."""
        large = 2**62 + 1
        frame = to_pandas(raw_frame({"analysis_id": large}, {"analysis_id": None}))
        assert str(frame["analysis_id"].dtype) == "Int64"
        hashes = fe.anonymize(frame, now=NOW, unkeyed=True)["analysis_hash"]
        expected = pl.select(fe.hash_id(pl.lit(large), unkeyed=True)).item()
        assert [hashes.iloc[0], pd.isna(hashes.iloc[1])] == [expected, True]

    def test_rows_keep_their_labels(self) -> None:
        """So that columns of the frame and of the result go together."""
        frame = to_pandas(RAW)
        valid, rejected = fe.split_valid(frame)
        assert [list(valid.index), list(rejected.index)] == [["first", "second", "fourth"], ["third"]]
        pairs = fe.anonymize(valid, now=NOW, unkeyed=True)
        assert list(pairs.index) == list(valid.index)
        assert list(fe.deduplicate(pairs).index) == ["first", "fourth"]
        assert list(fitted_features(pairs).index) == list(valid.index)

    def test_columns_keep_their_types(self) -> None:
        """Plain int64 stays it; ratings that get nulls are nullable integers."""
        frame = to_pandas(PAIRS).astype({"product_satisfaction": "int8", "timeframe": "category"})
        kept = fe.deduplicate(frame)
        assert dict(kept.dtypes) == dict(frame.dtypes)
        assert str(label(frame, "helpful")["label"].dtype) == "Int8"
        assert kept["helpful_rating"].to_list()[1:] == [pd.NA]

    def test_types_of_arrow_in_pandas(self) -> None:
        """As `types_mapper=pd.ArrowDtype` gives them; and a null where the column had no room for one."""
        table = pair_frame({}).to_arrow().to_pandas(types_mapper=pd.ArrowDtype)
        assert len(latest_per_recommendation(table)) == len(label(table, "helpful")) == 1
        full = pd.DataFrame({"helpful_rating": [5, None], "label": pd.Series([1, 1], dtype="int8")})
        assert label(full, "helpful")["label"].isna().to_list() == [False, True]

    def test_what_pandas_reads_from_a_file_can_be_used(self) -> None:
        """Ratings as floats, answers as objects, age ranges as text; times have to be parsed."""
        text = PAIRS.with_columns(pl.col("feedback_timestamp").dt.replace_time_zone(None)).to_pandas()
        text = text.astype({"age_range": object, "helpful_rating": "float64", "would_recommend": object})
        assert_frame_equal(pl.DataFrame(fitted_features(text)), fitted_features(PAIRS))
        assert label(text, "helpful")["label"].to_list() == [1, 1, 1, pd.NA]
        with pytest.raises(ValidationError, match="feedback_timestamp is String, expected times"):
            fitted_features(text.astype({"feedback_timestamp": str}), include=["time"])

    def test_values_of_different_types_in_a_column(self) -> None:
        """One sentence that holds none of them."""
        frame = pd.DataFrame({"analysis_hash": pd.Series([1, CANARY, None], dtype=object)})
        with pytest.raises(UsageError, match="A column of the frame contains values of different types") as caught:
            fe.deduplicate(frame)
        assert CANARY not in all_said(caught.value)

    def test_types_of_all_kinds_come_back(self) -> None:
        """Other columns of the frame make no difference."""
        others = {
            "list": pd.Series([[1, 2], [3]]),
            "duration": pd.to_timedelta([1, 2]),
            "numbers": pd.Categorical([1, 2]),
            "nullable": pd.array([1, None], "Int64"),
            "text": pd.array(["x", None], "string"),
            "arrow": pd.array([1, None], pd.ArrowDtype(pa.int32())),
            "object": pd.Series([True, None], dtype=object),
            "time": pd.to_datetime(["2020-01-01", None]),
        }
        frame = PAIRS.unique(["analysis_hash"], maintain_order=True).to_pandas().assign(**others)
        kept = fe.deduplicate(frame)
        assert dict(kept.dtypes) == dict(frame.dtypes)
        for name in others:
            assert kept[name].equals(frame[name]), name

    @pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
    def test_object_columns_without_a_value_have_no_type(self, missing: Any) -> None:
        """As float columns without a value; they come back as they were."""
        frame = pd.DataFrame({"helpful_rating": pd.Series([missing, missing], dtype=object)})
        assert to_polars(frame).schema == {"helpful_rating": pl.Null}
        labelled = label(frame, "helpful")
        assert labelled["label"].isna().all()
        assert labelled["helpful_rating"].dtype == object
        assert to_polars(frame.head(0)).schema != {"helpful_rating": pl.Null}

    @pytest.mark.parametrize("names", [["a", "a"], ["a", 1], pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])])
    def test_columns_need_names(self, names: Any) -> None:
        """Different ones, of text."""
        frame = pd.DataFrame([[1, 2]])
        frame.columns = names
        with pytest.raises(UsageError, match="column names must be text and unique"):
            fe.deduplicate(frame, by=["a"])


class TestArrow:
    """What Arrow has and others do not."""

    def test_columns_keep_their_types(self) -> None:
        """Text stays text of its width, a dictionary a dictionary."""
        table = pa.table(
            {
                "analysis_hash": pa.array(["a", "a"]).dictionary_encode(),
                "recommendation_id": pa.array(["r", "r"], pa.string()),
                "feedback_timestamp": pa.array([datetime(2025, 10, 25, tzinfo=UTC)] * 2, pa.timestamp("ms", "UTC")),
                "decimal": pa.array([1, 2], pa.decimal128(5, 2)),
                "time": pa.array([1, 2], pa.time32("s")),
                "nothing": pa.nulls(2),
            }
        )
        assert fe.deduplicate(table).schema == table.schema


class TestStreams:
    """Frames that are read as Arrow tables."""

    @pytest.mark.parametrize("kind", ["relation", "reader", "dataset", "selected dataset"])
    def test_are_accepted_and_give_arrow_tables(self, kind: str) -> None:
        """With the rows of Polars."""
        import datasets
        import duckdb

        pairs = pair_frame({}, {"analysis_hash": "0" * 16, "helpful_rating": None})
        table, connection = pairs.to_arrow(), duckdb.connect()
        connection.sql("SET TimeZone = 'UTC'")  # of the session, which a relation's times have
        kinds: dict[str, Callable[[], Any]] = {
            "relation": lambda: connection.from_arrow(table),
            "reader": lambda: pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
            "dataset": lambda: datasets.Dataset(table),
            "selected dataset": lambda: datasets.Dataset(pa.concat_tables([table, table])).select(range(2)),
        }
        transforms: list[Callable[[Any], Any]] = [lambda frame: label(frame, "helpful"), fe.deduplicate]
        for transform in transforms:
            result = transform(kinds[kind]())
            assert isinstance(result, pa.Table)
            found, wanted = pl.DataFrame(result), transform(pairs)
            ranges = wanted.schema["age_range"]
            assert_frame_equal(found.with_columns(pl.col("age_range").cast(pl.String).cast(ranges)), wanted)
        fe.validate(kinds[kind]())


class TestColumnTransforms:
    """`hash_ids` and `bucket_ages`."""

    def test_pandas_and_arrow_have_the_pseudonyms_of_the_expression(self) -> None:
        """Each column has a domain of its own, or all have the given one."""
        key = "daa0871acd4ebc9edb39ffe5bb8b89c8"
        frame = pd.DataFrame({"analysis_id": [42, 7], "other": ["42", None], "text": ["a", "b"]}, index=["x", "y"])
        hashed = hash_ids(frame, ["analysis_id", "other"], key=key)
        assert hashed["analysis_id"].iloc[0] == "5cca56cd36b3f074"
        assert hashed["other"].iloc[0] != "5cca56cd36b3f074"
        assert hashed["other"].isna().to_list() == [False, True]
        assert hashed.index.to_list() == ["x", "y"]
        table = hash_ids(pa.Table.from_pandas(frame), cs.by_name("analysis_id", "other"), key=key, domain="analysis_id")
        assert [column[0].as_py() for column in table.select(["analysis_id", "other"])] == ["5cca56cd36b3f074"] * 2

    def test_selectors_do_not_see_the_index(self) -> None:
        """Rows of pandas are counted internally."""
        frame = pd.DataFrame({"n": [17, 18]}, index=[5, 6])
        assert bucket_ages(frame, cs.integer())["n"].to_list() == ["<18", "18-25"]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ("f", "Column 1 of 1 is Float64, expected integers or text"),
            (["i", "f"], "Column 2 of 2 is Float64"),
            ("x", "has no column x"),
            ([], "No column is selected"),
            (cs.date(), "No column is selected"),
        ],
    )
    def test_floats_and_missing_columns_are_refused(self, columns: Any, message: str) -> None:
        """Also of pandas, which stores integers with missing values as floats."""
        frame = pd.DataFrame({"f": [1, None], "i": [1, 2]})
        with pytest.raises(UsageError, match=message):
            hash_ids(frame, columns, unkeyed=True)

    def test_ages_must_be_numbers(self) -> None:
        """Text is not parsed."""
        with pytest.raises(UsageError, match="Column 1 of 1 is String, expected numbers"):
            bucket_ages(pd.DataFrame({"age": ["17"]}))


class TestOthers:
    """Arguments that are not frames."""

    @pytest.mark.parametrize("frame", [[1], {"a": [1]}, None, pl.Series([1]), pd.Series([1])])
    def test_is_refused(self, frame: Any) -> None:
        """The message names its type and the accepted ones."""
        with pytest.raises(UsageError, match=rf"A frame must be a Polars frame .* not {type(frame).__name__}\."):
            fe.deduplicate(frame)

    def test_results_that_are_no_frames_are_given_as_they_are(self) -> None:
        """Say, a number of rows."""

        @accepts_any_dataframe
        def height(frame: Any) -> int:
            return int(frame.height)

        assert height(to_pandas(RAW)) == 4

    def test_lazy_frames_are_run_where_rows_have_to_be_seen(self) -> None:
        """And the frames that come out are lazy again, of what was seen."""
        runs = []

        def seen(frame: pl.DataFrame) -> pl.DataFrame:
            runs.append(frame.height)
            return frame

        lazy = RAW.lazy().map_batches(seen)
        valid, rejected = fe.split_valid(lazy)
        assert [valid.collect().height, rejected.collect().height, runs] == [3, 1, [4]]
