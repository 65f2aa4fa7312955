"""The SQL that is sent: the rows of a window in their order, and what is feedback_table of them.

Everything is built with SQLAlchemy Core and rendered to one text without parameters, since ConnectorX takes none. The
only literals are the window's bounds. A user's query becomes a subquery; its text is put into the finished statement
and never interpreted.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from feedback_etl.columns import CONSENT, LIST_COLUMNS, RAW_COLUMNS, ColumnType
from feedback_etl.database import text_times
from feedback_etl.database.raw_types import AFTER_EVERY_WINDOW, NO_ANSWER, unreadable_flag
from feedback_etl.database.relation import Column, SourceRelation, is_true, label_columns
from feedback_etl.database.window import Window
from feedback_etl.database.window_sql import is_counted, is_dated, is_in, is_read, is_unreadable, shortest


def select_feedback(relation: SourceRelation, window: Window) -> str:
    """The statement that reads a window, ordered by (created_at, feedback id), nulls last.

    On SQLite it reads some rows from around the window too, which `raw.filter_window` leaves out.

    Args:
        relation: Where the rows are.
        window: Which of them.
        types: What each column's type is called (`column_types`); empty where it has none (SQLite).
    """
    time = relation.columns["created_at"]
    names = (*RAW_COLUMNS, *(each.name for each in relation.extra))
    selected = {name: _readable(relation, name) for name in names}
    if relation.dialect != "sqlite":  # whose texts are parsed later
        times = _further(relation, "time")
        selected |= {unreadable_flag(name): _is_unreadable(relation, name) for name in names if name in times}
    statement = (
        sa.select(*label_columns(selected))
        .select_from(relation.rows)
        .where(is_read(relation, window))
        .order_by(
            *_by_time(relation, time, window),
            _binary(relation.columns["feedback_id"], relation.dialect, relation.type_name("feedback_id")),
        )
    )
    if CONSENT in relation.columns:
        statement = statement.where(has_consent(relation))
    return relation.render(statement)


def count_excluded(relation: SourceRelation, window: Window) -> str:
    """The statement that counts the rows of a window without consent."""
    conditions = sa.and_(has_consent(relation).is_not(sa.true()), is_in(relation, window))
    return relation.render(sa.select(sa.func.count()).select_from(relation.rows).where(conditions))


def explain_rows(relation: SourceRelation, window: Window) -> str:
    """The statement that asks PostgreSQL's planner how many rows a window has, which takes no time."""
    rows = sa.select(_sql("1")).select_from(relation.feedback_table).where(is_read(relation, window))
    return f"EXPLAIN (FORMAT JSON) {relation.render(rows)}"


def count_rows(relation: SourceRelation, window: Window) -> str:
    """The statement that counts the rows of a window."""
    rows = sa.select(sa.func.count()).select_from(relation.feedback_table).where(is_in(relation, window))
    if CONSENT in relation.columns:
        rows = rows.where(has_consent(relation))
    return relation.render(rows)


def count_incomparable_ids(relation: SourceRelation, window: Window) -> str:
    """The statement that counts, for each column of ids whose rules are known of ASCII alone, other ids (MySQL)."""
    counts = [
        sa.func.count(sa.case((_is_beyond_ascii(relation.stored_ids[name], comparison.ascii_only), _sql("1")))).label(
            name
        )
        for name, comparison in relation.comparisons.items()
        if comparison.ascii_only
    ]
    rows = sa.select(*counts).select_from(relation.feedback_table).where(is_read(relation, window))
    if CONSENT in relation.columns:
        rows = rows.where(has_consent(relation))
    return relation.render(rows)


def _is_beyond_ascii(column: Column, collation: str) -> sa.ColumnElement[bool]:
    """Whether a text has other characters than printable ASCII; to a pattern the Kelvin sign is a letter K."""
    is_wide = collation.startswith(("ucs2", "utf16", "utf32"))  # all characters have several bytes
    text = sa.cast(column, sa.Text) if is_wide else sa.type_coerce(column, sa.Text)  # a cast doubles what this costs
    return sa.or_(text.regexp_match("[^ -~]"), sa.func.octet_length(text) != sa.func.char_length(text))


