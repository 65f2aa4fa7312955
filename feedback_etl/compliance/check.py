"""Run the pre-production checklist: each item is tested on the actual files and database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from feedback_etl.clock import resolve_now
from feedback_etl.columns import all_quasi_identifiers
from feedback_etl.compliance.application import check_consent, check_erasure, check_index, hash_by_key
from feedback_etl.compliance.data_files import ExportContents, read_contents
from feedback_etl.compliance.folder import check_audit_log, check_k, check_keys, check_modes, check_retention
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.record import check_record
from feedback_etl.compliance.rows import (
    check_ages,
    check_columns,
    check_contents,
    check_duplicates,
    check_images,
    check_pseudonyms,
    check_raw_ids,
)
from feedback_etl.database.consent import ConsentColumnNames
from feedback_etl.database.custom_query import read_query_file
from feedback_etl.database.lookups import ApplicationSummary, summarize_application
from feedback_etl.exports.key_binding import bind_keys
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.exports.manifest import Manifest
from feedback_etl.privacy.keys import Key
from feedback_etl.settings import Settings
from feedback_etl.storage.base import Storage
from feedback_etl.storage.location import open_storage

_NO_EXPORT = "Not tested: the folder contains no export."
_NO_DATABASE = "Not tested: no database is configured."


class _Context(NamedTuple):
    """Input of the tests."""

    storage: Storage
    exports: list[Manifest]
    files: list[ExportContents]
    database: ApplicationSummary
    settings: Settings
    keys: Sequence[Key]
    now: datetime


_OF_EXPORTS: dict[str, Callable[[_Context], ChecklistItem]] = {
    "columns": lambda context: check_columns(context.files),
    "pseudonyms": lambda context: check_pseudonyms(
        context.files, [*context.database.users, *context.database.analyses]
    ),
    "ages": lambda context: check_ages(context.files),
    "images": lambda context: check_images(context.files, hash_by_key(context.database.imaged, context.keys)),
    "contents": lambda context: check_contents(context.files),
    "keys": lambda context: check_keys(context.exports),
    "duplicates": lambda context: check_duplicates(context.files),
    "modes": lambda context: check_modes(context.storage),
    "retention": lambda context: check_retention(context.exports, context.settings.retention_days, context.now),
    "audit log": lambda context: check_audit_log(context.storage, context.exports, context.keys),
    "k": lambda context: check_k(
        context.files,
        context.settings.k,
        all_quasi_identifiers(context.settings.quasi_identifiers, context.settings.extra_columns),
    ),
}
_OF_BOTH: dict[str, Callable[[_Context], ChecklistItem]] = {
    "raw ids": lambda context: check_raw_ids(context.files, context.database.users),
    "erasure": lambda context: check_erasure(context.storage, context.files, context.database, context.keys),
}
_OF_THE_DATABASE: dict[str, Callable[[_Context], ChecklistItem]] = {
    "index": lambda context: check_index(context.database),
    "consent": lambda context: check_consent(context.database, context.files, context.keys, context.settings),
}


def check(settings: Settings, *, keys: Sequence[Key] = (), now: datetime | None = None) -> list[ChecklistItem]:
    """Run the pre-production checklist.

    Args:
        settings: Folder of the exports, database of the feedback, and the requirements.
        keys: Available keys.
        now: Time of the check, UTC; by default the current time.

    Returns:
        The items in a fixed order. Items that need an export or a database fail without one.

    Raises:
        SourceError: The database cannot be reached, or has an unexpected schema.
        ExportFileError: A manifest or a data file cannot be read.

    >>> from pathlib import Path
    >>> [item.name for item in check(Settings(output_dir=Path("nowhere"))) if item.passed]
    []
    """
    storage = open_storage(settings.output_dir)
    files = [export for manifest in _list_manifests(storage) if (export := read_contents(storage, manifest))]
    exports = [export.manifest for export in files]
    database = _database(settings)
    context = _Context(
        storage,
        exports,
        files,
        database or ApplicationSummary([], [], [], [], (), ""),
        settings,
        bind_keys(storage, keys),
        resolve_now(now),
    )
    no_export = ChecklistItem("", False, _NO_EXPORT, "feedback-etl export") if not files else None
    no_database = ChecklistItem("", False, _NO_DATABASE, "set FEEDBACK_ETL_DATABASE_URL") if database is None else None
    items = []
    for tests, lacking in (
        (_OF_EXPORTS, no_export),
        (_OF_BOTH, no_export or no_database),
        (_OF_THE_DATABASE, no_database),
    ):
        items += [lacking._replace(name=name) if lacking else test(context) for name, test in tests.items()]
    return [*items, check_record(settings)]


def _list_manifests(storage: Storage) -> list[Manifest]:
    """Return the manifests of exports that were not pruned, the oldest first."""
    return (
        [manifest for manifest in list_exports(storage).exports if not manifest.pruned_at] if storage.exists() else []
    )


def _database(settings: Settings) -> ApplicationSummary | None:
    if settings.database_url is None:
        return None
    return summarize_application(
        settings.database_url.get_secret_value(),
        query=read_query_file(settings.query) if settings.query else None,
        db_schema=settings.db_schema,
        consent=ConsentColumnNames(settings.opt_in_column, settings.opt_out_column),
        connect_timeout=settings.connect_timeout,
        allow_row_security=settings.allow_row_security,
    )
