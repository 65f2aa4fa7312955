"""Erase people: remove their rows from every export of a folder, and exclude them from later exports.

Exports contain pseudonyms of analyses and no user ids, so the analyses of a user are looked up in the database. Erased
people are recorded as keyed digests (`records.tombstones`).
"""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Unpack
from uuid import UUID

import polars as pl

from feedback_etl.data_files.row_filter import NO_ANALYSIS
from feedback_etl.database.connect import Database, is_files
from feedback_etl.database.lookups import fetch_analyses, fetch_canonical_ids, fetch_owners, fetch_user_feedback
from feedback_etl.errors import UsageError
from feedback_etl.options.export import require_known
from feedback_etl.options.keywords import DatabaseKeywords
from feedback_etl.options.read import ReadOptions
from feedback_etl.privacy.eraser import Eraser, ErasureResult
from feedback_etl.privacy.erasure_selection import ErasureRequest
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.spellings import spell
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.legacy_key_ids import bind_keys
from feedback_etl.storage.base import LOCK_TIMEOUT
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.location import StorageLike, open_storage, require_storage
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.formulas import escape_formula


def erase(  # noqa: PLR0913  public, flat
    folder: StorageLike,
    *,
    user_ids: Sequence[int | str | UUID] = (),
    analysis_ids: Sequence[int | str | UUID] = (),
    not_in_database: bool = False,
    keep_k: bool = False,
    database: Database | None = None,
    keys: Key | str | Sequence[Key | str],
    dry_run: bool = False,
    lock_timeout: float = LOCK_TIMEOUT,
    **keywords: Unpack[DatabaseKeywords],
) -> ErasureResult:
    """Erase people from every export of a folder, and exclude them from later ones.

    Files of training pairs and of rejected rows are rewritten without their rows; all other rows keep their bytes (CSV)
    or their values and order (Parquet). An interrupted erasure is completed by the next one. Erasing twice changes
    nothing.

    Args:
        folder: A folder of exports, or a prefix of an object store (`s3://bucket/exports`).
        user_ids: Users to erase; a UUID in any spelling. Their analyses are looked up in `database`, so erase before
            the rows are deleted there; afterwards only `analysis_ids`, `not_in_database` or exports with a
            `subject_hash` find them.
        analysis_ids: Analyses to erase; a UUID in any spelling. Where the database treats several spellings as one id
            (`docs/databases.md`), any of them; without `database`, the canonical one.
        not_in_database: Erase everyone of whom the database has no feedback (any more), or no consent.
        keep_k: Also remove the rows that this or an earlier erasure left in equivalence classes smaller than the k of
            their export, with all other rows of their analyses; the same rewrite does both. People are counted by the
            database. Suppressed people are not kept out of later exports.
        database: Database of the feedback; required by `user_ids`, `not_in_database` and `keep_k`.
        keys: All known keys of the folder's exports; the first signs the audit record. Tombstones are written under
            each of them: later exports need one of these keys.
        dry_run: Report what would be erased, and change nothing.
        lock_timeout: Seconds to wait for the folder's lock.
        keywords: Options of `export_feedback` that describe the database, such as `query` and `db_schema`. Whatever
            `allow_row_security` is, `not_in_database` needs all rows.

    Returns:
        Numbers of rows and files, and what could not be searched.

    Raises:
        UsageError: No one is named, a database is required and missing or is a set of files, the folder does not exist,
            or an id is invalid.
        SourceError: The database cannot be read.
        ExportFileError: A file cannot be written, or a manifest cannot be read; run it again after fixing that.
        FolderLockedError: The folder's lock was not released in time.
        KeyMissingError: The audit log is signed, and there is no key.

    >>> from tempfile import TemporaryDirectory
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with TemporaryDirectory() as folder:
    ...     erase(folder, analysis_ids=[42], keys=[generate_key()]).not_found
    ['42']
    """
    require_usable_polars()
    require_known(keywords, [*DatabaseKeywords.__annotations__])
    options = ReadOptions(**keywords)
    users, analyses = _parse_ids("user_ids", user_ids), _parse_ids("analysis_ids", analysis_ids)
    known_keys = Key.parse_all(keys)
    if not (users or analyses or not_in_database or keep_k):
        raise UsageError("There is no one to erase: pass `user_ids`, `analysis_ids`, `not_in_database` or `keep_k`.")
    if database is None and (users or not_in_database or keep_k):
        raise UsageError(
            "Only the database or the raw files contain the analyses of users: pass `database` (a URL, for files "
            "files:PATTERN or --from), or erase by `analysis_ids` alone."
        )
    if not_in_database and database is not None and is_files(database):
        raise UsageError(
            "`not_in_database` requires the database: files may contain a part of it, and all others would be erased."
        )
    storage = open_storage(folder)
    require_storage(storage)
    known_keys = bind_keys(storage, known_keys)
    AuditLog(storage).require_signer(known_keys[0] if known_keys else None)
    request = _resolve(database, options, users, analyses)
    if database is not None and not_in_database:
        request = request._replace(remaining=_list_remaining(database, options))
    owners = fetch_owners(database, options) if database is not None and keep_k else None
    with explain_write_errors(storage), storage.lock(lock_timeout):
        return Eraser(storage, known_keys, request, dry_run=dry_run, owners=owners).run()


