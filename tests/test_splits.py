"""Splits are the same on every machine and in every version, and keep groups together."""

import hashlib
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from feedback_etl.errors import UsageError
from feedback_etl.training.splits import NullGroupWarning, PersonOverlapWarning, k_folds, split_by_hash

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
values = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))


def find_part(value: str | None, shares: dict[str, float], seed: int = 0) -> str:
    """Return the part of a value, computed with the standard library."""
    text = str(seed) if value is None else f"{seed}|{value}"
    fraction, end = Fraction(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16), 16**15), Fraction(0)
    first, *others = shares
    for name in reversed(others):
        end += Fraction(shares[name])
        if fraction < end:
            return name
    return first


class TestParts:
    """The part of a row."""

    def test_golden_split(self) -> None:
        """It never changes, so that models stay comparable."""
        frame = pl.DataFrame({"group": [f"{number:016x}" for number in range(12)] + [None]}).with_row_index("n")
        parts = split_by_hash(frame.lazy(), {"c": 0.2, "b": 0.3, "a": 0.5}, by="group")
        rows = {name: part.collect()["n"].to_list() for name, part in parts.items()}
        assert rows == {"a": [0, 1, 4, 5, 6, 7, 11, 12], "b": [2, 8, 10], "c": [3, 9]}

    @pytest.mark.parametrize(
        "shares",
        [{"train": 0.8, "test": 0.2}, {"train": 0.7, "val": 0.1, "test": 0.2}, {"fit": 0.5, "x": 0.3, "a": 0.2}],
    )
    def test_golden_test_part(self, shares: dict[str, float]) -> None:
        """The last part is the same for any parts before it and any name."""
        frame = pl.DataFrame({"group": [f"{number:016x}" for number in range(12)]}).with_row_index("n")
        last = [*shares][-1]
        assert split_by_hash(frame, shares, by="group")[last]["n"].to_list() == [4, 7]

    @given(st.lists(values, max_size=30), st.integers(0, 3))
    def test_random_groups_agree_with_the_standard_library(self, groups: list[str | None], seed: int) -> None:
        """Each row is in one part, in its order, with equal values; null is a value."""
        frame = pl.LazyFrame({"group": groups}, schema={"group": pl.String}).with_row_index("n")
        parts = split_by_hash(frame, SHARES, by="group", seed=seed)
        for name, part in parts.items():
            assert part.collect()["n"].to_list() == [
                n for n, group in enumerate(groups) if find_part(group, SHARES, seed) == name
            ]

    @given(st.permutations("abcd"), st.lists(st.integers(1, 10**18) | st.integers(1, 100), min_size=4, max_size=4))
    def test_random_shares_agree_with_exact_fractions(self, names: list[str], weights: list[int]) -> None:
        """The result has the order of the mapping."""
        shares = {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}
        frame = pl.DataFrame({"group": [str(number) for number in range(50)]})
        parts = split_by_hash(frame, shares, by="group")
        assert [*parts] == names
        for name, part in parts.items():
            assert part["group"].to_list() == [value for value in frame["group"] if find_part(value, shares) == name]

    @pytest.mark.parametrize(
        ("shares", "large"),
        [
            ({"train": 1.0, "rest": 1e-10}, "train"),
            ({"rest": 1e-10, "train": 1.0}, "train"),
            ({"a": 1 - 1e-18, "b": 1e-18}, "a"),
            ({"a": 1e-18, "b": 1 - 1e-18}, "b"),
            ({"a": 1e-300, "b": 1.0, "c": 5e-324}, "b"),
        ],
    )
    def test_tiny_shares_are_not_lost_to_rounding(self, shares: dict[str, float], large: str) -> None:
        """One part gets almost all rows, the others almost none."""
        parts = split_by_hash(pl.DataFrame({"group": range(1000)}), shares, by="group")
        assert {name: part.height for name, part in parts.items()} == dict.fromkeys(shares, 0) | {large: 1000}

    def test_later_rows_do_not_move_earlier_ones(self) -> None:
        """Training rows stay training rows."""
        frame = pl.DataFrame({"group": range(1000)})
        early = split_by_hash(frame.head(400), SHARES, by="group")
        late = split_by_hash(frame.reverse(), SHARES, by="group")
        for name in SHARES:
            assert set(early[name]["group"]) <= set(late[name]["group"])

    def test_shares_are_met_within_half_a_percentage_point_for_100_000_groups(self) -> None:
        """For each part and several seeds; chance alone gives 0.13 points."""
        frame = pl.DataFrame({"group": [hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(100_000)]})
        for seed in range(5):
            parts = split_by_hash(frame, SHARES, by="group", seed=seed)
            assert sum(part.height for part in parts.values()) == frame.height
            for name, share in SHARES.items():
                assert abs(parts[name].height / frame.height - share) < 0.005

    def test_another_seed_gives_an_independent_split(self) -> None:
        """Half of the rows of a part are in each half."""
        frame = pl.DataFrame({"group": range(10_000)})
        halves = {"a": 0.5, "b": 0.5}
        first = split_by_hash(frame, halves, by="group")["a"]
        again = split_by_hash(first, halves, by="group", seed=1)["a"]
        assert abs(again.height / first.height - 0.5) < 0.03

    def test_part_of_a_value_does_not_depend_on_its_type(self) -> None:
        """Integers of any width, their text, and categories."""
        numbers = pl.DataFrame({"group": range(100)})
        wanted = split_by_hash(numbers, SHARES, by="group")["train"]["group"].to_list()
        for dtype in (pl.UInt8, pl.String, pl.Categorical, pl.Enum([str(n) for n in range(100)])):
            cast = numbers.cast(pl.String).cast(dtype) if dtype != pl.UInt8 else numbers.cast(dtype)
            part = split_by_hash(cast, SHARES, by="group")["train"]
            assert part["group"].cast(pl.String).cast(pl.Int64).to_list() == wanted

    def test_lazy_frame_is_not_collected(self) -> None:
        """Its parts are lazy."""
        frame = pl.DataFrame({"group": range(100)})
        lazy = frame.lazy().map_batches(lambda _: pytest.fail("it was collected"))
        assert all(isinstance(part, pl.LazyFrame) for part in split_by_hash(lazy, SHARES, by="group").values())
        part = split_by_hash(frame.lazy(), SHARES, by="group")["test"].collect()
        assert_frame_equal(part, split_by_hash(frame, SHARES, by="group")["test"])


