"""Ids that a query renames: found by their values, and refused unless they are pseudonymised."""

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import exported_from_url, people
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from feedback_etl.errors import ValidationError
from feedback_etl.privacy.raw_ids import IdCounts, contains_own_id, count_ids
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import RAW_IDS

QUERY = """
SELECT f.id AS feedback_id, f.user_id + {offset} AS user_id, f.analysis_id, {item} AS recommendation_id,
       f.helpful_rating, f.product_satisfaction, f.routine_completion_pct, f.would_recommend,
       {conditions} AS conditions_analyzed, '[]' AS rules_applied, {timeframe} AS timeframe,
       CAST(NULL AS INTEGER) AS age, f.created_at, {extra} AS extra{rated}
FROM recommendation_feedbacks f
"""
TEXT, INTEGER, NUMBER = (ExtraColumn("extra", "quasi_identifier", kind) for kind in ("text", "integer", "number"))
LONG, SHORT = 1_000_000, 0


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """20 users with three rows each."""
    sqlite_database.fill(**people(20))
    return sqlite_database


def export(app: Database, folder: Path, column: ExtraColumn = TEXT, offset: int = LONG, **columns: str) -> Any:
    usual = {"item": "'rec_1'", "conditions": "'[]'", "timeframe": "'2_weeks'", "extra": "'AT'"}
    rated = f", {columns['rated']} AS product_ratings" if "rated" in columns else ""
    query = QUERY.format(offset=offset, **(usual | columns | {"rated": rated}))
    items = "product_ratings" if "rated" in columns else None
    return exported_from_url(app, folder, query=query, extra_columns=[column], max_rejected=1, items=items)


@pytest.mark.parametrize(
    ("column", "expression", "offset", "name"),
    [
        (TEXT, "CAST(f.user_id AS TEXT)", SHORT, "user_id"),
        (TEXT, "'user-00' || f.user_id", SHORT, "user_id"),
        (TEXT, "CASE WHEN f.id = 101 THEN 'of 1000001.' END", LONG, "user_id"),
        (TEXT, "'100-' || substr(f.user_id + 1000000, 4)", LONG, "user_id"),
        (INTEGER, "f.user_id", SHORT, "user_id"),
        (TEXT, "f.user_id || '.0'", SHORT, "user_id"),
        (INTEGER, "-f.user_id", SHORT, "user_id"),
        (INTEGER, "f.analysis_id", SHORT, "analysis_id"),
        (INTEGER, "f.id", SHORT, "feedback_id"),
        (NUMBER, "f.user_id + 1000000.0", LONG, "user_id"),
    ],
)
def test_renamed_id_is_refused(
    app: Database, tmp_path: Path, column: ExtraColumn, expression: str, offset: int, name: str
) -> None:
    """As a number, as a text and within one; the message contains none, and nothing is published."""
    with pytest.raises(
        ValidationError, match=rf"\(of the values in extra, \d+ of \d+ contain the .*{name} of"
    ) as caught:
        export(app, tmp_path, column, offset, extra=expression)
    assert "1000001" not in str(caught.value)
    assert not list(tmp_path.glob("feedback_training_*"))


@pytest.mark.parametrize(
    ("where", "expression"),
    [
        ("timeframe", "CAST(f.user_id + 1000000 AS TEXT)"),
        ("item", "f.user_id + 1000000"),
        ("conditions", "'[\"' || (f.user_id + 1000000) || '\"]'"),
    ],
)
def test_id_in_a_column_of_the_default_schema_is_refused(
    app: Database, tmp_path: Path, where: str, expression: str
) -> None:
    with pytest.raises(ValidationError, match="contain the user_id of their row"):
        export(app, tmp_path, TEXT, LONG, **{where: expression})


def test_pseudonymised_id_is_exported(app: Database, tmp_path: Path) -> None:
    """As the message says."""
    assert export(app, tmp_path, ExtraColumn("extra", "identifier"), extra="f.user_id").exported_records


@pytest.mark.parametrize("expression", ["1 + f.user_id % 4", "1000001", "f.user_id + 1"])
def test_coincidences_are_no_ids(app: Database, tmp_path: Path, expression: str) -> None:
    """Numbers that sometimes equal a short id, and a label that is not the id of its row."""
    assert export(app, tmp_path, INTEGER, SHORT, extra=expression).exported_records


@pytest.mark.parametrize("id_type", [pl.Int64, pl.UInt64, pl.String])
def test_id_is_found_whatever_its_type(id_type: type[pl.DataType]) -> None:
    """Some databases return UUIDs as text, and some unsigned numbers."""
    frame = pl.DataFrame({"user_id": [1234567, 2345678], "x": ["1234567", "2"]}, schema_overrides={"user_id": pl.Int64})
    is_own = contains_own_id("x", pl.String(), "user_id", id_type(), is_searched=True)
    assert frame.with_columns(pl.col("user_id").cast(id_type)).select(is_own).to_series().to_list() == [True, False]


def test_uuid_is_found_in_any_spelling() -> None:
    ids = ["550e8400-e29b-41d4-a716-446655440000"] * 4
    texts = [ids[0], ids[0].upper(), f"{{{ids[0].replace('-', '')}}}", "550e8400"]
    rows = pl.DataFrame({"user_id": ids, "x": texts})
    counts = count_ids(rows, {"x": (("user_id",), True)}, {"x": rows["x"]}, lambda ids: ids.unique().to_list())
    assert counts == {"x": IdCounts({"user_id": 3}, {"user_id": 3}, frozenset(ids))}


