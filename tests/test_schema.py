"""What is wrong with a raw row, and what may be written."""

import json
import math
import os
import subprocess
import sys
from datetime import date, datetime
from typing import Any

import polars as pl
import pytest
from frames import (
    CANARY,
    LIMITS,
    NOW,
    PAIR_ROW,
    Row,
    all_said,
    pair_frame,
    pandera_is_asked,
    raw_frame,
    raw_frames,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import has_control_character, is_formula
from polars.testing import assert_frame_equal

from feedback_etl.errors import ValidationError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.requirements import require_raw
from feedback_etl.transform.raw_schema import REASONS, split_valid
from feedback_etl.transform.training_schema import validate
from feedback_etl.transform.transforms import anonymize

STABLE_REASONS = (
    "analysis_id_missing",
    "recommendation_missing",
    "formula",
    "control_character",
    "created_at_missing",
    "created_at_unreadable",
    "helpful_rating_out_of_range",
    "helpful_rating_not_whole",
    "product_satisfaction_out_of_range",
    "product_satisfaction_not_whole",
    "routine_completion_pct_out_of_range",
    "routine_completion_pct_not_whole",
    "would_recommend_not_boolean",
    "conditions_not_a_list",
    "comma_in_element",
    "empty_element",
    "rules_not_a_list",
)
RATINGS = ("helpful_rating", "product_satisfaction", "routine_completion_pct")
FRACTIONS = dict.fromkeys([*LIMITS, "age"], pl.Float64)
FEWER = settings(max_examples=settings().max_examples // 3)


def reasons_of(row: Row, **types: Any) -> str | None:
    """The reasons for which one row is rejected; None where it is valid."""
    valid, rejected = split_valid(raw_frame(row, **types), reject_formulas=True)
    assert valid.height + rejected.height == 1
    return None if valid.height else str(rejected["reasons"].item())


def expected_reasons(row: Row) -> list[str]:
    """The same row by row, in plain Python."""
    lists = {name: elements(row[name]) for name in ("conditions_analyzed", "rules_applied")}
    words = [word for found in lists.values() for word in found or []]
    texts = [str(row["recommendation_id"] or ""), row["timeframe"] or "", *words]
    faults = {
        "analysis_id_missing": row["analysis_id"] is None,
        "recommendation_missing": row["recommendation_id"] in (None, ""),
        "created_at_missing": row["created_at"] is None,
        "created_at_unreadable": False,  # Python has no such times
        "conditions_not_a_list": lists["conditions_analyzed"] is None,
        "rules_not_a_list": lists["rules_applied"] is None,
        "comma_in_element": any("," in word for word in words),
        "empty_element": "" in words,
        "formula": any(map(is_formula, texts)),
        "control_character": any(map(has_control_character, texts)),
        "would_recommend_not_boolean": row["would_recommend"] not in (None, 0, 1),
    }
    for name, (least, greatest) in LIMITS.items():
        value = row[name]
        faults[f"{name}_out_of_range"] = value is not None and not least <= value <= greatest
        faults[f"{name}_not_whole"] = value is not None and math.isfinite(value) and value != int(value)
    return [reason for reason in STABLE_REASONS if faults[reason]]


def elements(text: str | None) -> list[str] | None:
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    value = [] if value is None else value
    return value if isinstance(value, list) and all(isinstance(word, str) for word in value) else None


class TestReasons:
    """Reasons for which a row is rejected."""

    def test_their_names_are_a_contract(self) -> None:
        """Lists of rejected rows written by any version use these names, in this order."""
        assert REASONS == STABLE_REASONS

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"analysis_id": None}, "analysis_id_missing"),
            ({"recommendation_id": None}, "recommendation_missing"),
            ({"recommendation_id": ""}, "recommendation_missing"),
            ({"recommendation_id": "=1+1"}, "formula"),
            ({"timeframe": "@week"}, "formula"),
            ({"conditions_analyzed": '["acne", "-1"]'}, "formula"),
            ({"rules_applied": r'["\tr001"]'}, "formula"),
            ({"recommendation_id": "rec\x00"}, "control_character"),
            ({"recommendation_id": "\x00=1"}, "formula,control_character"),
            ({"timeframe": "2\x7fweeks"}, "control_character"),
            ({"conditions_analyzed": r'["acne", "\u0085"]'}, "control_character"),
            ({"created_at": None}, "created_at_missing"),
            ({"helpful_rating": 0}, "helpful_rating_out_of_range"),
            ({"helpful_rating": 6}, "helpful_rating_out_of_range"),
            ({"product_satisfaction": 0}, "product_satisfaction_out_of_range"),
            ({"product_satisfaction": 6}, "product_satisfaction_out_of_range"),
            ({"routine_completion_pct": -1}, "routine_completion_pct_out_of_range"),
            ({"routine_completion_pct": 101}, "routine_completion_pct_out_of_range"),
            ({"conditions_analyzed": "acne"}, "conditions_not_a_list"),
            ({"conditions_analyzed": '{"a": "b"}'}, "conditions_not_a_list"),
            ({"conditions_analyzed": '["acne", "a,b"]'}, "comma_in_element"),
            ({"conditions_analyzed": '["acne", ""]'}, "empty_element"),
            ({"rules_applied": '["r001", 2]'}, "rules_not_a_list"),
            ({"rules_applied": '["a,b"]'}, "comma_in_element"),
            ({"rules_applied": '[""]'}, "empty_element"),
        ],
    )
    def test_each_alone(self, change: Row, reason: str) -> None:
        """One error gives one reason."""
        assert reasons_of(change) == reason

    @pytest.mark.parametrize("column", RATINGS)
    @pytest.mark.parametrize("value", [1.5, 4.999999])
    def test_a_rating_that_is_not_whole(self, column: str, value: float) -> None:
        """It is rejected, never rounded."""
        assert reasons_of({column: value}, **FRACTIONS) == f"{column}_not_whole"

    @pytest.mark.parametrize("column", RATINGS)
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_what_is_no_number(self, column: str, value: float) -> None:
        """NaN and the infinities lie outside every range."""
        assert reasons_of({column: value}, **FRACTIONS) == f"{column}_out_of_range"

    @pytest.mark.parametrize("value", [2, -1])
    def test_a_boolean_kept_as_another_number(self, value: int) -> None:
        """Where the source keeps numbers, 0 and 1 are booleans and nothing else is."""
        assert reasons_of({"would_recommend": value}, would_recommend=pl.Int64) == "would_recommend_not_boolean"

    @pytest.mark.parametrize(
        "change",
        [
            {},
            {"helpful_rating": 1, "product_satisfaction": 5, "routine_completion_pct": 0, "would_recommend": False},
            {
                "helpful_rating": None,
                "product_satisfaction": None,
                "routine_completion_pct": None,
                "would_recommend": None,
            },
            {"routine_completion_pct": 100, "age": 0},
            {"age": -1},
            {"age": 131},
            {"timeframe": None, "age": None, "user_id": None, "feedback_id": None},
            {"conditions_analyzed": None, "rules_applied": "null"},
            {"conditions_analyzed": "[]", "rules_applied": ""},
            {"conditions_analyzed": '["dry skin", "a \\"b\\"", "\u00e9", "a=b"]', "age": 130},
        ],
    )
    def test_nothing_wrong(self, change: Row) -> None:
        """Values at the edges, nulls and empty lists."""
        assert reasons_of(change) is None

    @pytest.mark.parametrize("value", [4.0, None])
    def test_a_whole_rating_in_a_column_of_fractions(self, value: float | None) -> None:
        """4.0 is 4."""
        assert reasons_of({"helpful_rating": value, "age": 25.5}, **FRACTIONS) is None

    def test_all_at_once(self) -> None:
        """Every reason is given, in the order of the contract, and each once."""
        bad: Row = {
            **dict.fromkeys(LIMITS, -0.5),
            **{"analysis_id": None, "recommendation_id": "", "created_at": None, "would_recommend": 2},
            **{"timeframe": "=1\0", "conditions_analyzed": "oops", "rules_applied": '["a,b", "", "=1", "=2", "c,d"]'},
        }
        everything = [
            reason for reason in STABLE_REASONS if reason not in ("created_at_unreadable", "rules_not_a_list")
        ]
        assert reasons_of(bad, would_recommend=pl.Int64, **FRACTIONS) == ",".join(everything)


