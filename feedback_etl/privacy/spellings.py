"""Spellings of an id: applications, databases and people write one UUID in several ways."""

import re
from collections.abc import Iterable
from uuid import UUID

_UUID = re.compile(
    r"(urn:uuid:)?(?P<brace>\{)?[0-9a-f]{8}(?P<hyphen>-?)([0-9a-f]{4}(?P=hyphen)){3}[0-9a-f]{12}(?(brace)\})",
    re.IGNORECASE,
)


def list_spellings(text: str) -> list[str]:
    """List the spellings of an id, the given one first.

    A UUID is written with or without hyphens, in braces, or as a URN, in lower or upper case; any other id has one
    spelling.

    >>> list_spellings("42")
    ['42']
    >>> list_spellings("{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}")[1:4]
    ['6ba7b810-9dad-11d1-80b4-00c04fd430c8', '6BA7B810-9DAD-11D1-80B4-00C04FD430C8', '6ba7b8109dad11d180b400c04fd430c8']
    """
    if not _UUID.fullmatch(text):
        return [text]
    parsed = UUID(text.lower())
    forms = (str(parsed), parsed.hex, f"{{{parsed}}}")
    both_cases = [spelling for form in forms for spelling in (form, form.upper())]
    return list(dict.fromkeys((text, *both_cases, parsed.urn, f"urn:uuid:{str(parsed).upper()}")))


def spell(ids: Iterable[str]) -> dict[str, str]:
    """Map every spelling to the given id; of an id given in two spellings, to the first."""
    spelled: dict[str, str] = {}
    for text in ids:
        if text not in spelled:
            spelled |= dict.fromkeys(list_spellings(text), text)
    return spelled
