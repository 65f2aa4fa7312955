"""Export soon after feedback events, in an asyncio application."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from feedback_etl.errors import UsageError
from feedback_etl.integrations.options import require_options
from feedback_etl.integrations.run import run_export

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport
    from feedback_etl.settings.model import Settings

logger = logging.getLogger(__name__)


class ExportOnFeedback:
    """Hook for feedback events: `await hook(feedback_id)` returns at once, and new rows are exported soon.

    The first event starts an export in a thread; all events within `min_interval` share the next export. Each export is
    incremental and includes every row that was committed before it began, so call the hook after the commit. An event
    during an export leads to another export, and a failed export is retried after `min_interval` until it succeeds: no
    event is lost while the process lives. Since a process may die, schedule a nightly incremental export into the same
    folder as well. Calls of the hook never raise.

    Use it from one event loop. As an asynchronous context manager it exports pending events on exit, as `aclose` does.

    Args:
        settings: The settings; those of the environment and the settings file by default.
        min_interval: Minimum time from the start of an export to the start of the next.
        on_export: Called with the report of each export, in the event loop.
        on_error: Called with the error of each failed export; the error is logged as well.
        options: Options of `export_feedback`.

    Raises:
        UsageError: An option does not exist, or its value is invalid.

    >>> async def application():
    ...     async with ExportOnFeedback(on_error=lambda error: print(type(error).__name__)) as hook:
    ...         await hook(4711)
    >>> asyncio.run(application())  # nothing is configured here
    UsageError
    """

    def __init__(
        self,
        settings: "Settings | None" = None,
        *,
        min_interval: timedelta = timedelta(minutes=5),
        on_export: "Callable[[ExportReport], object] | None" = None,
        on_error: Callable[[Exception], object] | None = None,
        **options: Any,
    ) -> None:
        require_options(options, incremental=True)
        self._settings, self._options = settings, {"incremental": True, **options}
        self._min_seconds = min_interval.total_seconds()
        self._on_export, self._on_error = on_export, on_error
        self._is_pending = False
        self._closing = asyncio.Event()
        self._export_task: asyncio.Task[None] | None = None
        self._next_start = 0.0

    async def __call__(self, feedback_id: object = None) -> None:  # noqa: ARG002  events pass it
        """Request an export; the id is not used, since every export finds the new rows itself."""
        if self._closing.is_set():
            self._report_error(UsageError("The hook is closed: the next export will include the feedback."))
            return
        self._is_pending = True
        if self._export_task is None or self._export_task.done():
            self._export_task = asyncio.create_task(self._export_while_pending(), name="feedback_etl export")

    async def aclose(self) -> None:
        """Export pending events without waiting for the interval, and refuse later ones."""
        self._closing.set()
        if self._export_task is not None:
            await self._export_task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _export_while_pending(self) -> None:
        while self._is_pending:
            await self._wait_for_interval()
            self._is_pending = False  # an event during the export may be too late for it
            self._next_start = asyncio.get_running_loop().time() + self._min_seconds
            try:
                report = await asyncio.to_thread(run_export, self._settings, **self._options)
            except Exception as error:
                self._is_pending = not self._closing.is_set()
                self._report_error(error)
            else:
                self._notify(self._on_export, report)

    async def _wait_for_interval(self) -> None:
        seconds = self._next_start - asyncio.get_running_loop().time()
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), seconds)

    def _report_error(self, error: Exception) -> None:
        logger.error("an export after feedback failed: %s", error)
        self._notify(self._on_error, error)

    def _notify(self, callback: Callable[[Any], object] | None, argument: object) -> None:
        if callback is not None:
            try:
                callback(argument)
            except Exception as error:
                logger.error("a callback of ExportOnFeedback raised %s", type(error).__name__)
