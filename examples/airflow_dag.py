"""Export new rows every night with Airflow 3: copy this file to the folder of DAGs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

from feedback_etl.errors import FeedbackError
from feedback_etl.integrations.run import TRANSIENT, run_export


@dag(schedule="0 2 * * *", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_runs=1)
def feedback_export() -> None:
    """Export pseudonymised training pairs."""

    @task(retries=3, retry_delay=timedelta(minutes=10))
    def export_new_rows() -> dict[str, Any]:
        """Export the rows that are new since the last run; the figures are the task's XCom."""
        try:
            report = run_export(incremental=True)
        except TRANSIENT:  # the database cannot be reached, or the folder is locked: Airflow tries again
            raise
        except FeedbackError as error:
            raise AirflowFailException(str(error)) from error
        return {"file": report.export_filename, "exported": report.exported_records, "rejected": report.errors}

    export_new_rows()


feedback_export()