@given(st.data())
def test_growth_renaming_and_carving_never_move_people_out_of_test(data: st.DataObject) -> None:
    """Nor into it."""
    require_the_same_test_people(data)


@pytest.mark.torture
@settings(max_examples=1000)
@given(st.data())
def test_a_thousand_sequences_of_changes_never_move_people_out_of_test(data: st.DataObject) -> None:
    """Nor into it."""
    require_the_same_test_people(data)


def require_the_same_test_people(data: st.DataObject) -> None:
    """Grow, rename and carve: a share of the first part becomes a new part directly after it."""
    people, parts = 20, [("train", Fraction(4, 5)), ("test", Fraction(1, 5))]
    tested: set[int] = set()
    known = 0
    for step in ["grow", *data.draw(st.lists(st.sampled_from(["grow", "rename", "carve"]), min_size=1, max_size=6))]:
        if step == "grow":
            people += data.draw(st.integers(1, 30))
        elif step == "rename":
            names = data.draw(st.permutations([f"{data.draw(st.sampled_from('aqz'))}{n}" for n in range(len(parts))]))
            parts = [(name, share) for name, (_, share) in zip(names, parts, strict=True)]
        else:
            (name, share), *others = parts
            kept = share * Fraction(data.draw(st.integers(1, 99)), 100)
            parts = [(name, kept), (f"new {len(parts)}", share - kept), *others]
        frame = pl.DataFrame({"person": range(people)})
        split = split_by_hash(frame, {name: float(share) for name, share in parts}, by="person")
        test = {*split[parts[-1][0]]["person"]}
        assert {person for person in test if person < known} == tested
        assert sum(part.height for part in split.values()) == people
        tested, known = test, people


