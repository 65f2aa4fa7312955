"""A process that was forked after Polars ran says so, wherever its work begins, instead of waiting for ever."""

from datetime import UTC, datetime, timedelta

import pytest
from databases import Database
from processes import python
from pseudonym_keys import KEY

YESTERDAY = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1)
SCRIPT = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of a fork beside threads
import polars as pl
import feedback_etl as fe
from feedback_etl.transform import fork_guard
from feedback_etl.errors import UsageError

url, key = sys.argv[1:]
processor = fe.FeedbackProcessor(url, "classic", key=key)
pair = fe.FeedbackTrainingPair("a" * 16, "rec", 5, 5, 5, True, None, None, None, None, *["2025-10-25T10:00:00"] * 2)
pl.DataFrame({"a": [1], "b": [2]}).write_parquet("training.parquet")
calls = {
    "export": lambda: fe.export_feedback(url, days_back=-1, key=key, output_dir="exports").exported_records,
    "incremental": lambda: fe.export_feedback(url, key=key, output_dir="series", incremental=True).exported_records,
    "load_training": lambda: fe.load_training(url, days_back=-1, key=key).height,
    "load_feedback": lambda: fe.load_feedback(url, days_back=-1).height,
    "plan": lambda: fe.plan(url, days_back=-1).rows,
    "erase": lambda: fe.privacy.erase("exports", analysis_ids=[1], keys=key).rows,
    "adopt": lambda: fe.exports.adopt("training.parquet", key=None),
    "report": lambda: fe.write_report("report.html", "exports"),
    "process_and_export": lambda: processor.process_and_export(days_back=-1).exported_records,
    "_bucket_age": lambda: processor._bucket_age(30),
    "_hash_id": lambda: processor._hash_id(1),
    "_get_pair_hash": lambda: processor._get_pair_hash(pair),
    "_export_to_csv": lambda: processor._export_to_csv([pair]),
}

def attempt(name):
    try:
        print(name, "->", calls[name](), flush=True)
    except UsageError as error:
        print(name, "->", "refused" if "Do not run Polars before the fork" in str(error) else error, flush=True)

def attempt_in_fork(*names):
    child = os.fork()
    if not child:
        for name in names:
            attempt(name)
        os._exit(0)
    os.waitpid(child, 0)
"""

IMPORT_ALL_STEPS = (
    "import feedback_etl.pipeline.export, feedback_etl.privacy.erasure, feedback_etl.pipeline.batch_processor"
)
WAIT_BRIEFLY = "os.register_at_fork(after_in_child=lambda: setattr(fork_guard, '_ANSWER_SECONDS', 0.3))"


@pytest.fixture
def application(sqlite_database: Database) -> str:
    sqlite_database.fill(
        records=[{"id": 1, "recommendation_id": "rec_1"}],
        feedbacks=[
            {
                "id": 1,
                "user_id": 1,
                "analysis_id": 1,
                "recommendation_id": 1,
                "helpful_rating": 4,
                "created_at": YESTERDAY,
            }
        ],
    )
    return sqlite_database.url


@pytest.mark.sample("_bucket_age")
@pytest.mark.parametrize("before", ["export", "_bucket_age"])
def test_fork_after_polars_ran_is_refused_wherever_work_begins(application: str, before: str) -> None:
    names = "list(calls)" if before == "export" else '["process_and_export"]'
    done = python(f"{SCRIPT}\n{WAIT_BRIEFLY}\nattempt({before!r})\nattempt_in_fork(*{names})", application, KEY)
    assert done.stderr == ""
    first, *refused = [line.split(" -> ") for line in done.stdout.splitlines()]
    assert first[1] in {"1", "25-35"}
    assert {outcome for _, outcome in refused} == {"refused"}
    assert len(refused) == (13 if before == "export" else 1)


@pytest.mark.slow
def test_fork_before_polars_ran_exports(application: str) -> None:
    """Importing Polars is fine; each child has threads of its own."""
    script = SCRIPT.replace('pl.DataFrame({"a": [1], "b": [2]}).write_parquet("training.parquet")', IMPORT_ALL_STEPS)
    done = python(f'{script}\nattempt_in_fork("export")\nattempt_in_fork("load_training")', application, KEY)
    assert done.stdout.splitlines() == ["export -> 1", "load_training -> 1"]
