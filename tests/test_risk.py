"""Re-identification risk: published figures, and an oracle in plain Python."""

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, exported, people
from hypothesis import given
from hypothesis import strategies as st
from processes import Here
from pseudonym_keys import OTHER_KEY

from feedback_etl.errors import UsageError
from feedback_etl.privacy.risk_measures import Risk, journalist_risk, risk
from feedback_etl.schema.classic import CLASSIC_SCHEMA

# Li et al. (2007), tables 3 and 5: salaries in thousands, in three classes of three.
SALARIES = {"zip": [476, 476, 476, 4790, 4790, 4790, 479, 479, 479], "salary": [3, 5, 9, 6, 11, 8, 4, 7, 10]}


class TestPublishedFigures:
    """Figures that papers publish for their own examples."""

    def test_t_closeness_of_salaries(self) -> None:
        """Li et al. (2007), section 4: 0.167 for the table that is better, 0.375 for the class {3, 4, 5}."""
        measured = risk(pl.DataFrame(SALARIES), quasi_identifiers=["zip"], sensitive=["salary"])
        assert measured.t["salary"] == pytest.approx(0.167, abs=5e-4)
        worse = SALARIES | {"salary": [3, 4, 5, 6, 11, 8, 7, 9, 10]}
        assert risk(pl.DataFrame(worse), quasi_identifiers=["zip"], sensitive=["salary"]).t["salary"] == (
            pytest.approx(0.375)
        )

    def test_l_diversity_of_diseases(self) -> None:
        """Machanavajjhala et al. (2007), figure 3: a table that is 3-diverse."""
        diseases = ["heart", "viral", "cancer", "cancer"], ["cancer", "heart", "viral", "viral"]
        four = ([1305] * 4, diseases[0]), ([1485] * 4, diseases[1]), ([1306] * 4, diseases[0])
        table = pl.concat(pl.DataFrame({"zip": zips, "disease": names}) for zips, names in four)
        measured = risk(table, quasi_identifiers=["zip"], sensitive=["disease"])
        assert measured.distinct_l == {"disease": 3}
        assert measured.entropy_l["disease"] == pytest.approx(2**1.5)  # 1/4, 1/4 and 1/2 in each class: 1.5 bits
        assert measured.t == {"disease": pytest.approx(1 / 6)}

    def test_k_anonymity_of_voters(self) -> None:
        """Sweeney (2002), figure 2: a table with k = 2 for race, birth, gender and zip."""
        classes = {("black", 1965, "m", "0214"): 2, ("black", 1965, "f", "0213"): 2, ("black", 1964, "f", "0213"): 2}
        classes |= {("white", 1964, "m", "0213"): 3, ("white", 1967, "m", "0213"): 2}
        rows = [row for row, times in classes.items() for _ in range(times)]
        table = pl.DataFrame(rows, schema=["race", "birth", "gender", "zip"], orient="row")
        measured = risk(table, quasi_identifiers=table.columns, sensitive=[])
        assert (measured.k, measured.classes, measured.highest_risk) == (2, 5, 0.5)
        assert measured.average_risk == pytest.approx(5 / 11)
        assert measured.discernibility == 4 * 4 + 9


class TestPeople:
    """The unit that is counted is a person."""

    def test_k_counts_people_instead_of_rows(self) -> None:
        """Two users with ten rows each in their own class: k is 1, not 10."""
        table = pl.DataFrame({"age": ["a"] * 10 + ["b"] * 10, "user": [1] * 10 + [2] * 10})
        assert risk(table, quasi_identifiers=["age"], sensitive=[]).k == 10
        measured = risk(table, quasi_identifiers=["age"], sensitive=[], person="user")
        assert (measured.k, measured.share_unique, measured.small_rows, measured.small_people) == (1, 1.0, 20, 2)

    def test_person_in_two_small_classes_counts_in_both(self) -> None:
        """The sum of sizes is not the number of different people: here there is one."""
        table = pl.DataFrame({"age": ["a", "b"], "user": [1, 1]})
        assert risk(table, quasi_identifiers=["age"], sensitive=[], person="user").small_people == 2

    def test_rows_without_a_person_count_as_one_person(self) -> None:
        """They could all belong to the same person."""
        table = pl.DataFrame({"age": ["a"] * 3, "user": [None, None, 7]})
        assert risk(table, quasi_identifiers=["age"], sensitive=[], person="user").k == 2

    def test_null_is_a_value(self) -> None:
        """Rows without an age are a class."""
        table = pl.DataFrame({"age": ["a", "a", None], "rating": [1, None, 2]})
        measured = risk(table, quasi_identifiers=["age"], sensitive=["rating"])
        assert (measured.classes, measured.k, measured.distinct_l) == (2, 1, {"rating": 1})


