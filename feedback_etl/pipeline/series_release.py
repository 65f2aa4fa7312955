"""Release the rows of an incremental series with k: those that k people of the series share; the others are pending."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from feedback_etl.clock import parse_duration
from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.database.lookups import fetch_owners
from feedback_etl.database.window import Window
from feedback_etl.pipeline.release import validate_pairs
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import digest_people, drop_small_classes, select_classes
from feedback_etl.privacy.release_plan import apply_changes
from feedback_etl.privacy.series_classes import SeriesClasses, SeriesPlan, plan_series_release
from feedback_etl.privacy.series_rows import EXPORT, PERSON, SINCE, SeriesMembers
from feedback_etl.privacy.series_versions import SeriesVersions, plan_versions
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
        pending_after: Rows that are pending since then, or longer, cease to be pending.
        excluded: Number of rows that were pending, and that the database no longer contains, or without consent.
        replaced: Number of rows that were pending, and of which there is a newer version.
        earlier: The rows that were pending.
    """

    options: TransformOptions
    plan: SeriesPlan
    members: SeriesMembers
    pending_after: datetime
    excluded: int
    replaced: int = 0
    earlier: SplitRows = SplitRows(pl.DataFrame(), pl.DataFrame())

    def split(self, rows: pl.DataFrame) -> SplitRows:
        """Split rows.

        Args:
            rows: Training pairs with `PERSON`; those that were pending before with `SINCE`, too.
        """
        policy = self.options.k_policy
        if SINCE not in rows.columns:
            rows = rows.with_columns(pl.lit(self.options.now, pl.Datetime("us")).alias(SINCE))
        key = self.members.pair_key
        pending = select_classes(rows, self.plan.unreleased, key or list(dict.fromkeys(policy.quasi_identifiers)))
        if key:
            released = drop_small_classes(rows.drop(SINCE), self.plan.unreleased, key)
        else:
            released = apply_changes(rows.drop(SINCE), self.plan.release.changes, policy)
        split = SplitRows(released, pending.filter(pl.col(SINCE) > pl.lit(self.pending_after, pl.Datetime("us"))))
        if policy.generalizes:
            validate_pairs(split.pairs, self.options, generalized=True)
        return split

    @property
    def is_changed(self) -> bool:
        """Whether the state of the series changes even where no row is published."""
        return self.plan.is_changed or self.excluded + self.replaced > 0

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

    def plan(self, processor: "BatchProcessor", spooled: Iterable[pl.DataFrame]) -> SeriesRelease:
        """Decide which rows are released, and count them in the report of the processor.

        The spooled rows are read where the series follows changes.

        Raises:
            ValidationError: Rows are pending for too long, and the policy does not allow to suppress them.
        """
        options, max_pending = self.request.transform_options, self.request.output.max_pending
        longest = parse_duration(max_pending, "max_pending")
        if self.members.pair_key:
            rows, plan = self._plan_versions(spooled, longest)
        else:
            new = processor.count_people().with_columns(pl.col(pl.Enum).cast(pl.String))
            classes = SeriesClasses(options.k_policy, self.rows, options.now, longest, new, self.members.rows)
            rows, plan = self.rows, plan_series_release(classes)
        replaced, counts = self.rows.height - rows.height, plan.counts
        total = counts["total_feedback_records"] + replaced
        processor.set_plan(plan.release, counts | {"total_feedback_records": total, "deduplicated_records": replaced})
        release = SeriesRelease(options, plan, self.members, options.now - longest, self.excluded, replaced)
        if rows.is_empty():
            return release
        exported_at = pl.lit(options.now.replace(microsecond=0)).dt.replace_time_zone("UTC")
        export_date = exported_at.cast(rows.schema["export_date"])
        return release._replace(earlier=release.split(rows.with_columns(export_date=export_date)))

    def _plan_versions(self, spooled: Iterable[pl.DataFrame], longest: timedelta) -> tuple[pl.DataFrame, SeriesPlan]:
        """Plan which versions are released; return the pending rows that have no newer version, and the plan."""
        options, members, pending = self.request.transform_options, self.members, self.rows
        key, new = members.pair_key, pl.concat([pl.DataFrame(), *map(members.select, spooled)], how="diagonal")
        if new.height and pending.height and options.timestamp_precision == "exact" and options.schema.has_whole_key:
            pending = drop_small_classes(pending, new.select(key), key)
        candidates = pl.concat([*([members.select(pending)] if pending.height else []), new], how="diagonal_relaxed")
        series = SeriesVersions(options.k_policy, pending, options.now, longest, members, candidates)
        return pending, plan_versions(series)


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
    key = request.transform_options.schema.pair_key if request.follows_changes else ()
    counted = SeriesMembers(names, policy.max_counted_people, members, series.number + 1, key)
    return PendingSeries(request, rows, series.pending.height - rows.height, counted)


def _select_remaining(request: ExportRequest, pending: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of whose person the database still has the analysis, with consent where that is recorded."""
    if pending.is_empty():
        return pending
    selection, key = request.selection, request.transform_options.key
    owners = fetch_owners(selection.database, selection.options, is_consenting=True)
    schema = {PSEUDONYM: pl.String, PERSON: pl.String}
    ids = pl.LazyFrame(owners, schema=schema, orient="row")
    hash_analysis = hash_id(PSEUDONYM, key=key, unkeyed=key is None, domain="analysis_id")
    remaining = ids.with_columns(hash_analysis, digest_people(pl.col(PERSON), key)).collect()
    return pending.join(remaining, on=[PSEUDONYM, PERSON], how="semi", nulls_equal=True, maintain_order="left")
