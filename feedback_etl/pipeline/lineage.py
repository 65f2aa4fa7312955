"""Report the lineage of an export as OpenLineage events: START, then COMPLETE or FAIL (https://openlineage.io).

The events contain the names of the database, its tables and the storage, the columns of the export, and numbers of
rows. They contain no row, no password and, unless `lineage_hosts` asks for them, no host. An event that cannot be sent
is logged and never makes the export fail.
"""

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

from feedback_etl import __version__
from feedback_etl.clock import resolve_now
from feedback_etl.database import tables
from feedback_etl.database.connect import find_dialect, find_url
from feedback_etl.database.files import find_pattern
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.results import ExportReport
from feedback_etl.storage.urls import is_object_store

logger = logging.getLogger(__name__)

MAX_SECONDS = 5.0
"""Longest wait for an event to be sent; a server that hangs delays an export by this, once."""

CONFIGURED = "openlineage"
"""The value of `lineage` that leaves the transport to the configuration of openlineage-python."""

_TABLES = (tables.recommendation_feedbacks, tables.recommendation_records, tables.profiles)
_NAMESPACES = {"postgresql": "postgres"}  # as OpenLineage names them


class LineageRun:
    """Report a run as a context: START when it is entered, COMPLETE or FAIL when it is left.

    Attributes:
        report: Report of the export, to be set before the context is left.
    """

    def __init__(self, request: ExportRequest) -> None:
        self.report: ExportReport | None = None
        self._request = request
        self._events: _Events | None = None
        self._problem = ""
        self._is_stuck = False

    def __enter__(self) -> Self:
        self._send("START")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send("FAIL" if kind else "COMPLETE", kind.__name__ if kind else "")
        if self._problem and self.report is not None:
            self.report.advice = self.report.advice or self._problem

    def _send(self, state: str, error: str = "") -> None:
        """Send an event in a thread, since the time-out of a request does not limit all of it."""
        if self._is_stuck:
            return
        thread = Thread(target=self._emit, args=(state, error), name="feedback_etl lineage", daemon=True)
        thread.start()
        thread.join(MAX_SECONDS)
        if thread.is_alive():
            self._is_stuck = True
            self._note(f"sending {state} took longer than {MAX_SECONDS:g} seconds")

    def _emit(self, state: str, error: str) -> None:
        try:
            self._events = self._events or _Events(self._request)
            self._events.emit(state, self.report, error)
        except ModuleNotFoundError:
            self._note('it needs a library that is missing: pip install "feedback-etl[lineage]"')
        except Exception as problem:  # its text may contain the address of the server
            status = getattr(getattr(problem, "response", None), "status_code", None)
            self._note(f"sending {state} failed ({f'status {status}' if status else type(problem).__name__})")

    def _note(self, problem: str) -> None:
        self._problem = f"the lineage was not reported: {problem}"
        logger.warning("the lineage of an export was not reported: %s", problem)


