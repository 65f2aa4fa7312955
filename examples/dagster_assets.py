"""Export new rows every night as a Dagster asset: dagster dev --python-file dagster_assets.py."""

from dagster import Definitions, Failure, MaterializeResult, RetryRequested, ScheduleDefinition, asset, define_asset_job

from feedback_etl.errors import FeedbackError
from feedback_etl.integrations.run import TRANSIENT, run_export


@asset(group_name="feedback")
def training_pairs() -> MaterializeResult[None]:
    """Pseudonymised training pairs: the rows that are new since the last run."""
    try:
        report = run_export(incremental=True)
    except TRANSIENT as error:  # the database cannot be reached, or the folder is locked
        raise RetryRequested(max_retries=3, seconds_to_wait=600) from error
    except FeedbackError as error:
        raise Failure(str(error), allow_retries=False) from error
    return MaterializeResult(
        metadata={
            "dagster/row_count": report.exported_records,
            "file": report.export_filename,
            "rejected": report.errors,
            "duplicates": report.deduplicated_records,
            "late": report.late_records,
            "people in the smallest class": report.risk.get("k") or 0,
        }
    )


nightly = define_asset_job("nightly_feedback_export", [training_pairs])
defs = Definitions(
    assets=[training_pairs],
    jobs=[nightly],
    schedules=[ScheduleDefinition(job=nightly, cron_schedule="0 2 * * *", execution_timezone="UTC")],
)
