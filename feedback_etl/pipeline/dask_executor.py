"""Connect to the executor named by `--executor`: `dask=ADDRESS` is a Dask cluster.

Any other executor is passed to `export_feedback(executor=...)`.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Any

from feedback_etl.errors import UsageError

_SYNTAX = "dask=ADDRESS, where ADDRESS is that of a scheduler such as tcp://10.0.0.5:8786"


@contextmanager
def connect_executor(name: str, *, timeout: float = 10.0) -> Iterator[Executor]:
    """Connect to a cluster and yield its executor; the connection is closed with the context.

    Args:
        name: `dask=ADDRESS`. For TLS, the certificates are in Dask's own configuration.
        timeout: Seconds to wait for the scheduler.

    Raises:
        UsageError: The name is invalid, Dask is not installed, or no scheduler answers at the address.
    """
    engine, _, address = name.partition("=")
    if engine != "dask" or not address:
        raise UsageError(f"--executor must be {_SYNTAX}.")
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise UsageError('Dask is not installed: pip install "feedback-etl[dask]".') from None
    try:
        client: Any = Client(address, timeout=timeout, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        error_type = type(error).__name__
    else:
        try:
            yield client.get_executor(pure=False)
        finally:
            with suppress(Exception):  # the scheduler may be gone
                client.close(timeout)
        return
    address = address.rpartition("@")[2]  # the part before it may contain a password
    raise UsageError(f"No Dask scheduler answers at {address} within {timeout:g} s ({error_type}).")


def has_lost_scheduler(executor: Executor) -> bool:
    """Return whether a Dask executor has permanently lost its scheduler; its futures then never complete."""
    return getattr(getattr(executor, "_client", None), "status", "") == "closed"