class TestSplit:
    """Valid and rejected rows."""

    def test_the_parts_in_full(self) -> None:
        """The expected frames."""
        frame = raw_frame(
            {}, {"routine_completion_pct": 200, "helpful_rating": 0}, {"age": None}, {"analysis_id": None}
        )
        valid, rejected = split_valid(frame)
        assert_frame_equal(valid, raw_frame({}, {"age": None}))
        assert_frame_equal(
            rejected,
            raw_frame({"routine_completion_pct": 200, "helpful_rating": 0}, {"analysis_id": None}).with_columns(
                reasons=pl.Series(
                    ["helpful_rating_out_of_range,routine_completion_pct_out_of_range", "analysis_id_missing"]
                )
            ),
        )

    @FEWER
    @given(raw_frames())
    def test_it_judges_as_plain_python_does(self, frame: pl.DataFrame) -> None:
        """Every row is in one part, in its order; all columns and types, any errors in any combination."""
        numbered = frame.with_row_index("n")
        reasons = [",".join(expected_reasons(row)) for row in frame.to_dicts()]
        judged = numbered.with_columns(reasons=pl.Series(reasons, dtype=pl.String))
        valid, rejected = split_valid(numbered, reject_formulas=True)
        assert_frame_equal(valid, judged.filter(reasons="").drop("reasons"))
        assert_frame_equal(rejected, judged.filter(pl.col("reasons") != ""))

    def test_many_rows(self) -> None:
        """Reasons stay with their rows far beyond a batch's first."""
        frame = pl.concat([raw_frame({}, {"routine_completion_pct": 200}, {"rules_applied": "oops"})] * 5_000)
        assert (
            split_valid(frame).rejected["reasons"].to_list()
            == ["routine_completion_pct_out_of_range", "rules_not_a_list"] * 5_000
        )

    def test_a_clean_frame_is_given_back_as_it_is(self) -> None:
        """Nothing is copied, and the empty list of rejected rows has the columns of a full one."""
        frame = raw_frame({}, {"age": None})
        valid, rejected = split_valid(frame)
        assert valid is frame
        assert_frame_equal(rejected, raw_frame().with_columns(reasons=pl.Series([], dtype=pl.String)))

    def test_pandera_is_not_asked_about_a_clean_frame(self) -> None:
        """It costs one pass of expressions; an invalid row shows that the test would notice a second pass."""
        clean, bad = raw_frame({}), raw_frame({"routine_completion_pct": 200})
        assert pandera_is_asked(lambda: split_valid(bad))
        assert not pandera_is_asked(lambda: split_valid(clean))

    def test_no_rows(self) -> None:
        """Both parts are empty."""
        valid, rejected = split_valid(raw_frame())
        assert (valid.height, rejected.height) == (0, 0)

    def test_columns_of_nulls_alone(self) -> None:
        """Such columns have no type yet; only required values are errors."""
        valid, rejected = split_valid(pl.DataFrame({name: [None, None] for name in CLASSIC_SCHEMA.raw_columns}))
        assert valid.height == 0
        assert rejected["reasons"].to_list() == ["analysis_id_missing,recommendation_missing,created_at_missing"] * 2

    @pytest.mark.parametrize("name", CLASSIC_SCHEMA.raw_columns)
    def test_one_column_of_nulls_alone(self, name: str) -> None:
        """As above, each column by itself."""
        required = {
            **{"analysis_id": "analysis_id_missing", "recommendation_id": "recommendation_missing"},
            **{"created_at": "created_at_missing"},
        }
        frame = raw_frame({}).with_columns(pl.lit(None).alias(name))
        assert split_valid(frame).rejected["reasons"].to_list() == ([required[name]] if name in required else [])

    @pytest.mark.parametrize(
        ("dtype", "id_"),
        [(pl.UInt64, 2**64 - 1), (pl.Int64, -(2**63)), (pl.String, "0b9f7c1e-0d3c-4a52-8f5e-6f1b9d6e7a11")],
    )
    def test_ids_may_be_integers_or_text(self, dtype: Any, id_: int | str) -> None:
        """Of any width and sign."""
        frame = raw_frame({"analysis_id": id_, "user_id": id_}, analysis_id=dtype, user_id=dtype)
        assert split_valid(frame).valid is frame

    @pytest.mark.parametrize("name", ["index", "reasons", "check", "suspect", "conditions_joined", "feedback_text"])
    def test_other_columns_are_kept_whatever_their_name(self, name: str) -> None:
        """They stay with their rows; only a column named reasons is replaced among the rejected."""
        frame = raw_frame({}, {"routine_completion_pct": 200}).with_columns(pl.Series(name, ["good", "bad"]))
        valid, rejected = split_valid(frame)
        assert valid[name].to_list() == ["good"]
        assert rejected[name].to_list() == (["routine_completion_pct_out_of_range"] if name == "reasons" else ["bad"])
        assert rejected.columns == list(dict.fromkeys([*CLASSIC_SCHEMA.raw_columns, name, "reasons"]))


