"""Release the rows of an incremental series with k: those that k people of the series share leave, the others wait."""

from datetime import datetime
from typing import TYPE_CHECKING, Self

import polars as pl

from feedback_etl.clock import parse_lookback
from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.database.lookups import fetch_analyses
from feedback_etl.pipeline.release import validate_pairs
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.privacy.k_anonymity import drop_small_classes, select_classes
from feedback_etl.privacy.release_plan import apply_changes
from feedback_etl.privacy.series_classes import SeriesClasses, SeriesPlan, plan_series_release
from feedback_etl.privacy.series_rows import EXPORT, PERSON, SINCE, SeriesMembers
from feedback_etl.privacy.series_versions import SeriesVersions, mark_versions, plan_versions
from feedback_etl.records.manifest_details import ManifestDetails
from feedback_etl.transform.expressions import hash_id

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import BatchProcessor

_TIME = "feedback_timestamp"


class SeriesRelease:
    """The release of the new and the pending rows of a series, once its equivalence classes are known.

    Attributes:
        excluded: Number of rows that were pending, and that the database does not have any more, or without consent.
        members: People of the classes of the series.
    """

    def __init__(self, request: ExportRequest, pending: pl.DataFrame, members: SeriesMembers) -> None:
        self._request, self._options, self._now = request, request.transform_options, request.transform_options.now
        self._pending = _select_remaining(request, pending)
        self.excluded, self.members = pending.height - self._pending.height, members
        self._longest = parse_lookback(request.output.max_pending, "max_pending")
        self._key = list(request.transform_options.schema.pair_key) if request.follows_changes else []
        self._new, self._replaced = list[pl.DataFrame](), 0
        self._plan: SeriesPlan
        self._oldest: datetime | None = None

    @classmethod
    def begin(cls, request: ExportRequest) -> Self | None:
        """Begin the release of a request; None if it continues no series whose classes are counted together."""
        series, policy = request.series, request.transform_options.k_policy
        if series is None or not request.counts_series:
            return None
        members = series.members
        if members.width:  # the people of pruned exports are not counted
            numbers = [link.chain["number"] for link in series.links if not link.pruned_at]
            members = members.filter(pl.col(EXPORT).is_in(numbers))
        key = request.transform_options.schema.pair_key if request.follows_changes else ()
        counted = SeriesMembers(
            policy.quasi_identifiers, policy.max_counted_people, members, series.number + 1, pair_key=key
        )
        return cls(request, series.pending, counted)

    def spool(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return new rows; where the series follows changes, those are counted one by one."""
        if self._key:
            self._new.append(self.members.select(rows))
        return rows

    def plan(self, processor: "BatchProcessor") -> None:
        """Decide which rows leave, and count them in the report of the processor.

        Raises:
            ValidationError: Rows have waited for too long, and the policy does not allow to suppress them.
        """
        self._plan = self._plan_versions() if self._key else self._plan_classes(processor)
        counts, replaced = self._plan.counts, self._replaced
        total = counts["total_feedback_records"] + replaced
        processor.set_plan(
            self._plan.release, counts | {"total_feedback_records": total, "deduplicated_records": replaced}
        )

    def _plan_classes(self, processor: "BatchProcessor") -> SeriesPlan:
        new = processor.count_people().with_columns(pl.col(pl.Enum).cast(pl.String))
        classes = SeriesClasses(self._options.k_policy, new, self._pending, self.members.rows, self._now, self._longest)
        return plan_series_release(classes)

    def _plan_versions(self) -> SeriesPlan:
        """Plan which versions leave; a row that waited and was changed since is replaced by its new version."""
        options, key, new = self._options, self._key, pl.concat([pl.DataFrame(), *self._new], how="diagonal")
        if new.height and options.timestamp_precision == "exact" and options.schema.has_whole_key:
            before = self._pending
            self._pending = drop_small_classes(before, new.select(key), key) if before.height else before
            self._replaced = before.height - self._pending.height
        pending = [self.members.select(self._pending)] if self._pending.height else []
        number = self.members.number
        candidates = mark_versions(pl.concat([*pending, new], how="diagonal_relaxed"), key, number)
        return plan_versions(
            SeriesVersions(
                options.k_policy,
                key,
                candidates,
                self._pending,
                self.members.rows,
                number,
                self._now - self._longest,
            )
        )

    def release_pending(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Release the rows that were pending; returns as `release`."""
        if self._pending.is_empty():
            return self._pending, self._pending
        exported_at = pl.lit(self._now.replace(microsecond=0)).dt.replace_time_zone("UTC")
        current = self._pending.with_columns(exported_at.cast(self._pending.schema["export_date"]).alias("export_date"))
        leaving, waiting = self.release(current)
        if leaving.height:
            self._oldest = leaving[_TIME].dt.replace_time_zone(None).min()  # type: ignore[assignment]
        return leaving, waiting

    def release(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows that leave, as they are published, and those that are pending from now on.

        Args:
            rows: Training pairs with `PERSON`; those that were pending before with `SINCE`, too.
        """
        policy, now = self._options.k_policy, pl.lit(self._now, pl.Datetime("us"))
        rows = rows if SINCE in rows.columns else rows.with_columns(now.alias(SINCE))
        if self._key:
            leaving = drop_small_classes(rows.drop(SINCE), self._plan.waiting, self._key)
        else:
            leaving = apply_changes(rows.drop(SINCE), self._plan.release.changes, policy)
        waiting = select_classes(rows, self._plan.waiting, self._key or list(dict.fromkeys(policy.quasi_identifiers)))
        self.members.add(leaving)
        pairs = leaving.drop(PERSON)
        if policy.generalizes:
            validate_pairs(pairs, self._options, generalized=True)
        return pairs, waiting.filter(pl.col(SINCE) > now - self._longest)

    def describe(self, details: ManifestDetails) -> ManifestDetails:
        """Return the details of the export: its window begins with its oldest row."""
        assert details.window is not None  # noqa: S101  every export has one
        start, end = details.window
        if start is not None and self._oldest is not None:
            start = min(start, self._oldest)
        return details._replace(
            window=(start, end), is_state_new=self._plan.is_changed or self._replaced + self.excluded > 0
        )


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
