"""Celery tasks: a daily incremental export, and a bulk export."""

from pathlib import Path
from typing import Any, NamedTuple, TypedDict
from uuid import uuid4

from celery import Celery, Task
from celery.schedules import crontab

from feedback_etl.errors import UsageError
from feedback_etl.integrations.options import require_options
from feedback_etl.integrations.run import TRANSIENT, run_export
from feedback_etl.settings.model import Settings

DAILY = "feedback_etl.export_daily"
BULK = "feedback_etl.export_bulk"

_OPTIONS: dict[str, Any] = {
    "serializer": "json",
    # Acknowledged when done, so that a task whose worker was killed is delivered again.
    "acks_late": True,
    "reject_on_worker_lost": True,
    # After 30 s, 1 min, 2 min ... 15 min: about an hour in all.
    "autoretry_for": TRANSIENT,
    "retry_backoff": 30,
    "retry_backoff_max": 900,
    "max_retries": 8,
}


class ExportResult(TypedDict):
    """Result of a task.

    Attributes:
        exported: Rows written.
        deduped: Rows removed as duplicates of earlier rows.
        filename: Name of the file in the folder of exports; None if there were no rows to write.
    """

    exported: int
    deduped: int
    filename: str | None


class ExportTasks(NamedTuple):
    """Tasks of an application."""

    daily: Task
    bulk: Task


def register(
    app: Celery, settings: Settings | None = None, *, hour: int | None = 2, minute: int = 0, **options: Any
) -> ExportTasks:
    """Register the tasks `feedback_etl.export_daily` and `feedback_etl.export_bulk`.

    Both are idempotent, also if the queue delivers a task twice or a worker is killed: the daily task resumes from the
    watermark, and the bulk task uses its id as the idempotency key. If the database or the folder is unavailable, they
    are retried for about an hour; other errors are final. Messages and results are JSON. The settings, the database URL
    and the key are those of the worker, and in no message.

    Args:
        app: Celery application.
        settings: The settings; by default those of the worker (environment, settings file).
        hour: Hour at which beat starts the daily task, in the application's time zone (UTC unless configured); None
            for never.
        minute: 0 to 59.
        options: Options of `export_feedback`, for both tasks.

    Returns:
        The tasks `daily`, without arguments, and `bulk(days_back=-1)`; both return `ExportResult`.

    Raises:
        UsageError: An option does not exist, its value is invalid, or the tasks determine it.

    >>> tasks = register(Celery("application", set_as_current=False), format="parquet")
    >>> tasks.bulk.name, tasks.bulk.acks_late, tasks.bulk.serializer
    ('feedback_etl.export_bulk', True, 'json')
    """
    if {"incremental", "idempotency_key"} & {*options}:
        raise UsageError("The tasks set incremental and idempotency_key themselves: leave these options out.")
    require_options(options, incremental=True)

    @app.task(name=DAILY, **_OPTIONS)  # type: ignore[untyped-decorator]
    def daily() -> ExportResult:
        """Export the rows since the last incremental export."""
        return _export(settings, options | {"incremental": True})

    @app.task(name=BULK, bind=True, **_OPTIONS)  # type: ignore[untyped-decorator]
    def bulk(self: Task, days_back: int = -1) -> ExportResult:
        """Export all rows, or those of the last days."""
        request = {"days_back": days_back, "idempotency_key": self.request.id or uuid4().hex}
        return _export(settings, {"bulk": True} | options | request)

    if hour is not None:
        app.add_periodic_task(crontab(hour=hour, minute=minute), daily.s(), name=DAILY)
    return ExportTasks(daily, bulk)


def _export(settings: Settings | None, options: dict[str, Any]) -> ExportResult:
    """Export and return the result of a task."""
    report = run_export(settings, **options)
    return {
        "exported": report.exported_records,
        "deduped": report.deduplicated_records,
        "filename": Path(report.export_filename).name or None,
    }
