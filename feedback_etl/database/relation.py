"""Describe the rows to read: those of the default application schema, or of a custom query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa

from feedback_etl.database import tables
from feedback_etl.database.collations import IdComparison
from feedback_etl.database.consent import ConsentColumn, consent_condition
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.custom_query import extract_select
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import CONSENT, IMAGE_OPT_IN, IMAGE_URL, RAW_ITEM, FeedbackSchema

QUERY_PLACEHOLDER = "the_custom_query_goes_here"
"""The name of the table that `SourceRelation.render` replaces by the custom query."""

Column = sa.ColumnElement[Any]


@dataclass(frozen=True)
class SourceRelation:
    """Describe rows that have the raw columns of a schema.

    Attributes:
        dialect: "postgresql", "mysql", "sqlite" or "duckdb".
        columns: The raw columns as SQL expressions, and as `consent` a condition that is true for a row whose user has
            consented, if that is recorded.
        rows: The FROM clause of the columns.
        feedback_table: The FROM clause that is sufficient to count rows.
        rows_without_profiles: The FROM clause of all columns but `age`; None for a custom query, as the next four.
        profiles: The table of ages in `rows`.
        rows_without_records: The FROM clause of all columns but `age` and those of recommendations.
        records: The table of recommendations in `rows`.
        record_key: The id of a row's recommendation.
        custom_query: The user's SQL behind `rows`; None for tables.
        consent: The columns that record consent; empty if none does.
        schema: The schema of the rows; the cursor, unless it is another column, is an extra column.
        types: The names of the columns' types (`column_types`); empty on SQLite, which has none.
        has_unreadable_times: Whether some text of `created_at` is not an ISO time (SQLite).
        has_plain_times: Whether the order of the texts of `created_at` is that of their times (SQLite, `plain_times`).
        comparisons: How the ids are compared that are not compared by their bytes; `columns` has their canonical
            spelling.
        stored_ids: The same ids as they are stored.
        cursor: The column in `columns` with the time of the last change; `created_at` if changes are not followed.
        changed_since: Only rows that were created or changed since this time belong to a window; None for all.
    """

    dialect: str
    columns: dict[str, Column]
    rows: sa.FromClause
    feedback_table: sa.FromClause
    rows_without_profiles: sa.FromClause | None = None
    profiles: sa.FromClause | None = None
    rows_without_records: sa.FromClause | None = None
    records: sa.FromClause | None = None
    record_key: Column | None = None
    custom_query: str | None = None
    consent: tuple[str, ...] = ()
    schema: FeedbackSchema = CLASSIC_SCHEMA
    types: Mapping[str, str] = field(default_factory=dict)
    has_unreadable_times: bool = False
    has_plain_times: bool = False
    comparisons: Mapping[str, IdComparison] = field(default_factory=dict)
    stored_ids: Mapping[str, Column] = field(default_factory=dict)
    cursor: str = CREATED_AT
    changed_since: datetime | None = None

    @property
    def records_consent(self) -> bool:
        """Whether rows have a consent."""
        return CONSENT in self.columns

    @property
    def query_option(self) -> str:
        """How a user selects other values: in the query that is used, or by which option there can be one."""
        if self.custom_query is not None:
            return "the query"
        return "a --query" if self.records is not None else "a query in [source] instead of the table"

    @property
    def ids(self) -> list[str]:
        """The columns of ids that connect rows."""
        declared = (column.name for column in self.schema.all_columns if column.role == "identifier")
        return ["user_id", "analysis_id", *(name for name in declared if name in self.columns)]

    @property
    def table(self) -> sa.TableClause | None:
        """The table or view that is sufficient to count rows; None if that is a query or a join."""
        table = getattr(self.feedback_table, "element", None)
        return table if isinstance(table, sa.TableClause) else None

    def type_name(self, column: str) -> str:
        """Return the name of a column's type; "" if it is unknown."""
        return self.types.get(column, "")

    def with_comparisons(self, comparisons: Mapping[str, IdComparison]) -> Self:
        """Return the relation with the canonical spelling of the ids that have a comparison."""
        stored_ids = {name: self.columns[name] for name in comparisons}
        canonical = {name: comparison.canonical(self.columns[name]) for name, comparison in comparisons.items()}
        return replace(self, columns={**self.columns, **canonical}, comparisons=comparisons, stored_ids=stored_ids)

    def without_ages(self) -> Self:
        """Return the relation of the default schema without `age` and the join that finds it."""
        return self._without(["age"], self.rows_without_profiles)

    def without_records(self) -> Self:
        """Return the relation without `age` and without the join of recommendations, with their ids instead."""
        lists = (column.raw_name for column in self.schema.lists)
        rest = self._without(["age", *lists, RAW_ITEM], self.rows_without_records)
        assert self.record_key is not None  # noqa: S101  a relation of the default schema has one
        return replace(
            rest, columns={**rest.columns, RAW_ITEM: self.record_key}, types={**self.types, RAW_ITEM: "int8"}
        )

    def _without(self, names: Sequence[str], rows: sa.FromClause | None) -> Self:
        if rows is None:
            raise ValueError("A custom query yields all columns itself.")
        return replace(
            self, columns={name: self.columns[name] for name in self.columns if name not in names}, rows=rows
        )

    def render(self, statement: sa.Select[*tuple[Any, ...]]) -> str:
        """Return a statement as one text without parameters."""
        dialect = tables.DIALECTS["postgresql" if self.dialect == "duckdb" else self.dialect]  # DuckDB understands it
        compiled = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}).string
        if self.custom_query is None:
            return compiled
        return compiled.replace(QUERY_PLACEHOLDER, f"({self.custom_query}\n) AS feedback", 1)


