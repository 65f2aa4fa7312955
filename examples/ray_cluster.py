"""An export on a Ray cluster, which has no executor of its own: these three lines are one. Needs `pip install ray`.

Each worker finds the database and the key in its own environment, as everywhere.
"""

from concurrent.futures import Executor, Future
from typing import Any

import ray

import feedback_etl as fe
from feedback_etl.settings import load_settings


class RayExecutor(Executor):
    """Gives its tasks to Ray."""

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """Have a task done somewhere."""
        future: Future[Any] = ray.remote(work).remote(*arguments, **named).future()
        return future


if __name__ == "__main__":
    ray.init()  # or ray.init("ray://head:10001")
    report = fe.export_feedback(load_settings().require_database_url(), days_back=365, executor=RayExecutor())
    print(report.exported_records, report.export_filename)
