"""Whether the URL of an engine says all there is to say: what a new connection by URL would not have."""

import inspect
from itertools import chain
from typing import Any

import sqlalchemy as sa

from feedback_etl.database.urls import is_memory

_SQLALCHEMY = {"sqlalchemy.engine.create", "sqlalchemy.engine.default", "sqlalchemy.util.langhelpers"}
"""Where SQLAlchemy's own hooks on connections are defined."""

_TRACERS = {"ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk"}
"""Packages whose hooks watch statements and change nothing of what they read."""


def is_defined_by_url(engine: sa.Engine) -> bool:
    """Whether its URL alone leads to the same view: no `creator=`, `connect_args=` or hook, not in memory.

    DuckDB opens a file in one way at a time: that of the engine.
    """
    if engine.dialect.name == "duckdb" or _has_hooks(engine):
        return False
    creator = engine.pool._creator
    cells = inspect.getclosurevars(creator).nonlocals if inspect.isfunction(creator) else {}
    by_url = engine.dialect.create_connect_args(engine.url)[1]
    return not is_memory(engine.url) and dict(cells.get("cparams") or {}) == dict(by_url) and "cargs_tup" in cells


def _has_hooks(engine: sa.Engine) -> bool:
    """Whether something of the application's acts when a connection or a transaction begins, or on each statement."""
    hooks = chain(
        engine.dialect.dispatch.do_connect,
        engine.dialect.dispatch.do_execute,
        engine.dialect.dispatch.do_execute_no_params,
        engine.pool.dispatch.connect,
        engine.pool.dispatch.checkout,
        engine.dispatch.engine_connect,
        engine.dispatch.begin,
        engine.dispatch.before_execute,
        engine.dispatch.before_cursor_execute,
    )
    return not all(_is_harmless(hook) for hook in hooks)


def _is_harmless(hook: Any) -> bool:
    if inspect.isfunction(hook):  # SQLAlchemy wraps a hook that returns nothing
        hook = inspect.getclosurevars(hook).nonlocals.get("orig_fn", hook)
    module = str(getattr(hook, "__module__", None))
    return module in _SQLALCHEMY or module.partition(".")[0] in _TRACERS
