"""Engines that are named on the command line: `dask=ADDRESS` is a Dask cluster.

Any other engine's executor is given to `export_feedback(executor=...)` as it is.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Any

from feedback_etl.errors import UsageError

_NAMED = "dask=ADDRESS, where ADDRESS is that of a scheduler such as tcp://10.0.0.5:8786"


@contextmanager
def executor_of(name: str, *, timeout: float = 10.0) -> Iterator[Executor]:
    """The executor of an engine, connected as long as the context lasts.

    Args:
        name: `dask=ADDRESS`. For TLS, Dask's own configuration tells the certificates.
        timeout: Seconds to wait for the scheduler.

    Raises:
        UsageError: There is no such engine, it is not installed, or nobody answers at the address.
    """
    engine, _, address = name.partition("=")
    if engine != "dask" or not address:
        raise UsageError(f"An executor is named {_NAMED}.")
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise UsageError('Dask is not installed: pip install "feedback-etl[dask]".') from None
    try:
        client: Any = Client(address, timeout=timeout, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        told = type(error).__name__
    else:
        try:
            yield client.get_executor(pure=False)
        finally:
            with suppress(Exception):  # it may be closed by now, and has nothing more to say
                client.close(timeout)
        return
    address = address.rpartition("@")[2]  # what stands before may be a password
    raise UsageError(f"No Dask scheduler answers at {address} within {timeout:g} s ({told}).")


def is_lost(executor: Executor) -> bool:
    """Whether an executor of Dask has lost its scheduler for good; its futures never end then, and never say so."""
    return getattr(getattr(executor, "_client", None), "status", "") == "closed"
