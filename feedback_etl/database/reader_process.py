"""The reader process: run queries with ConnectorX and send their rows as Arrow streams through a pipe.

`reader_client.Reader` starts it as `python -m feedback_etl.database.reader_process`; it is not a command for users. A
job (`reader_client.ReaderJob`) is a line of JSON on stdin. The rows of each query go to stdout as one Arrow IPC stream,
and then a report to stderr as a line of JSON: {"rows": n} or {"error": reason}. The next job may follow unless one has
failed. The process isolates drivers' output, panics (which print rows' values), hangs, and the interpreter lock that
`arrow_stream` holds.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from feedback_etl.database.driver_errors import get_query_reason
from feedback_etl.storage.whole_files import write_whole

_PR_SET_PDEATHSIG = 1  # prctl(2), Linux


def main() -> None:
    """Run jobs until none is left or one fails, then exit at once: cleaning up could fail or wait."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    _die_with_parent()
    status = os.fdopen(os.dup(2), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Not sys.stdout.buffer: with PYTHONUNBUFFERED a write may be short when this process is stopped, and Arrow goes on.
    rows = os.fdopen(os.dup(1), "wb")

    def report(outcome: dict[str, Any]) -> None:
        write_whole(status.write, json.dumps(outcome).encode() + b"\n")

    code = 1
    try:
        _run_jobs(sys.stdin.buffer, rows, report)
        code = 0
    except BaseException as error:  # a Rust panic is not an Exception
        report({"error": get_query_reason(error)})
    finally:
        os._exit(code)


def _die_with_parent() -> None:
    """On Linux, have the kernel end this process with its parent; elsewhere a broken pipe does."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _run_jobs(jobs: BinaryIO, rows: BinaryIO, report: Callable[[dict[str, Any]], None]) -> None:
    import connectorx
    import pyarrow as pa

    for line in iter(jobs.readline, b""):  # until the parent closes the pipe
        job = json.loads(line)
        count = 0
        for query in job["queries"]:
            reader = connectorx.read_sql(
                job["url"],
                query,
                return_type="arrow_stream",
                batch_size=job["batch_size"],
                pre_execution_query=job["prepare"] or None,
            )
            with pa.ipc.new_stream(rows, reader.schema) as stream:
                for batch in reader:
                    stream.write_batch(batch)
                    count += batch.num_rows
            rows.flush()
        report({"rows": count})


if __name__ == "__main__":
    main()
