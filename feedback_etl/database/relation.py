"""What is read from: the default application schema, or a user's own query that stands for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import sqlalchemy as sa

from feedback_etl.columns import CONSENT, IMAGE_OPT_IN, IMAGE_URL, LIST_COLUMNS, RAW_COLUMNS, ExtraColumn
from feedback_etl.database import tables
from feedback_etl.database.collations import IdComparison
from feedback_etl.database.consent import ConsentColumn, consent_condition
from feedback_etl.database.custom_query import extract_select

_QUERY_NAME = "the_own_query_goes_here"

Column = sa.ColumnElement[Any]


@dataclass(frozen=True)
class SourceRelation:
    """Rows with the canonical raw columns.

    Attributes:
        dialect: "postgresql", "mysql", "sqlite" or "duckdb".
        columns: The raw columns and further ones as SQL expressions, and `consent` where something records it.
        rows: What they are selected from.
        feedback_table: What is enough to count them.
        custom_query: The user's SQL that stands behind `rows`; None for the default schema.
        consent: The columns that record consent; none where nothing does.
        extra: The further columns.
        has_unreadable_times: Whether some text of `created_at` is no ISO time (SQLite).
        comparisons: How ids are compared, where that is not by their bytes; `columns` has their canonical spelling.
        stored: Those ids as they are stored.
    """

    dialect: str
    columns: dict[str, Column]
    rows: sa.FromClause
    feedback_table: sa.FromClause
    custom_query: str | None = None
    consent: tuple[str, ...] = ()
    extra: tuple[ExtraColumn, ...] = ()
    has_unreadable_times: bool = False
    comparisons: Mapping[str, IdComparison] = field(default_factory=dict)
    stored: Mapping[str, Column] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """The columns of ids by which rows belong together."""
        return ["user_id", "analysis_id", *(each.name for each in self.extra if each.role == "identifier")]

    def compared(self, comparisons: Mapping[str, IdComparison]) -> Self:
        """The same with the canonical spelling of ids that are compared so."""
        stored = {name: self.columns[name] for name in comparisons}
        canonical = {name: how.canonical(self.columns[name]) for name, how in comparisons.items()}
        return replace(self, columns={**self.columns, **canonical}, comparisons=comparisons, stored=stored)

    def render(self, statement: sa.Select[*tuple[Any, ...]]) -> str:
        """The statement as one text that needs no parameters."""
        written_for = tables.DIALECTS["postgresql" if self.dialect == "duckdb" else self.dialect]  # DuckDB reads that
        compiled = statement.compile(dialect=written_for, compile_kwargs={"literal_binds": True}).string
        if self.custom_query is None:
            return compiled
        return compiled.replace(_QUERY_NAME, f"({self.custom_query}\n) AS feedback", 1)


def default_relation(
    dialect: str,
    db_schema: str | None = None,
    recorded: Sequence[ConsentColumn] = (),
    image_consent: Sequence[ConsentColumn] = (),
) -> SourceRelation:
    """The default application schema, one row for each feedback; the lower profile id gives the age.

    With columns that record consent it has the column `consent`; with such for images, the column `image_url`.
    """
    feedback = _alias(tables.recommendation_feedbacks, "f", db_schema)
    record = _alias(tables.recommendation_records, "r", db_schema)
    profile = _alias(tables.profiles, "p", db_schema)
    earlier = _alias(tables.profiles, "e", db_schema)
    has_earlier = sa.exists().where(earlier.c.user_id == profile.c.user_id, earlier.c.id < profile.c.id)
    rows = feedback.outerjoin(record, record.c.id == feedback.c.recommendation_id).outerjoin(
        profile, sa.and_(profile.c.user_id == feedback.c.user_id, ~has_earlier)
    )
    special: dict[str, Column] = {
        "feedback_id": feedback.c.id,
        "recommendation_id": record.c.recommendation_id,
        "age": profile.c.age,
        **{name: record.c[name] for name in LIST_COLUMNS},
    }
    columns = {name: special[name] if name in special else feedback.c[name] for name in RAW_COLUMNS}
    if recorded:
        columns[CONSENT] = consent_condition(feedback, list(recorded), db_schema)
    extra = (IMAGE_URL,) if image_consent else ()
    if image_consent:
        analysis, photo = _alias(tables.analyses, "a", db_schema), _alias(tables.photos, "i", db_schema)
        rows = rows.outerjoin(analysis, analysis.c.id == feedback.c.analysis_id)
        rows = rows.outerjoin(photo, photo.c.id == analysis.c.photo_id)
        agrees = consent_condition(feedback, list(image_consent), db_schema)
        columns[IMAGE_URL.name] = sa.case((agrees, photo.c.s3_key))
    return SourceRelation(
        dialect, columns, rows, feedback_table=feedback, consent=tuple(map(str, recorded)), extra=extra
    )


def sample_table(relation: SourceRelation, share: float) -> SourceRelation:
    """A table's rows of about such a share of its pages, the same ones each time: for counting alone (PostgreSQL)."""
    percent = sa.func.system(sa.literal_column(f"{100 * share:.9f}"))
    table = sa.tablesample(relation.feedback_table.element, percent, name="f", seed=sa.literal_column("0"))  # type: ignore[attr-defined]
    return replace(relation, feedback_table=table, columns={**relation.columns, "created_at": table.c.created_at})


