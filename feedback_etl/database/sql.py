"""Build the SQL that reads the rows of a window in order, and that counts them.

Statements are built with SQLAlchemy Core and rendered to one text without parameters, since ConnectorX takes none. The
only literals are the window's bounds. A custom query becomes a subquery; its text is inserted into the finished
statement and never interpreted.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from feedback_etl.database import text_times
from feedback_etl.database.raw_types import AFTER_EVERY_WINDOW, NO_ANSWER, list_raw_names, name_unreadable_flag
from feedback_etl.database.relation import Column, SourceRelation, label_columns
from feedback_etl.database.window import Window
from feedback_etl.database.window_sql import format_time, instant, is_counted, is_dated, is_in, is_read, is_unreadable
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import CONSENT, RAW_ITEM

_CLASSIC_TEXTS = {column.name for column in CLASSIC_SCHEMA.columns}
"""Texts that are read without a cast, so that SQLite reports values of another type."""


def select_feedback(relation: SourceRelation, window: Window) -> str:
    """Return the statement that reads a window, ordered by (created_at, feedback id), nulls last.

    On SQLite it also reads some rows around the window, which `raw_types.filter_window` removes.
    """
    time = relation.columns["created_at"]
    names = [name for name in relation.schema.raw_columns if name in relation.columns]  # others are read apart
    selected = {name: _readable(relation, name) for name in names}
    if relation.dialect != "sqlite":  # its texts are parsed later
        times = list_raw_names(relation.schema, "time")
        selected |= {
            name_unreadable_flag(name): sa.and_(relation.columns[name].is_not(None), selected[name].is_(None))
            for name in names
            if name in times and name != "created_at"
        }
    statement = (
        sa.select(*label_columns(selected))
        .select_from(relation.rows)
        .where(is_read(relation, window), has_consent(relation))
        .order_by(
            *_sort_by_time(relation, time, window),
            _sort_key(relation.columns["feedback_id"], relation.dialect, relation.type_name("feedback_id")),
        )
    )
    return relation.render(statement)


def select_ages(relation: SourceRelation) -> str:
    """Return the statement that yields the age of each person, that of the lowest profile (PostgreSQL)."""
    profile = relation.profiles
    if profile is None:
        raise ValueError("A custom query has no profiles.")
    ages = sa.select(profile.c.user_id, _readable(relation, "age").label("age")).ext(distinct_on(profile.c.user_id))
    return relation.render(ages.where(profile.c.user_id.is_not(None)).order_by(profile.c.user_id, profile.c.id))


def select_records(relation: SourceRelation) -> str:
    """Return the statement that yields the id and the raw columns of each recommendation (PostgreSQL)."""
    records = relation.records
    if records is None:
        raise ValueError("A custom query has no recommendations.")
    names = [RAW_ITEM, *(column.raw_name for column in relation.schema.lists)]
    return relation.render(sa.select(records.c.id, *label_columns({name: _readable(relation, name) for name in names})))


def count_excluded(relation: SourceRelation, window: Window) -> str:
    """Return the statement that counts the rows of a window without consent."""
    conditions = sa.and_(has_consent(relation).is_not(sa.true()), is_in(relation, window))
    return relation.render(sa.select(sa.func.count()).select_from(relation.rows).where(conditions))


def explain_rows(relation: SourceRelation, window: Window) -> str:
    """Return the statement that asks PostgreSQL's planner how many rows a window has, without counting them."""
    rows = sa.select(_sql("1")).select_from(relation.feedback_table).where(is_read(relation, window))
    return f"EXPLAIN (FORMAT JSON) {relation.render(rows)}"


def count_rows(relation: SourceRelation, window: Window) -> str:
    """Return the statement that counts the rows of a window."""
    rows = sa.select(sa.func.count()).select_from(relation.feedback_table)
    return relation.render(rows.where(is_in(relation, window), has_consent(relation)))


def count_incomparable_ids(relation: SourceRelation, window: Window) -> str:
    """Return the statement that counts ids beyond ASCII in columns whose collation is known for ASCII only (MySQL)."""
    conditions = {
        name: _is_beyond_ascii(relation.stored_ids[name], comparison.ascii_only)
        for name, comparison in relation.comparisons.items()
        if comparison.ascii_only
    }
    counts = [sa.func.count(sa.case((condition, _sql("1")))).label(name) for name, condition in conditions.items()]
    rows = sa.select(*counts).select_from(relation.feedback_table)
    return relation.render(rows.where(is_read(relation, window), has_consent(relation)))


