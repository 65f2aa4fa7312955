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
from feedback_etl.exports.manifest import Manifest
from feedback_etl.integrations.run import run_export
from feedback_etl.results import ExportReport
from feedback_etl.settings import Settings, load_settings

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0
"""How long a request waits for others who use the folder: long enough for an export that is naming its files."""
_MOST_DAYS = 36_500
_MAX_BODY_BYTES = 4_096
"""A body with all options has about 70 bytes."""

_ANSWERS: list[tuple[type[FeedbackError], int, str]] = [
    (FolderLockedError, 409, "An export, an erasure or a prune is under way: try again when it is done."),
    (SourceError, 503, "The database cannot be read now: nothing was exported."),
    (ValidationError, 500, "Rows break the rules, so nothing was exported."),
    (ExportFileError, 500, "The folder of exports cannot be used: nothing was exported."),
    (FeedbackError, 500, "Exports are not configured as they have to be: nothing was exported."),
]
"""Responses to clients; the message of the error itself, which may contain paths, goes to the server's log."""

_RESPONSES: dict[int | str, dict[str, Any]] = {
    409: {"description": "The folder is in use: try again later."},
    413: {"description": "The body is larger than any valid one."},
    500: {"description": "Something has to be put right on the server, whose log says what."},
    503: {"description": "The database cannot be read now."},
}


class ExportRequest(BaseModel):
    """Options that a request can set; all others come from the settings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    days_back: Annotated[int, Field(ge=1, le=_MOST_DAYS)] | Literal[-1] = Field(
        30, description="days of 24 hours before now; -1 for everything"
    )
    min_feedback_fields: int = Field(1, ge=0, le=4, description="rows with fewer of the four ratings are skipped")
    format: Literal["csv", "parquet"] = "csv"


class _Route(APIRoute):
    """Bound the body, which FastAPI reads before it authenticates, and report invalid input without repeating it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_politely(request: Request) -> Response:
            try:
                return await handle(Request(request.scope, _limit_body(request.receive)))
            except RequestValidationError as error:
                faults = [{name: fault[name] for name in ("loc", "msg", "type")} for fault in error.errors()]
            raise HTTPException(422, faults)

        return handle_politely


def _limit_body(receive: Receive) -> Receive:
    """Return `receive` with an answer of 413 as soon as the body is larger than any valid one."""
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

    An export runs in a worker thread and holds the folder's lock from its beginning to its end: who asks meanwhile, in
    this process or another one, gets 409 and no second export. 422 is for input that is not allowed, 503 for the
    database, 500 for what has to be put right on the server. No answer holds a path outside the folder of exports.

    Args:
        settings: The effective ones (environment, settings file) unless given. The key is looked up for every export.
        dependencies: What a caller has to pass, such as `[Depends(require_admin)]`; at least one.

    Raises:
        UsageError: There is no dependency, or the settings are wrong.

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
        try:
            patience = min(settings.lock_timeout, _PATIENCE_SECONDS)
            report = run_export(settings, **request.model_dump(), idempotency_key=uuid4().hex, lock_timeout=patience)
        except FeedbackError as error:
            raise _answer(error) from None
        return _told(report, settings)

    @router.get("/exports")
    def list_exports(limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> dict[str, Any]:
        """List the exports of the folder, the newest first, and its unmanaged files."""
        try:
            exports, unmanaged = maintenance.list_exports(settings.output_dir)
        except FeedbackError as error:
            logger.warning("refused: %s", error)
            raise HTTPException(500, "The folder of exports cannot be read.") from None
        return {
            "exports": [_listed(each) for each in exports[: -limit - 1 : -1]],
            "unmanaged": [path.name for path in unmanaged],
        }

    return router


def _require_authentication(dependencies: Sequence[Depends]) -> None:
    if isinstance(dependencies, Depends) or not dependencies:
        raise UsageError(
            "Whoever can reach an export can start it: pass dependencies=[Depends(...)] with the function that lets "
            "admins in and no one else."
        )
    if not all(isinstance(each, Depends) and each.dependency is not None for each in dependencies):
        raise UsageError("Each of dependencies must be Depends(function) or Security(function).")


def _answer(error: FeedbackError) -> HTTPException:
    logger.warning("refused: %s", error)
    code, message = next((code, message) for kind, code, message in _ANSWERS if isinstance(error, kind))
    if isinstance(error, ValidationError) and error.reasons:
        message += f" {', '.join(f'{name}: {rows}' for name, rows in error.reasons.items())}."
    return HTTPException(code, message)


def _told(report: ExportReport, settings: Settings) -> dict[str, Any]:
    """Return the statistics of an export, and its files by their names in the folder."""
    figures = report.to_dict()
    rejected, filename = figures.pop("rejected_filename"), figures.pop("export_filename")
    return {
        "status": "exported" if filename else "nothing_to_export",
        "filename": _name(filename, settings.output_dir),
        "rejected_filename": _name(rejected, settings.output_dir),
        **figures,
    }


def _name(path: str, folder: Path) -> str | None:
    """Return the name of a file in the folder; None if it was not needed."""
    return Path(path).relative_to(folder).as_posix() if path else None


def _listed(manifest: Manifest) -> dict[str, Any]:
    """Return the entry of an export in the list."""
    names = ("created_at", "window", "mode", "key_id", "erased_rows", "pruned_at")
    return {
        "filename": manifest.data or None,
        "rows": manifest.rows,
        **{name: getattr(manifest, name) for name in names},
    }
