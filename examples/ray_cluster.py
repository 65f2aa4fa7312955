"""Export on a Ray cluster, through a minimal executor. Needs `pip install ray`.

Each worker reads the database URL and the key from its own environment.
"""

from concurrent.futures import Executor, Future
from typing import Any

import ray

import feedback_etl as fe
from feedback_etl.settings.model import load_settings


class RayExecutor(Executor):
    """Submit tasks to Ray."""

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """Run a task on a worker of the cluster."""
        future: Future[Any] = ray.remote(work).remote(*arguments, **named).future()
        return future


if __name__ == "__main__":
    ray.init()  # or ray.init("ray://head:10001")
    report = fe.export_feedback(load_settings().require_database_url(), days_back=365, executor=RayExecutor())
    print(report.exported_records, report.export_filename)