def _is_beyond_ascii(column: Column, collation: str) -> sa.ColumnElement[bool]:
    """Return whether a text has characters beyond printable ASCII; a pattern alone takes the Kelvin sign for a K."""
    is_wide = collation.startswith(("ucs2", "utf16", "utf32"))  # every character has several bytes
    text = sa.cast(column, sa.Text) if is_wide else sa.type_coerce(column, sa.Text)  # a cast doubles the cost
    return sa.or_(text.regexp_match("[^ -~]"), sa.func.octet_length(text) != sa.func.char_length(text))


def select_time_range(relation: SourceRelation, window: Window) -> str:
    """Return the statement that yields the first and the last time of a window (PostgreSQL)."""
    time = relation.columns["created_at"]
    ends = sa.select(sa.func.min(time), sa.func.max(time)).select_from(relation.feedback_table)
    return relation.render(ends.where(is_dated(relation, window)))


def select_last_time(relation: SourceRelation, window: Window) -> str:
    """Return the statement that yields the last readable time of a window; on SQLite as text."""
    time = relation.columns["created_at"]
    last = sa.func.max(instant(relation, time))
    return relation.render(sa.select(last).select_from(relation.feedback_table).where(is_dated(relation, window)))


def count_windows(relation: SourceRelation, windows: Sequence[Window]) -> str:
    """Return the statement that yields the number of each of several adjoining windows and the count of its rows.

    Rows without consent are counted too. On PostgreSQL a single scan is sufficient, even without an index; windows
    without rows are missing from the result.
    """
    feedback = relation.feedback_table
    if relation.dialect == "postgresql":
        kind = "timestamptz" if relation.types.get("created_at") == "timestamptz" else "timestamp"
        zone = "+00:00" if kind == "timestamptz" else ""
        ends = ",".join(f"'{format_time(window.end)}{zone}'" for window in windows)
        number = sa.func.coalesce(
            sa.func.width_bucket(relation.columns["created_at"], _sql(f"ARRAY[{ends}]::{kind}[]")), _sql("0")
        )
        whole = Window(windows[0].start, windows[-1].end)
        rows = sa.select(number, sa.func.count()).select_from(feedback).where(is_counted(relation, whole))
        return relation.render(rows.group_by(_sql("1")))
    counts = [
        sa.select(_sql(str(number)), sa.func.count()).select_from(feedback).where(is_counted(relation, window))
        for number, window in enumerate(windows)
    ]
    return "\nUNION ALL ".join(map(relation.render, counts))


def select_histogram(relation: SourceRelation, window: Window, *, extent: tuple[datetime, datetime], bins: int) -> str:
    """Return the statement that yields the first time and the row count of each of `bins` equal spans (PostgreSQL).

    Rows without a readable time come last, under null. Seconds as `double precision` take half the time of the
    `numeric` ones that EXTRACT yields.
    """
    time = relation.columns["created_at"]
    first, last = (sa.cast(sa.literal(end.replace(tzinfo=UTC).timestamp()), sa.Double) for end in extent)
    span = sa.func.width_bucket(sa.func.date_part(_sql("'epoch'"), time), first, last, _sql(str(bins)))
    dated = is_dated(relation, window)
    counts = sa.select(sa.func.min(sa.case((dated, time))), sa.func.count()).select_from(relation.feedback_table)
    rows = counts.where(is_read(relation, window)).group_by(sa.case((dated, span))).order_by(_sql("1"))
    return relation.render(rows)


def _sql(constant: str) -> Column:
    return sa.literal_column(constant)


