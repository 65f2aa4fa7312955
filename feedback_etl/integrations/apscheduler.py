"""Schedule a nightly export with APScheduler 3."""

from typing import Any

from apscheduler.job import Job
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.cron import CronTrigger

from feedback_etl.integrations.options import require_options
from feedback_etl.integrations.run import run_export

JOB_ID = "feedback_etl.daily_export"


def add_daily_export(  # noqa: PLR0913  public, flat
    scheduler: BaseScheduler,
    hour: int = 2,
    timezone: str = "UTC",
    *,
    minute: int = 0,
    incremental: bool = True,
    misfire_grace_time: int | None = None,
    job_id: str = JOB_ID,
    **options: Any,
) -> Job:
    """Add a daily export to a scheduler.

    An incremental export resumes from the last watermark, so the next export covers a missed day. Runs do not overlap;
    several missed runs are coalesced into one. The job has a fixed id, so it is replaced, not duplicated, when a
    program with a persistent job store restarts. The job reads the settings (environment, settings file) and
    the key when it runs: neither is in the job store. If it fails, the scheduler logs the error and notifies its
    listeners (EVENT_JOB_ERROR). The scheduler decides about hours that are skipped or repeated by daylight saving time.

    Args:
        scheduler: Any scheduler of APScheduler 3.
        hour: 0 to 23, in the time zone.
        timezone: A name such as "Europe/Berlin".
        minute: 0 to 59.
        incremental: Export the rows since the last incremental export; False exports a window of `days_back`.
        misfire_grace_time: Seconds by which a run may be late before it is skipped; None for no limit.
        job_id: Id of the job; use another one for another folder.
        options: Options of `export_feedback`; plain values, since a persistent job store pickles them.

    Raises:
        UsageError: An option does not exist, or its value is invalid.

    >>> from apscheduler.schedulers.background import BackgroundScheduler
    >>> job = add_daily_export(BackgroundScheduler(), hour=3, timezone="Europe/Berlin")
    >>> job.id, job.max_instances, job.coalesce
    ('feedback_etl.daily_export', 1, True)
    """
    require_options(options, incremental=incremental)
    return scheduler.add_job(
        run_export,
        CronTrigger(hour=hour, minute=minute, timezone=timezone),
        kwargs={"incremental": incremental, **options},
        id=job_id,
        name="feedback_etl: daily export",
        coalesce=True,
        max_instances=1,
        misfire_grace_time=misfire_grace_time,
        replace_existing=True,
    )
