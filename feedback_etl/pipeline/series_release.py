"""Release the rows of an incremental series with k: those that k people of the series share; the others are pending."""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from feedback_etl.clock import parse_duration
from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.database.lookups import fetch_analyses
from feedback_etl.database.window import Window
from feedback_etl.pipeline.release import validate_pairs
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import select_classes
from feedback_etl.privacy.release_plan import apply_changes
from feedback_etl.privacy.series_classes import SeriesClasses, SeriesPlan, plan_series_release
from feedback_etl.privacy.series_rows import EXPORT, PERSON, SINCE, SeriesMembers
from feedback_etl.transform.expressions import hash_id

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import BatchProcessor


class SplitRows(NamedTuple):
    """Rows with `PERSON`: those that are published now, and those that are pending from now on, with `SINCE`."""

    released: pl.DataFrame
    pending: pl.DataFrame

    @property
    def pairs(self) -> pl.DataFrame:
        """The training pairs that are published."""
        return self.released.drop(PERSON, strict=False)


class SeriesRelease(NamedTuple):
    """How the new and the pending rows of a series are released, once its equivalence classes are known.

    Attributes:
        options: Options of the export.
        plan: Which classes are released.
        members: People of the classes that earlier exports have released.
        pending_after: Rows that are pending since then, or longer, are not pending any more.
        excluded: Number of rows that were pending, and that the database does not have any more, or without consent.
        earlier: The rows that were pending.
    """

    options: TransformOptions
    plan: SeriesPlan
    members: SeriesMembers
    pending_after: datetime
    excluded: int
    earlier: SplitRows = SplitRows(pl.DataFrame(), pl.DataFrame())

    def split(self, rows: pl.DataFrame) -> SplitRows:
        """Split rows.

        Args:
            rows: Training pairs with `PERSON`; those that were pending before with `SINCE`, too.
        """
        policy = self.options.k_policy
        if SINCE not in rows.columns:
            rows = rows.with_columns(pl.lit(self.options.now, pl.Datetime("us")).alias(SINCE))
        released = apply_changes(rows.drop(SINCE), self.plan.release.changes, policy)
        pending = select_classes(rows, self.plan.waiting, list(dict.fromkeys(policy.quasi_identifiers)))
        split = SplitRows(released, pending.filter(pl.col(SINCE) > pl.lit(self.pending_after, pl.Datetime("us"))))
        if policy.generalizes:
            validate_pairs(split.pairs, self.options, generalized=True)
        return split

    @property
    def is_changed(self) -> bool:
        """Whether the state of the series changes even where no row is published."""
        return self.plan.is_changed or self.excluded > 0

    def extend_window(self, window: Window) -> Window:
        """Return the window of the export, which begins with its oldest row."""
        rows = self.earlier.released
        if window.start is None or rows.is_empty():
            return window
        oldest = rows["feedback_timestamp"].dt.replace_time_zone(None).min()
        return Window(min(window.start, oldest), window.end)  # type: ignore[type-var, arg-type]


class PendingSeries(NamedTuple):
    """The rows of a series that were pending before an export, and the people of its equivalence classes.

    Attributes:
        request: The request of the export.
        rows: The pending rows that the database still has, with consent.
        excluded: Number of the other ones.
        members: People of the classes that earlier exports have released.
    """

    request: ExportRequest
    rows: pl.DataFrame
    excluded: int
    members: SeriesMembers

    def plan(self, processor: "BatchProcessor") -> SeriesRelease:
        """Decide which rows are released, and count them in the report of the processor.

        Raises:
            ValidationError: Rows are pending for too long, and the policy does not allow to suppress them.
        """
        options, max_pending = self.request.transform_options, self.request.output.max_pending
        longest = parse_duration(max_pending, "max_pending")
        new = processor.count_people().with_columns(pl.col(pl.Enum).cast(pl.String))
        plan = plan_series_release(
            SeriesClasses(options.k_policy, new, self.rows, self.members.rows, options.now, longest)
        )
        processor.set_plan(plan.release, plan.counts)
        release = SeriesRelease(options, plan, self.members, options.now - longest, self.excluded)
        if self.rows.is_empty():
            return release
        exported_at = pl.lit(options.now.replace(microsecond=0)).dt.replace_time_zone("UTC")
        export_date = exported_at.cast(self.rows.schema["export_date"])
        return release._replace(earlier=release.split(self.rows.with_columns(export_date=export_date)))


def select_pending(request: ExportRequest) -> PendingSeries | None:
    """Select the pending rows of a series; None if the request continues none whose classes are counted together."""
    series, policy = request.series, request.transform_options.k_policy
    if series is None or not request.counts_series:
        return None
    members = series.members
    if members.width:  # the people of pruned exports are not counted
        numbers = [link.chain["number"] for link in series.links if not link.pruned_at]
        members = members.filter(pl.col(EXPORT).is_in(numbers))
    names = tuple(dict.fromkeys(policy.quasi_identifiers))
    rows = _select_remaining(request, series.pending)
    counted = SeriesMembers(names, policy.max_counted_people, members, series.number + 1)
    return PendingSeries(request, rows, series.pending.height - rows.height, counted)


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
