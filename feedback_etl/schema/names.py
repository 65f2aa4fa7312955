"""Rules for the names and roles of declared columns."""

from collections.abc import Iterable, Sequence

from feedback_etl.errors import UsageError
from feedback_etl.schema.column_types import NAME, ExtraColumn


def require_text_roles(columns: Iterable[ExtraColumn]) -> None:
    """Raise UsageError if a column of free text has another type than text."""
    if wrong := [column.name for column in columns if column.role == "free_text" and column.type != "text"]:
        raise UsageError(f'The role "free_text" is for columns of the type "text", not for {", ".join(wrong)}.')


def require_names(names: Sequence[str], noun: str, *, taken: Iterable[str]) -> None:
    """Raise UsageError if a name is malformed, taken or repeated."""
    taken = {*taken}
    for name in names:
        if not NAME.fullmatch(name):
            raise UsageError(f"Names of {noun}s consist of lower-case letters, digits and underscores, unlike {name}.")
        if name in taken or names.count(name) > 1:
            article = "An" if noun[0] in "aeiou" else "A"
            raise UsageError(f"{article} {noun} cannot be called {name}: that name is reserved or used twice.")