IDS = ["1234567", "7", "-42", "USER-000_123", "ab-cd-ef-12345", "550e8400-e29b-41d4-a716-446655440000"]
IDS += ["\u03a3\u039f\u03a6\u039f\u03a3-\u0391\u0392", "2025-01-02 00:00:00.000000+00:00", "ID---9---"]
IN_TEXT = ["{}", "x {}", "a,{},b", "00{}.0", "({})-{}", "{} 8", "no id", "{} " + "long " * 50, "1234", ""]


@settings(max_examples=80, phases=[Phase.generate])  # a failure has hundreds of shorter forms
@given(st.data(), st.booleans())
def test_rows_that_are_not_compared_contain_no_id(data: st.DataObject, has_numbers: bool) -> None:
    """The counts are those of a comparison of all rows, whatever the form of ids and texts."""
    known = [1234567, 7, -42, 100123, 0] if has_numbers else IDS
    own = st.sampled_from(known)
    text = st.builds(
        lambda form, value, case: case(form.replace("{}", str(value))),
        st.sampled_from(IN_TEXT),
        own,
        st.sampled_from([str, str.upper, str.lower, lambda text: text.replace("-", ""), lambda text: "\u0130" + text]),
    )
    number = st.sampled_from([7, 42, -7, 1234567, None])
    columns: list[tuple[str, Any, Any]] = [
        *((name, text | st.none(), pl.String) for name in ("x", "y", "item")),
        ("tags", st.lists(text, max_size=2) | st.none(), pl.List(pl.String)),
        *(("number", number, pl.Float64), ("whole", number, pl.Int64)),
        ("time", st.sampled_from([datetime(2025, 1, 2), datetime(1970, 1, 1)]), pl.Datetime("us", "UTC")),
        *((name, own, pl.Int64 if has_numbers else pl.String) for name in RAW_IDS),
    ]
    drawn = data.draw(st.lists(st.tuples(*(values for _, values, _ in columns)), min_size=1, max_size=3))
    rows = pl.DataFrame(drawn, schema={name: dtype for name, _, dtype in columns}, orient="row")
    values = {name: (rows[name].explode() if name == "tags" else rows[name]).unique() for name, _, _ in columns}
    inspected = {
        name: (("user_id",) if name == "item" else RAW_IDS, name in ("x", "y", "tags")) for name, _, _ in columns[:-3]
    }
    expected: dict[str, IdCounts] = {}
    for column, (names, is_searched) in inspected.items():
        for name in names:
            types = rows.schema[column], rows.schema[name]
            is_id = contains_own_id(column, types[0], name, types[1], is_searched=is_searched)
            ids = rows.filter(is_id)[name].cast(pl.String).to_list()
            long = sum(len(value) >= 6 for value in ids)
            if ids:
                added = IdCounts({name: len(ids)}, {name: long}, frozenset(ids))
                expected[column] = expected.get(column, IdCounts()).merge(added)
    assert count_ids(rows, inspected, values, lambda ids: ids.unique().to_list()) == expected


def test_default_tables_are_exported_as_they_are(app: Database, tmp_path: Path) -> None:
    """As the classic API promises; `check` inspects them."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET timeframe = 'ask ann@example.org'")
    assert exported_from_url(app, tmp_path).exported_records


@pytest.mark.parametrize(
    ("where", "expression", "name"),
    [
        ("timeframe", "'+49 30 1234567'", "timeframe, telephone numbers are"),
        ("conditions", '\'["acne", "ann@example.org"]\'', "conditions_detected, e-mail addresses are"),
        ("item", "'DE89370400440532013000'", "recommendation_id, IBANs are"),
    ],
)
def test_contact_details_in_lists_and_items_are_refused(
    app: Database, tmp_path: Path, where: str, expression: str, name: str
) -> None:
    with pytest.raises(ValidationError, match=rf"\(of the texts in {name} in \d+\)"):
        export(app, tmp_path, TEXT, LONG, **{where: expression})


@pytest.mark.parametrize(
    ("items", "offset", "message"),
    [
        ("CASE f.id WHEN 101 THEN f.user_id + 1000000 ELSE 'a' END", LONG, r"1 of \d+ contain the user_id of"),
        ("f.id", SHORT, r"\d+ of \d+ contain the feedback_id of"),
        ("'user' || f.user_id || '@example.org'", SHORT, r"e-mail addresses are in \d+"),
    ],
)
def test_rated_items_are_inspected(app: Database, tmp_path: Path, items: str, offset: int, message: str) -> None:
    """Beside others in their map, and in few feedbacks that rate any; the message contains none."""
    map_ = f"""'{{"b": 4, "' || ({items}) || '": 5}}'"""
    few = f"CASE WHEN f.user_id < 5 THEN {map_} ELSE '{{}}' END"
    with pytest.raises(ValidationError, match=rf"in rated items, {message}") as caught:
        export(app, tmp_path, TEXT, offset, rated=few)
    assert "export without --items" in str(caught.value)
    assert not {"1000001", "101", "example.org"} & {*str(caught.value).split()}
    assert not list(tmp_path.glob("feedback_training_*"))


def test_items_that_are_no_ids_are_exported(app: Database, tmp_path: Path) -> None:
    assert export(app, tmp_path, rated="""'{"SKU: ' || f.id || '": 4}'""").exported_items