def build_default_relation(
    dialect: str,
    db_schema: str | None = None,
    consent_columns: Sequence[ConsentColumn] = (),
    image_consent_columns: Sequence[ConsentColumn] = (),
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> SourceRelation:
    """Return the default application schema, one row per feedback; the lowest profile id gives the age.

    Columns that record consent add the column `consent`; columns that record consent to images add `image_url`. Of the
    schema, the exported items and an extra column of the feedback, the cursor, are read.
    """
    cursors = [column for column in schema.raw_extra_columns if column != IMAGE_URL]
    images = [IMAGE_URL] if image_consent_columns else []
    schema = replace(CLASSIC_SCHEMA, exported_items=schema.exported_items)
    feedback = _alias(tables.recommendation_feedbacks, "f", db_schema, *(column.name for column in cursors))
    record = _alias(tables.recommendation_records, "r", db_schema)
    profile, earlier = (_alias(tables.profiles, name, db_schema) for name in ("p", "e"))
    has_earlier = sa.exists().where(earlier.c.user_id == profile.c.user_id, earlier.c.id < profile.c.id)
    rows_without_records: sa.FromClause = feedback
    names = schema.raw_columns
    joined: dict[str, Column] = {"feedback_id": feedback.c.id, "age": profile.c.age}
    joined |= {name: record.c[name] for name in names if name in record.c}
    columns = {name: joined[name] if name in joined else feedback.c[name] for name in names}
    if consent_columns:
        columns[CONSENT] = consent_condition(feedback, consent_columns, db_schema)
    if images:
        analysis, photo = _alias(tables.analyses, "a", db_schema), _alias(tables.photos, "i", db_schema)
        rows_without_records = feedback.outerjoin(analysis, analysis.c.id == feedback.c.analysis_id)
        rows_without_records = rows_without_records.outerjoin(photo, photo.c.id == analysis.c.photo_id)
        has_consent = consent_condition(feedback, image_consent_columns, db_schema)
        columns[IMAGE_URL.name] = sa.case((has_consent, photo.c.s3_key))
    columns |= {column.name: feedback.c[column.name] for column in cursors}
    rows = rows_without_records.outerjoin(record, record.c.id == feedback.c.recommendation_id)
    return SourceRelation(
        dialect,
        columns,
        rows.outerjoin(profile, sa.and_(profile.c.user_id == feedback.c.user_id, ~has_earlier)),
        feedback_table=feedback,
        rows_without_profiles=rows,
        profiles=profile,
        rows_without_records=rows_without_records,
        records=record,
        record_key=feedback.c.recommendation_id,
        consent=tuple(map(str, consent_columns)),
        schema=schema.with_extra_columns([*images, *cursors]),
    )


def _alias(table: sa.Table, name: str, db_schema: str | None, *extra: str) -> sa.FromClause:
    columns = [sa.column(column.name, column.type) for column in table.columns]
    columns += [sa.column(column) for column in extra if column not in table.columns]
    return sa.table(table.name, *columns, schema=db_schema).alias(name)


def build_query_relation(
    dialect: str,
    sql: str,
    names: list[str],
    types: Mapping[str, str],
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> SourceRelation:
    """Return a custom SELECT as a subquery that has the given columns, with `consent` as the query yields it.

    Raises:
        UsageError: The text could end the subquery that contains it.
    """
    columns: dict[str, Column] = {name: sa.column(name) for name in names if name != IMAGE_OPT_IN}
    if IMAGE_URL in schema.extra_columns:
        has_consent = is_true(sa.column(IMAGE_OPT_IN), types.get(IMAGE_OPT_IN, ""))
        columns[IMAGE_URL.name] = sa.case((has_consent, columns[IMAGE_URL.name]))
    query = sa.table(QUERY_PLACEHOLDER)
    return SourceRelation(
        dialect,
        columns,
        query,
        feedback_table=query,
        custom_query=extract_select(dialect, sql),
        consent=(CONSENT,) if CONSENT in names else (),
        schema=schema,
        types=types,
    )


def add_consent(relation: SourceRelation) -> SourceRelation:
    """Return the relation with its column `consent` as a condition, if it has one."""
    if not relation.records_consent:
        return relation
    condition = is_true(relation.columns[CONSENT], relation.type_name(CONSENT))
    return replace(relation, columns={**relation.columns, CONSENT: condition})


def sample_table(relation: SourceRelation, share: float) -> SourceRelation:
    """Return a relation of about this share of a table's pages, always the same ones, for counting (PostgreSQL)."""
    percent = sa.func.system(sa.literal_column(f"{100 * share:.9f}"))
    table = sa.tablesample(relation.feedback_table.element, percent, name="f", seed=sa.literal_column("0"))  # type: ignore[attr-defined]
    columns = {name: relation.columns[name] for name in ("created_at", relation.cursor)}
    times = {name: table.c[getattr(column, "name", name)] for name, column in columns.items()}
    return replace(relation, feedback_table=table, columns={**relation.columns, **times})


def is_true(column: Column, type_name: str) -> sa.ColumnElement[bool]:
    """Return whether a column that a user has named is true: not null, and no number other than 1."""
    if type_name not in ("bool", ""):  # SQLite, which has no types, treats every value as true or false
        column = column == sa.literal_column("1")
    return column.is_(sa.true())


def label_columns(columns: Mapping[str, Column]) -> list[sa.Label[Any]]:
    """Return columns labelled with their names."""
    return [column.label(name) for name, column in columns.items()]
