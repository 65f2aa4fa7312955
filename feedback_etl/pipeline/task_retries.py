"""Run the tasks of an export with an executor, and submit a task again whose worker died.

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
from feedback_etl.exports.series_conflicts import SupersededError
from feedback_etl.pipeline.dask_executor import has_lost_scheduler
from feedback_etl.pipeline.tasks import Task, TaskResult

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A task that fails this often fails the export: repeated failures point to the task rather than to a machine."""

MAX_TASKS_IN_FLIGHT = 64
"""Tasks in flight at once; each running task has a connection, and PostgreSQL accepts 100 by default."""

CANCEL_SECONDS = 10.0
"""Seconds to wait for running tasks after the export has failed, so that they leave no files behind."""

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
        executor: An object with the interface of `concurrent.futures.Executor`.
        work: Function that runs a task: `worker.run_task`, or a function of this process.
        tasks: Tasks, which are consumed one by one.
        at_once: Maximum number of tasks in flight.

    Raises:
        FeedbackError: A task failed `MAX_ATTEMPTS` times, or in a way that a retry cannot fix.
        UsageError: A task cannot be pickled.
        ExportFileError: The executor accepts no tasks, or no more tasks.
    """
    remaining = iter(tasks)
    sent: dict[Future[TaskResult], T] = {}
    try:
        for task in islice(remaining, at_once):
            sent[_submit(executor, work, task)] = task
        while sent:
            # The timeout lets signals be handled and a lost scheduler be detected.
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
        error_type = type(error).__name__
    except Exception as error:
        if has_lost_scheduler(executor):
            raise ExportFileError(_LOST) from None
        raise _build_pickling_error(error) from None
    raise ExportFileError(
        f"The executor accepts no more tasks ({error_type}), as after a worker of a ProcessPoolExecutor was killed: "
        "nothing was published. Run again with a new executor."
    )


def _build_pickling_error(error: BaseException) -> UsageError:
    return UsageError(
        f"A task cannot be pickled ({type(error).__name__}): a row model has to be importable by the workers."
    )


def _is_not_picklable(task: Task, error: BaseException) -> bool:
    """Return whether a task failed because it cannot be pickled, which some executors detect only after submission.

    Some executors serialise more objects than pickle can, so pickling is tried only after such a failure.
    """
    if not isinstance(error, pickle.PicklingError | AttributeError | TypeError):
        return False
    try:
        pickle.dumps(task)
    except Exception as pickle_error:
        return type(pickle_error) is type(error)
    return False


def _get_result(future: "Future[TaskResult]", task: Task) -> TaskResult | None:
    """Return the result of a task; None if it has to be submitted again."""
    try:
        return future.result()
    except FeedbackError as error:
        is_repeatable = isinstance(error, SourceError | ExportFileError) and not isinstance(error, SupersededError)
        if task.attempt == MAX_ATTEMPTS or not is_repeatable:
            raise
        error_type = type(error).__name__
    except (Exception, CancelledError) as error:
        if _is_not_picklable(task, error):
            raise _build_pickling_error(error) from None
        error_type = type(error).__name__
        if task.attempt == MAX_ATTEMPTS:
            raise ExportFileError(
                f"Part {task.number} was lost {MAX_ATTEMPTS} times ({error_type}), as when its worker is killed. "
                "Nothing was published. See the logs of the workers."
            ) from None
    logger.warning("retrying part %d: %s", task.number, error_type)
    return None
