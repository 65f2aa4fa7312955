"""An independent count of k, l and t from published files and the database: nothing of the package is imported."""

import csv
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

Row = Mapping[str, Any]


class Measured(NamedTuple):
    """What the published rows satisfy: fewest people, fewest different answers, greatest distance."""

    k: int
    l: int  # noqa: E741  as in the literature
    t: float


def pseudonym(analysis_id: int, key: str) -> str:
    """The pseudonym of an analysis, as the documentation defines it."""
    return hmac.new(key.encode(), f"analysis_id:{analysis_id}".encode(), hashlib.sha256).hexdigest()[:16]


def published_rows(files: Iterable[Path]) -> list[dict[str, str | None]]:
    """The rows of data files as text; an empty field is null."""
    rows: list[dict[str, str | None]] = []
    for path in files:
        if path.suffix == ".parquet":
            for row in pq.ParquetFile(path).read().to_pylist():
                values = {
                    name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()
                }
                rows.append({name: None if value is None else str(value)[:26] for name, value in values.items()})
        else:
            with path.open(newline="") as file:
                rows += [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    return rows


def measured(
    rows: Sequence[Row], feedbacks: Iterable[Row], key: str, names: Sequence[str], sensitive: Sequence[str]
) -> Measured:
    """Count people; those without a user are one together, and null is a value of its own."""
    owners = {pseudonym(feedback["analysis_id"], key): feedback["user_id"] for feedback in feedbacks}
    classes = defaultdict(list)
    for row in rows:
        classes[tuple(row[name] for name in names)].append(row)
    people = {name: {owners[row["analysis_hash"]] for row in members} for name, members in classes.items()}
    least, greatest = 10**9, 0.0
    for column in sensitive:
        overall = shares(rows, owners, column)
        for members in classes.values():
            least = min(least, distinct_answers(members, owners, column))
            greatest = max(greatest, distance(shares(members, owners, column), overall))
    return Measured(min(map(len, people.values())), least, greatest)


def distinct_answers(rows: Iterable[Row], owners: Mapping[str, Any], column: str) -> int:
    """The different answers of people with one answer; people with several could have any."""
    answers = defaultdict(set)
    for row in rows:
        answers[owners[row["analysis_hash"]]].add(row[column])
    return max(1, len({value for values in answers.values() if len(values) == 1 for value in values}))


def shares(rows: Iterable[Row], owners: Mapping[str, Any], column: str) -> dict[Any, float]:
    """The share of each answer, where each person counts once for each different one."""
    answers = {(owners[row["analysis_hash"]], row[column]) for row in rows}
    counts: dict[Any, float] = defaultdict(float)
    for _, value in answers:
        counts[value] += 1 / len(answers)
    return counts


def distance(inside: Mapping[Any, float], overall: Mapping[Any, float]) -> float:
    """The earth mover's distance: ordered for numbers, where null comes first, else equal."""
    if not all(value is None or value.isdigit() for value in overall):
        return sum(abs(inside.get(value, 0) - share) for value, share in overall.items()) / 2
    moved = total = 0.0
    for value in sorted(overall, key=lambda value: -1 if value is None else int(value)):
        moved += inside.get(value, 0) - overall[value]
        total += abs(moved)
    return total / (len(overall) - 1) if len(overall) > 1 else 0.0
