"""The export once more: row by row, with the standard library alone, from DESIGN and not from the package."""

import hashlib
import hmac
import json
import sqlite3
import unicodedata
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

RATINGS = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend")
LIMITS = dict(zip(RATINGS[:3], [(1, 5), (1, 5), (0, 100)], strict=True))
AGE_EDGES, AGE_RANGES = (18, 25, 35, 50), ("<18", "18-25", "25-35", "35-50", "50+")
ACTIVE = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212"
BLANK = {
    *("\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u2065", "\u2800", "\u3164", "\uffa0"),
    *map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))),
    *map(chr, range(0x13430, 0x13440)),  # format characters since Unicode 15
}
QUERY = """SELECT f.*, r.recommendation_id AS recommendation, r.conditions_analyzed, r.rules_applied,
    (SELECT p.age FROM profiles p WHERE p.user_id = f.user_id ORDER BY p.id LIMIT 1) AS age
    FROM recommendation_feedbacks f LEFT JOIN recommendation_records r ON r.id = f.recommendation_id"""


class OracleResult(NamedTuple):
    """What an export has to give."""

    csv_text: str  # the whole file; "" where nothing is exported and so none is written
    rejected: list[tuple[int, str | None, frozenset[str]]]  # feedback id, analysis hash, reasons; as ordered
    total: int
    skipped: int
    errors: int
    deduplicated: int
    exported: int


def oracle_export(
    path: Path, *, now: datetime, days_back: int = 30, min_feedback_fields: int = 1, key: str | None = None
) -> OracleResult:
    """Export a SQLite file of the default schema; `now` is naive UTC, no `key` means plain SHA-256."""
    inside = [row for row in _rows(path) if _in_window(row["created_at"], now, days_back)]
    enough = [row for row in inside if sum(row[name] is not None for name in RATINGS) >= min_feedback_fields]
    rejected = [(row["id"], _pseudonym(row, key), why) for row in enough if (why := _reasons(row))]
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in (row for row in enough if not _reasons(row)):
        kept.setdefault((row["analysis_id"], row["recommendation"], row["created_at"]), row)
    rows = [_exported(row, now, key) for row in kept.values()]  # the first, iterated over, is the header
    text = "".join(",".join(map(_csv_cell, cells)) + "\n" for cells in [*rows[:1], *map(dict.values, rows)])
    skipped, deduplicated = len(inside) - len(enough), len(enough) - len(rejected) - len(kept)
    return OracleResult(text, rejected, len(inside), skipped, len(rejected), deduplicated, len(kept))


def _rows(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute(QUERY)]
    for row in rows:
        row["created_at"] = row["created_at"] and datetime.fromisoformat(row["created_at"])
    return sorted(rows, key=lambda row: (row["created_at"] or datetime.max, row["id"]))


def _in_window(created_at: datetime | None, now: datetime, days_back: int) -> bool:
    start = datetime.min if days_back == -1 else now - timedelta(days=days_back)
    return days_back == -1 if created_at is None else start <= created_at < now


def _reasons(row: dict[str, Any]) -> frozenset[str]:
    conditions, rules = _elements(row["conditions_analyzed"]), _elements(row["rules_applied"])
    elements = (conditions or []) + (rules or [])
    texts = [row["recommendation"] or "", row["timeframe"] or "", *elements]
    faults = {
        "analysis_id_missing": row["analysis_id"] is None,
        "recommendation_missing": not row["recommendation"],
        "created_at_missing": row["created_at"] is None,
        "conditions_not_a_list": conditions is None,
        "rules_not_a_list": rules is None,
        "comma_in_element": any("," in element for element in elements),
        "empty_element": "" in elements,
        "control_character": any(map(has_control_character, texts)),
    }
    for name, (lowest, highest) in LIMITS.items():
        faults[f"{name}_out_of_range"] = row[name] is not None and not lowest <= row[name] <= highest
    return frozenset(reason for reason, found in faults.items() if found)


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet program may run a text: what it does not show does not hide a formula."""
    shown = text
    while shown and (shown[0] in BLANK or unicodedata.category(shown[0]) in ("Zs", "Zl", "Zp", "Cc", "Cf")):
        shown = shown[1:]
    return text.startswith(("\t", "\r", "\n")) or (shown != "" and shown[0] in ACTIVE)


def escape(text: str) -> str:
    return f"'{text}" if is_formula(text) or text.startswith("'") else text


def has_control_character(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" and character not in "\t\r\n" for character in text)


def _elements(stored: Any) -> list[str] | None:
    """The strings of a JSON array; no strings for NULL, '' and JSON's null; None for anything else."""
    try:
        value = json.loads("null" if stored in (None, "") else stored)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is not text
    except (TypeError, ValueError, RecursionError):
        return None
    value = [] if value is None else value
    return value if isinstance(value, list) and all(isinstance(element, str) for element in value) else None


def _pseudonym(row: dict[str, Any], key: str | None) -> str | None:
    text = str(row["analysis_id"]) if key is None else f"analysis_id:{row['analysis_id']}"
    keyed = None if key is None else hmac.new(key.strip().encode(), text.encode(), "sha256")
    return None if row["analysis_id"] is None else (keyed or hashlib.sha256(text.encode())).hexdigest()[:16]


def _exported(row: dict[str, Any], now: datetime, key: str | None) -> dict[str, Any]:
    age, would_recommend = row["age"], row["would_recommend"]
    return {
        "analysis_hash": _pseudonym(row, key),
        "recommendation_id": row["recommendation"],
        **{name: row[name] for name in RATINGS[:3]},
        "would_recommend": None if would_recommend is None else bool(would_recommend),
        "conditions_detected": ",".join(_elements(row["conditions_analyzed"]) or []) or None,
        "rules_applied": ",".join(_elements(row["rules_applied"]) or []) or None,
        "timeframe": row["timeframe"] or None,
        "age_range": None if age is None or not 0 <= age <= 130 else AGE_RANGES[sum(age >= edge for edge in AGE_EDGES)],
        "feedback_timestamp": row["created_at"].isoformat(),
        "export_date": now.replace(microsecond=0).isoformat(),
    }


def _csv_cell(value: Any) -> str:
    text = "" if value is None else escape(value) if isinstance(value, str) else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
