"""Run a job in a reader process: send it, receive its batches with flow control, and always end the process."""

import contextlib
import json
import queue
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from feedback_etl.database.driver_errors import build_query_error
from feedback_etl.database.reader_pool import acquire, get_pipes, is_full, release
from feedback_etl.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

BATCHES_AHEAD = 1
_REPORT_TIMEOUT = 5.0


class _Signal(Enum):
    """Mark the end of a stream, or of all data, in a reader's queue."""

    END_OF_STREAM = auto()
    NO_MORE_DATA = auto()


class ReaderJob(NamedTuple):
    """Describe the work of a reader process: queries to run one after the other, each on its own connection.

    Attributes:
        url: The database for ConnectorX. It contains the password, so it is sent through a pipe, never as an argument.
        prepare: Statements that begin each connection.
        queries: The queries; the rows of each come as one stream.
        batch_size: Rows per batch, except for the last one.
    """

    url: str
    prepare: list[str]
    queries: list[str]
    batch_size: int


class ReaderLostError(SourceError):
    """A reader process died, or sent nothing for too long."""


class Reader:
    """Run a job in a reader process, with a thread that reads ahead; the end of the context ends the process.

    with Reader(job, read_timeout=600) as reader:
        for query in job.queries:
            for batch in reader.next_stream(): ...

    A process that has finished a small job, or any job with `is_kept`, returns to the pool (`reader_pool`). After a
    large job it would keep the memory that ConnectorX allocated.
    """

    def __init__(
        self, job: ReaderJob, *, read_timeout: float, batches_ahead: int = BATCHES_AHEAD, is_kept: bool = False
    ) -> None:
        self._read_timeout = read_timeout
        self._is_kept = is_kept
        self._max_pooled_rows = job.batch_size
        self._streams_left = len(job.queries)
        self._rows = 0
        self._queue: queue.Queue[pa.RecordBatch | _Signal] = queue.Queue(batches_ahead)
        self._is_closed = False
        self._is_done = False
        self._process = acquire()
        self._stdin, self._stdout, self._stderr = get_pipes(self._process)
        self._thread = threading.Thread(target=self._read_ahead, name="feedback_etl reader", daemon=True)
        try:
            with contextlib.suppress(BrokenPipeError):  # it died; the thread notices
                self._stdin.write(json.dumps(job._asdict()).encode() + b"\n")
                self._stdin.flush()
            self._thread.start()
        except BaseException:  # an interrupt may come at any point
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        is_small = self._rows <= self._max_pooled_rows and not is_full()
        if self._is_done and (self._is_kept or is_small):
            self._thread.join()
            release(self._process)
        else:
            self._end()

    def _end(self) -> None:
        self._is_closed = True
        self._process.kill()
        while self._thread.is_alive():  # it may wait for space in the queue
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.01)
        self._process.wait()
        for pipe in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                pipe.close()

    def next_stream(self) -> Iterator["pa.RecordBatch"]:
        """Yield the record batches of the next query; at least one, which may be empty.

        Raises:
            SourceError: The reader died, failed, sent nothing for too long, or reported a different row count.
        """
        yield from iter(self._receive, _Signal.END_OF_STREAM)
        self._streams_left -= 1
        if not self._streams_left:  # a stream that was truncated between two batches looks complete: compare the count
            self._is_done = self._report == {"rows": self._rows}
            if not self._is_done:
                raise self._build_error()

    def _receive(self) -> "pa.RecordBatch | _Signal":
        try:
            item = self._queue.get(timeout=self._read_timeout)
        except queue.Empty:
            raise ReaderLostError(
                f"The database returned no row for {self._read_timeout:g} s (read_timeout in the settings). "
                "Nothing was exported."
            ) from None
        if item is _Signal.NO_MORE_DATA:
            raise self._build_error()
        if not isinstance(item, _Signal):
            self._rows += item.num_rows
        return item

    def _read_ahead(self) -> None:
        import pyarrow as pa

        with contextlib.suppress(pa.ArrowException, OSError, ValueError):  # truncated: the report says why
            for _ in range(self._streams_left):
                with pa.ipc.open_stream(self._stdout) as stream:
                    is_empty = True
                    for batch in stream:
                        is_empty = False
                        self._put(batch)
                        if self._is_closed:
                            return
                    if is_empty:
                        columns = [pa.nulls(0, type_) for type_ in stream.schema.types]
                        self._queue.put(pa.RecordBatch.from_arrays(columns, schema=stream.schema))
                self._queue.put(_Signal.END_OF_STREAM)
        self._queue.put(_Signal.NO_MORE_DATA)

    def _put(self, batch: "pa.RecordBatch") -> None:
        """Put a batch into the queue; stop the process while the queue is full.

        ConnectorX has no flow control: it would continue and keep all rows in its memory. A stopped process receives
        nothing, so the database waits as it does for any slow client.
        """
        try:
            self._queue.put_nowait(batch)
        except queue.Full:
            self._process.send_signal(signal.SIGSTOP)
            self._queue.put(batch)
            self._process.send_signal(signal.SIGCONT)

    @cached_property
    def _report(self) -> dict[str, Any]:
        """The report of the process after its work; empty if it was killed or hangs."""
        ready, _, _ = select.select([self._stderr], [], [], _REPORT_TIMEOUT)
        try:
            report: dict[str, Any] = json.loads(self._stderr.readline()) if ready else {}
        except ValueError:
            return {}
        return report

    def _build_error(self) -> SourceError:
        if error := self._report.get("error"):
            return build_query_error(error)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_REPORT_TIMEOUT)
        return ReaderLostError(str(build_query_error(f"the reader process ended early (exit {self._process.poll()})")))