class TestJournalistRisk:
    """An attacker who does not know who of a population is in the table."""

    def test_classes_of_the_population_count(self) -> None:
        """Classes of 4 and 2 people, of whom 2 and 1 are in the table; several rows of a person count once."""
        table = pl.DataFrame({"age": ["a", "a", "a", None], "user": [1, 1, 2, 5]})
        everyone = pl.DataFrame({"age": ["a"] * 4 + [None] * 2 + ["b"], "user": [1, 2, 3, 4, 5, 6, 7]})
        measured = journalist_risk(table, everyone, ["age"], person="user")
        assert measured.highest == pytest.approx(1 / 2)
        assert measured.average == pytest.approx((2 / 4 + 1 / 2) / 3)
        assert measured.highest <= risk(table, quasi_identifiers=["age"], sensitive=[], person="user").highest_risk

    def test_population_without_people_of_the_table_is_refused(self) -> None:
        """It would make the risk too small, or infinite."""
        table = pl.DataFrame({"age": ["a", "b"]})
        with pytest.raises(UsageError, match="`population` must contain all people"):
            journalist_risk(table, pl.DataFrame({"age": ["a", "a"]}), ["age"])
        assert journalist_risk(table.clear(), table, ["age"]) == (0.0, 0.0)


class TestEdges:
    """Empty tables, constant columns and missing columns."""

    def test_empty_table_has_no_risk(self) -> None:
        """Nothing is at risk."""
        table = pl.DataFrame(schema={"age": pl.String, "rating": pl.Int8})
        assert risk(table.lazy(), quasi_identifiers=["age"], sensitive=["rating"]) == Risk()

    def test_constant_column_has_distance_zero(self) -> None:
        """The distance is 0 where nothing differs."""
        table = pl.DataFrame({"age": ["a", "b"], "rating": [1, 1]})
        measured = risk(table, quasi_identifiers=["age", "age"], sensitive=["rating"])
        assert (measured.t, measured.entropy_l) == ({"rating": 0.0}, {"rating": 1.0})

    def test_missing_columns_are_reported(self) -> None:
        """The message names them and the columns that exist."""
        with pytest.raises(UsageError, match=r"no column zip, user\. It has: age\.$"):
            risk(pl.DataFrame({"age": [1]}), quasi_identifiers=["age", "zip"], sensitive=[], person="user")
        with pytest.raises(UsageError, match="at least one"):
            risk(pl.DataFrame({"age": [1]}), quasi_identifiers=[], sensitive=[])
        with pytest.raises(UsageError, match="must be lists of columns"):
            risk(pl.DataFrame({"age": [1]}), quasi_identifiers="age", sensitive=[])


VALUES = st.sampled_from([None, 0, 1, 2, 5])
ROWS = st.lists(
    st.fixed_dictionaries({"a": VALUES, "b": st.sampled_from([None, "x", "y"]), "user": VALUES, "s": VALUES})
    .flatmap(lambda row: st.just(row))
    .map(lambda row: row | {"w": str(row["s"])}),
    min_size=1,
    max_size=40,
)


@given(ROWS)
def test_every_figure_equals_the_plain_python_oracle(rows: list[dict[str, Any]]) -> None:
    """Every figure, of random tables with nulls."""
    schema = {"a": pl.Int64, "b": pl.String, "user": pl.Int64, "s": pl.Int64, "w": pl.String}
    table = pl.DataFrame(rows, schema=schema)
    measured = risk(table, quasi_identifiers=["a", "b"], sensitive=["s", "w"], person="user")
    classes = defaultdict(list)
    for row in rows:
        classes[row["a"], row["b"]].append(row)
    sizes = {name: len({row["user"] for row in members}) for name, members in classes.items()}
    assert (measured.rows, measured.classes, measured.k) == (len(rows), len(classes), min(sizes.values()))
    assert measured.average_risk == pytest.approx(len(classes) / sum(sizes.values()))
    unique = sum(len(members) for name, members in classes.items() if sizes[name] == 1)
    assert measured.share_unique == pytest.approx(unique / len(rows))
    assert measured.small_people == sum(size for size in sizes.values() if size < 5)
    assert measured.small_rows == sum(len(members) for name, members in classes.items() if sizes[name] < 5)
    assert measured.discernibility == sum(len(members) ** 2 for members in classes.values())
    for name in ("s", "w"):
        overall = count_shares([row[name] for row in rows])
        inside = [count_shares([row[name] for row in members]) for members in classes.values()]
        assert measured.distinct_l[name] == min(map(len, inside))
        entropies = [-sum(p * math.log(p) for p in class_shares.values()) for class_shares in inside]
        assert measured.entropy_l[name] == pytest.approx(math.exp(min(entropies)))
        distance = ordered_distance if name == "s" else equal_distance
        assert measured.t[name] == pytest.approx(
            max(distance(class_shares, overall) for class_shares in inside), abs=1e-9
        )


