"""JSON of persisted records: read without duplicate names, and signed in a canonical form."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from feedback_etl.privacy.keys import Key, sign


def load_unique(content: bytes | str) -> Any:
    """Parse JSON and refuse duplicate names, of which readers could choose different ones.

    Raises:
        ValueError: It is no JSON, or an object repeats a name.
        RecursionError: It is nested too deeply.

    >>> load_unique('{"a": 1}')
    {'a': 1}
    """
    return json.loads(content, object_pairs_hook=_build_unique)


def _build_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object repeats a name")
    return values


def compute_mac(purpose: str, values: Mapping[str, Any], key: Key | None) -> str:
    """Compute the MAC of an object over all its fields but `mac`: 64 hex characters.

    The order of the names and white space make no difference. Without a key it is a digest, which anyone can compute.
    """
    content = {name: value for name, value in values.items() if name != "mac"}
    return sign(key, purpose, json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def hash_settings(settings: Mapping[str, Any]) -> str:
    """Return a digest of the settings of an export: 16 hex characters."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