class TestRequireRaw:
    """Frames that cannot be raw feedback."""

    def test_missing_columns_are_named(self) -> None:
        """All of them, in the order of the contract."""
        with pytest.raises(ValidationError, match=r"^The frame lacks the raw columns user_id, age\.$"):
            split_valid(raw_frame({}).drop("age", "user_id"))

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("analysis_id", 42.0, "analysis_id is Float64, expected integers or text"),
            ("recommendation_id", 1.5, "recommendation_id is Float64, expected integers or text"),
            ("helpful_rating", CANARY, "helpful_rating is String, expected numbers"),
            ("would_recommend", 0.5, "would_recommend is Float64, expected booleans or 0 and 1"),
            ("conditions_analyzed", [CANARY], "conditions_analyzed is List(String), expected text"),
            ("timeframe", 2, "timeframe is Int32, expected text"),
            ("age", CANARY, "age is String, expected numbers"),
            ("created_at", CANARY, "created_at is String, expected times"),
            ("created_at", date(2025, 10, 25), "created_at is Date, expected times"),
        ],
    )
    def test_a_wrong_type_is_named(self, name: str, value: Any, said: str) -> None:
        """With the expected type, and without any value."""
        frame = raw_frame({}).with_columns(pl.lit(value).alias(name))
        with pytest.raises(ValidationError) as caught:
            split_valid(frame)
        assert str(caught.value).startswith(f"Raw columns of a wrong type: {said}")
        assert CANARY not in all_said(caught.value)

    def test_all_wrong_types_are_named_at_once(self) -> None:
        """One message for all columns."""
        with pytest.raises(ValidationError, match=r"age is String.*; created_at is Int32"):
            require_raw(raw_frame({}).with_columns(age=pl.lit("25"), created_at=pl.lit(1)))

    def test_a_lazy_frame_can_be_asked_too(self) -> None:
        """Its schema is sufficient."""
        require_raw(raw_frame({}).lazy())
        with pytest.raises(ValidationError):
            require_raw(raw_frame({}).lazy().drop("age"))


