"""The examples for Dagster and Airflow run in the real programs, and map errors to retries and failures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from applications import FOLDER, configure, exported_rows, give_feedback
from databases import Database
from processes import PATIENCE_SECONDS, no_server

ROOT = Path(__file__).parent.parent
AIRFLOW = ROOT / ".venv-airflow" / "bin" / "airflow"

MATERIALIZE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from dagster import DagsterEventType, DagsterInstance
from dagster_assets import defs
job = defs.resolve_job_def("nightly_feedback_export")
result = job.execute_in_process(raise_on_error=False, instance=DagsterInstance.ephemeral())
metadata = [
    {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}
    for event in result.get_asset_materialization_events()
]
retries = [event for event in result.all_events if event.event_type == DagsterEventType.STEP_UP_FOR_RETRY]
failures = [event.step_failure_data.error.to_string() for event in result.get_step_failure_events()]
print(json.dumps({"success": result.success, "metadata": metadata, "retries": len(retries), "failures": failures}))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Two valid rows, and the settings of an application."""
    configure(sqlite_database, monkeypatch)
    give_feedback(sqlite_database, 1, 2)
    return sqlite_database


def run(*command: str | Path, **variables: str) -> str:
    """Run a command and return its output."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    return result.stdout


def materialize() -> dict[str, Any]:
    """Run the nightly job of the Dagster example with a short wait before retries."""
    example = (ROOT / "examples" / "dagster_assets.py").read_text(encoding="utf-8")
    Path("dagster_assets.py").write_text(example.replace("seconds_to_wait=600", "seconds_to_wait=0"), encoding="utf-8")
    outcome = run(sys.executable, "-c", MATERIALIZE, Path.cwd(), DAGSTER_HOME="", PYTHONWARNINGS="ignore")
    result: dict[str, Any] = json.loads(outcome.splitlines()[-1])
    return result


def test_dagster_materializes_the_asset_with_its_figures() -> None:
    """The second run finds nothing new."""
    first, second = materialize(), materialize()
    assert first["success"]
    assert second["success"]
    (figures,), (later,) = first["metadata"], second["metadata"]
    assert figures["dagster/row_count"] == exported_rows() == 2
    assert Path(figures["file"]).parent == FOLDER
    assert later["dagster/row_count"] == 0


def test_dagster_retries_database_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "sqlite:///missing.db")
    outcome = materialize()
    assert not outcome["success"]
    assert outcome["retries"] == 3


def test_dagster_does_not_retry_errors_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """And shows the message, which has no key and no password."""
    monkeypatch.setenv("FEEDBACK_ETL_K", "none")
    outcome = materialize()
    assert not outcome["success"]
    assert outcome["retries"] == 0
    assert "The settings are invalid" in str(outcome["failures"])


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare a metadata database of Airflow with the example among its DAGs."""
    if not AIRFLOW.is_file():
        no_server("Airflow is not installed: make .venv-airflow/installed")
    Path("dags").mkdir()
    example = (ROOT / "examples" / "airflow_dag.py").read_text(encoding="utf-8")
    waits = "retries=3, retry_delay=timedelta(minutes=10)"
    assert waits in example
    soon = example.replace(waits, "retries=1, retry_delay=timedelta(0)")
    Path("dags", "airflow_dag.py").write_text(soon, encoding="utf-8")
    for name, value in {
        "AIRFLOW_HOME": str(Path("airflow").absolute()),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path("dags").absolute()),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONWARNINGS": "ignore",
    }.items():
        monkeypatch.setenv(name, value)
    run(AIRFLOW, "db", "migrate")


def run_dag() -> list[str]:
    """Run the DAG once, with its retries, and return the states of its task in their order."""
    command = [str(AIRFLOW), "dags", "test", "feedback_export"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    return re.findall(r"new_state=(\w+)", result.stdout + result.stderr)


@pytest.mark.usefixtures("airflow")
def test_airflow_runs_the_dag() -> None:
    assert run_dag() == ["success"]
    assert exported_rows() == 2


@pytest.mark.usefixtures("airflow")
@pytest.mark.parametrize(
    ("variable", "value", "states"),
    [
        ("FEEDBACK_ETL_DATABASE_URL", "sqlite:///missing.db", ["up_for_retry", "failed"]),
        ("FEEDBACK_ETL_K", "none", ["failed"]),
    ],
)
def test_airflow_retries_database_errors_alone(
    variable: str, value: str, states: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the settings would recur."""
    monkeypatch.setenv(variable, value)
    assert run_dag() == states