def _alias(table: sa.Table, name: str, db_schema: str | None) -> sa.FromClause:
    columns = [sa.column(column.name, column.type) for column in table.columns]
    return sa.table(table.name, *columns, schema=db_schema).alias(name)


def query_relation(
    dialect: str, sql: str, names: list[str], types: dict[str, str], extra: Sequence[ExtraColumn] = ()
) -> SourceRelation:
    """A user's SELECT as a subquery that has the given columns.

    Raises:
        UsageError: The text could end the subquery it is put into.
    """
    columns: dict[str, Column] = {name: sa.column(name) for name in names if name != IMAGE_OPT_IN}
    if IMAGE_URL in extra:
        agrees = is_true(sa.column(IMAGE_OPT_IN), types.get(IMAGE_OPT_IN, ""))
        columns[IMAGE_URL.name] = sa.case((agrees, columns[IMAGE_URL.name]))
    query = sa.table(_QUERY_NAME)
    consent = (CONSENT,) if CONSENT in names else ()
    return SourceRelation(
        dialect,
        columns,
        query,
        feedback_table=query,
        custom_query=extract_select(dialect, sql),
        consent=consent,
        extra=tuple(extra),
    )


def is_true(column: Column, kind: str) -> sa.ColumnElement[bool]:
    """Whether a column of an own query is true: not null, no other number than 1."""
    if kind not in ("bool", ""):  # SQLite, which has no types, takes any for true or false
        column = column == sa.literal_column("1")
    return column.is_(sa.true())


def empty_query_select(dialect: str, sql: str) -> str:
    """A statement that yields all columns of an own query and no rows."""
    return f"SELECT * FROM ({extract_select(dialect, sql)}\n) AS feedback LIMIT 0"  # noqa: S608  it is extract_select


def empty_select(relation: SourceRelation) -> str:
    """A statement that yields the relation's columns and no rows."""
    return relation.render(sa.select(*label_columns(relation.columns)).select_from(relation.rows).limit(0))


def empty_table_select(table: str, db_schema: str | None) -> str:
    """A PostgreSQL statement that reads a table and yields no rows."""
    nothing: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(sa.table(table, schema=db_schema))
    return f"{nothing.compile(dialect=tables.DIALECTS['postgresql'])} LIMIT 0"


def empty_id_select(relation: SourceRelation, name: str) -> str:
    """A statement that yields a column as `id` and no rows."""
    column = relation.columns[name].label("id")
    return relation.render(sa.select(column).select_from(relation.feedback_table).limit(0))


def label_columns(columns: dict[str, Column]) -> list[sa.Label[Any]]:
    """Columns under their names."""
    return [column.label(name) for name, column in columns.items()]
