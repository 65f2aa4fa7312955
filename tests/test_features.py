"""Features are float32 without nulls, equal for equal rows, and contain no label unless requested."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frames import CANARY, fitted_features, pair_frame
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from feedback_etl.errors import ExportFileError, UsageError, ValidationError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.training.feature_matrix import feature_names, features
from feedback_etl.training.labels import label
from feedback_etl.training.vocabulary import Vocabulary
from feedback_etl.transform.expressions import age_ranges

KNOWN = Vocabulary(conditions=("acne", "dry"), rules=("r001",))
BARE = dict.fromkeys(("conditions_detected", "rules_applied", "timeframe", "age_range", *CLASSIC_SCHEMA.rating_names))
WHOLE: dict[str, Any] = {"vocabulary": KNOWN, "include": ["timeframe", "time"]}
NAMES = ["acne", "dry", "dry skin", "é", "other", "missing"]
lists = st.one_of(st.none(), st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(",".join))


def encode(column: str, value: Any, known: Vocabulary = KNOWN, **options: Any) -> dict[str, float]:
    """Return the nonzero features of one pair with this value."""
    row = features(pair_frame(BARE | {column: value}), vocabulary=known, include=["timeframe"], **options).row(
        0, named=True
    )
    return {name: number for name, number in row.items() if number and name.split("_")[0] not in ("hour", "weekday")}


class TestColumns:
    """Values of each feature."""

    def test_all_features_of_two_pairs(self) -> None:
        """A pair with all values and one with none."""
        night = datetime(2025, 10, 27, 18, tzinfo=UTC)  # a Monday, three quarters of the day
        frame = fitted_features(pair_frame({"feedback_timestamp": night}, BARE), ratings=["helpful_rating"], **WHOLE)
        saturday, ten = 5 / 7 * math.tau, 10 / 24 * math.tau
        expected = {
            "condition=acne": [1, 0],
            "condition=dry": [0, 0],
            "conditions_other": [1, 0],
            "conditions_missing": [0, 1],
            "rule=r001": [1, 0],
            "rules_other": [0, 0],
            "rules_missing": [0, 1],
            "age": [3, 0],
            "age_missing": [0, 1],
            "timeframe_days": [14, 0],
            "timeframe_missing": [0, 1],
            "hour_sin": [-1, math.sin(ten)],
            "hour_cos": [0, math.cos(ten)],
            "weekday_sin": [0, math.sin(saturday)],
            "weekday_cos": [1, math.cos(saturday)],
            "helpful_rating": [5, 0],
            "helpful_rating_missing": [0, 1],
        }
        assert_frame_equal(frame, pl.DataFrame(expected, schema=dict.fromkeys(expected, pl.Float32)), abs_tol=1e-6)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("acne", {"condition=acne": 1}),
            ("dry,acne", {"condition=acne": 1, "condition=dry": 1}),
            ("dry skin", {"conditions_other": 1}),
            ("acne,dry skin", {"condition=acne": 1, "conditions_other": 1}),
            ("", {"conditions_missing": 1}),
            (None, {"conditions_missing": 1}),
        ],
    )
    def test_conditions_are_encoded_by_whole_names(self, text: str | None, expected: dict[str, float]) -> None:
        """Unknown names are encoded as other."""
        encoded = encode("conditions_detected", text)
        assert {name: n for name, n in encoded.items() if name.startswith("condition")} == expected

    @pytest.mark.parametrize(
        ("text", "days"),
        [("1_day", 1), ("1_week", 7), ("2_weeks", 14), ("8_weeks", 56), ("3_months", 90), ("1_year", 365)],
    )
    def test_timeframes_are_encoded_in_days(self, text: str, days: int) -> None:
        """A month has 30 days, a year 365."""
        assert encode("timeframe", text)["timeframe_days"] == days

    @pytest.mark.parametrize(
        "text", [None, "", "soon", "two_weeks", "2 weeks", "2_weeks_later", "99999_weeks", "\u0663_weeks"]
    )
    def test_other_timeframes_are_missing(self, text: str | None) -> None:
        """No value is guessed."""
        encoded = encode("timeframe", text)
        assert (encoded.get("timeframe_days"), encoded["timeframe_missing"]) == (None, 1)

    def test_age_range_is_its_position_in_the_vocabulary(self) -> None:
        """A range that the vocabulary lacks is missing, whatever the other rows contain."""
        assert [encode("age_range", age).get("age") for age in ("<18", "50+", None)] == [1, 5, None]
        some = Vocabulary(age_ranges=("<16", "16-60"))
        for positions in ({"60+": 0, "16-60": 2}, {"60+": 0}, {"unknown": 0}, {"": 0}):
            rows = pl.concat([pair_frame(BARE)] * len(positions)).with_columns(age_range=pl.Series([*positions]))
            for frame in (rows, rows.lazy()):
                encoded = features(frame, vocabulary=some).lazy().collect()
                assert encoded["age"].to_list() == [*positions.values()]
                assert encoded["age_missing"].to_list() == [int(position == 0) for position in positions.values()]

    @pytest.mark.parametrize("ages", [["18-25"], ["18-25", "30+"], ["30-50"], ["<18"]])
    def test_age_ranges_that_overlap_the_vocabulary_are_refused(self, ages: list[str]) -> None:
        """They come from exports with other edges; every age would silently be missing."""
        rows = pl.concat([pair_frame(BARE)] * len(ages)).with_columns(age_range=pl.Series(ages))
        known = Vocabulary(age_ranges=("<30", "30+"))
        for frame in (rows, rows.cast({"age_range": pl.Categorical}), rows.cast({"age_range": pl.Enum(ages)}).lazy()):
            with pytest.raises(ValidationError, match="age_range contains other ranges than the vocabulary"):
                features(frame, vocabulary=known)

    @pytest.mark.parametrize("edges", [[30], [16, 30, 60], [9, 18, 100]])
    def test_age_ranges_are_learned_from_text(self, edges: list[int]) -> None:
        """As CSV readers return them, in any order."""
        ranges = list(age_ranges(edges).categories)
        ages = pl.Series([*ranges[::-1], None], dtype=pl.String)
        rows = pl.concat([pair_frame(BARE)] * len(ages))
        known = Vocabulary.fit(rows.with_columns(age_range=ages))
        assert known.age_ranges == tuple(ranges)
        with pytest.raises(ValidationError, match=r"labels unlike .* \(1\)"):
            Vocabulary.fit(rows.with_columns(age_range=pl.lit("old")))

    def test_times_of_any_unit_and_zone_are_converted_to_utc(self) -> None:
        """Equal instants have equal features."""
        frame = pair_frame({})
        for dtype in (pl.Datetime("ns", "Asia/Tokyo"), pl.Datetime("ms", "UTC"), pl.Datetime("us")):
            other = frame.with_columns(pl.col("feedback_timestamp").cast(dtype))
            assert_frame_equal(fitted_features(other), fitted_features(frame))

    def test_precision_day_has_no_hour(self) -> None:
        """Times truncated to the day would all be midnight."""
        names = fitted_features(pair_frame({}), timestamp_precision="day", **WHOLE).columns
        assert [name for name in names if name.startswith(("hour", "weekday"))] == ["weekday_sin", "weekday_cos"]

    @pytest.mark.parametrize("precision", ["week", "month", "quarter"])
    def test_coarser_precisions_have_no_weekday(self, precision: Any) -> None:
        """All times would be a Monday, or the first day of a month."""
        names = fitted_features(pair_frame({}), timestamp_precision=precision, **WHOLE).columns
        assert not [name for name in names if name.startswith(("hour", "weekday"))]

    @pytest.mark.parametrize("precision", ["exact", "day"])
    @pytest.mark.parametrize("include", [[], ["timeframe"], ["time"]])
    def test_features_known_later_are_included_by_request(self, include: list[Any], precision: Any) -> None:
        """The frame needs no column that is not included."""
        whole = fitted_features(pair_frame({}), **WHOLE, timestamp_precision=precision)
        columns = {"timeframe": ("timeframe", ["timeframe"]), "time": ("feedback_timestamp", ["hour", "weekday"])}
        absent = [column for name, column in columns.items() if name not in include]
        prefixes = tuple(prefix for _, several in absent for prefix in several)
        options: dict[str, Any] = {"vocabulary": KNOWN, "include": include, "timestamp_precision": precision}
        wanted = whole.select(name for name in whole.columns if not name.startswith(prefixes))
        assert wanted.width < whole.width
        assert_frame_equal(features(pair_frame({}).drop(column for column, _ in absent), **options), wanted)
        assert feature_names(**options) == wanted.columns

    @pytest.mark.parametrize("include", ["time", ["weekday"], ["timeframe", "age"]])
    def test_unknown_name_in_include_is_refused(self, include: Any) -> None:
        """A name alone too, which is a list of letters."""
        with pytest.raises(UsageError, match='`include` must be a list of "timeframe" and "time"'):
            fitted_features(pair_frame({}), include=include)

    def test_times_as_text_are_refused(self, tmp_path: Path) -> None:
        """As pandas reads them from CSV; the message contains a conversion that works."""
        times = [datetime(2025, 10, 25, 10, tzinfo=UTC), datetime(2025, 10, 25, 10, 0, 0, 5, tzinfo=UTC)]
        pairs = pair_frame(*({"feedback_timestamp": time} for time in times))
        texts = pairs.with_columns(pl.col("feedback_timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.f"))
        texts.write_csv(tmp_path / "pairs.csv")
        frame = pd.read_csv(tmp_path / "pairs.csv")
        message = r"feedback_timestamp is String, expected times, as `scan_training` .*ISO8601.* in Polars, str\."
        for untyped in (frame, texts):
            with pytest.raises(ValidationError, match=message):
                fitted_features(untyped, **WHOLE)
        frame["feedback_timestamp"] = pd.to_datetime(frame["feedback_timestamp"], format="ISO8601", utc=True)
        assert fitted_features(frame, **WHOLE)["hour_sin"].tolist() == pytest.approx([0.5, 0.5])

    def test_extra_columns_are_no_features(self) -> None:
        """They can be appended as the docstring shows."""
        pairs = pair_frame({}, {}).with_columns(price=pl.Series([5.5, None]))
        alone = features(pairs, vocabulary=KNOWN)
        assert alone.columns == features(pair_frame({}), vocabulary=KNOWN).columns
        both = pl.concat([alone, pairs.select(pl.col("price").fill_null(0))], how="horizontal")
        assert both["price"].to_list() == [5.5, 0]

    @given(st.lists(st.tuples(lists, lists), max_size=12), st.sets(st.sampled_from(NAMES)))
    def test_random_lists_and_vocabularies_agree_with_sets(
        self, rows: list[tuple[str | None, str | None]], names: set[str]
    ) -> None:
        """Nothing is null, and no column names collide."""
        known = Vocabulary(conditions=tuple(sorted(names)), rules=("r001",))
        changes = [{"conditions_detected": first, "rules_applied": second} for first, second in rows]
        frame = features(pair_frame(*changes), vocabulary=known)
        assert frame.null_count().sum_horizontal().item() == 0
        for name, column in zip(sorted(names), frame.columns, strict=False):
            expected = [float(name in (first or "").split(",")) for first, _ in rows]
            assert (column, frame[column].to_list()) == (f"condition={name.replace(' ', '_')}", expected)
        other = [float(bool({*first.split(",")} - names)) if first else 0 for first, _ in rows]
        assert frame["conditions_other"].to_list() == other
        assert set(frame.schema.values()) == {pl.Float32}


class TestLabels:
    """Labels, and that features do not contain them."""

    def test_features_do_not_depend_on_ratings(self) -> None:
        """Neither on their values nor on whether they are missing."""
        none = dict.fromkeys(CLASSIC_SCHEMA.rating_names)
        frame = fitted_features(pair_frame({}, none, none | {"would_recommend": False, "helpful_rating": 1}))
        assert frame.unique().height == 1
        assert not [name for name in frame.columns if name.startswith(CLASSIC_SCHEMA.rating_names)]
        assert not {"label", "analysis_hash", "recommendation_id", "export_date"} & {*frame.columns}

    def test_label_and_unknown_columns_are_no_features(self) -> None:
        """Whatever their names."""
        frame = pair_frame({}).pipe(label, "helpful").with_columns(age=pl.lit(99), weekday_sin=pl.lit(CANARY))
        assert_frame_equal(fitted_features(frame), fitted_features(pair_frame({})))

    @pytest.mark.parametrize(
        ("of", "options", "row", "expected"),
        [
            ("helpful", {}, {"helpful_rating": 4}, 1),
            ("helpful", {}, {"helpful_rating": 3}, 0),
            ("helpful", {"threshold": 5}, {"helpful_rating": 4}, 0),
            ("helpful", {}, {"helpful_rating": None}, None),
            ("satisfied", {}, {"product_satisfaction": 5}, 1),
            ("completed", {}, {"routine_completion_pct": 79}, 0),
            ("completed", {"threshold": 1}, {"routine_completion_pct": 0}, 0),
            ("recommended", {}, {"would_recommend": True}, 1),
            ("recommended", {}, {"would_recommend": False}, 0),
            ("recommended", {}, {"would_recommend": None}, None),
        ],
    )
    def test_label_is_1_from_the_threshold(
        self, of: str, options: dict[str, Any], row: dict[str, Any], expected: int | None
    ) -> None:
        """A missing rating has no label."""
        frame = pair_frame(row)
        labelled = label(frame, of, **options)
        assert labelled["label"].to_list() == [expected]
        assert labelled["label"].dtype == pl.Int8
        assert_frame_equal(labelled.drop("label"), frame)
        assert label(frame, of, name="y", **options)["y"].to_list() == [expected]

    @pytest.mark.parametrize(
        ("of", "threshold", "message"),
        [
            ("good", None, "use helpful, satisfied, completed, recommended"),
            ("helpful", 1, "`threshold` must be greater than 1, which every helpful_rating reaches, and at most 5"),
            ("helpful", 6, "`threshold` must be greater than 1"),
            ("completed", 0, "`threshold` must be greater than 0, .* and at most 100"),
            (
                "recommended",
                2,
                "`threshold` must be greater than 0, which every would_recommend reaches, and at most 1",
            ),
        ],
    )
    def test_unknown_labels_and_thresholds_are_refused(self, of: str, threshold: int | None, message: str) -> None:
        """A threshold that every row or no row reaches is a mistake."""
        with pytest.raises(UsageError, match=message):
            label(pair_frame({}), of, threshold=threshold)


class TestVocabulary:
    """The names that a model knows, stored beside it."""

    def test_vocabulary_is_fitted_to_rows(self) -> None:
        """Names are sorted; rows are counted once for each name."""
        rows = ["dry,acne", "acne", None, "é", "acne,acne"]
        frame = pair_frame(*({"conditions_detected": text, "rules_applied": None} for text in rows))
        assert Vocabulary.fit(frame) == Vocabulary(conditions=("acne", "dry", "é"))
        for kind in (frame.lazy(), frame.to_arrow(), frame.to_pandas()):
            assert Vocabulary.fit(kind, min_rows=2) == Vocabulary(conditions=("acne",))
        assert Vocabulary.fit(pair_frame()) == Vocabulary()
        other = frame.with_columns(age_range=pl.lit("<50", pl.Enum(["<50", "50+"])))
        assert Vocabulary.fit(other).age_ranges == ("<50", "50+")

    def test_frame_without_a_vocabulary_is_refused(self) -> None:
        """One fitted to test rows would give other columns than that of the training rows."""
        frame = pair_frame({}, {"conditions_detected": "dry"})
        for kind in (frame, frame.lazy(), frame.to_pandas(), frame.to_arrow()):
            with pytest.raises(UsageError, match=r"features needs the vocabulary .* vocabulary=Vocabulary\.fit\(train"):
                features(kind)
        assert_frame_equal(fitted_features(frame.lazy()).collect(), fitted_features(frame))

    def test_lazy_frame_is_not_collected_if_a_vocabulary_is_given(self) -> None:
        """Its schema is enough."""
        lazy = pair_frame({}).lazy().map_batches(lambda _: pytest.fail("it was collected"))
        assert isinstance(features(lazy, vocabulary=KNOWN), pl.LazyFrame)

    def test_saved_vocabulary_is_loaded(self, tmp_path: Path) -> None:
        """It is readable JSON with mode 0600; saving again replaces it."""
        path = tmp_path / "vocabulary.json"
        Vocabulary().save(path)
        known = Vocabulary(conditions=("acne", "é"), rules=("r001",), age_ranges=("<50", "50+"))
        known.save(path)
        assert Vocabulary.load(path) == known
        assert json.loads(path.read_text(encoding="utf-8"))["conditions"] == ["acne", "é"]
        assert path.stat().st_mode & 0o777 == 0o600
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize(
        "text",
        [
            *("", "[]", "{}", '{"format": 2, "rules": []}', '{"format": 1, "x": []}', '{"format": 1, "rules": "r001"}'),
            '{"format": 1, "conditions": ["acne"], "rules": []}',
            '{"format": 1, "conditions": ["acne"], "rules": [], "age_ranges": [], "more": []}',
            '{"format": 1, "conditions": ["acne", "acne"], "rules": [], "age_ranges": []}',
            '{"format": 1, "conditions": [1], "rules": [], "age_ranges": []}',
            '{"format": 1, "conditions": [["acne"]], "rules": [], "age_ranges": []}',
            '{"format": 1, "conditions": "acne", "rules": [], "age_ranges": []}',
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, text: str) -> None:
        """The message contains the name of the file."""
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ExportFileError, match=r"a\.json is not a vocabulary"):
            Vocabulary.load(tmp_path / "a.json")
        with pytest.raises(ExportFileError, match=r"b\.json is not a vocabulary"):
            Vocabulary.load(tmp_path / "b.json")

    def test_file_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        """In one sentence, without a temporary file left behind."""
        with pytest.raises(ExportFileError, match="Nothing was written"):
            Vocabulary().save(tmp_path / "missing" / "a.json")
        (tmp_path / "known").mkdir()
        with pytest.raises(ExportFileError, match=r"written to .*/known: Is a directory\. Name another file\.$"):
            Vocabulary().save(tmp_path / "known")
        assert not [*tmp_path.glob(".*")]

    def test_file_of_version_0_1_0_is_read(self, tmp_path: Path) -> None:
        """As it was written before vocabularies were pydantic models."""
        path = tmp_path / "vocabulary.json"
        path.write_text('{"format": 1, "conditions": ["acne", "é"], "rules": [], "age_ranges": ["<50", "50+"]}\n')
        assert Vocabulary.load(path) == Vocabulary(conditions=("acne", "é"), rules=(), age_ranges=("<50", "50+"))

    @pytest.mark.parametrize("field", ["conditions", "rules", "age_ranges"])
    @pytest.mark.parametrize("names", ["acne", ["acne"], ("acne", 1), ("acne", "acne"), (["acne"],), None])
    def test_names_must_be_distinct_texts(self, field: str, names: Any) -> None:
        """A text is not a list of its letters."""
        with pytest.raises(UsageError, match=f"^{field} of a vocabulary must be"):
            Vocabulary(**{field: names})

    @pytest.mark.parametrize("other", ["vocabulary.json", {"conditions": ("acne",)}, ("acne",)])
    def test_other_objects_are_no_vocabulary(self, other: Any) -> None:
        """The message says how to get one."""
        with pytest.raises(UsageError, match=r"must be a Vocabulary: use Vocabulary\.load\("):
            features(pair_frame({}), vocabulary=other)

    def test_min_rows_below_1_is_refused(self) -> None:
        """It would exclude nothing."""
        with pytest.raises(UsageError, match="min_rows"):
            Vocabulary.fit(pair_frame({}), min_rows=0)


class TestOtherEdges:
    """Ranges that join none of the vocabulary."""

    @pytest.mark.parametrize("other", ["20-30", "18-30", "40+", "<20"])
    def test_ranges_with_other_edges_are_refused(self, other: str) -> None:
        """They join no ranges of the vocabulary."""
        frame = pair_frame({}).with_columns(age_range=pl.Series([other]))
        with pytest.raises(ValidationError, match="other ranges than the vocabulary"):
            features(frame, vocabulary=KNOWN)


class TestRefusals:
    """Errors name the column or option."""

    def test_missing_columns_and_wrong_types_are_refused(self) -> None:
        """The message contains no value."""
        frame = pair_frame({})
        with pytest.raises(ValidationError, match="lacks the training columns timeframe, feedback_timestamp"):
            fitted_features(frame.drop("timeframe", "feedback_timestamp"), include=["timeframe", "time"])
        with pytest.raises(ValidationError, match=r"rules_applied is List.*expected text") as caught:
            fitted_features(frame.with_columns(rules_applied=[CANARY]))
        assert CANARY not in str(caught.value)
        with pytest.raises(ValidationError, match="helpful_rating is String, expected booleans or numbers"):
            label(frame.with_columns(helpful_rating=pl.lit(CANARY)), "helpful")

    def test_unknown_ratings_and_precisions_are_refused(self) -> None:
        """A mistyped option is not ignored."""
        with pytest.raises(UsageError, match="helpful is not a rating; use helpful_rating"):
            fitted_features(pair_frame({}), ratings=["helpful"])
        with pytest.raises(UsageError, match="timestamp_precision"):
            fitted_features(pair_frame({}), timestamp_precision="year")

    @pytest.mark.parametrize("ratings", ["helpful_rating", ["helpful_rating", "helpful_rating"], None, 1])
    def test_ratings_must_be_a_list_of_distinct_names(self, ratings: Any) -> None:
        """A single name is not a list of its letters."""
        with pytest.raises(UsageError, match="a list of distinct ratings"):
            fitted_features(pair_frame({}), ratings=ratings)

    @pytest.mark.parametrize(("of", "threshold"), [("helpful", "4"), ("recommended", True), (["helpful"], None)])
    def test_labels_and_thresholds_of_other_types_are_refused(self, of: Any, threshold: Any) -> None:
        """As are those of other values."""
        with pytest.raises(UsageError, match=r"is not a label|must be greater than"):
            label(pair_frame({}), of, threshold=threshold)

    def test_name_of_a_label_must_be_text(self) -> None:
        """As are all names of columns."""
        name: Any = None
        with pytest.raises(UsageError, match="`name` must be text"):
            label(pair_frame({}), "helpful", name=name)

    def test_precisions_and_min_rows_of_other_types_are_refused(self) -> None:
        """As are those of other values."""
        other: Any = ["day"]
        with pytest.raises(UsageError, match="timestamp_precision"):
            fitted_features(pair_frame({}), timestamp_precision=other)
        with pytest.raises(UsageError, match="min_rows"):
            Vocabulary.fit(pair_frame({}), min_rows=other)


SOME_NAMES = st.lists(st.sampled_from(["acne", "dry", "a:b", "a", "é", "x[1]"]), max_size=4)


class TestSparse:
    """The same features as a matrix that stores no zeros."""

    @given(
        st.lists(st.tuples(SOME_NAMES, SOME_NAMES, st.sampled_from(["18-25", "50+", None]), st.sampled_from([1, None])))
    )
    def test_random_pairs_have_the_values_of_the_dense_frame(self, rows: list[Any]) -> None:
        """In the same columns; of lazy frames and of other libraries too."""
        frame = pair_frame(
            *(
                {
                    "conditions_detected": ",".join(conditions) or None,
                    "rules_applied": ",".join(rules) or None,
                    "age_range": age,
                    "helpful_rating": rating,
                }
                for conditions, rules, age, rating in rows
            )
        )
        vocabulary = Vocabulary(conditions=("a:b", "acne", "x[1]"), rules=("dry", "missing"))
        options = WHOLE | {"vocabulary": vocabulary, "ratings": ["helpful_rating"]}
        dense = features(frame, **options)
        for kind in (frame, frame.lazy(), frame.to_arrow(), frame.to_pandas()):
            matrix: Any = features(kind, sparse=True, **options)
            assert matrix.format == "csr"
            assert matrix.dtype == np.float32
            assert np.array_equal(matrix.toarray(), dense.to_numpy())

    def test_large_vocabularies_need_little_memory(self) -> None:
        """100,000 rows of 2,000 conditions, dense 804 MB."""
        rows = 100_000
        numbers = pl.int_range(rows, eager=True)
        frame = pl.DataFrame(
            {
                "conditions_detected": pl.select(pl.format("c{},c{}", numbers % 2000, numbers % 7)).to_series(),
                "rules_applied": ["r"] * rows,
                "age_range": ["18-25"] * rows,
            }
        )
        vocabulary = Vocabulary.fit(frame)
        matrix: Any = features(frame, vocabulary=vocabulary, sparse=True)
        assert len(vocabulary.conditions) == 2000
        assert matrix.shape == (rows, 2007)
        assert matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes < 5_000_000
        assert matrix[2000 + 3].indices.tolist() == sorted(
            [vocabulary.conditions.index("c3"), vocabulary.conditions.index(f"c{2003 % 7}"), 2002, 2005]
        )


class TestNames:
    """Names of columns that other libraries accept."""

    def test_refused_characters_are_replaced_and_names_stay_distinct(self) -> None:
        """In the order of the vocabulary; values follow the names of the vocabulary."""
        vocabulary = Vocabulary(conditions=("a:b", "a_b", "a{b", 'x"[1]<2', "a b", "c\nd"), rules=("r=1",))
        frame = pair_frame({"conditions_detected": "a{b", "rules_applied": "r=1"})
        row = features(frame, vocabulary=vocabulary).row(0, named=True)
        assert [name for name in row if "=" in name] == [
            *("condition=a_b", "condition=a_b_2", "condition=a_b_3", "condition=x__1__2"),
            *("condition=a_b_4", "condition=c_d", "rule=r=1"),
        ]
        assert [name for name, value in row.items() if value] == ["condition=a_b_3", "rule=r=1", "age"]

    @given(st.lists(st.text(st.sampled_from('a_2[]{}<": \n\u2028'), max_size=3), unique=True))
    def test_random_names_are_distinct(self, names: list[str]) -> None:
        """Whatever numbers they contain."""
        columns = features(pair_frame({}), vocabulary=Vocabulary(conditions=tuple(names))).columns
        assert len({*columns}) == len(columns)
        assert not {*"".join(columns)} & {*'[]{}<":, \n\u2028'}