class _Events:
    """Build and emit the events of a run."""

    def __init__(self, request: ExportRequest) -> None:
        from openlineage.client.event_v2 import Job
        from openlineage.client.uuid import generate_new_uuid

        self._request = request
        self._send = _open_transport(str(request.output.lineage))
        self._output = _name_output(request.storage.absolute_uri(), with_host=request.output.lineage_hosts)
        self._run_id = str(generate_new_uuid())
        self._job = Job(namespace="feedback_etl", name=f"export to {self._output[1]}")

    def emit(self, state: str, report: ExportReport | None, error: str) -> None:
        """Emit an event; `report` is that of a complete run, and `error` the type of what made it fail."""
        from openlineage.client.event_v2 import Run, RunEvent, RunState
        from openlineage.client.facet_v2 import error_message_run

        facets: dict[str, Any] = {}
        if error:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "python")
        event = RunEvent(
            eventType=RunState[state],
            eventTime=f"{resolve_now(None).isoformat()}Z",
            run=Run(runId=self._run_id, facets=facets),
            job=self._job,
            inputs=self._build_inputs(report),
            outputs=[self._build_output(report)],
            producer=f"urn:feedback-etl:{__version__}",
        )
        self._send(event)

    def _build_inputs(self, report: ExportReport | None) -> list[Any]:
        """Describe the tables that are read; the first of them has the number of rows, once it is known."""
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.facet_v2 import input_statistics_input_dataset

        statistics: dict[str, Any] = {}
        if report is not None:
            rows = report.total_feedback_records
            statistics["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rows)
        namespace, names = _name_inputs(self._request)
        first, *others = (InputDataset(namespace=namespace, name=name) for name in names)
        first.inputFacets = statistics
        return [first, *others]

    def _build_output(self, report: ExportReport | None) -> Any:
        """Describe the storage: the columns of the export and, once it is known, its number of rows."""
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset, schema_dataset

        from feedback_etl.transform.row_schema import build_row_schema

        options = self._request.transform_options
        columns = build_row_schema(options.schema, options.overrides.names())["properties"]
        fields = [
            schema_dataset.SchemaDatasetFacetFields(name, _name_type(column), column["description"])
            for name, column in columns.items()
        ]
        statistics: dict[str, Any] = {}
        if report is not None:
            rows = report.exported_records
            statistics["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rows)
        namespace, name = self._output
        facets: dict[str, Any] = {"schema": schema_dataset.SchemaDatasetFacet(fields)}
        return OutputDataset(namespace=namespace, name=name, facets=facets, outputFacets=statistics)


def _name_type(column: dict[str, Any]) -> str:
    """Return the JSON type of a column; values of a list are texts."""
    kind = column.get("type", "string")
    return str(kind if isinstance(kind, str) else kind[0])


def _open_transport(target: str) -> Callable[[Any], object]:
    """Return a function that sends an event to a server, appends it to a file, or uses the configured transport."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    emit: Callable[[Any], object]
    if target == CONFIGURED:
        emit = OpenLineageClient().emit
    elif target.startswith(("http://", "https://")):
        config = HttpConfig(url=target, timeout=2 * MAX_SECONDS, retry={"total": 0})  # the caller gives up first
        emit = HttpTransport(config).emit
    else:
        emit = FileTransport(FileConfig(target, append=True)).emit
    return emit


def _name_inputs(request: ExportRequest) -> tuple[str, list[str]]:
    """Return the namespace and the names of the tables; of a query, whose tables are unknown, that of the database."""
    database, options = request.selection.database, request.selection.options
    dialect, url = find_dialect(database), find_url(database)
    if (pattern := find_pattern(url)) is not None:
        return "file", [pattern if request.output.lineage_hosts else Path(pattern).name]
    namespace = _NAMESPACES.get(dialect, dialect)
    if request.output.lineage_hosts and url.host:
        namespace = f"{namespace}://{url.host}{f':{url.port}' if url.port else ''}"
    name = url.database or "memory"
    if dialect in ("sqlite", "duckdb") and not request.output.lineage_hosts:
        name = Path(name).name  # a path of this machine
    return namespace, [f"{name}.{table}" for table in _list_tables(options)] or [name]


def _list_tables(options: ReadOptions) -> list[str]:
    """List the tables that are read, with their schema if it is known; those of a query are unknown."""
    source, schema = options.source, f"{options.db_schema}." if options.db_schema else ""
    if options.query is not None:
        return []
    if source is None:
        return [f"{schema}{table.name}" for table in _TABLES]
    joins = [source.join, *(element.join for _, element in source.elements)] if source.table else []
    return list(dict.fromkeys([*filter(None, [source.table]), *(join.table for join in joins if join)]))


def _name_output(uri: str, *, with_host: bool) -> tuple[str, str]:
    """Return the namespace and the name of the storage, as OpenLineage names folders and prefixes.

    >>> _name_output("s3://bucket/team/exports", with_host=False)
    ('s3://bucket', 'team/exports')
    >>> _name_output("/srv/exports", with_host=False)
    ('file', '/srv/exports')
    """
    if is_object_store(uri):
        scheme, _, path = uri.partition("://")
        bucket, _, prefix = path.partition("/")
        return f"{scheme}://{bucket}", prefix or "/"
    return f"file://{socket.gethostname()}" if with_host else "file", uri
