"""Run the pre-production checklist: each item is tested on the actual files and database."""

import functools
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.clock import resolve_now
from feedback_etl.compliance.ages import check_ages
from feedback_etl.compliance.application import check_collisions, check_consent, check_erasure, check_index, hash_by_key
from feedback_etl.compliance.data_files import ExportContents, read_contents
from feedback_etl.compliance.folder import check_audit_log, check_keys, check_modes, check_retention
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.record import check_record
from feedback_etl.compliance.remedies import SET_DATABASE, Remedies
from feedback_etl.compliance.required_k import OwnerLookup, check_k
from feedback_etl.compliance.rows import (
    check_columns,
    check_contents,
    check_duplicates,
    check_images,
    check_pseudonyms,
    check_raw_ids,
)
from feedback_etl.database.consent import ConsentColumnNames
from feedback_etl.database.custom_query import read_query_file
from feedback_etl.database.lookups import ApplicationSummary, fetch_owners, summarize_application
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.remaining_classes import Owners, hash_owners
from feedback_etl.records.key_binding import bind_keys
from feedback_etl.records.manifest import Manifest
from feedback_etl.settings.model import Settings
from feedback_etl.storage.base import Storage
from feedback_etl.storage.location import open_storage


class _Context(NamedTuple):
    """Input of the tests.

    Attributes:
        database: Summary of the database; None without one.
        application: The same, empty without a database, for tests that require one.
    """

    storage: Storage
    exports: list[Manifest]
    files: list[ExportContents]
    database: ApplicationSummary | None
    application: ApplicationSummary
    remedies: Remedies
    keys: Sequence[Key]
    now: datetime


class _Test(NamedTuple):
    """A test of the checklist, and what it requires: exports, their data files, or the database."""

    name: str
    run: Callable[[_Context], ChecklistItem]
    requires: tuple[str, ...] = ("exports", "files")


_TESTS = (
    _Test("columns", lambda context: check_columns(context.files, context.remedies)),
    _Test("pseudonyms", lambda context: check_pseudonyms(context.files, _list_ids(context), context.remedies)),
    _Test("ages", lambda context: check_ages(context.files, context.remedies)),
    _Test("images", lambda context: check_images(context.files, _hash_imaged(context), context.remedies)),
    _Test("contents", lambda context: check_contents(context.storage, context.exports, context.remedies), ("exports",)),
    _Test("keys", lambda context: check_keys(context.exports, context.remedies), ("exports",)),
    _Test("duplicates", lambda context: check_duplicates(context.files, context.remedies)),
    _Test("modes", lambda context: check_modes(context.storage), ("exports",)),
    _Test("retention", lambda context: check_retention(context.exports, context.now, context.remedies), ("exports",)),
    _Test(
        "audit log",
        lambda context: check_audit_log(context.storage, context.keys, context.remedies),
        ("exports",),
    ),
    _Test("k", lambda context: check_k(context.files, _create_owner_lookup(context), context.remedies)),
    _Test(
        "raw ids",
        lambda context: check_raw_ids(context.files, _list_private_ids(context), context.remedies),
        ("exports", "files", "database"),
    ),
    _Test(
        "erasure",
        lambda context: check_erasure(
            context.storage, context.files, context.application, context.keys, context.remedies
        ),
        ("exports", "files", "database"),
    ),
    _Test(
        "collisions",
        lambda context: check_collisions(context.application, context.exports, context.keys, context.remedies),
        ("exports", "database"),
    ),
    _Test("index", lambda context: check_index(context.application), ("database",)),
    _Test(
        "consent",
        lambda context: check_consent(context.application, context.files, context.keys, context.remedies),
        ("database",),
    ),
)


def check(settings: Settings, *, keys: Sequence[Key] = (), now: datetime | None = None) -> list[ChecklistItem]:
    """Run the pre-production checklist.

    Args:
        settings: Folder of the exports, database of the feedback, and the requirements.
        keys: Available keys.
        now: Time of the check, UTC; by default the current time.

    Returns:
        The items in a fixed order. Items that need an export or a database are skipped without one.

    Raises:
        SourceError: The database cannot be reached, or has an unexpected schema.
        ExportFileError: A manifest or a data file cannot be read.

    >>> from pathlib import Path
    >>> [item.name for item in check(Settings(output_dir=Path("nowhere"))) if item.passed]
    []
    """
    storage = open_storage(settings.output_dir)
    keys = bind_keys(storage, keys)
    all_exports = list_exports(storage).exports if storage.exists() else []
    exports = [manifest for manifest in all_exports if not manifest.pruned_at]
    database = summarize_database(settings)
    context = _Context(
        storage,
        exports,
        [export for manifest in exports if (export := read_contents(storage, manifest))],
        database,
        database or ApplicationSummary([], [], [], [], (), None),
        Remedies(settings, bool(keys), bool(keys and all_exports) and all_exports[-1].key_id != keys[0].id),
        keys,
        resolve_now(now),
    )
    return [*(_run(test, context) for test in _TESTS), check_record(storage, exports, context.remedies)]


def _run(test: _Test, context: _Context) -> ChecklistItem:
    """Run a test, or skip it if what it requires is missing."""
    export = context.remedies.command("export")
    lacking = {
        "exports": not context.exports and ("the folder contains no export", export),
        "files": not context.files and ("the data files of the exports are missing", "see contents"),
        "database": context.database is None and ("no database is configured", SET_DATABASE),
    }
    for requirement in test.requires:
        if missing := lacking[requirement]:
            return ChecklistItem(test.name, "skipped", f"Not tested: {missing[0]}.", missing[1])
    return test.run(context)


def _list_ids(context: _Context) -> list[str] | None:
    """Return the ids of the application; None without a database."""
    return [*context.application.users, *context.application.analyses] if context.database else None


def _list_private_ids(context: _Context) -> list[str]:
    """Return the ids that no text may contain: of users and of analyses, but no numbers of analyses, which are many."""
    return [*context.application.users, *(id_ for id_ in context.application.analyses if not id_.isdigit())]


def _hash_imaged(context: _Context) -> dict[str | None, pl.Series] | None:
    """Return the pseudonyms of analyses whose users agree to images, by key id; None without a database."""
    return hash_by_key(context.application.imaged, context.keys) if context.database else None


def _create_owner_lookup(context: _Context) -> OwnerLookup:
    """Return a function that finds the users of an export; the database is read at its first call."""
    keys: dict[str | None, Key | None] = {None: None} | {key.id: key for key in context.keys}
    read_owners = functools.cache(lambda: _fetch_owners(context.remedies.settings))

    def find_owners(manifest: Manifest) -> pl.LazyFrame | None:
        is_known = context.database is not None and manifest.pseudonyms in keys
        return hash_owners(read_owners(), keys[manifest.pseudonyms]) if is_known else None

    return find_owners


def summarize_database(settings: Settings) -> ApplicationSummary | None:
    """Summarize the database of the settings; None without one."""
    if settings.database_url is None:
        return None
    return summarize_application(settings.require_database_url(), **_list_lookup_options(settings))


def _fetch_owners(settings: Settings) -> Owners:
    return fetch_owners(settings.require_database_url(), **_list_lookup_options(settings))


def _list_lookup_options(settings: Settings) -> dict[str, Any]:
    return {
        "query": read_query_file(settings.query) if settings.query else None,
        "db_schema": settings.db_schema,
        "consent": ConsentColumnNames(settings.opt_in_column, settings.opt_out_column),
        "connect_timeout": settings.connect_timeout,
        "allow_row_security": settings.allow_row_security,
    }