def _readable(relation: SourceRelation, name: str) -> Column:
    """Return a column in a form that all drivers read alike."""
    column = relation.columns[name]
    kind = relation.type_name(name)
    if kind.endswith("[]"):
        column = sa.func.array_to_json(column)
    schema = relation.schema
    texts = {*list_raw_names(schema, "list"), *list_raw_names(schema, "text")} - _CLASSIC_TEXTS
    untyped = {*list_raw_names(schema, "date"), *list_raw_names(schema, "time"), *relation.comparisons}
    if name in texts or (relation.dialect == "sqlite" and name in untyped):
        # On SQLite, ConnectorX infers no type from a null in the first row; on PostgreSQL '' is faster.
        return sa.func.coalesce(sa.cast(column, sa.Text), _sql("''"))
    if relation.dialect == "sqlite" and name in list_raw_names(schema, "boolean"):
        # A column declared BOOLEAN can contain a 7, which ConnectorX would read as true.
        return sa.func.coalesce(column, _sql(str(NO_ANSWER)))
    if relation.dialect == "mysql":
        return _readable_of_mysql(name, column, kind)
    if kind == "timestamptz" and relation.dialect == "duckdb":  # its driver would need another library
        column = sa.func.timezone(_sql("'UTC'"), column)
    if kind in {"uuid", "unknown", "bpchar"}:  # CHAR(n) would be padded with blanks
        return sa.cast(column, sa.Text)
    if kind == "numeric":  # drivers cannot read NaN and long numerics
        return sa.cast(column, sa.Double) if relation.dialect == "duckdb" else _nearest_double(column)
    if kind in {"timestamp", "timestamptz", "date"}:  # no driver can read some, such as -infinity
        return sa.case((is_unreadable(relation, relation.columns[name]), _replacement(name)), else_=column)
    return column


def _nearest_double(number: Column) -> Column:
    """Return a PostgreSQL numeric as a double, infinite if it exceeds all doubles, which the server cannot convert."""
    size, smallest, largest = sa.func.abs(number), _sql("2.2250738585072014e-308"), _sql("1.7976931348623157e308")
    return sa.case(
        (sa.or_(size.between(smallest, largest), number == _sql("'NaN'")), sa.cast(number, sa.Double)),
        (size < smallest, sa.cast(_sql("0"), sa.Double)),
        (number > _sql("0"), sa.cast(_sql("'Infinity'"), sa.Double)),
        (number < _sql("0"), sa.cast(_sql("'-Infinity'"), sa.Double)),
    )


def _replacement(name: str) -> Column:
    """Return the replacement of a time that cannot be read; times other than `created_at` have a flag for it."""
    return _sql(f"timestamp '{AFTER_EVERY_WINDOW}'") if name == "created_at" else sa.null()


def _readable_of_mysql(name: str, column: Column, kind: str) -> Column:
    if kind in {"decimal", "float"}:
        return sa.type_coerce(column, sa.Double) + _sql("0e0")
    if kind == "bit":
        return sa.type_coerce(column, sa.Integer) + _sql("0")
    if kind in {"datetime", "timestamp", "date"}:  # drivers fail at days that do not exist, and in the year 0
        is_day = sa.func.from_days(sa.func.to_days(column)) == sa.func.date(column)
        return sa.case((is_day, column), (column.is_not(None), _replacement(name)))
    return column


def has_consent(relation: SourceRelation) -> sa.ColumnElement[bool]:
    """Return whether a row's consent is true; true if no consent is recorded."""
    return relation.columns[CONSENT] if relation.records_consent else sa.true()


def _sort_key(column: Column, dialect: str, kind: str) -> Column:
    """Return a column as one that sorts by its bytes, independent of its collation."""
    if dialect == "sqlite":
        return sa.type_coerce(column, sa.Text).collate("BINARY")
    if kind.endswith("int") or kind.startswith("int") or kind == "uuid":
        return column
    text = sa.cast(column, sa.Text)
    return sa.cast(text, sa.LargeBinary) if dialect == "mysql" else text.collate("C")


def _sort_by_time(relation: SourceRelation, time: Column, window: Window) -> list[Column]:
    """Return the keys that sort rows by time, rows without a time last."""
    if relation.dialect == "sqlite":
        if relation.has_plain_times:
            if getattr(time, "table", None) is None:  # the name alone is that of the selected text, '' for null
                time = sa.func.nullif(time, _sql("''"))
            return [_sort_key(time, relation.dialect, "").nulls_last()]
        instant = text_times.instant(time)
        readable = sa.case((text_times.is_readable(time), instant)) if relation.has_unreadable_times else instant
        return [readable.nulls_last()]
    if relation.dialect == "mysql":  # has no NULLS LAST, and is faster without a second key if there are no nulls
        return [time] if window.start else [time.is_(sa.null()), time]
    return [time.nulls_last()]
