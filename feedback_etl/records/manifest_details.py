"""Details of an export for its manifest and its audit record."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.audit_records import Record
from feedback_etl.records.manifest import ABANDONED, DataFile, Manifest
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.storage.base import Storage

_TOOLS = ("feedback-etl", "connectorx", "pandera", "polars", "polars-hash", "pyarrow", "sqlalchemy")


class ManifestDetails(NamedTuple):
    """Contain the details of an export for its manifest; see `manifest.Manifest`.

    Attributes:
        is_state_new: Whether the state of a series changes even where no row is exported or rejected.
    """

    mode: str = "full"
    window: tuple[datetime | None, datetime] | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012  it is not changed
    statistics: dict[str, Any] = {}  # noqa: RUF012
    source: str = ""
    chain: dict[str, Any] = {}  # noqa: RUF012
    consent: Sequence[str] = ()
    risk: dict[str, Any] = {}  # noqa: RUF012
    schema: FeedbackSchema = CLASSIC_SCHEMA
    is_state_new: bool = False
    rows_digest: str = ""
    limits: dict[str, Any] = {}  # noqa: RUF012


class CommittedFiles(NamedTuple):
    """Contain the paths or URLs of the files of an export, or of the folders of its parts; None without rows."""

    pairs: str | None = None
    rejected: str | None = None
    items: str | None = None


def locate_files(storage: Storage, files: Sequence[DataFile], *, in_parts: bool) -> CommittedFiles:
    """Return where files were published."""
    paths = {file.kind: file.path for file in files if file.rows}
    uris = {kind: storage.uri(path.rpartition("/")[0] if in_parts else path) for kind, path in paths.items()}
    return CommittedFiles(uris.get("pairs"), uris.get("rejected"), uris.get("items"))


class ExportRun(NamedTuple):
    """Identify the run of an export: the stem of its files, its id in the audit log, its time and its key."""

    stem: str
    id: str
    now: datetime
    key: Key | None


def build_manifest(details: ManifestDetails, run: ExportRun, files: list[DataFile], audit_head: str) -> Manifest:
    """Build the manifest of an export, signed by its key."""
    manifest = Manifest(
        stem=run.stem,
        mode=details.mode,
        created_at=run.now.replace(microsecond=0).isoformat(),
        run=run.id,
        window=[end.isoformat() if end else None for end in details.window or (None, None)],
        settings=details.settings,
        statistics=details.statistics,
        columns=list(details.schema.training_columns),
        files=files,
        key_id=get_key_id(run.key),
        scheme=_get_scheme(details, run.key),
        source=details.source,
        tools=dict(_get_tool_versions()),
        audit_head=audit_head,
        chain=details.chain,
        consent=list(details.consent),
        risk=details.risk,
        limits=details.limits,
    )
    manifest.sign(run.key)
    return manifest


@cache
def _get_tool_versions() -> Mapping[str, str]:
    return {name: version(name) for name in _TOOLS}


def build_abort_marker(started: Record, audit_head: str) -> Manifest:
    """Build the manifest that marks an aborted export, from the record of its start."""
    at = started["at"][:19]
    return Manifest(
        stem=started["stem"],
        mode=ABANDONED,
        created_at=at,
        run=started["run"],
        window=[None, None],
        settings={},
        statistics={},
        columns=[],
        files=[],
        key_id=started["key_id"],
        scheme="",
        source="",
        tools={},
        audit_head=audit_head,
        pruned_at=at,
    )


def _get_scheme(details: ManifestDetails, key: Key | None) -> str:
    if own := details.settings.get("overridden", {}).get("hash_id"):
        return f"by {own}"
    return describe_scheme(key)


def describe_scheme(key: Key | None) -> str:
    """Return the name of the algorithm of a key's pseudonyms, or of unkeyed ones."""
    return f"hmac-sha256, {key.pseudonym_length} hex" if key else "sha256, 16 hex"


def audit_summary(manifest: Manifest) -> dict[str, Any]:
    """Return the summary of a committed export for the audit log: its settings and its result."""
    names = ["mode", "window", "settings", "statistics", "risk", "consent", *(["limits"] if manifest.limits else [])]
    files = [{"path": file.path, "rows": file.rows, "sha256": file.sha256} for file in manifest.files]
    summary = {name: getattr(manifest, name) for name in names} | {"files": files}
    return summary | _summarize_late_rows(manifest) | summarize_revisions([manifest])


def _summarize_late_rows(manifest: Manifest) -> dict[str, Any]:
    """Return the row counts of older windows, if they have grown and no manifest will contain them.

    The next run of the series compares with them, so that it does not report the same rows again.
    """
    has_news = manifest.statistics.get("late_records") and not manifest.files
    return {"counted": manifest.chain["counted"]} if has_news else {}


def summarize_revisions(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """Return the revisions of manifests that were replaced, as details of an audit record."""
    revisions = {manifest.stem: manifest.revision for manifest in manifests if manifest.revision}
    return {"revisions": revisions} if revisions else {}
