"""Admin endpoints for FastAPI: export feedback, and list the exports."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Message, Receive

from feedback_etl.errors import (
    ExportFileError,
    FeedbackError,
    FolderLockedError,
    SourceError,
    UsageError,
    ValidationError,
)
from feedback_etl.exports import maintenance
from feedback_etl.integrations.run import run_export
from feedback_etl.records.manifest import Manifest
from feedback_etl.results import ExportReport
from feedback_etl.settings.model import Settings, load_settings

logger = logging.getLogger(__name__)

_MAX_LOCK_TIMEOUT = 1.0
"""Seconds that a request waits for the folder's lock: long enough for an export that commits."""
_MAX_DAYS = 36_500
_MAX_BODY_BYTES = 4_096
"""A body with all options has about 70 bytes."""

_RESPONSES_BY_ERROR: list[tuple[type[FeedbackError], int, str]] = [
    (FolderLockedError, 409, "Another export, erasure or prune uses the folder. Try again when it is done."),
    (SourceError, 503, "The database cannot be read now. Nothing was exported."),
    (ValidationError, 500, "Rows are invalid. Nothing was exported."),
    (ExportFileError, 500, "The output folder cannot be used. Nothing was exported."),
    (FeedbackError, 500, "Exports are not configured correctly. Nothing was exported."),
]
"""Status and message for the client; the error's own message, which may contain paths, goes to the server's log."""

_RESPONSES: dict[int | str, dict[str, Any]] = {
    409: {"description": "The folder is in use. Try again later."},
    413: {"description": "The body is larger than any valid one."},
    500: {"description": "The server needs attention; its log has the reason."},
    503: {"description": "The database cannot be read now."},
}


class ExportRequest(BaseModel):
    """Options that a request can set; all others come from the settings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    days_back: Annotated[int, Field(ge=1, le=_MAX_DAYS)] | Literal[-1] = Field(
        30, description="days of 24 hours before now; -1 for everything"
    )
    min_feedback_fields: int = Field(1, ge=0, description="rows with fewer of the ratings are skipped")
    format: Literal["csv", "parquet"] = "csv"


class _Route(APIRoute):
    """Bound the body, which FastAPI reads before it authenticates, and report invalid input without repeating it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            try:
                return await handle(Request(request.scope, _limit_body(request.receive)))
            except RequestValidationError as error:
                problems = [{name: problem[name] for name in ("loc", "msg", "type")} for problem in error.errors()]
            raise HTTPException(422, problems)

        return handle_bounded


def _limit_body(receive: Receive) -> Receive:
    """Return a `receive` that raises a 413 response as soon as the body exceeds the limit."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > _MAX_BODY_BYTES:
            raise HTTPException(413, f"The body must have at most {_MAX_BODY_BYTES:,} bytes.")
        return message

    return receive_limited


def create_router(settings: Settings | None = None, *, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Create a router with `POST /admin/export-feedback` and `GET /admin/exports`, protected by dependencies.

    An export runs in a worker thread and holds the folder's lock until it ends. A concurrent request, to this process
    or another one, gets 409 and starts no second export. 422 reports invalid input, 413 a body above 4,096 bytes, 503
    the database, and 500 a problem of the server. No response contains a path outside the output folder.

    Args:
        settings: The settings; those of the environment and the settings file by default. The key is looked up for
            every export.
        dependencies: The checks that a caller must pass, such as `[Depends(require_admin)]`; at least one.

    Raises:
        UsageError: There is no dependency, or the settings are invalid.

    >>> router = create_router(load_settings(), dependencies=[Depends(lambda: None)])  # this one admits everyone
    >>> [route.path for route in router.routes]
    ['/admin/export-feedback', '/admin/exports']
    """
    _require_authentication(dependencies)
    settings = settings or load_settings()
    router = APIRouter(prefix="/admin", tags=["feedback_etl"], dependencies=list(dependencies), route_class=_Route)

    @router.post("/export-feedback", responses=_RESPONSES)
    def export_feedback(request: ExportRequest) -> dict[str, Any]:
        """Export feedback and return its statistics; one export runs at a time."""
        if request.min_feedback_fields > (ratings := len(settings.feedback_schema.ratings)):
            raise HTTPException(422, f"min_feedback_fields must be at most {ratings}, the number of ratings.")
        try:
            lock_timeout = min(settings.lock_timeout, _MAX_LOCK_TIMEOUT)
            options = request.model_dump() | {"idempotency_key": uuid4().hex, "lock_timeout": lock_timeout}
            report = run_export(settings, **options)
        except FeedbackError as error:
            raise _to_response(error) from None
        return _describe_report(report, settings)

    @router.get("/exports")
    def list_exports(limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> dict[str, Any]:
        """List the exports of the folder, the newest first, and its unmanaged files."""
        try:
            exports, unmanaged = maintenance.list_exports(settings.output_dir)
        except FeedbackError as error:
            logger.warning("refused: %s", error)
            raise HTTPException(500, "The output folder cannot be read.") from None
        return {
            "exports": [_describe_export(export) for export in exports[: -limit - 1 : -1]],
            "unmanaged": [path.name for path in unmanaged],
        }

    return router


def _require_authentication(dependencies: Sequence[Depends]) -> None:
    if isinstance(dependencies, Depends) or not dependencies:
        raise UsageError(
            "Without authentication, everyone who can reach the endpoint can start an export. Pass "
            "dependencies=[Depends(...)] with a function that admits admins only."
        )
    if not all(isinstance(depends, Depends) and depends.dependency is not None for depends in dependencies):
        raise UsageError("Each of dependencies must be Depends(function) or Security(function).")


def _to_response(error: FeedbackError) -> HTTPException:
    logger.warning("refused: %s", error)
    code, message = next((code, message) for kind, code, message in _RESPONSES_BY_ERROR if isinstance(error, kind))
    if isinstance(error, ValidationError) and error.reasons:
        message += f" {', '.join(f'{name}: {rows}' for name, rows in error.reasons.items())}."
    return HTTPException(code, message)


def _describe_report(report: ExportReport, settings: Settings) -> dict[str, Any]:
    """Return the statistics of an export, with the names of its files in the folder."""
    figures = report.to_dict()
    names = {
        f"{kind}filename": _get_relative_name(figures.pop(name), settings.output_dir)
        for kind, name in (("", "export_filename"), ("rejected_", "rejected_filename"), ("items_", "items_filename"))
    }
    return {"status": "exported" if names["filename"] else "nothing_to_export", **names, **figures}


def _get_relative_name(path: str, folder: Path) -> str | None:
    """Return the name of a file in the folder; None if the export has no such file."""
    return Path(path).relative_to(folder).as_posix() if path else None


def _describe_export(manifest: Manifest) -> dict[str, Any]:
    """Return the entry of an export in the list."""
    names = ("created_at", "window", "mode", "key_id", "erased_rows", "pruned_at")
    return {
        "filename": manifest.data or None,
        "rows": manifest.rows,
        **{name: getattr(manifest, name) for name in names},
    }