class TestFolds:
    """Numbers of folds for cross-validation."""

    def test_folds_keep_groups_together_and_are_of_equal_size(self) -> None:
        """Up to chance; null is a value of its own."""
        frame = pl.DataFrame({"group": [*range(10_000), *range(10_000)]})
        numbered = k_folds(frame, 7, by="group")
        assert numbered["fold"].dtype == pl.Int8
        assert numbered["fold"][:10_000].equals(numbered["fold"][10_000:])
        counts = numbered.group_by("fold").len().sort("fold")
        assert counts["fold"].to_list() == [*range(7)]
        assert all(abs(rows / 20_000 - 1 / 7) < 0.02 for rows in counts["len"])

    def test_golden_folds(self) -> None:
        """They never change; computed with the standard library."""
        groups = [f"{number:016x}" for number in range(12)]
        wanted = [
            int(hashlib.sha256(f"fold 3|{group}".encode()).hexdigest()[:15], 16) * 5 // 16**15 for group in groups
        ]
        assert k_folds(pl.DataFrame({"group": groups}), by="group", seed=3)["fold"].to_list() == wanted

    @pytest.mark.parametrize("folds", range(2, 101))
    def test_every_number_of_folds_is_met(self, folds: int) -> None:
        """No fold is lost, and none is added by rounding."""
        numbered = k_folds(pl.DataFrame({"group": range(3000)}), folds, by="group", name="f")
        assert {*numbered["f"]} == {*range(folds)}

    def test_folds_are_independent_of_a_split_with_the_same_seed(self) -> None:
        """Otherwise training rows would lack a fold."""
        train = split_by_hash(pl.DataFrame({"group": range(5000)}), SHARES, by="group")["train"]
        counts = k_folds(train, by="group").group_by("fold").len()["len"]
        assert len(counts) == 5
        assert all(abs(rows / train.height - 0.2) < 0.03 for rows in counts)

    def test_lazy_frame_is_not_collected(self) -> None:
        """As for a split."""
        lazy = pl.LazyFrame({"group": [1]}).map_batches(lambda _: pytest.fail("it was collected"))
        assert isinstance(k_folds(lazy, by="group"), pl.LazyFrame)

    @pytest.mark.parametrize("folds", [1, 0, 101, 2.0, True, "5", None])
    def test_other_numbers_of_folds_are_refused(self, folds: Any) -> None:
        """A fold without rows tests nothing."""
        with pytest.raises(UsageError, match="`folds` must be an integer from 2 to 100"):
            k_folds(pl.DataFrame({"group": [1]}), folds, by="group")

    def test_other_arguments_are_refused_and_people_are_warned_of(self) -> None:
        """As for a split."""
        name: Any = 1
        with pytest.raises(UsageError, match="`name` must be text"):
            k_folds(pl.DataFrame({"group": [1]}), by="group", name=name)
        with pytest.raises(UsageError, match=r"has no column subject_hash.* Exports with --include-subject-hash"):
            k_folds(pl.DataFrame({"group": [1]}), by="subject_hash")
        with pytest.warns(PersonOverlapWarning):
            k_folds(pl.DataFrame({"analysis_hash": ["a"]}), by="analysis_hash")


