"""The head of an export that others make: it divides, sends tasks, sends those that failed again, and publishes.

Tasks are sent a few at a time, so that a head with ten thousand of them has as little to remember as one with ten.
"""

import logging
import pickle
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from feedback_etl.errors import ExportFileError, FeedbackError, SourceError, UsageError
from feedback_etl.pipeline.executors import is_lost
from feedback_etl.pipeline.tasks import Made, Task

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""A task that fails so often fails the export: once may be the machine, thrice is the task."""

TASKS_AT_ONCE = 64
"""How many are sent ahead; each that runs has a connection, of which PostgreSQL accepts 100 unless told otherwise."""

LAST_SECONDS = 10.0
"""How long those that run are waited for when the export has failed, so that they leave nothing behind."""

SECONDS_BETWEEN_LOOKS = 1.0
_LOST = "The executor has lost its scheduler: nothing was published. Run again."

T = TypeVar("T", bound=Task)


def carried_out(
    executor: Executor, work: Callable[[T], Made], tasks: Iterable[T], *, at_once: int = TASKS_AT_ONCE
) -> Generator[Made, None, None]:
    """What the tasks have made, in any order, each once.

    A task whose worker dies, or loses its database or its files, is sent again, elsewhere if the executor sees to that.
    When this is closed, no further task is begun.

    Args:
        executor: Anything with the interface of `concurrent.futures.Executor`.
        work: What it does with a task; `worker.work` unless it is done in this process.
        tasks: Taken one by one.
        at_once: How many are sent ahead.

    Raises:
        FeedbackError: A task has failed so often, or in a way that another attempt cannot mend.
        UsageError: A task cannot be sent.
        ExportFileError: The executor cannot take tasks (any more).
    """
    coming = iter(tasks)
    sent: dict[Future[Made], T] = {}
    try:
        for task in islice(coming, at_once):
            sent[_sent(executor, work, task)] = task
        while sent:
            # Not for ever: signals are to be heard, and an engine may be gone without a word.
            done, _ = wait(sent, SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
            if not done and is_lost(executor):
                raise ExportFileError(_LOST)
            for future in done:
                task = sent.pop(future)
                made = _result(future, task)
                following = [replace(task, attempt=task.attempt + 1)] if made is None else islice(coming, 1)
                for each in following:
                    sent[_sent(executor, work, each)] = each
                if made is not None:
                    yield made
    finally:
        for future in sent:
            future.cancel()
        if not is_lost(executor):
            wait(sent, timeout=LAST_SECONDS)


def _sent(executor: Executor, work: Callable[[T], Made], task: T) -> "Future[Made]":
    try:
        return executor.submit(work, task)
    except RuntimeError as error:  # BrokenExecutor is one
        kind = type(error).__name__
    except Exception as error:
        if is_lost(executor):
            raise ExportFileError(_LOST) from None
        raise _unfit(error) from None
    raise ExportFileError(
        f"The executor takes no more tasks ({kind}), as when a worker of a ProcessPoolExecutor was killed: nothing was "
        "published. Run again with a new one."
    )


def _unfit(error: BaseException) -> UsageError:
    return UsageError(
        f"A task cannot be sent ({type(error).__name__}): a model of one's own has to be known to the workers."
    )


def _is_unfit(task: Task, error: BaseException) -> bool:
    """Whether a task failed because it cannot be pickled, which some executors find out after they have taken it.

    Others send what pickle itself cannot: it is asked only when a task has failed in this way.
    """
    if not isinstance(error, pickle.PicklingError | AttributeError | TypeError):
        return False
    try:
        pickle.dumps(task)
    except Exception as again:
        return type(again) is type(error)
    return False


def _result(future: "Future[Made]", task: Task) -> Made | None:
    """What a task has made; None if it is to be sent again."""
    try:
        return future.result()
    except FeedbackError as error:
        if task.attempt == ATTEMPTS or not isinstance(error, SourceError | ExportFileError):
            raise
        kind = type(error).__name__
    except (Exception, CancelledError) as error:
        if _is_unfit(task, error):
            raise _unfit(error) from None
        kind = type(error).__name__
        if task.attempt == ATTEMPTS:
            raise ExportFileError(
                f"Part {task.number} was lost {ATTEMPTS} times ({kind}), as when its worker is killed: nothing was "
                "published. The workers' logs tell why."
            ) from None
    logger.warning("part %d is sent again: %s", task.number, kind)
    return None
