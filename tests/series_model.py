"""What a training set has to contain after each operation on an incremental series, in plain Python.

The model knows rows, people and clocks, and nothing of files, watermark files or digests. Where the documentation of
incremental exports is silent, these are its decisions:

- A row is identified by its feedback id; two rows with one analysis, recommendation and time are one pair, of which the
  first by (time, id) is exported, and later ones are duplicates.
- Consent and erasure decide which rows an export reads. Withdrawing consent does not touch files that exist: a sweep
  (`erase --not-in-database`) removes the rows of analyses that the database no longer has, or has without consent.
  A sweep is no promise for later: whoever consents again is exported again, if the series still reads the row.
- Erasing a user removes the analyses that the database has of them then, and keeps the user out for ever.
- The watermark is the newest time in the window, of any row in the database, minus the lookback; it never goes back.
  It moves only when files are published. Rows that arrive below it are in no incremental export.
- An export that would begin a series beside another one is refused unless `new_series` says that it is meant; the new
  series exports all rows again, which are the newest copies then.
- An edit of a row that the series has read is not followed; a full export, or a new series, contains it. An invalid
  version of a row does not remove a valid one that was exported before.
- The newest copy of a pair counts: the one of the export with the latest clock, then the one that was written last.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pseudonym_keys import KEY

Pair = tuple[int, datetime]
"""An analysis and a time; the machine has a single recommendation."""


@dataclass
class Row:
    """A row of feedback in the database; `version` is a rating that each edit changes."""

    id: int
    user: int
    analysis: int
    created_at: datetime
    version: int = 0
    is_valid: bool = True
    updated_at: datetime | None = None

    @property
    def pair(self) -> Pair:
        """What makes another row a duplicate."""
        return self.analysis, self.created_at

    @property
    def values(self) -> dict[str, Any]:
        """The columns of the row in the database."""
        return {
            "id": self.id,
            "user_id": self.user,
            "analysis_id": self.analysis,
            "recommendation_id": 1,
            "helpful_rating": 5 if self.is_valid else 9,
            "routine_completion_pct": self.version,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


@dataclass
class Series:
    """What an incremental series remembers."""

    lookback: timedelta
    is_tried: bool = False
    """Whether an export was tried: only the first has to say that it begins a series beside another one."""
    watermark: datetime | None = None
    read: set[int] = field(default_factory=set)
    """Ids of the rows that were read."""
    pairs: set[Pair] = field(default_factory=set)


class Increment(NamedTuple):
    """What the next export of a series, or a full export, does.

    Attributes:
        rows: The rows that it reads and has not read before.
        pairs: The version of each pair that it exports.
        rejected: The number of invalid rows.
        watermark: The watermark after it.
    """

    rows: list[Row]
    pairs: dict[Pair, int]
    rejected: int
    watermark: datetime | None

    @property
    def is_refused(self) -> bool:
        """Whether all rows are rejected, which publishes nothing."""
        return 0 < self.rejected == len(self.rows)

    @property
    def is_published(self) -> bool:
        """Whether there is a file."""
        return bool(self.pairs or self.rejected) and not self.is_refused


class Export(NamedTuple):
    """A published export: the clock when it was made, and the version of each pair in it."""

    now: datetime
    pairs: dict[Pair, int]


class TrainingModel:
    """The database, the people and the exports."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.opted_out: set[int] = set()
        self.erased_users: set[int] = set()
        self.erased_analyses: set[int] = set()
        self.exports: list[Export] = []

    def plan_full(self, now: datetime) -> Increment:
        """Return what an export of all rows contains."""
        return self._plan(Series(timedelta(0)), now)

    def plan_increment(self, series: Series, now: datetime) -> Increment | None:
        """Return what the next export of a series contains; None if the clock is behind its watermark."""
        if series.watermark is not None and series.watermark >= now:
            return None
        return self._plan(series, now)

    def _plan(self, series: Series, now: datetime) -> Increment:
        start = series.watermark or datetime.min
        window = [row for row in self.rows.values() if start <= row.created_at < now]
        new = [row for row in window if self._is_exportable(row) and row.id not in series.read]
        pairs: dict[Pair, int] = {}
        for row in sorted(new, key=lambda row: (row.created_at, row.id)):
            if row.is_valid and row.pair not in series.pairs:
                pairs.setdefault(row.pair, row.version)
        newest = max((row.created_at for row in window), default=None)
        watermark = series.watermark if newest is None else max(start, newest - series.lookback)
        return Increment(new, pairs, sum(not row.is_valid for row in new), watermark)

    def _is_exportable(self, row: Row) -> bool:
        is_erased = row.user in self.erased_users or row.analysis in self.erased_analyses
        return row.user not in self.opted_out and not is_erased

    def publish(self, increment: Increment, now: datetime, series: Series | None = None) -> None:
        """Record that an export was published."""
        if increment.pairs:
            self.exports.append(Export(now, dict(increment.pairs)))
        if series is not None:
            series.watermark = increment.watermark
            series.read |= {row.id for row in increment.rows}
            series.pairs |= increment.pairs.keys()

    def erase_user(self, user: int) -> None:
        """Erase a user: the analyses that the database has of them leave every export."""
        self.erased_users.add(user)
        self.erased_analyses |= {row.analysis for row in self.rows.values() if row.user == user}
        self._remove(self.erased_analyses)

    @property
    def remaining(self) -> set[int]:
        """The analyses that the database has with consent."""
        return {row.analysis for row in self.rows.values() if row.user not in self.opted_out}

    def sweep(self, series: Iterable[Series]) -> None:
        """Remove the analyses that the database has no more, or without consent; the series forget them, too."""
        gone = {analysis for export in self.exports for analysis, _ in export.pairs}
        gone |= {row.analysis for row in self.rows.values()}
        gone -= self.remaining
        self._remove(gone)
        for state in series:
            state.read -= {row.id for row in self.rows.values() if row.analysis in gone}
            state.pairs = {pair for pair in state.pairs if pair[0] not in gone}

    def _remove(self, analyses: set[int]) -> None:
        for export in self.exports:
            for pair in [pair for pair in export.pairs if pair[0] in analyses]:
                del export.pairs[pair]

    def training_set(self) -> list[tuple[str, datetime, int]]:
        """Return pseudonym, time and version of each pair, ordered."""
        newest: dict[Pair, int] = {}
        for export in sorted(self.exports, key=lambda export: export.now):
            newest |= export.pairs
        return sorted((pseudonym(analysis), time, version) for (analysis, time), version in newest.items())


def pseudonym(analysis: int) -> str:
    """Return the pseudonym of an analysis."""
    return hmac.new(KEY.encode(), f"analysis_id:{analysis}".encode(), hashlib.sha256).hexdigest()[:16]
