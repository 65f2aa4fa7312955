"""Forgetting people: their rows leave every file of a folder, and no later export brings them back.

An export holds pseudonyms of analyses, no user ids; so a user's analyses are looked up in the database first. What a
folder has forgotten it remembers as keyed digests (`exports.tombstones`).
"""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any
from uuid import UUID

from feedback_etl.database.connect import Database
from feedback_etl.database.consent import OPT_IN, OPT_OUT, ConsentColumnNames
from feedback_etl.database.lookups import fetch_analyses, fetch_canonical_ids, fetch_user_feedback
from feedback_etl.errors import UsageError
from feedback_etl.exports.housekeeping import held, log_of
from feedback_etl.exports.lock import LOCK_TIMEOUT
from feedback_etl.exports.maintenance import require_place
from feedback_etl.exports.row_filter import NO_ANALYSIS
from feedback_etl.privacy.eraser import Erasure, Forgetting
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.spellings import spell
from feedback_etl.storage.base import Where, place_of
from feedback_etl.storage.errors import explained
from feedback_etl.transform.fork_guard import require_usable_polars


def erase(
    folder: Where,
    *,
    user_ids: Sequence[int | str | UUID] = (),
    analysis_ids: Sequence[int | str | UUID] = (),
    not_in_database: bool = False,
    database: Database | None = None,
    query: str | None = None,
    db_schema: str | None = None,
    opt_in_column: str = OPT_IN,
    opt_out_column: str = OPT_OUT,
    connect_timeout: float = 2.0,
    allow_row_security: bool = False,
    keys: Key | str | Sequence[Key | str],
    dry_run: bool = False,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Erasure:
    """Erase people from every export of a folder, and keep them out of later ones.

    Training pairs and lists of rejected rows are written anew without their rows; all other rows keep their bytes
    (CSV) or their values and order (Parquet). What was interrupted is taken up by the next erasure; one that is run
    again changes nothing.

    Args:
        folder: Where the exports are: a folder, or a prefix of an object store (`s3://bucket/exports`).
        user_ids: Whom to forget; a UUID in any spelling. Their analyses are looked up in `database`, so erase before
            the rows are deleted there; afterwards only `analysis_ids` or `not_in_database` find them.
        analysis_ids: What to forget; a UUID in any spelling. Where several spellings are one id to the database
            (`docs/databases.md`), any of them; without `database`, the canonical one.
        not_in_database: Forget everybody of whom the database has no feedback (any more), or no consent.
        database: Where the feedback is; needed for `user_ids` and `not_in_database`.
        query: As for `export_feedback`.
        db_schema: As for `export_feedback`.
        opt_in_column: As for `export_feedback`.
        opt_out_column: As for `export_feedback`.
        connect_timeout: Seconds to wait for the database.
        allow_row_security: As for `export_feedback`, for `user_ids`; `not_in_database` needs all rows in any case.
        keys: All keys that made exports of the folder and are still known; the first signs the audit record. Who is
            forgotten is remembered under each of them: later exports have to know one.
        dry_run: Look, and change nothing.
        lock_timeout: Seconds to wait for others who use the folder.

    Raises:
        UsageError: There is nobody to forget, no database where one is needed, no such folder, or an id is none.
        SourceError: The database cannot be read.
        ExportFileError: A file cannot be written, or a manifest cannot be read; run it again when that is mended.
        FolderLocked: Others use the folder.
        KeyMissing: The audit log is signed, and there is no key.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     erase(folder, analysis_ids=[42], keys=[Key("k" * 32)]).not_found
    ['42']
    """
    require_usable_polars()
    users, analyses = _ids("user_ids", user_ids), _ids("analysis_ids", analysis_ids)
    known = Key.all_of(keys)
    if not (users or analyses or not_in_database):
        raise UsageError("Name somebody to erase: user_ids, analysis_ids or not_in_database.")
    if database is None and (users or not_in_database):
        raise UsageError("The analyses of users are in the database: pass it, or erase by analysis_ids.")
    place = place_of(folder)
    require_place(place)
    log_of(place).require_signer(known[0] if known else None)
    where: dict[str, Any] = {"query": query, "db_schema": db_schema, "connect_timeout": connect_timeout}
    where["consent"] = ConsentColumnNames(opt_in_column, opt_out_column)
    allowed: dict[str, Any] = {"allow_row_security": allow_row_security}
    spellings = _spellings(database, where | allowed, user_id=users, analysis_id=analyses)
    wanted = {spelling: {*given} for spelling, given in spellings["analysis_id"].items()}
    found = {}
    if database is not None and users:
        found = fetch_user_feedback(database, list(spellings["user_id"]), **where, **allowed)
    for user, theirs in found.items():
        for analysis, feedback in theirs:
            each = analysis if analysis is not None else f"{NO_ANALYSIS}{feedback}"
            wanted.setdefault(each, set()).update(spellings["user_id"][user])
    present = fetch_analyses(database, **where) if database is not None and not_in_database else None
    if present is not None and not present:
        raise UsageError(
            "The database has no feedback (with consent) at all, so that everybody would be erased. Is it the right "
            "one? To remove whole exports, prune them."
        )
    with explained(place), held(place, lock_timeout):
        return Forgetting(place, known, wanted, spellings["user_id"], spellings["analysis_id"], present, dry_run).run()


def _spellings(database: Database | None, where: dict[str, Any], **ids: list[str]) -> dict[str, dict[str, set[str]]]:
    """Map every spelling of the ids of a column, and their canonical one, to the ids that were given for it.

    The database is only asked where there can be another spelling.
    """
    found = {name: {spelling: {given} for spelling, given in spell(some).items()} for name, some in ids.items()}
    asked = {name: [each for each in some if not _is_plain(each)] for name, some in ids.items()}
    if database is None or not any(asked.values()):
        return found
    for name, canonical in fetch_canonical_ids(database, asked, **where).items():
        for each, spelling in canonical.items():
            found[name].setdefault(spelling, set()).add(each)
    return found


def _is_plain(each: str) -> bool:
    """Whether an id is its own canonical spelling, whatever the collation."""
    return each.isascii() and each == each.lower().rstrip(" ")


def _ids(name: str, ids: Sequence[int | str | UUID]) -> list[str]:
    """Ids as text, each once."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise UsageError(f"{name} is a list of ids.")
    ids = list(ids)
    if any(isinstance(each, bool) or not isinstance(each, Integral | str | UUID) for each in ids):
        raise UsageError(f"{name} holds something that is no id: an id is an integer, text or a UUID.")
    texts = list(dict.fromkeys(map(str, ids)))
    if any("\0" in text for text in texts):
        raise UsageError(f"{name} holds an id with a NUL character, which no database has.")
    return texts