def select_time_range(relation: SourceRelation, window: Window) -> str:
    """The statement that yields the first and the last time of a window (PostgreSQL)."""
    time = relation.columns["created_at"]
    ends = sa.select(sa.func.min(time), sa.func.max(time)).select_from(relation.feedback_table)
    return relation.render(ends.where(is_dated(relation, window)))


def select_last_time(relation: SourceRelation, window: Window) -> str:
    """The statement that yields the last time of a window: on SQLite as text, and only of such as can be read."""
    time = relation.columns["created_at"]
    last = sa.func.max(text_times.instant(time) if relation.dialect == "sqlite" else time)
    return relation.render(sa.select(last).select_from(relation.feedback_table).where(is_dated(relation, window)))


def count_windows(relation: SourceRelation, windows: Sequence[Window]) -> str:
    """The statement that yields the number of each of several adjoining windows and of its rows, consent or not.

    On PostgreSQL one look at the table is enough, also without an index; windows without rows are left out.
    """
    if relation.dialect == "postgresql":
        kind = "timestamptz" if relation.types.get("created_at") == "timestamptz" else "timestamp"
        zone = "+00:00" if kind == "timestamptz" else ""
        ends = ",".join(f"'{shortest(window.end)}{zone}'" for window in windows)
        number = sa.func.coalesce(
            sa.func.width_bucket(relation.columns["created_at"], _sql(f"ARRAY[{ends}]::{kind}[]")), _sql("0")
        )
        whole = Window(windows[0].start, windows[-1].end)
        counts = sa.select(number, sa.func.count()).select_from(relation.feedback_table)
        return relation.render(counts.where(is_counted(relation, whole)).group_by(_sql("1")))
    each = [
        sa.select(_sql(str(number)), sa.func.count())
        .select_from(relation.feedback_table)
        .where(is_counted(relation, window))
        for number, window in enumerate(windows)
    ]
    return "\nUNION ALL ".join(relation.render(count) for count in each)


def select_histogram(relation: SourceRelation, window: Window, *, extent: tuple[datetime, datetime], bins: int) -> str:
    """The statement that yields the first time and the number of rows of each of so many equal spans (PostgreSQL).

    Rows that are not `DatedWindow` come last, under null. Seconds as `double precision` take half
    the time of those that EXTRACT yields, which are `numeric`.
    """
    time = relation.columns["created_at"]
    least, greatest = (sa.cast(sa.literal(end.replace(tzinfo=UTC).timestamp()), sa.Double) for end in extent)
    span = sa.func.width_bucket(sa.func.date_part(_sql("'epoch'"), time), least, greatest, _sql(str(bins)))
    dated = is_dated(relation, window)
    counts = sa.select(sa.func.min(sa.case((dated, time))), sa.func.count()).select_from(relation.feedback_table)
    rows = counts.where(is_read(relation, window)).group_by(sa.case((dated, span))).order_by(_sql("1"))
    return relation.render(rows)


def _sql(constant: str) -> Column:
    return sa.literal_column(constant)