class TestPeople:
    """A split by analysis or recommendation warns that people can be in several parts."""

    def test_split_by_analysis_or_recommendation_warns(self) -> None:
        """At the line of the caller, with a class that can be silenced or made an error."""
        frame = pl.DataFrame({"analysis_hash": ["a"], "recommendation_id": ["c"], "subject_hash": ["b"]})
        for pairs in (frame, frame.lazy(), frame.to_arrow(), frame.to_pandas()):
            with pytest.warns(PersonOverlapWarning, match="by recommendation_id: .* several recommendations can"):
                split_by_hash(pairs, SHARES, by="recommendation_id")
            with pytest.warns(PersonOverlapWarning, match="a person with several analyses") as caught:
                split_by_hash(pairs, SHARES, by="analysis_hash")
            assert [Path(warning.filename).name for warning in caught] == ["test_splits.py"]
        assert issubclass(PersonOverlapWarning, UserWarning)

    def test_warning_is_shown_once(self, tmp_path: Path) -> None:
        """By Python's default filter, however often a line runs."""
        (tmp_path / "script.py").write_text(
            "import polars as pl, feedback_etl as fe\n"
            "for _ in range(3):\n"
            "    fe.training.split_by_hash(pl.DataFrame({'analysis_hash': ['a']}), {'all': 1.0}, by='analysis_hash')\n"
        )
        done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
        assert done.stderr.count("PersonOverlapWarning") == 1

    def test_split_by_person_does_not_warn(self) -> None:
        """People are then in one part."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            split_by_hash(pl.DataFrame({"subject_hash": ["a"]}), SHARES, by="subject_hash")


class TestNulls:
    """Rows without a value to split by are one group, and a warning reports them."""

    @pytest.mark.parametrize("kind", ["polars", "pandas", "arrow"])
    def test_warning_contains_the_number_of_nulls(self, kind: str) -> None:
        """At the line of the caller; for people it explains the consequence."""
        frame = pl.DataFrame({"subject_hash": ["a", None, None], "timeframe": [None, "1_week", "2_weeks"]})
        given = {"polars": frame, "pandas": frame.to_pandas(), "arrow": frame.to_arrow()}[kind]
        message = r"^2 of 3 rows have no subject_hash: .* in one part as if they were of one person\. Filter them out"
        with pytest.warns(NullGroupWarning, match=message) as caught:
            split_by_hash(given, SHARES, by="subject_hash")
        assert [Path(warning.filename).name for warning in caught] == ["test_splits.py"]
        with pytest.warns(NullGroupWarning, match="^1 of 3 rows have no timeframe: they are all in one part\\."):
            split_by_hash(given, SHARES, by="timeframe")

    def test_nulls_of_a_lazy_frame_are_not_counted(self) -> None:
        """Counting would collect it."""
        frame = pl.LazyFrame({"group": [None, "a"]}).map_batches(lambda _: pytest.fail("it was collected"))
        split_by_hash(frame, SHARES, by="group")

    def test_column_of_nulls_is_one_group(self) -> None:
        """All rows are in one part."""
        with pytest.warns(NullGroupWarning, match="^2 of 2 rows"):
            parts: dict[str, Any] = split_by_hash(pl.DataFrame({"group": [None, None]}), SHARES, by="group")
        assert sorted(part.height for part in parts.values()) == [0, 0, 2]


class TestRefusals:
    """Invalid arguments are refused."""

    @pytest.mark.parametrize("shares", [[0.8, 0.2], {"a": "0.8"}, {"a": None}, {1: 1.0}, 0.8, None])
    def test_shares_must_map_names_to_numbers(self, shares: Any) -> None:
        """The message shows an example."""
        with pytest.raises(UsageError, match=r"must map names to numbers, such as \{"):
            split_by_hash(pl.DataFrame({"a": ["b"]}), shares, by="a")

    @pytest.mark.parametrize("seed", [None, True, "0", 0.0])
    def test_seed_must_be_an_integer(self, seed: Any) -> None:
        """Other types have no unique text."""
        with pytest.raises(UsageError, match="`seed` must be an integer"):
            split_by_hash(pl.DataFrame({"a": ["b"]}), SHARES, by="a", seed=seed)

    @pytest.mark.parametrize("by", [["a"], ("a", "b"), None, pl.col("a")])
    def test_by_must_be_one_name(self, by: Any) -> None:
        """Not what Polars accepts besides."""
        with pytest.raises(UsageError, match="`by` must be the name of one column"):
            split_by_hash(pl.DataFrame({"a": ["b"]}), SHARES, by=by)

    def test_message_lists_canonical_columns_and_counts_others(self) -> None:
        """Also for a pandas frame, to which a column is added internally."""
        for frame in (pl.DataFrame({"a": ["b"], "timeframe": [1]}), pd.DataFrame({"a": ["b"], "timeframe": [1]})):
            with pytest.raises(UsageError, match=r"^The data has no column d\. It has: timeframe and 1 other\.$"):
                split_by_hash(frame, SHARES, by="d")

    def test_message_does_not_repeat_values_read_as_column_names(self) -> None:
        """As of a CSV file without a header."""
        frame = pl.read_csv(b"anna@example.org,42\nbob@example.org,7\n")
        message = r"^The data has no column subject_hash\. It has: 2 others\. Exports with --include-subject-hash .*\.$"
        with pytest.raises(UsageError, match=message):
            split_by_hash(frame, SHARES, by="subject_hash")

    @pytest.mark.parametrize(
        "shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0.0}, {"a": float("nan"), "b": 1.0}]
    )
    def test_shares_must_be_positive_with_the_sum_1(self, shares: dict[str, float]) -> None:
        """No row is silently lost."""
        with pytest.raises(UsageError, match="must be greater than 0 and have the sum 1"):
            split_by_hash(pl.DataFrame({"a": ["b"]}), shares, by="a")

    def test_shares_with_the_sum_1_up_to_rounding_are_accepted(self) -> None:
        """Thirds, tenths: each row is in a part."""
        frame = pl.DataFrame({"group": range(1000)})
        for count in (3, 10, 49):
            parts = split_by_hash(frame, {str(n): 1 / count for n in range(count)}, by="group")
            assert sum(part.height for part in parts.values()) == 1000

    @pytest.mark.parametrize(
        ("column", "message"), [("a", "has no column a"), ("f", "f is Float64"), ("t", "t is Date")]
    )
    def test_columns_without_exact_text_are_refused(self, column: str, message: str) -> None:
        """Also missing columns."""
        frame = pl.DataFrame({"f": [1.0], "t": [None]}, schema={"f": pl.Float64, "t": pl.Date})
        with pytest.raises(UsageError, match=message):
            split_by_hash(frame, SHARES, by=column)
