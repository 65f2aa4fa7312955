"""Read the item rows of exports: a rating of an item in a feedback each."""

from collections.abc import Sequence

import polars as pl

from feedback_etl.data_files.item_rows import scan_item_rows
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.schema.model import PSEUDONYM, TIME
from feedback_etl.training.committed_export import CommittedExport, sort_by_recency
from feedback_etl.training.export_catalog import ExportPaths, find_exports, refresh, require_unchanged
from feedback_etl.training.export_scan import cluster_by_window, scan_pairs

_RECENCY = "recency of its export"


def scan_items(
    exports: ExportPaths, *, verify: bool = False, key: Key | str | Sequence[Key | str] = ()
) -> pl.LazyFrame:
    """Scan the item rows of committed exports, those of `export_feedback(..., items="NAME")`, as one lazy frame.

    The items of a feedback are those of the newest export that contains it, none if it rates no item there. Feedbacks
    of an analysis are distinguished by their times, so those with the same truncated time count as one.

    Args:
        exports: See `scan_training`, also for the other arguments.
        verify: Verify digests and manifests.
        key: The keys of the exports.

    Returns:
        The columns `analysis_hash`, `subject_hash` where exports have it, `item`, `rating` and `feedback_timestamp`.

    Raises:
        ExportFileError: No export has item rows, or a file is missing, truncated or changed.
        UsageError: The exports have several item ratings, keys or timestamp precisions, which cannot be combined.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, days_back=90, key=generate_key(), items="product_ratings", output_dir="rated")
    >>> scan_items("rated").collect_schema().names()
    ['analysis_hash', 'item', 'rating', 'feedback_timestamp']
    """
    committed, keys = find_exports(exports), Key.parse_all(key)
    if verify or keys:
        require_unchanged(committed, keys, exports)
    with_items = [export.with_kind("items") for export in committed if export.manifest.items]
    _require_one_kind(with_items)
    current = [export for export in (refresh(export, verify=verify, kind="items") for export in with_items) if export]
    if not any(export.files for export in current):
        raise ExportFileError(f"{exports} contains no item rows; `feedback-etl export --items NAME` creates them.")
    clusters = [cluster for cluster in cluster_by_window(current) if any(export.files for export in cluster)]
    return pl.concat(map(_scan_cluster, clusters), how="diagonal_relaxed")


def _require_one_kind(exports: Sequence[CommittedExport]) -> None:
    kinds = {
        "item ratings": {str(export.manifest.settings["items"]) for export in exports},
        "keys": {export.kind.key for export in exports},
        "timestamp precisions": {export.precision for export in exports},
    }
    for noun, values in kinds.items():
        if len(values) > 1:
            raise UsageError(f"The exports have {len(values)} {noun} and cannot be combined: select those of one.")


def _scan_cluster(cluster: Sequence[CommittedExport]) -> pl.LazyFrame:
    """Scan exports that can have feedbacks in common, and keep the items of each from the newest with its pair."""
    if len(cluster) == 1:
        return scan_item_rows(cluster[0].storage, cluster[0].manifest)
    feedback, items, pairs = [PSEUDONYM, TIME], [], []
    for number, export in enumerate(sort_by_recency(cluster)):
        recency = pl.lit(number).alias(_RECENCY)
        pairs.append(scan_pairs(export.with_kind("pairs")).select(*feedback, recency))
        if export.files:
            items.append(scan_item_rows(export.storage, export.manifest).with_columns(recency))
    newest = pl.concat(pairs).group_by(feedback).agg(pl.col(_RECENCY).max())
    rows = pl.concat(items, how="diagonal_relaxed")
    return rows.join(newest, on=[*feedback, _RECENCY], how="semi", maintain_order="left").drop(_RECENCY)
