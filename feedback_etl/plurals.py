"""Numbers with their nouns, and lists of names, for messages."""

from collections.abc import Sequence

_MAX_NAMES = 20


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or the regular plural.

    >>> pluralize(1, "row"), pluralize(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def list_some(names: Sequence[str], limit: int = _MAX_NAMES) -> str:
    """Return the first names and the number of the others; "nothing" if there are none.

    >>> list_some(["id", "user_id"]), list_some([f"c{number}" for number in range(40)])[-15:]
    ('id, user_id', 'c19 and 20 more')
    """
    others = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + others