class TestValidate:
    """The validation before anything is written."""

    def test_a_training_set_is_given_back_as_it_is(self) -> None:
        """The same object, with rows or without."""
        for frame in (pair_frame({}, {"age_range": None}), pair_frame()):
            assert validate(frame) is frame

    def test_the_columns_are_those_of_the_contract(self) -> None:
        """In this order."""
        assert tuple(PAIR_ROW) == CLASSIC_SCHEMA.training_columns

    @pytest.mark.parametrize("name", CLASSIC_SCHEMA.training_columns)
    def test_what_may_be_null(self, name: str) -> None:
        """Pseudonym, recommendation and both times never are."""
        required = name in ("analysis_hash", "recommendation_id", "feedback_timestamp", "export_date")
        frame = pair_frame({}, {name: None})
        if required:
            with pytest.raises(ValidationError) as caught:
                validate(frame)
            assert caught.value.reasons == {f"{name} not_nullable": 1}
        else:
            validate(frame)

    @pytest.mark.parametrize(
        ("name", "values", "rule"),
        [
            ("analysis_hash", ["", "73475cb40a568e8", "73475cb40a568e8d0", "73475CB40A568E8D"], "str_matches"),
            ("analysis_hash", ["73475cb40a568e8d\n", "73475cb40a568e8g", CANARY], "str_matches"),
            ("recommendation_id", ["", "\0", "\x1b1", "\x7f", "\x851"], "str_matches"),
            ("helpful_rating", [0, 6, -1, 127], "in_range"),
            ("product_satisfaction", [0, 6, -1, 127], "in_range"),
            ("routine_completion_pct", [-1, 101], "in_range"),
            ("conditions_detected", ["", ",", "a,", ",a", "a,,b", "\0", "a,\x1b1", "a\x85", "a,b\x7f"], "str_matches"),
            ("rules_applied", ["", ",", "a,", ",a", "a,,b", "\x01", "a,\x1b1", "a\x85", "a,b\x7f"], "str_matches"),
            ("timeframe", ["", "\0", "\x1b1", "\x7f", "\x851"], "str_matches"),
        ],
    )
    def test_each_rule(self, name: str, values: list[Any], rule: str) -> None:
        """Named with its column and the number of rows; the good rows beside do not count."""
        frame = pair_frame({}, *({name: value} for value in values), {})
        with pytest.raises(ValidationError) as caught:
            validate(frame)
        assert caught.value.reasons == {f"{name} {rule}": len(values)}
        said = f"The training set breaks its rules: {name} {rule} ({len(values)} rows)."
        assert str(caught.value) == said

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("recommendation_id", ["rec_20251025_001", " =1", "\u00e9", "a,b", "a\nb"]),
            ("helpful_rating", [1, 5]),
            ("routine_completion_pct", [0, 100]),
            ("would_recommend", [True, False]),
            ("conditions_detected", ["acne", "acne,oily_skin", "dry skin,a=b,\u00e9", 'a"b', "a\nb"]),
            ("age_range", ["<18", "18-25", "25-35", "35-50", "50+"]),
            ("feedback_timestamp", [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)]),
        ],
    )
    def test_what_passes(self, name: str, values: list[Any]) -> None:
        """Values at the edges of the rules."""
        frame = pair_frame(*({name: value} for value in values))
        assert validate(frame) is frame

    @pytest.mark.parametrize(
        ("name", "dtype"),
        [
            ("analysis_hash", pl.Binary),
            ("helpful_rating", pl.Int64),
            ("helpful_rating", pl.Float64),
            ("would_recommend", pl.Int8),
            ("conditions_detected", pl.Categorical),
            ("timeframe", pl.Binary),
            ("age_range", pl.Enum(["25-35"])),
            ("feedback_timestamp", pl.Datetime("us")),
            ("feedback_timestamp", pl.Datetime("ms", "UTC")),
            ("feedback_timestamp", pl.Datetime("us", "Europe/Berlin")),
            ("export_date", pl.String),
        ],
    )
    def test_a_wrong_type_concerns_all_rows(self, name: str, dtype: Any) -> None:
        """Types are exact: nothing is coerced."""
        with pytest.raises(ValidationError) as caught:
            validate(pair_frame({}, {}).with_columns(pl.col(name).cast(dtype)))
        assert caught.value.reasons[f"{name} dtype"] == 2

    @pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
    def test_age_ranges_may_be_text_or_categories_if_they_are_labels(self, dtype: Any) -> None:
        """As in Parquet that another library reads; the frame is returned as it is."""
        frame = pair_frame({}, {"age_range": None}).with_columns(pl.col("age_range").cast(dtype))
        assert validate(frame) is frame
        other = frame.with_columns(age_range=pl.lit(CANARY, dtype))
        with pytest.raises(ValidationError, match=r"age_range dtype \(2 rows\)") as caught:
            validate(other)
        assert CANARY not in all_said(caught.value)

    def test_missing_columns_are_named(self) -> None:
        """As a rule of the whole frame."""
        with pytest.raises(ValidationError) as caught:
            validate(pair_frame({}).drop("age_range", "timeframe"))
        assert caught.value.reasons == {"age_range column_in_dataframe": 1, "timeframe column_in_dataframe": 1}

    def test_unexpected_columns_are_refused(self) -> None:
        """Columns outside the contract are refused; a name can be a value of a file that was read without a header."""
        for more in ([CANARY], [CANARY, "another"]):
            with pytest.raises(ValidationError, match=r"unknown column_in_schema \(1 row\)") as caught:
                validate(pair_frame({}).with_columns(pl.lit(CANARY).alias(name) for name in more))
            assert CANARY not in all_said(caught.value)
        with pytest.raises(ValidationError, match=r"subject_hash column_in_schema \(1 row\)"):
            validate(pair_frame({}).with_columns(subject_hash=pl.lit("0" * 32)))
        with pytest.raises(ValidationError, match=r"unknown column_in_schema \(2 rows\)") as caught:
            validate(pl.DataFrame({CANARY: [1, 2], "another": [3, 4]}))
        assert CANARY not in all_said(caught.value)

    def test_another_order_is_refused(self) -> None:
        """Files are read by position too."""
        with pytest.raises(ValidationError, match="column_ordered"):
            validate(pair_frame({}).select("recommendation_id", "analysis_hash", *CLASSIC_SCHEMA.training_columns[2:]))

    def test_all_faults_are_counted_and_sorted(self) -> None:
        """The most frequent first, then by name."""
        bad = {"helpful_rating": 6, "timeframe": "\x1b1", "analysis_hash": "x"}
        with pytest.raises(ValidationError) as caught:
            validate(pair_frame(bad, {"timeframe": "\x1b1"}, {}))
        assert list(caught.value.reasons.items()) == [
            ("timeframe str_matches", 2),
            ("analysis_hash str_matches", 1),
            ("helpful_rating in_range", 1),
        ]

    @pytest.mark.parametrize("name", CLASSIC_SCHEMA.training_columns)
    def test_no_message_holds_a_value(self, name: str) -> None:
        """Neither a value of the right type nor one of a wrong one; not in the errors of its chain either."""
        for frame in (
            pair_frame({}).with_columns(pl.lit(f"\x1b{CANARY}").alias(name)),
            pair_frame({}).with_columns(pl.lit([CANARY]).alias(name)),
        ):
            with pytest.raises(ValidationError) as caught:
                validate(frame)
            assert CANARY not in all_said(caught.value)
            assert any(reason.startswith(f"{name} ") for reason in caught.value.reasons)

    @FEWER
    @given(raw_frames(), st.booleans())
    def test_what_split_valid_lets_through_passes(self, frame: pl.DataFrame, is_hashed: bool) -> None:
        """The two models agree: the final validation fails only for errors of this package."""
        valid = split_valid(frame).valid
        validate(anonymize(valid, now=NOW, unkeyed=True, hash_recommendation_id=is_hashed))


