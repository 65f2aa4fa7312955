"""The status of the incremental series of a folder: how far each was read, when, and with how many rows."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.manifest import Manifest
from feedback_etl.records.series_runs import SeriesRun, list_runs
from feedback_etl.storage.location import StorageLike, open_storage


class SeriesStatus(NamedTuple):
    """Contain the status of an incremental series. All times are naive UTC.

    Attributes:
        settings: The settings that identify the series.
        cursor: The column by which it continues.
        exports: The number of its exports.
        rows: The number of rows in their files; pruned exports have none.
        watermark: The start of the window that the next run reads by the cursor; None if it reads all rows.
        read_until: The end of the window of the last run.
        last_run: The end of its last run, also of one that found nothing new.
        late_records: Rows that arrived later than the lookback, at least, as runs since the last backfill reported.
        pending_records: Rows that are not released yet.
        has_ended: Whether the series is not continued: another one began after its last run.
    """

    settings: dict[str, Any]
    cursor: str
    exports: int
    rows: int
    watermark: datetime | None
    read_until: datetime
    last_run: datetime
    late_records: int
    pending_records: int
    has_ended: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the status as values that JSON can represent."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in self._asdict().items()
        }


def list_series(where: StorageLike) -> list[SeriesStatus]:
    """Return the status of each incremental series of a storage, in the order of their first runs.

    Raises:
        ExportFileError: A manifest cannot be read.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with sample_database() as url:
    ...     report = export_feedback(url, incremental=True, key=generate_key(), output_dir="nightly")
    >>> (series,) = list_series("nightly")
    >>> series.rows == report.exported_records
    True
    """
    storage = open_storage(where)
    manifests: dict[str, list[Manifest]] = {}
    for manifest in (manifest for manifest in list_manifests(storage) if manifest.chain):
        manifests.setdefault(manifest.settings_digest, []).append(manifest)
    runs: dict[str, list[SeriesRun]] = {}
    for run in list_runs(AuditLog(storage).records()):
        runs.setdefault(run.series, []).append(run)
    begins = {series: of_series[0].at for series, of_series in runs.items()}
    return [_summarize(of_series, manifests.get(series, []), begins.values()) for series, of_series in runs.items()]


def _summarize(runs: Sequence[SeriesRun], manifests: Sequence[Manifest], begins: Iterable[datetime]) -> SeriesStatus:
    last, settings = runs[-1], runs[-1].settings
    newest = max(manifests, key=lambda manifest: int(manifest.chain["number"]), default=None)
    known_since = newest.chain["known_since"] if newest else None
    return SeriesStatus(
        settings=dict(settings),
        cursor=settings.get("cursor", "created_at"),
        exports=len(manifests),
        rows=sum(manifest.rows for manifest in manifests if not manifest.pruned_at),
        watermark=datetime.fromisoformat(known_since) if known_since else None,
        read_until=max(run.until for run in runs),
        last_run=last.at,
        late_records=_count_late(runs),
        pending_records=int(last.statistics.get("pending_records", 0)),
        has_ended=any(begin > last.at for begin in begins),
    )


def _count_late(runs: Sequence[SeriesRun]) -> int:
    """Return the late-arriving rows that were reported since the last backfill."""
    since = next((len(runs) - number for number, run in enumerate(reversed(runs)) if run.is_backfill), 0)
    return sum(int(run.statistics.get("late_records", 0)) for run in runs[since:] if run.has_files or run.counted)


def find_stale(series: Sequence[SeriesStatus], oldest: datetime) -> list[SeriesStatus]:
    """Return the series that are continued and whose last run ended before a time."""
    return [status for status in series if not status.has_ended and status.last_run < oldest]
