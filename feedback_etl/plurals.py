"""Numbers with their nouns, for messages."""


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or the regular plural.

    >>> pluralize(1, "row"), pluralize(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
