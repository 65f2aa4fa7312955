"""Run the tasks of an export by an executor, and retry those that fail.

Tasks are submitted a few at a time, so that memory does not grow with their number.
"""

import logging
import pickle
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from feedback_etl.errors import ExportFileError, FeedbackError, SourceError, UsageError
from feedback_etl.pipeline.executors import has_lost_scheduler
from feedback_etl.pipeline.tasks import Task, TaskResult

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A task that fails this many times fails the export: a first failure may be the machine's, a third is the task's."""

MAX_TASKS_IN_FLIGHT = 64
"""Tasks in flight; each running task has a connection, of which PostgreSQL accepts 100 by default."""

CANCEL_SECONDS = 10.0
"""How long to wait for running tasks when the export has failed, so that they leave no files behind."""

POLL_SECONDS = 1.0
_LOST = "The executor lost its scheduler: nothing was published. Run again."

T = TypeVar("T", bound=Task)


def run_tasks(
    executor: Executor, work: Callable[[T], TaskResult], tasks: Iterable[T], *, at_once: int = MAX_TASKS_IN_FLIGHT
) -> Generator[TaskResult, None, None]:
    """Yield the result of each task once, in the order of completion.

    A task whose worker dies, or loses its database or its files, is submitted again. Closing the generator cancels the
    remaining tasks.

    Args:
        executor: Anything with the interface of `concurrent.futures.Executor`.
        work: Runs a task; `worker.run_task`, or a function of this process.
        tasks: Consumed one by one.
        at_once: Number of tasks in flight.

    Raises:
        FeedbackError: A task failed `MAX_ATTEMPTS` times, or in a way that a retry cannot fix.
        UsageError: A task cannot be pickled.
        ExportFileError: The executor does not accept tasks, or not any more.
    """
    remaining = iter(tasks)
    sent: dict[Future[TaskResult], T] = {}
    try:
        for task in islice(remaining, at_once):
            sent[_submit(executor, work, task)] = task
        while sent:
            # With a timeout: signals have to be handled, and a scheduler may disappear without notice.
            done, _ = wait(sent, POLL_SECONDS, return_when=FIRST_COMPLETED)
            if not done and has_lost_scheduler(executor):
                raise ExportFileError(_LOST)
            for future in done:
                task = sent.pop(future)
                result = _get_result(future, task)
                following = [replace(task, attempt=task.attempt + 1)] if result is None else islice(remaining, 1)
                for submitted in following:
                    sent[_submit(executor, work, submitted)] = submitted
                if result is not None:
                    yield result
    finally:
        for future in sent:
            future.cancel()
        if not has_lost_scheduler(executor):
            wait(sent, timeout=CANCEL_SECONDS)


def _submit(executor: Executor, work: Callable[[T], TaskResult], task: T) -> "Future[TaskResult]":
    try:
        return executor.submit(work, task)
    except RuntimeError as error:  # BrokenExecutor is one
        kind = type(error).__name__
    except Exception as error:
        if has_lost_scheduler(executor):
            raise ExportFileError(_LOST) from None
        raise _not_picklable(error) from None
    raise ExportFileError(
        f"The executor accepts no more tasks ({kind}), as after a worker of a ProcessPoolExecutor was killed: nothing "
        "was published. Run again with a new executor."
    )


def _not_picklable(error: BaseException) -> UsageError:
    return UsageError(
        f"A task cannot be pickled ({type(error).__name__}): a row model has to be importable by the workers."
    )


def _is_not_picklable(task: Task, error: BaseException) -> bool:
    """Return whether a task failed because it cannot be pickled, which some executors detect only after submission.

    Others can send what pickle cannot, so pickle is tried only after a failure of this kind.
    """
    if not isinstance(error, pickle.PicklingError | AttributeError | TypeError):
        return False
    try:
        pickle.dumps(task)
    except Exception as again:
        return type(again) is type(error)
    return False


def _get_result(future: "Future[TaskResult]", task: Task) -> TaskResult | None:
    """Return the result of a task; None if it has to be submitted again."""
    try:
        return future.result()
    except FeedbackError as error:
        if task.attempt == MAX_ATTEMPTS or not isinstance(error, SourceError | ExportFileError):
            raise
        kind = type(error).__name__
    except (Exception, CancelledError) as error:
        if _is_not_picklable(task, error):
            raise _not_picklable(error) from None
        kind = type(error).__name__
        if task.attempt == MAX_ATTEMPTS:
            raise ExportFileError(
                f"Part {task.number} was lost {MAX_ATTEMPTS} times ({kind}), as when its worker is killed: nothing was "
                "published. See the logs of the workers."
            ) from None
    logger.warning("retrying part %d: %s", task.number, kind)
    return None
