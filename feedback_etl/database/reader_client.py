"""The parent's end of a reader process: give it a job, take its batches, and end it in every case."""

import contextlib
import json
import queue
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from feedback_etl.database.driver_errors import query_error
from feedback_etl.database.reader_pool import is_full, pipes, take, wait
from feedback_etl.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

BATCHES_AHEAD = 2
_LAST_WORDS_SECONDS = 5.0
_END_OF_STREAM = object()
_OVER = object()


class ReaderJob(NamedTuple):
    """What a reader process does: run queries one after the other, each on a connection of its own.

    Attributes:
        url: The database as ConnectorX takes it. It holds the password and goes through a pipe, never into arguments.
        prepare: Statements that begin each connection.
        queries: The queries; the rows of each come as one stream.
        batch_size: How many rows a batch has, but for the last.
    """

    url: str
    prepare: list[str]
    queries: list[str]
    batch_size: int


class ReaderLostError(SourceError):
    """A reader process died or fell silent, which says nothing of what it read."""


class Reader:
    """A reader process at work on a job, with a thread that reads ahead; a context that leaves no process behind.

    with Reader(job, read_timeout=600) as reader:
        for query in job.queries:
            for batch in reader.next_stream(): ...

    A process that has done its job waits for the next one if the job was small (`waiting`), or if it `is_kept`; with
    the program, it ends. After a large job it would keep the memory that ConnectorX took.
    """

    def __init__(
        self, job: ReaderJob, *, read_timeout: float, batches_ahead: int = BATCHES_AHEAD, is_kept: bool = False
    ) -> None:
        self._stall_timeout = read_timeout
        self._is_kept = is_kept
        self._small_rows = job.batch_size
        self._streams_left = len(job.queries)
        self._rows = 0
        self._ready: queue.Queue[Any] = queue.Queue(batches_ahead)
        self._closed = False
        self._is_done = False
        self._process = take()
        self._stdin, self._stdout, self._stderr = pipes(self._process)
        self._thread = threading.Thread(target=self._read_ahead, name="feedback_etl reader", daemon=True)
        try:
            with contextlib.suppress(BrokenPipeError):  # it died; the thread finds out
                self._stdin.write(json.dumps(job._asdict()).encode() + b"\n")
                self._stdin.flush()
            self._thread.start()
        except BaseException:  # an interrupt may come at any point
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        is_small = self._rows <= self._small_rows and not is_full()
        if self._is_done and (self._is_kept or is_small):
            self._thread.join()
            wait(self._process)
        else:
            self._end()

    def _end(self) -> None:
        self._closed = True
        self._process.kill()
        while self._thread.is_alive():  # it may wait for room
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.01)
        self._process.wait()
        for pipe in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                pipe.close()

    def next_stream(self) -> Iterator["pa.RecordBatch"]:
        """The record batches of the next query; at least one, which may be empty.

        Raises:
            SourceError: The reader died, reported an error, fell silent, or told of other rows than came.
        """
        while (batch := self._next()) is not _END_OF_STREAM:
            self._rows += batch.num_rows
            yield batch
        self._streams_left -= 1
        # A stream that was cut off between two batches looks complete.
        if not self._streams_left:
            self._is_done = self._told == {"rows": self._rows}
            if not self._is_done:
                raise self._failed()

    def _next(self) -> Any:
        try:
            item = self._ready.get(timeout=self._stall_timeout)
        except queue.Empty:
            raise ReaderLostError(
                f"The database gave no row for {self._stall_timeout:g} s (read_timeout in the settings). "
                "Nothing was exported."
            ) from None
        if item is _OVER:
            raise self._failed()
        return item

    def _read_ahead(self) -> None:
        import pyarrow as pa

        with contextlib.suppress(pa.ArrowException, OSError, ValueError):  # cut off: the report says why
            for _ in range(self._streams_left):
                with pa.ipc.open_stream(self._stdout) as stream:
                    empty = pa.RecordBatch.from_pylist([], schema=stream.schema)
                    for batch in stream:
                        empty = None
                        self._hand_over(batch)
                        if self._closed:
                            return
                if empty is not None:
                    self._ready.put(empty)
                self._ready.put(_END_OF_STREAM)
        self._ready.put(_OVER)

    def _hand_over(self, batch: "pa.RecordBatch") -> None:
        """Wait for room, and let the process wait too: ConnectorX would go on and keep all rows in its memory.

        A process that is query_error takes nothing from the database, which then waits as for any slow reader.
        """
        try:
            self._ready.put_nowait(batch)
        except queue.Full:
            self._process.send_signal(signal.SIGSTOP)
            self._ready.put(batch)
            self._process.send_signal(signal.SIGCONT)

    @cached_property
    def _told(self) -> dict[str, Any]:
        """What the process said of its work when that was done; nothing if it was killed or hangs."""
        ready, _, _ = select.select([self._stderr], [], [], _LAST_WORDS_SECONDS)
        try:
            report: dict[str, Any] = json.loads(self._stderr.readline()) if ready else {}
        except ValueError:
            return {}
        return report

    def _failed(self) -> SourceError:
        if error := self._told.get("error"):
            return query_error(error)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_LAST_WORDS_SECONDS)
        return ReaderLostError(str(query_error(f"the reader process ended early (exit {self._process.poll()})")))
