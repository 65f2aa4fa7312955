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
    from feedback_etl.settings import Settings

logger = logging.getLogger(__name__)


class ExportOnFeedback:
    """Hook for feedback events: `await hook(feedback_id)` returns at once, and new rows are exported soon.

    Many events make few exports: the first one starts an export in a thread, all that come within `min_interval` share
    the next. Each is incremental, so that it takes every row that was committed before it began;
    call the hook after the commit. An event during an export leads to another one, and an export that failed is tried
    again after `min_interval`, for as long as it fails: no event is forgotten while the process lives. Since a process
    may die, let a nightly incremental export into the same folder follow. Once it is made, the hook never raises.

    Use it from one event loop; as a context it finishes what is pending at the end (so does `aclose`).

    Args:
        settings: The effective ones (environment, settings file) unless given.
        min_interval: From the start of one export to the start of the next.
        on_export: Called with the report of each export, in the event loop.
        on_error: Called with the error of each that failed, which is in the log too.
        options: Of `export_feedback`.

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
        self._is_wanted = False
        self._closing = asyncio.Event()
        self._exporting: asyncio.Task[None] | None = None
        self._next_start = 0.0

    async def __call__(self, feedback_id: object = None) -> None:  # noqa: ARG002  what events bring
        """Want an export; the id is not used, since every export finds the new rows itself."""
        if self._closing.is_set():
            self._failed(UsageError("The hook is closed: the next export takes the feedback along."))
            return
        self._is_wanted = True
        if self._exporting is None or self._exporting.done():
            self._exporting = asyncio.create_task(self._export_while_wanted(), name="feedback_etl export")

    async def aclose(self) -> None:
        """Export what is pending now, without waiting for the interval, and take no more events."""
        self._closing.set()
        if self._exporting is not None:
            await self._exporting

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _export_while_wanted(self) -> None:
        while self._is_wanted:
            await self._wait_for_the_interval()
            self._is_wanted = False  # before it begins: an event from now on may be too late for it
            self._next_start = asyncio.get_running_loop().time() + self._min_seconds
            try:
                report = await asyncio.to_thread(run_export, self._settings, **self._options)
            except Exception as error:
                self._is_wanted = not self._closing.is_set()
                self._failed(error)
            else:
                self._tell(self._on_export, report)

    async def _wait_for_the_interval(self) -> None:
        seconds = self._next_start - asyncio.get_running_loop().time()
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), seconds)

    def _failed(self, error: Exception) -> None:
        logger.error("an export after feedback failed: %s", error)
        self._tell(self._on_error, error)

    def _tell(self, callback: Callable[[Any], object] | None, news: object) -> None:
        if callback is not None:
            try:
                callback(news)
            except Exception as error:
                logger.error("a callback of ExportOnFeedback raised %s", type(error).__name__)