SWITCHES = [
    {},
    {"PANDERA_VALIDATION_ENABLED": "False"},
    {"PANDERA_VALIDATION_DEPTH": "SCHEMA_ONLY"},
    {"PANDERA_VALIDATION_DEPTH": "DATA_ONLY"},
]
PROGRAM = """
import polars as pl
from frames import pair_frame, raw_frame
from feedback_etl.errors import ValidationError
from feedback_etl.transform.raw_schema import split_valid
from feedback_etl.transform.training_schema import TrainingPair, validate
print(*split_valid(raw_frame({"routine_completion_pct": 200, "rules_applied": "oops"}))[1]["reasons"])
for frame in (pair_frame({"helpful_rating": 6}), pair_frame({}).drop("age_range")):
    try:
        validate(frame)
    except ValidationError as error:
        print(*error.reasons)
try:
    TrainingPair.validate(pair_frame({"helpful_rating": 6}))
    print("switched off elsewhere")
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.sample("PANDERA_VALIDATION_ENABLED=False")
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: "=".join(*switch.items()) if switch else "none")
def test_panderas_switches_do_not_open_the_gate(switch: dict[str, str]) -> None:
    """They are read from the environment when pandera is imported, and hold for others' schemas alone."""
    environment = os.environ | switch | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    first, second, third, elsewhere = done.stdout.splitlines()
    assert (first, second, third) == (
        "routine_completion_pct_out_of_range,rules_not_a_list",
        "helpful_rating in_range",
        "age_range column_in_dataframe",
    )
    values_unseen = switch and "DATA_ONLY" not in switch.values()
    assert elsewhere == ("switched off elsewhere" if values_unseen else "SchemaError")


def test_the_gate_leaves_panderas_configuration_as_it_was() -> None:
    """In this thread and in others: the override is the context's own."""
    from pandera.config import get_config_context

    before = get_config_context(validation_depth_default=None)
    validate(pair_frame({}))
    assert get_config_context(validation_depth_default=None) == before
