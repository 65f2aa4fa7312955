"""Entry point of `feedback-etl` and `python -m feedback_etl`: run one command, then end the process.

Garbage collection is disabled (a batch leaves only three reference cycles), and the process ends without freeing the
hundreds of thousands of objects of the libraries. Together this saves a quarter of a second. Where pandas is
installed, importing pandera without it saves more.
"""

import gc
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    gc.disable()
    _disable_core_dumps()
    code = 1
    try:
        from feedback_etl.cli.app import main as run
        from feedback_etl.cli.pandera_import import hide_pandas_from_pandera

        hide_pandas_from_pandera()
        run()
    except KeyboardInterrupt:  # before the command line handles signals
        code = 128 + signal.SIGINT
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # the stream is closed, or was never open
            stream.flush()
    os._exit(code)


def _disable_core_dumps() -> None:
    """Disable core dumps, which would contain keys and rows; reader processes inherit the limit.

    The limit is one byte, not zero: where core dumps are piped to a program, Linux ignores the limit (core(5)), except
    for the value one, for which it writes no dump (`do_coredump` in its source).
    """
    with suppress(OSError, ValueError):  # the hard limit is zero
        resource.setrlimit(resource.RLIMIT_CORE, (1, resource.getrlimit(resource.RLIMIT_CORE)[1]))


if __name__ == "__main__":
    main()
