"""The spellings of an id: applications, databases and people write one UUID in several ways."""

import re
from collections.abc import Iterable
from uuid import UUID

_UUID = re.compile(
    r"(urn:uuid:)?(?P<brace>\{)?[0-9a-f]{8}(?P<hyphen>-?)([0-9a-f]{4}(?P=hyphen)){3}[0-9a-f]{12}(?(brace)\})",
    re.IGNORECASE,
)


def list_spellings(text: str) -> list[str]:
    """List the ways to write an id, as it is given first; an id that is no UUID has one.

    A UUID is written with or without hyphens, in braces, or as a URN, in small letters or in capitals.

    >>> list_spellings("42")
    ['42']
    >>> list_spellings("{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}")[1:4]
    ['6ba7b810-9dad-11d1-80b4-00c04fd430c8', '6BA7B810-9DAD-11D1-80B4-00C04FD430C8', '6ba7b8109dad11d180b400c04fd430c8']
    """
    if not _UUID.fullmatch(text):
        return [text]
    parsed = UUID(text.lower())
    forms = (str(parsed), parsed.hex, f"{{{parsed}}}")
    capitals = [spelling for form in forms for spelling in (form, form.upper())]
    return list(dict.fromkeys((text, *capitals, parsed.urn, f"urn:uuid:{str(parsed).upper()}")))


def spell(ids: Iterable[str]) -> dict[str, str]:
    """Map every spelling to the id as it was given; of one that is given in two spellings, to the first."""
    spelled: dict[str, str] = {}
    for each in ids:
        if each not in spelled:
            spelled |= dict.fromkeys(list_spellings(each), each)
    return spelled
