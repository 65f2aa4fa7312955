"""Write a proposed declaration as a commented settings file."""

import json
from collections.abc import Iterable, Iterator

from feedback_etl.database.column_uses import ColumnProposal
from feedback_etl.database.naming import SENSITIVE_REASONS
from feedback_etl.database.proposal import ElementsProposal, ItemsProposal, Proposal
from feedback_etl.database.reflection import Scale
from feedback_etl.schema.feedback_columns import AGE_EDGES

_SCALES = ((1, 5), (0, 5), (1, 7), (1, 10), (0, 10), (0, 100))
"""Usual scales, the most usual one first."""

_FINE_STEP = 0.01
"""The step of a rating whose values are neither whole nor half numbers."""

_TYPED_KINDS = ("integer", "number", "boolean", "time")
"""Kinds of columns that are also types of declared columns; others are declared as text."""


def render_declaration(proposal: Proposal, database_url: str | None) -> str:
    """Return a settings file that declares a proposed source; columns that are not exported are comments.

    Args:
        proposal: The source.
        database_url: The URL of the database, which the file will contain; None if it stays in the environment.
    """
    return "\n".join(_render_lines(proposal, database_url)) + "\n"


def _render_lines(proposal: Proposal, database_url: str | None) -> Iterator[str]:
    yield f"# Proposed by `feedback-etl init` from the names and types of {proposal.table.full_name}: check every line."
    yield "# Then: feedback-etl preview --days -1"
    yield ""
    if database_url is None:
        yield "# The URL of the database stays in the environment: FEEDBACK_ETL_DATABASE_URL."
    else:
        yield f"database_url = {_quote(database_url)}"
    yield ""
    yield from _render_source(proposal)
    for column in proposal.find("item_id"):
        yield from ("", "# What was rated; exported as it is.")
        yield from _render_column(column, role="item")
    for column in proposal.find("rating"):
        yield from _render_rating(column, proposal.scales.get(column.column.name))
    for column in proposal.find("items"):
        yield from ("", "# Ratings of several items in one feedback, for --items.", *_render_items(column))
    for items in proposal.items:
        yield from _render_item_table(proposal, items)
    for column in proposal.find("list"):
        yield from ("", f"[lists.{column.name}]", *_render_name(column))
    for elements in proposal.elements:
        yield from _render_elements(proposal, elements)
    for column in proposal.find("age"):
        yield from ("", "# Exported as a range; others may know it: it counts for k-anonymity (--k).")
        yield from _render_age(column, "integer")
    for column in proposal.find("column"):
        yield from ("", "# Others may know it: it counts for k-anonymity (--k).")
        yield from _render_column(column, role="quasi_identifier")
    yield from _render_excluded(proposal)


def _render_source(proposal: Proposal) -> Iterator[str]:
    yield "[source]"
    yield f"table = {_quote(proposal.table.full_name)}"
    for use in ("feedback_id", "user_id", "created_at", "consent"):
        for column in proposal.find(use):
            yield f"{use} = {_quote(column.column.name)}"
    for column in proposal.find("changed_at"):
        yield f"# Not exported. `--incremental --cursor {column.column.name}` also exports rows that were edited later."
    yield '# analysis_id = "..."  # Rows with the same value get the same pseudonym. Without it, each has its own.'
    if proposal.joined is not None and proposal.user:
        yield f"user_id = {_quote(f'{proposal.joined.full_name}.{proposal.user}')}"
    elif not proposal.find("user_id"):
        yield '# user_id = "..."  # Without it, nothing can be erased by user, and k counts no people.'
    if proposal.consent and proposal.joined is not None:
        yield f"consent = {_quote(f'{proposal.joined.full_name}.{proposal.consent}')}  # only rows in which it is true"
    if not proposal.has_consent:
        found = "is used" if proposal.unused_consent else "was found"
        yield f"# No column of consent {found}: the feedback of all users would be exported."
        yield '# consent = "..."  # A boolean: then only rows in which it is true are read.'
    if proposal.unused_consent:
        yield f"# Not used: {', '.join(proposal.unused_consent)}. Where one concerns this use, write a query that"
        yield "# computes a boolean of it, in the place of `table`; true has to mean yes:"
        yield '# query = "feedback.sql"  # CASE WHEN opted_out THEN false ELSE true END AS may_use'
        yield '# consent = "may_use"'
    if proposal.joined is not None:
        yield from ("", "[source.join]", f"table = {_quote(proposal.joined.full_name)}")
        yield f"on = {{ {_quote_key(proposal.reference)} = {_quote(proposal.joined.key[0])} }}"


def _render_rating(column: ColumnProposal, scale: Scale | None) -> Iterator[str]:
    yield ""
    kind = column.column.kind
    is_boolean = kind == "boolean" or (scale is not None and scale.min == 0 and scale.max == 1 and scale.step == 1)
    if is_boolean:
        yield from (f"[ratings.{column.name}]", 'type = "boolean"', *_render_name(column))
        return
    yield from _render_scale(f"[ratings.{column.name}]", column, scale)


