"""Invalid options of scheduled exports are refused when they are given, not at the first export."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from celery import Celery
from databases import Database
from folders import people
from pseudonym_keys import KEY

from feedback_etl import export_feedback
from feedback_etl.errors import UsageError
from feedback_etl.integrations.apscheduler import add_daily_export
from feedback_etl.integrations.celery import register
from feedback_etl.integrations.events import ExportOnFeedback
from feedback_etl.integrations.options import OF_EACH_RUN, require_options
from feedback_etl.options.export import list_option_names

KEEPERS: dict[str, Callable[..., object]] = {
    "apscheduler": lambda **options: add_daily_export(BackgroundScheduler(), **options),
    "celery": lambda **options: register(Celery("application", set_as_current=False), **options),
    "events": ExportOnFeedback,
}
WRONG: list[dict[str, Any]] = [
    {"days_back": 0},
    {"days_back": "7"},
    {"days_back": 5_000_000},
    {"since": "yesterday"},
    {"since": "2025-10-25", "until": "2025-10-24"},
    {"until": "2025-10-24"},
    {"min_feedback_fields": 5},
    {"hash_recommendation_ids": True},
    {"max_rejected": 5},
    {"timestamp_precision": "year"},
    {"k": 0},
    {"on_small_class": "warn"},
    {"max_suppressed": 2},
    {"incremental": True, "since": "2025-10-25"},
    {"incremental": True, "lookback": "an hour"},
    {"format": "json"},
    {"compression": "bzip2"},
    {"format": "parquet", "compression": "gzip"},
    {"age_edges": [50, 18]},
    {"workers": 0},
    {"batch_size": 0},
    {"read_timeout": 0},
]
GOOD: dict[str, Any] = {
    **{"since": "2025-10-25", "min_feedback_fields": 2, "output_dir": "exports", "hash_recommendation_id": True},
    **{"max_rejected": 0.1, "timestamp_precision": "day", "k": 5, "format": "parquet", "age_edges": [18, 65]},
    **{"lookback": timedelta(hours=2), "include_subject_hash": True, "bulk": True, "workers": 2},
}


@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
class TestScheduledOptions:
    """Integrations that call an export later."""

    def test_misspelled_name_is_reported(self, keep: Callable[..., object]) -> None:
        """With the most similar name."""
        with pytest.raises(UsageError, match=r"^There is no option days_bak\. Did you mean days_back\?$"):
            keep(days_bak=7)
        with pytest.raises(UsageError, match=r"no option zzz\. Options are days_back, since, "):
            keep(zzz=7)

    def test_wrong_value_is_reported(self, keep: Callable[..., object]) -> None:
        """As an export reports it."""
        with pytest.raises(UsageError, match=r"^`k` must be an integer from 1 to 1,000\.$"):
            keep(k=0)

    def test_wrong_type_is_reported_without_its_value(self, keep: Callable[..., object]) -> None:
        """Nor is it in what the error came from."""
        with pytest.raises(UsageError, match=r"^One of the options k, max_rejected has a wrong type") as caught:
            keep(k=5, max_rejected="canary")
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)

    @pytest.mark.parametrize("name", sorted({*OF_EACH_RUN} - {"idempotency_key"}))
    def test_argument_of_each_run_is_refused(self, keep: Callable[..., object], name: str) -> None:
        """A key must not be in a job store."""
        with pytest.raises(UsageError, match=f"^{name} is determined anew for every export: leave it out"):
            keep(**{name: KEY})

    def test_incremental_export_refuses_a_start(self, keep: Callable[..., object]) -> None:
        """All of them are incremental by default."""
        with pytest.raises(UsageError, match="continues where the last one ended"):
            keep(since="2025-10-25")


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_invalid_option_is_refused_in_advance(sqlite_database: Database, wrong: dict[str, Any]) -> None:
    """With the same sentence."""
    sqlite_database.fill(**people(1))
    with pytest.raises(UsageError) as raised:
        export_feedback(sqlite_database.url, key=KEY, **wrong)
    with pytest.raises(UsageError) as before:
        require_options(wrong)
    assert str(before.value) == str(raised.value)


def test_valid_options_are_accepted() -> None:
    """An end that is still to come is past when the export runs."""
    require_options(GOOD)
    require_options({"since": "2025-10-25", "until": "9000-01-01"})


def test_arguments_of_each_run_exist() -> None:
    """They are arguments of `export_feedback` or options."""
    assert {*OF_EACH_RUN} < {*inspect.signature(export_feedback).parameters, *list_option_names()}


def test_without_options_nothing_is_imported() -> None:
    """A web server that only sends tasks needs no Polars."""
    code = "import sys; from feedback_etl.integrations.options import require_options; require_options({})"
    program = f"{code}; print('polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
