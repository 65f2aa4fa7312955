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
  It moves only when files are published. Rows that arrive below it are in no incremental export but a backfill.
- A backfill exports the exportable rows below the watermark whose pair is in no export of the series, also those that
  were corrected since or consent since. Rows that were listed as rejected, and are still invalid, are not listed again.
- An export that would begin a series beside another one is refused unless `new_series` says that it is meant; the new
  series exports all rows again, which are the newest copies then.
- Without a cursor, an edit of a row that the series has read is not followed; a full export, or a new series, contains
  it. With a cursor, the time of a row is the later of its creation and its last change, a version is read once, and a
  changed version is exported again. An edit whose time is not recorded, or is below the watermark, is not followed. Of
  the versions of a pair that one run reads, the first by (creation, id) is exported.
- An invalid version of a row does not remove a valid one that was exported before.
- The newest copy of a pair counts: the one of the export with the latest clock, then the one that was written last.
  Within a series the number of the export counts, also where the clock went back: an export is as new as the newest
  before it in the series.
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
    def changed_at(self) -> datetime:
        """The time of the last change; the creation if no later one is recorded."""
        return max(self.created_at, self.updated_at or self.created_at)

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
    follows_changes: bool = False
    is_tried: bool = False
    """Whether an export was tried: only the first has to say that it begins a series beside another one."""
    watermark: datetime | None = None
    read: set[tuple[Any, ...]] = field(default_factory=set)
    """The rows that were read, or the versions of rows; see `identify`."""
    pairs: set[Pair] = field(default_factory=set)
    rejected: set[tuple[int, int]] = field(default_factory=set)
    """Analysis and id of the rows that are listed as rejected."""
    recency: tuple[datetime, int] = (datetime.min, 0)
    """Clock and number of its newest export."""

    def time(self, row: Row) -> datetime:
        """Return the time by which the series continues."""
        return row.changed_at if self.follows_changes else row.created_at

    def is_changed(self, row: Row) -> bool:
        """Return whether the series takes a row for a new version."""
        return self.time(row) > row.created_at

    def seems_exported(self, row: Row) -> bool:
        """Return whether a changed row was created before the watermark: it counts as exported, even if it is late."""
        is_before = self.watermark is not None and row.created_at < self.watermark
        return self.follows_changes and self.is_changed(row) and is_before

    def identify(self, row: Row) -> tuple[Any, ...]:
        """Return what makes a row another one: the analysis, the id, and with a cursor the version."""
        version = (row.changed_at, row.version, row.is_valid) if self.follows_changes else ()
        return (row.analysis, row.id, *version)


class Increment(NamedTuple):
    """What the next export of a series, or a full export, does.

    Attributes:
        rows: The rows that it reads and has not read before.
        pairs: The version of each pair that it exports.
        rejected: The number of invalid rows.
        changed: The number of pairs that an earlier export of the series contains, or seems to.
        watermark: The watermark after it.
    """

    rows: list[Row]
    pairs: dict[Pair, int]
    rejected: int
    changed: int
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
    """A published export: clock and number, by which it is newer than others, and the version of each pair in it."""

    recency: tuple[datetime, int]
    pairs: dict[Pair, int]


class TrainingModel:
    """The database, the people and the exports."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.opted_out: set[int] = set()
        self.erased_users: set[int] = set()
        self.erased_analyses: set[int] = set()
        self.exports: list[Export] = []
        self.number = 0

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
        window = [row for row in self.rows.values() if row.created_at < now and start <= series.time(row)]
        new = [row for row in window if self._is_exportable(row) and series.identify(row) not in series.read]
        times = [row.created_at for row in self.rows.values()]
        if series.follows_changes:
            times += [row.updated_at for row in self.rows.values() if row.updated_at is not None]
        newest = max((time for time in times if start <= time < now), default=None)
        watermark = series.watermark if newest is None else max(start, newest - series.lookback)
        return self._select(new, series, watermark)

    def plan_backfill(self, series: Series) -> Increment:
        """Return what a backfill of a series with a watermark exports."""
        assert series.watermark is not None
        missing = [
            row
            for row in self.rows.values()
            if series.time(row) < series.watermark and self._is_exportable(row) and row.pair not in series.pairs
        ]
        new = [row for row in missing if row.is_valid or (row.analysis, row.id) not in series.rejected]
        return self._select(new, series, series.watermark)

    def _select(self, new: list[Row], series: Series, watermark: datetime | None) -> Increment:
        exported: dict[Pair, Row] = {}
        for row in sorted(new, key=lambda row: (row.created_at, row.id)):
            if row.is_valid and (series.is_changed(row) or row.pair not in series.pairs):
                exported.setdefault(row.pair, row)
        pairs = {pair: row.version for pair, row in exported.items()}
        changed = sum(row.pair in series.pairs or series.seems_exported(row) for row in exported.values())
        return Increment(new, pairs, sum(not row.is_valid for row in new), changed, watermark)

    def _is_exportable(self, row: Row) -> bool:
        is_erased = row.user in self.erased_users or row.analysis in self.erased_analyses
        return row.user not in self.opted_out and not is_erased

    def publish(self, increment: Increment, now: datetime, series: Series | None = None) -> None:
        """Record that an export was published."""
        self.number += 1
        recency = now, self.number
        if series is not None:
            recency = series.recency = max(recency, series.recency)
            series.watermark = increment.watermark
            series.read |= {series.identify(row) for row in increment.rows}
            series.pairs |= increment.pairs.keys()
            series.rejected |= {(row.analysis, row.id) for row in increment.rows if not row.is_valid}
        if increment.pairs:
            self.exports.append(Export(recency, dict(increment.pairs)))

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
            state.read = {identity for identity in state.read if identity[0] not in gone}
            state.rejected = {identity for identity in state.rejected if identity[0] not in gone}
            state.pairs = {pair for pair in state.pairs if pair[0] not in gone}

    def _remove(self, analyses: set[int]) -> None:
        for export in self.exports:
            for pair in [pair for pair in export.pairs if pair[0] in analyses]:
                del export.pairs[pair]

    def training_set(self) -> list[tuple[str, datetime, int]]:
        """Return pseudonym, time and version of each pair, ordered."""
        newest: dict[Pair, int] = {}
        for export in sorted(self.exports, key=lambda export: export.recency):
            newest |= export.pairs
        return sorted((pseudonym(analysis), time, version) for (analysis, time), version in newest.items())


def pseudonym(analysis: int) -> str:
    """Return the pseudonym of an analysis."""
    return hmac.new(KEY.encode(), f"analysis_id:{analysis}".encode(), hashlib.sha256).hexdigest()[:16]
