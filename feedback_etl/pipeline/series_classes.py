"""k-anonymity over an incremental series: rows of equivalence classes that are too small wait for more people.

A night has few rows, so counted alone most of its equivalence classes are too small. The classes of a series are
counted over the rows of all its exports together: a row leaves once k people share its class, be they in this export or
in earlier ones. Until then it waits, pseudonymised, in a file of the last export (`exports.pending_rows`).

The people of rows that left are remembered as members of their class, at most as many as `ClassCounter` counts. Members
that were erased, or whose export was pruned, are not counted any more, so a class has at least the counted people.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import polars as pl

from feedback_etl.clock import parse_lookback
from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.database.lookups import fetch_analyses
from feedback_etl.errors import ValidationError
from feedback_etl.exports.pending_rows import EXPORT, PERSON, SINCE, read_state_file
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.batch_results import ProcessedBatch
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.privacy.k_anonymity import ClassCounter, digest_people, drop_small_classes
from feedback_etl.privacy.release_plan import ReleasePlan
from feedback_etl.records.catalog import list_manifests
from feedback_etl.transform.expressions import hash_id

_TIME = "feedback_timestamp"


class SeriesClasses:
    """Count the equivalence classes of a series, and decide which rows leave with its next export.

    Attributes:
        excluded: The number of rows that waited, and that the database does not have any more, or without consent.
        is_changed: Whether rows begin or cease to wait.
        oldest: The earliest time of a row that waited and leaves.
    """

    def __init__(self, request: ExportRequest, pending: pl.DataFrame, members: pl.DataFrame, number: int) -> None:
        options = request.transform_options
        self._policy, self._key, self._now, self._number = options.k_policy, options.key, options.now, number
        self._names = list(dict.fromkeys(self._policy.quasi_identifiers))
        self._max_people = self._policy.max_counted_people
        self._longest = parse_lookback(request.output.max_pending, "max_pending")
        remaining = _select_remaining(request, pending)
        self.excluded = pending.height - remaining.height
        self._pending, self._members = remaining, [members] if members.height else []
        self.is_changed, self._waiting = self.excluded > 0, 0
        self.oldest: datetime | None = None

    @classmethod
    def load(cls, request: ExportRequest) -> Self | None:
        """Load the classes of the series that a request continues; None if it has none, or needs no k.

        Nothing waits where the application makes pseudonyms itself, since it cannot be looked up who still consents;
        where a series follows changes, since two versions of a row could wait; in shared exports; and where classes are
        generalised, or must satisfy more than k.

        Raises:
            ExportFileError: A file of the state of the series is missing or was changed.
        """
        series, options = request.series, request.transform_options
        if series is None or options.k_policy.k is None or options.overrides.hash_id is not None:
            return None
        policy, recipient = options.k_policy, request.output.recipient
        if request.cursor.follows_changes or recipient is not None or policy.generalizes or policy.measured_columns:
            return None
        exports = [each for each in list_manifests(request.storage) if each.stem in series.stems]
        numbers = [each.chain["number"] for each in exports if not each.pruned_at]
        pending, members = (read_state_file(request.storage, series.last, kind) for kind in ("pending", "members"))
        if members.width:
            members = members.filter(pl.col(EXPORT).is_in(numbers))
        return cls(request, pending, members, series.number + 1)

    def spool(self, files: ExportTransaction, batch: ProcessedBatch) -> None:
        """Spool the rows of a batch, each with its person."""
        people = batch.pairs.with_columns(batch.user_ids.alias(PERSON))
        files.spool(people.with_columns(digest_people(pl.col(PERSON), self._key)))

    def release(self, files: ExportTransaction, processor: BatchProcessor) -> None:
        """Write the rows that leave, keep those that wait, and count both.

        Raises:
            ValidationError: Rows have waited for too long, and the policy does not allow to suppress them.
        """
        classes = self._count(processor.count_people())
        small = classes.filter(pl.col("people") < (self._policy.k or 0))
        large = classes.filter(pl.col("people") >= (self._policy.k or 0))
        leaving, waiting = self._partition(self._pending, small)
        is_expired = pl.col(SINCE) <= self._now - self._longest
        expired = waiting.filter(is_expired) if waiting.height else waiting
        self._require_allowed(expired.height, int(large["rows"].sum()))
        self.is_changed |= leaving.height + expired.height > 0
        if leaving.height:
            self.oldest = leaving[_TIME].dt.replace_time_zone(None).min()  # type: ignore[assignment]
            exported_at = pl.lit(self._now.replace(microsecond=0)).dt.replace_time_zone("UTC")
            files.write(
                self._remember(leaving).drop(SINCE).with_columns(export_date=exported_at.dt.cast_time_unit("us"))
            )
        if waiting.height > expired.height:
            self._wait(files, waiting.filter(~is_expired))
        files.release_spooled(lambda pairs: self._release(files, pairs, small))
        self._write_members(files)
        earlier, waiting_now = self._pending.height, self._waiting
        processor.set_plan(
            ReleasePlan(small, large, expired.height, {"scope": "series"}),
            {
                "total_feedback_records": earlier,
                "exported_records": earlier - waiting_now - expired.height,
                "suppressed_records": expired.height,
                "pending_records": waiting_now,
            },
        )

    def _release(self, files: ExportTransaction, pairs: pl.DataFrame, small: pl.DataFrame) -> pl.DataFrame:
        """Return the new rows that leave; the others wait from now on."""
        leaving, waiting = self._partition(pairs, small)
        if waiting.height:
            self.is_changed = True
            self._wait(files, waiting.with_columns(pl.lit(self._now).cast(pl.Datetime("us")).alias(SINCE)))
        return self._remember(leaving)

    def _wait(self, files: ExportTransaction, rows: pl.DataFrame) -> None:
        files.write_state("pending", rows)
        self._waiting += rows.height

    def _partition(self, pairs: pl.DataFrame, small: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Partition rows into those of large classes and those of small ones."""
        if pairs.is_empty():
            return pairs, pairs
        numbered = pairs.with_row_index(_ROW)
        leaving = drop_small_classes(numbered, small, self._names)
        waiting = numbered.join(leaving.select(_ROW), on=_ROW, how="anti", maintain_order="left")
        return leaving.drop(_ROW), waiting.drop(_ROW)

    def _remember(self, leaving: pl.DataFrame) -> pl.DataFrame:
        """Remember the people of rows as members of their classes; return the rows without their people."""
        columns = [PSEUDONYM, PERSON, *(name for name in self._names if name != PSEUDONYM)]
        if leaving.height:
            members = leaving.select(columns).with_columns(pl.col(pl.Enum).cast(pl.String))
            members = members.with_columns(pl.lit(self._number).cast(pl.Int64).alias(EXPORT))
            self._members = [self._limit(pl.concat([*self._members, members], how="vertical_relaxed"))]
        return leaving.drop(PERSON)

    def _limit(self, members: pl.DataFrame) -> pl.DataFrame:
        """Keep each person once in a class, with the newest export, and as many people as are counted."""
        unique = members.unique([PERSON, *self._names], keep="last", maintain_order=True)
        return unique.group_by(self._names, maintain_order=True).tail(self._max_people).select(members.columns)

    def _write_members(self, files: ExportTransaction) -> None:
        for members in self._members:
            files.write_state("members", members)

    def _count(self, new: bytes) -> pl.DataFrame:
        """Return the classes of all rows that could leave: quasi-identifiers, `people` of the series, and `rows`."""
        counters = [ClassCounter(self._names, self._max_people) for _ in range(2)]
        schema: Mapping[str, Any] = pl.read_ipc_stream(new).schema if new else {}
        for counter, stored in zip(counters, ([self._pending], [self._pending, *self._members]), strict=True):
            counter.merge_digests(new)
            for frame in (frame for frame in stored if frame.height):
                types = {name: schema[name] for name in self._names if name in schema}
                counter.add(frame.cast(types), frame[PERSON])  # type: ignore[arg-type]
        rows, people = (counter.classes() for counter in counters)
        if rows.is_empty():
            return rows
        return rows.drop("people").join(people.drop("rows"), on=self._names, nulls_equal=True)

    def _require_allowed(self, expired: int, leaving: int) -> None:
        """Refuse to suppress rows that have waited for too long, unless the policy allows it."""
        policy = self._policy
        limit = "`on_small_class` is fail" if policy.on_small_class == "fail" else ""
        if expired > policy.max_suppressed * (expired + leaving):
            limit = f"`max_suppressed` allows {policy.max_suppressed:.10g}"
        if expired and limit:
            raise ValidationError(
                f"Nothing was exported: {expired:,} rows have waited longer than --max-pending for {policy.k} people "
                f"with equal {', '.join(self._names)}, and {limit}. Raise --max-pending, or allow to suppress them."
            )


_ROW = "number of the row"


def _select_remaining(request: ExportRequest, pending: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose analysis the database still has, with consent where that is recorded."""
    if pending.is_empty():
        return pending
    selection, key = request.selection, request.transform_options.key
    options = selection.options
    analyses = fetch_analyses(selection.database, options, allow_row_security=options.allow_row_security)
    ids = pl.LazyFrame({PSEUDONYM: analyses}, schema={PSEUDONYM: pl.String})
    remaining = ids.with_columns(hash_id(PSEUDONYM, key=key, unkeyed=key is None, domain="analysis_id"))
    return pending.join(remaining.collect(), on=PSEUDONYM, how="semi", maintain_order="left")