def count_shares(values: list[Any]) -> dict[Any, float]:
    return {value: times / len(values) for value, times in Counter(values).items()}


def equal_distance(class_shares: dict[Any, float], overall: dict[Any, float]) -> float:
    return sum(abs(class_shares.get(value, 0) - share) for value, share in overall.items()) / 2


def ordered_distance(class_shares: dict[Any, float], overall: dict[Any, float]) -> float:
    values = sorted(overall, key=lambda value: (value is not None, value))
    moved = total = 0.0
    for value in values:
        moved += class_shares.get(value, 0) - overall[value]
        total += abs(moved)
    return total / (len(values) - 1) if len(values) > 1 else 0.0


class TestCommand:
    """`feedback-etl risk`."""

    @pytest.fixture
    def run_command(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
        """Runs command lines in this process."""
        return Here(capfd, monkeypatch)

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_export_is_measured(self, run_command: Here, sqlite_database: Database, form: dict[str, Any]) -> None:
        """In each form, as a table and as JSON."""
        sqlite_database.fill(**people(3))
        report = exported(sqlite_database, Path("out"), **form)
        ended = run_command("risk", report.export_filename)
        assert ended.code == 0
        assert ended.out.splitlines()[:6] == [
            "counted   rows: no column identifies people (--person)",
            "known     age_range, conditions_detected, timeframe (quasi-identifiers)",
            "Figure            Value  Meaning",
            "rows                  9  a row in several files counts once",
            "classes               1  equivalence classes: equal quasi-identifiers",
            "k                     9  rows in the smallest class (k-anonymity)",
        ]
        measured = json.loads(run_command("risk", report.export_filename, report.export_filename, "--json").out)
        assert (measured["rows"], measured["k"], measured["distinct_l"]["helpful_rating"]) == (9, 9, 1)
        assert (measured["counted"], measured["quasi_identifiers"]) == ("rows", [*CLASSIC_SCHEMA.quasi_identifiers])

    def test_rows_in_several_exports_count_once(self, run_command: Here, sqlite_database: Database) -> None:
        """In whatever format; rows of one export with equal pairs, as of a truncated time, are different ones."""
        sqlite_database.fill(**people(3))
        first = exported(sqlite_database, Path("out"), timestamp_precision="day").export_filename
        sqlite_database.fill(feedbacks=people(4)["feedbacks"][9:])
        second = exported(sqlite_database, Path("out"), timestamp_precision="day", format="parquet").export_filename
        done = run_command("risk", first, second, "--json")
        assert (json.loads(done.out)["rows"], json.loads(done.out)["repeated_rows"]) == (12, 9)
        assert "9 rows that several files contain counted once.\n" in done.err

    def test_shared_exports_that_overlap_are_not_combined(self, run_command: Here, sqlite_database: Database) -> None:
        """A row has another pseudonym in each. Their quasi-identifiers are those of the export, the month too."""
        sqlite_database.fill(**people(6))
        share = {"key": OTHER_KEY, "recipient": "acme"}
        reports = [exported(sqlite_database, Path("out"), **share) for _ in range(2)]
        files = [report.export_filename for report in reports]
        measured = json.loads(run_command("risk", files[0], "--json").out)
        assert measured["quasi_identifiers"] == reports[0].risk["quasi_identifiers"]
        assert "feedback_timestamp" in measured["quasi_identifiers"]
        assert "The shared files have overlapping windows" in run_command("risk", *files).err

    def test_any_file_is_measured(self, run_command: Here) -> None:
        """With the columns named."""
        Path("salaries.csv").write_text("zip,salary,who\n1,5,1\n1,7,1\n2,9,2\n")
        options = ["--quasi-identifier", "zip", "--sensitive", "salary", "--person", "who", "--json"]
        assert json.loads(run_command("risk", "salaries.csv", *options).out)["k"] == 1

    def test_linked_rows_and_equal_answers_are_measured(self, run_command: Here) -> None:
        """Of three analyses two have the same two rows; in the class of the third one all answer alike."""
        rows = "a,18-25,1\na,25-35,2\nb,18-25,3\nb,25-35,2\nc,18-25,5\n"
        Path("rows.csv").write_text("analysis_hash,age_range,helpful_rating\n" + rows)
        options = ["--quasi-identifier", "age_range", "--sensitive", "helpful_rating"]
        measured = json.loads(run_command("risk", "rows.csv", *options, "--json").out)
        assert (measured["k"], measured["linked_k"], measured["linked_by"]) == (2, 1, "analysis_hash")
        assert measured["homogeneous_classes"] == {"helpful_rating": 1}
        lines = [line.split() for line in run_command("risk", "rows.csv", *options).out.splitlines()]
        assert ["k,", "linked", "1", "analyses", "alike,", "if", "all", "rows", "of", "one", "are", "linked"] in lines
        uniform = lines.index(["uniform", "classes", "in", "which", "all", "answer", "alike:"])
        assert lines[uniform + 1] == ["1", "helpful_rating"]
        Path("rows.csv").write_text("who,age_range,helpful_rating\n" + rows)
        assert json.loads(run_command("risk", "rows.csv", *options, "--json").out)["linked_by"] is None
        by_person = run_command("risk", "rows.csv", *options, "--person", "who").out
        assert " 1  people alike, if all rows of one are linked" in by_person

    def test_values_are_compared_as_text(self, run_command: Here) -> None:
        """01067 is another postcode than 1067, also where every value looks like a number."""
        Path("zips.csv").write_text("zip,salary\n" + "1067,3\n" * 11 + "01067,11\n")
        done = run_command("risk", "zips.csv", "--quasi-identifier", "zip", "--sensitive", "salary", "--json")
        measured = json.loads(done.out)
        assert (measured["classes"], measured["k"], measured["t"]["salary"]) == (2, 1, pytest.approx(11 / 12))

    def test_folder_is_refused_with_a_remedy(self, run_command: Here) -> None:
        """Its files may have several keys."""
        Path("out").mkdir()
        ended = run_command("risk", "out")
        assert ended.code == 2
        assert "out is a folder: name its files (out/*.csv)" in ended.err
        assert "feedback-etl report out" in ended.err

    def test_exports_of_two_keys_are_not_combined(self, run_command: Here, sqlite_database: Database) -> None:
        """A person has another pseudonym in each; files without a manifest are accepted."""
        sqlite_database.fill(**people(3))
        first, again = (exported(sqlite_database, Path(name)).export_filename for name in ("one", "two"))
        other = exported(sqlite_database, Path("other"), key=OTHER_KEY).export_filename
        ended = run_command("risk", first, again, other)
        assert ended.code == 2
        assert "The files were made with 2 keys" in ended.err
        assert run_command("risk", first, again).code == 0
        Path("copy.csv").write_bytes(Path(other).read_bytes())
        assert run_command("risk", first, "copy.csv").code == 0

    def test_unreadable_files_are_reported(self, run_command: Here) -> None:
        """In one sentence, without their content."""
        Path("torn.parquet").write_text("secret")
        Path("a.csv").write_text("a\n1\n")
        Path("b.csv").write_text("b,c\n1,2\n")
        ended = run_command("risk", "torn.parquet")
        assert (ended.code, ended.err) == (5, "error: torn.parquet cannot be read as CSV or Parquet.\n")
        assert run_command("risk", "missing.csv").code == 2
        assert "different columns" in run_command("risk", "a.csv", "b.csv", "--quasi-identifier", "a").err
        assert run_command("risk", "a.csv", "--quasi-identifier", "zip").code == 2

    @pytest.mark.parametrize("content", ["k3y-that-nobody-may-see\n", "anna@example.org,42\nbob@example.org,7\n"])
    def test_content_that_is_no_table_is_not_shown(self, run_command: Here, content: str) -> None:
        """The first line of a key, or of a file without a header, is read as names of columns."""
        Path("file").write_text(content)
        ended = run_command("risk", "file")
        assert ended.code == 2
        assert "The data has no column age_range, conditions_detected, timeframe. It has: " in ended.err
        assert not any(word in ended.err for word in content.strip().replace("\n", ",").split(","))
