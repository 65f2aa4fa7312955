"""A nightly export by APScheduler 3."""

from typing import Any

from apscheduler.job import Job
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.cron import CronTrigger

from feedback_etl.integrations.options import require_options
from feedback_etl.integrations.run import run_export

JOB_ID = "feedback_etl.daily_export"


def add_daily_export(
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
    """Let a scheduler export what is new, every day.

    An incremental export goes on where the last one ended, so that a day that was missed is in the next export. One run
    at a time; of several that were missed, one is made up for. With a fixed id the job is replaced, not doubled, when a
    program with a persistent job store starts again. The job reads the settings (environment, settings file) and the
    key when it runs: neither comes into a job store. If it fails, the scheduler logs it and tells its listeners
    (EVENT_JOB_ERROR). In zones with summer time, hours that are skipped or doubled are for the scheduler to sort out.

    Args:
        scheduler: Any scheduler of APScheduler 3.
        hour: 0 to 23, in the time zone.
        timezone: A name such as "Europe/Berlin".
        minute: 0 to 59.
        incremental: What is new since the last incremental export; False for a window of `days_back`.
        misfire_grace_time: Seconds by which a run may be late before it is left out; None for any time.
        job_id: Another id for another folder.
        options: Of `export_feedback`; plain values, since a persistent job store pickles them.

    Raises:
        UsageError: There is no such option, or its value is wrong.

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
