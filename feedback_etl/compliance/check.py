"""The checklist before production: each item is tested on what is there, never asserted."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from feedback_etl.clock import resolve_now
from feedback_etl.columns import all_quasi_identifiers
from feedback_etl.compliance.application import consented, erasable, hashes_by_key, indexed
from feedback_etl.compliance.data_files import Written, written
from feedback_etl.compliance.folder import anonymous, keyed, logged, private, retention
from feedback_etl.compliance.item import Item
from feedback_etl.compliance.record import documented
from feedback_etl.compliance.rows import ages, contents, contract_columns, duplicates, guessable, images, raw_ids
from feedback_etl.database.consent import ConsentColumnNames
from feedback_etl.database.custom_query import read_query_file
from feedback_etl.database.lookups import ApplicationSummary, summarize_application
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.exports.manifest import Manifest
from feedback_etl.privacy.keys import Key
from feedback_etl.settings import Settings
from feedback_etl.storage.base import LocalStorage, open_storage
from feedback_etl.storage.object_store import ObjectStorage

_NO_EXPORT = "not tested: there is no export in the folder"
_NO_DATABASE = "not tested: no database is configured"


class _There(NamedTuple):
    """What there is to test."""

    place: LocalStorage | ObjectStorage
    exports: list[Manifest]
    files: list[Written]
    database: ApplicationSummary
    settings: Settings
    keys: Sequence[Key]
    now: datetime


_OF_EXPORTS: dict[str, Callable[[_There], Item]] = {
    "columns": lambda there: contract_columns(there.files),
    "pseudonyms": lambda there: guessable(there.files, [*there.database.users, *there.database.analyses]),
    "ages": lambda there: ages(there.files),
    "images": lambda there: images(there.files, hashes_by_key(there.database.imaged, there.keys)),
    "contents": lambda there: contents(there.files),
    "keys": lambda there: keyed(there.exports),
    "duplicates": lambda there: duplicates(there.files),
    "modes": lambda there: private(there.place),
    "retention": lambda there: retention(there.exports, there.settings.retention_days, there.now),
    "audit log": lambda there: logged(there.place, there.exports, there.keys),
    "k": lambda there: anonymous(
        there.files,
        there.settings.k,
        all_quasi_identifiers(there.settings.quasi_identifiers, there.settings.extra_columns),
    ),
}
_OF_BOTH: dict[str, Callable[[_There], Item]] = {
    "raw ids": lambda there: raw_ids(there.files, there.database.users),
    "erasure": lambda there: erasable(there.place, there.files, there.database, there.keys),
}
_OF_THE_DATABASE: dict[str, Callable[[_There], Item]] = {
    "index": lambda there: indexed(there.database),
    "consent": lambda there: consented(there.database, there.files, there.keys, there.settings),
}


def check(settings: Settings, *, keys: Sequence[Key] = (), now: datetime | None = None) -> list[Item]:
    """Test everything that should be so before exports are used.

    Args:
        settings: Where the exports and the feedback are, and what is asked of them.
        keys: The keys at hand.
        now: The time from which ages are counted, UTC; the present unless given.

    Returns:
        The items, one after the other. What needs an export or a database has not passed where there is none.

    Raises:
        SourceError: The database cannot be reached, or is not as expected.
        ExportFileError: A manifest or a data file cannot be read.

    >>> from pathlib import Path
    >>> [item.name for item in check(Settings(output_dir=Path("nowhere"))) if item.passed]
    []
    """
    place = open_storage(settings.output_dir)
    files = [each for manifest in _manifests(place) if (each := written(place, manifest))]
    exports = [each.manifest for each in files]
    database = _database(settings)
    there = _There(
        place, exports, files, database or ApplicationSummary([], [], [], [], (), ""), settings, keys, resolve_now(now)
    )
    no_export = Item("", False, _NO_EXPORT, "feedback-etl export") if not files else None
    no_database = Item("", False, _NO_DATABASE, "set FEEDBACK_ETL_DATABASE_URL") if database is None else None
    items = []
    for tests, lacking in (
        (_OF_EXPORTS, no_export),
        (_OF_BOTH, no_export or no_database),
        (_OF_THE_DATABASE, no_database),
    ):
        items += [lacking._replace(name=name) if lacking else test(there) for name, test in tests.items()]
    return [*items, documented(settings)]


def _manifests(place: LocalStorage | ObjectStorage) -> list[Manifest]:
    """Of exports that were not pruned, the oldest first."""
    return [each for each in list_exports(place).exports if not each.pruned_at] if place.exists() else []


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
