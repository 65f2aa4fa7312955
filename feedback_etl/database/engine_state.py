"""Determine whether a new connection by an engine's URL would have the same view as the engine."""

import inspect
from itertools import chain
from typing import Any

import sqlalchemy as sa

from feedback_etl.database.urls import is_memory

_SQLALCHEMY = {"sqlalchemy.engine.create", "sqlalchemy.engine.default", "sqlalchemy.util.langhelpers"}
"""The modules that define SQLAlchemy's own hooks on connections."""

_TRACERS = {"ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk"}
"""Packages whose hooks only observe statements."""


def is_defined_by_url(engine: sa.Engine) -> bool:
    """Return whether the URL alone gives the same view: no `creator=`, `connect_args=` or hook, not in memory.

    A process can open a DuckDB file with one configuration only, which is the engine's.
    """
    if engine.dialect.name == "duckdb" or _has_hooks(engine):
        return False
    creator = engine.pool._creator
    cells = inspect.getclosurevars(creator).nonlocals if inspect.isfunction(creator) else {}
    by_url = engine.dialect.create_connect_args(engine.url)[1]
    return not is_memory(engine.url) and dict(cells.get("cparams") or {}) == dict(by_url) and "cargs_tup" in cells


def _has_hooks(engine: sa.Engine) -> bool:
    """Return whether the application has hooks on connections, transactions or statements."""
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
    return not all(_only_observes(hook) for hook in hooks)


def _only_observes(hook: Any) -> bool:
    if inspect.isfunction(hook):  # SQLAlchemy wraps a hook that returns nothing
        hook = inspect.getclosurevars(hook).nonlocals.get("orig_fn", hook)
    module = str(getattr(hook, "__module__", None))
    return module in _SQLALCHEMY or module.partition(".")[0] in _TRACERS