def _resolve(database: Database | None, options: ReadOptions, users: list[str], analyses: list[str]) -> ErasureRequest:
    """Look up all spellings of the given ids, and the analyses of the users."""
    spellings = _find_spellings(database, options, user_id=users, analysis_id=analyses)
    users_by_spelling, analyses_by_spelling = spellings["user_id"], spellings["analysis_id"]
    rows = {spelling: {*given} for spelling, given in analyses_by_spelling.items()}
    if database is not None and users:
        for user, feedback in fetch_user_feedback(database, options, list(users_by_spelling)).items():
            for analysis, feedback_id in feedback:
                for row in [analysis] if analysis is not None else _list_rejected_forms(str(feedback_id)):
                    rows.setdefault(row, set()).update(users_by_spelling[user])
    return ErasureRequest(users_by_spelling, analyses_by_spelling, rows, remaining=None)


def _list_rejected_forms(feedback_id: str) -> list[str]:
    """Return the forms in which lists of rejected rows contain a feedback id: numbers as they are, texts escaped."""
    escaped = pl.select(escape_formula(pl.lit(feedback_id))).item()
    return [f"{NO_ANALYSIS}{form}" for form in dict.fromkeys((feedback_id, escaped))]


def _list_remaining(database: Database, options: ReadOptions) -> Sequence[str]:
    """List the analyses that the database contains; without any, a sweep would erase everyone."""
    remaining = fetch_analyses(database, options)
    if not remaining:
        raise UsageError(
            "The database has no feedback (with consent), so everyone would be erased. Check that it is the right "
            "database; to remove whole exports, use `feedback-etl prune --keep-days 0`."
        )
    return remaining


def _find_spellings(
    database: Database | None, options: ReadOptions, **ids: list[str]
) -> dict[str, dict[str, set[str]]]:
    """Map every spelling of the ids of a column, and their canonical one, to the ids that were given for it.

    The database is only asked about ids that can have another spelling.
    """
    spellings = {name: {spelling: {given} for spelling, given in spell(some).items()} for name, some in ids.items()}
    unclear = {name: [given for given in some if not _is_canonical(given)] for name, some in ids.items()}
    if database is None or not any(unclear.values()):
        return spellings
    for name, canonical in fetch_canonical_ids(database, options, unclear).items():
        for given, spelling in canonical.items():
            spellings[name].setdefault(spelling, set()).add(given)
    return spellings


def _is_canonical(text: str) -> bool:
    """Return whether an id is its own canonical spelling in any collation."""
    return text.isascii() and text == text.lower().rstrip(" ")


def _parse_ids(name: str, ids: Sequence[int | str | UUID]) -> list[str]:
    """Return ids as text, without repetitions."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise UsageError(f"`{name}` must be a list of ids.")
    ids = list(ids)
    if any(isinstance(value, bool) or not isinstance(value, Integral | str | UUID) for value in ids):
        raise UsageError(f"`{name}` must contain integers, text or UUIDs only.")
    texts = list(dict.fromkeys(map(str, ids)))
    if any("\0" in text for text in texts):
        raise UsageError(f"`{name}` contains an id with a NUL character, which no database can store.")
    return texts