def _readable(relation: SourceRelation, name: str) -> Column:
    """A column in a form that every driver reads alike."""
    column = relation.columns[name]
    kind = relation.type_name(name)
    if kind.endswith("[]"):
        column = sa.func.array_to_json(column)
    texts = {*LIST_COLUMNS, *_further(relation, "text")}
    untyped = {"created_at", *_further(relation, "time"), *relation.comparisons}
    if name in texts or (relation.dialect == "sqlite" and name in untyped):
        # A null in the first row leaves ConnectorX without a type on SQLite, and on PostgreSQL '' is faster.
        return sa.func.coalesce(sa.cast(column, sa.Text), _sql("''"))
    if relation.dialect == "sqlite" and name in {"would_recommend", *_further(relation, "boolean")}:
        # A column declared BOOLEAN can hold a 7, which ConnectorX would take for true.
        return sa.func.coalesce(column, _sql(str(NO_ANSWER)))
    if relation.dialect == "mysql":
        return _readable_of_mysql(name, column, kind)
    if kind == "timestamptz" and relation.dialect == "duckdb":  # its driver would need yet another library
        column = sa.func.timezone(_sql("'UTC'"), column)
    if kind in {"uuid", "unknown", "bpchar"}:  # CHAR(n) as it is would be padded with blanks
        return sa.cast(column, sa.Text)
    if kind == "numeric":  # NaN and long ones are more than drivers can take
        return sa.cast(column, sa.Double) if relation.dialect == "duckdb" else _nearest_double(column)
    if kind in {"timestamp", "timestamptz"}:  # such as -infinity no driver can read
        return sa.case((is_unreadable(relation, relation.columns[name]), _instead(name)), else_=column)
    return column


def _nearest_double(number: Column) -> Column:
    """A numeric of PostgreSQL, infinite where it is larger than any double: the server would refuse to convert it."""
    size, least, greatest = sa.func.abs(number), _sql("2.2250738585072014e-308"), _sql("1.7976931348623157e308")
    return sa.case(
        (sa.or_(size.between(least, greatest), number == _sql("'NaN'")), sa.cast(number, sa.Double)),
        (size < least, sa.cast(_sql("0"), sa.Double)),
        (number > _sql("0"), sa.cast(_sql("'Infinity'"), sa.Double)),
        (number < _sql("0"), sa.cast(_sql("'-Infinity'"), sa.Double)),
    )


def _further(relation: SourceRelation, kind: ColumnType) -> set[str]:
    return {each.name for each in relation.extra if each.type == kind and each.role != "identifier"}


def _instead(name: str) -> Column:
    """What stands for a time that cannot be read; that of another column is flagged."""
    return _sql(f"timestamp '{AFTER_EVERY_WINDOW}'") if name == "created_at" else sa.null()


def _is_unreadable(relation: SourceRelation, name: str) -> Column:
    return sa.and_(relation.columns[name].is_not(None), _readable(relation, name).is_(None))


def _readable_of_mysql(name: str, column: Column, kind: str) -> Column:
    if kind in {"decimal", "float"}:
        return sa.type_coerce(column, sa.Double) + _sql("0e0")
    if kind == "bit":
        return sa.type_coerce(column, sa.Integer) + _sql("0")
    if kind in {"datetime", "timestamp"}:  # drivers fail at days that no calendar has, and in the year 0
        is_day = sa.func.from_days(sa.func.to_days(column)) == sa.func.date(column)
        return sa.case((is_day, column), (column.is_not(None), _instead(name)))
    return column


def has_consent(relation: SourceRelation) -> sa.ColumnElement[bool]:
    """Whether a row's consent is true: not null, no other number than 1."""
    consent = relation.columns[CONSENT]
    return consent if relation.custom_query is None else is_true(consent, relation.type_name(CONSENT))


def _binary(column: Column, dialect: str, kind: str) -> Column:
    """A column that sorts by its bytes, whatever its collation."""
    if dialect == "sqlite":
        return sa.type_coerce(column, sa.Text).collate("BINARY")
    if kind.endswith("int") or kind.startswith("int") or kind == "uuid":
        return column
    text = sa.cast(column, sa.Text)
    return sa.cast(text, sa.LargeBinary) if dialect == "mysql" else text.collate("C")


def _by_time(relation: SourceRelation, time: Column, window: Window) -> list[Column]:
    """What puts rows in the order of time, those without one last."""
    if relation.dialect == "sqlite":
        instant = text_times.instant(time)
        readable = sa.case((text_times.is_readable(time), instant)) if relation.has_unreadable_times else instant
        return [readable.nulls_last()]
    if relation.dialect == "mysql":  # which has no NULLS LAST, and is faster without where there are none
        return [time] if window.start else [time.is_(sa.null()), time]
    return [time.nulls_last()]