def _render_items(column: ColumnProposal) -> Iterator[str]:
    yield from _render_scale(f"[items.{column.name}]", column, column.column.scale)


def _render_item_table(proposal: Proposal, items: ItemsProposal) -> Iterator[str]:
    key, heading = proposal.find("feedback_id")[0].column.name, f"[items.{items.name}]"
    yield from ("", "# Ratings of several items in one feedback, for --items: one row for each item.")
    yield from _render_limits(heading, items.scale)
    yield f"table = {_quote(items.table.full_name)}"
    yield f"on = {{ {_quote_key(key)} = {_quote(items.reference)} }}"
    yield from (f"item = {_quote(items.item)}", f"rating = {_quote(items.rating)}")


def _render_scale(heading: str, column: ColumnProposal, scale: Scale | None) -> Iterator[str]:
    yield from _render_limits(heading, scale, _render_name(column))


def _render_limits(heading: str, scale: Scale | None, name: Iterable[str] = ()) -> Iterator[str]:
    lowest, highest = find_usual_scale(scale)
    seen = "no values" if scale is None or scale.min is None else f"{scale.min:g} to {scale.max:g}"
    yield f"# Check the scale: the table has {seen}."
    yield from (heading, *name, f"min = {lowest:g}", f"max = {highest:g}")
    if scale is not None and scale.step != 1:
        yield f"step = {scale.step or _FINE_STEP:g}"


def find_usual_scale(scale: Scale | None) -> tuple[float, float]:
    """Return the most usual scale that contains the observed values; the values' own limits if there is none.

    >>> find_usual_scale(Scale(2, 9)), find_usual_scale(Scale(0, 4)), find_usual_scale(None)
    ((1, 10), (0, 5), (1, 5))
    """
    if scale is None or scale.min is None or scale.max is None:
        return _SCALES[0]
    lowest, highest = scale.min, scale.max
    return next((usual for usual in _SCALES if usual[0] <= lowest and highest <= usual[1]), (lowest, highest))


def _render_elements(proposal: Proposal, elements: ElementsProposal) -> Iterator[str]:
    key, table = proposal.find("feedback_id")[0].column.name, elements.table.full_name
    yield from ("", f"# One row for each element, in {table}.", f"[lists.{elements.name}]")
    yield from (f"column = {_quote(elements.column)}", "", f"[lists.{elements.name}.join]", f"table = {_quote(table)}")
    yield f"on = {{ {_quote_key(key)} = {_quote(elements.reference)} }}"


def _render_excluded(proposal: Proposal) -> Iterator[str]:
    for column in proposal.find("none"):
        yield ""
        if column.reason:
            yield f"# Not exported: {column.column.name} looks like {column.reason}."
            if column.column.kind == "date" and not proposal.find("age"):
                yield "# The range of the age at the time of the feedback can be:"
                yield from (f"# {line}" for line in _render_age(column, "date"))
            if column.reason in SENSITIVE_REASONS and column.column.kind != "list":
                yield "# Where the law and the people allow it:"
                yield from (f"# {line}" for line in _render_column(column, role="sensitive"))
            continue
        if column.column.kind in ("list", "map"):
            yield "# Not exported unless you declare it:"
            is_map, table = column.column.kind == "map", (f"[lists.{column.name}]", *_render_name(column))
            yield from (f"# {line}" for line in (_render_items(column) if is_map else table))
            continue
        role = "identifier" if column.is_identifier else "insensitive"
        hint = "as a pseudonym" if column.is_identifier else "or as a quasi_identifier, if others may know it"
        yield f"# Not exported unless you declare it, {hint}:"
        yield from (f"# {line}" for line in _render_column(column, role=role))


def _render_column(column: ColumnProposal, *, role: str) -> Iterator[str]:
    yield f"[{'lists' if column.column.kind == 'list' else 'columns'}.{column.name}]"
    yield f'role = "{role}"'
    if role not in ("item", "identifier") and column.column.kind in _TYPED_KINDS:
        yield f'type = "{column.column.kind}"'
    yield from _render_name(column)


def _render_age(column: ColumnProposal, type_: str) -> Iterator[str]:
    yield from ("[columns.age_range]", 'role = "quasi_identifier"', f'type = "{type_}"')
    yield from (f"column = {_quote(column.column.name)}", f"bucket = {[*AGE_EDGES]}")


def _render_name(column: ColumnProposal) -> list[str]:
    return [f"column = {_quote(column.column.name)}"] if column.name != column.column.name else []


def _quote(text: str) -> str:
    """Return a text as a basic string of TOML, which escapes as JSON does."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _quote_key(name: str) -> str:
    is_bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if is_bare else _quote(name)
