"""Forgetting people: their rows leave every file of a folder, and no later export brings them back.

An export holds pseudonyms of analyses, no user ids; so a user's analyses are looked up in the database first. What a
folder has forgotten it remembers as keyed digests (`exports.tombstones`).
"""

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl

from feedback_etl.columns import SUBJECT_HASH
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.failures import explained, refuse_links
from feedback_etl.exports.lock import LOCK_TIMEOUT, locked
from feedback_etl.exports.manifest import DataFile, Manifest, sha256_of, write_manifest
from feedback_etl.exports.names import rewritten
from feedback_etl.exports.recovery import clear_rewritten, recover
from feedback_etl.exports.retention import contents_of
from feedback_etl.exports.rewriting import NO_ANALYSIS, analyses_of, pseudonyms_in, write_without
from feedback_etl.exports.tombstones import (
    add_tombstones,
    digest,
    known_digests,
    last_state,
    require_state,
    state_of,
)
from feedback_etl.expressions import hash_id
from feedback_etl.privacy.keys import Key
from feedback_etl.private_files import create_private_file, sync_folder, take_access
from feedback_etl.source.connect import Database
from feedback_etl.source.consent import OPT_IN, OPT_OUT, ConsentColumns
from feedback_etl.source.people import analyses_in, feedback_of


@dataclass
class Erasure:
    """What was erased; with `dry_run`, what would be.

    Attributes:
        rows: Rows of people that left the files: training pairs and rejected rows.
        files: Which files held some, by their paths in the folder.
        not_found: Ids, as they were given, of whom no file held anything and who were not forgotten before.
        without_key: Exports that could not be looked into, since the key that made them is not at hand.
        damaged: Files that could not be read, and still hold what they held.
        foreign: Files without a manifest, which were not looked into either.
    """

    rows: int = 0
    files: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    without_key: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)


def erase(
    folder: str | Path,
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
    keys: Key | str | Sequence[Key | str],
    dry_run: bool = False,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Erasure:
    """Erase people from every export of a folder, and keep them out of later ones.

    Training pairs and lists of rejected rows are written anew without their rows; all other rows keep their bytes
    (CSV) or their values and order (Parquet). What was interrupted is taken up by the next erasure; one that is run
    again changes nothing.

    Args:
        folder: Where the exports are.
        user_ids: Whom to forget. Their analyses are looked up in `database`, so erase before the rows are deleted
            there; afterwards only `analysis_ids` or `not_in_database` find them.
        analysis_ids: What to forget.
        not_in_database: Forget everybody of whom the database has no feedback (any more), or no consent.
        database: Where the feedback is; needed for `user_ids` and `not_in_database`.
        query: As for `export_feedback`.
        db_schema: As for `export_feedback`.
        opt_in_column: As for `export_feedback`.
        opt_out_column: As for `export_feedback`.
        connect_timeout: Seconds to wait for the database.
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
    users, given = _ids("user_ids", user_ids), _ids("analysis_ids", analysis_ids)
    known = [Key.of(key) for key in ([keys] if isinstance(keys, Key | str) else keys)]
    if not (users or given or not_in_database):
        raise UsageError("Name somebody to erase: user_ids, analysis_ids or not_in_database.")
    if database is None and (users or not_in_database):
        raise UsageError("The analyses of users are in the database: pass it, or erase by analysis_ids.")
    if not Path(folder).is_dir():
        raise UsageError(f"There is no folder {folder}.")
    AuditLog(Path(folder)).require_signer(known[0] if known else None)
    where: dict[str, Any] = {"query": query, "db_schema": db_schema, "connect_timeout": connect_timeout}
    where["consent"] = ConsentColumns(opt_in_column, opt_out_column)
    wanted: dict[str, set[str]] = {each: {each} for each in given}
    for user, theirs in (feedback_of(database, users, **where) if database is not None and users else {}).items():
        for analysis, feedback in theirs:
            each = analysis if analysis is not None else f"{NO_ANALYSIS}{feedback}"
            wanted.setdefault(each, set()).add(user)
    present = analyses_in(database, **where) if database is not None and not_in_database else None
    if present is not None and not present:
        raise UsageError(
            "The database has no feedback (with consent) at all, so that everybody would be erased. Is it the right "
            "one? To remove whole exports, prune them."
        )
    with explained(Path(folder)), locked(Path(folder), lock_timeout):
        return _Task(Path(folder), known, wanted, users, given, present, dry_run).run()


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


class _Task:
    """An erasure that holds the folder's lock.

    Args:
        wanted: Analyses, or NO_ANALYSIS and a feedback id, each with the ids that were given for it.
    """

    def __init__(
        self,
        folder: Path,
        keys: Sequence[Key],
        wanted: Mapping[str, Set[str]],
        users: Sequence[str],
        analyses: Sequence[str],
        present: Sequence[str] | None,
        dry_run: bool,
    ) -> None:
        self._folder, self._keys, self._dry_run = folder, keys, dry_run
        self._wanted, self._users, self._analyses, self._present = wanted, users, analyses, present
        self._log = AuditLog(folder)
        self._signer = keys[0] if keys else None
        self._result = Erasure()

    def run(self) -> Erasure:
        """Do it."""
        with self._log.locked() as log:
            recover(self._folder, log, self._signer)
            clear_rewritten(self._folder, log)
            require_state(self._folder, last_state(log.records()))
        exports, self._result.foreign = contents_of(self._folder)
        keys: dict[str | None, Key | None] = {None: None} | {key.id: key for key in self._keys}
        found = self._forgotten_before()
        if not self._dry_run:
            self._remember()
        for manifest in exports:
            if manifest.key_id in keys:
                found |= self._erase_from(manifest, keys[manifest.key_id])
            else:
                self._result.without_key.append(manifest.stem)
        self._result.not_found = [each for each in (*self._users, *self._analyses) if each not in found]
        if not self._dry_run:
            self._record()
        return self._result

    def _record(self) -> None:
        facts = {"rows": self._result.rows, "files": self._result.files, "damaged": self._result.damaged}
        people = len(self._users) + len(self._analyses)
        state = list(state_of(self._folder))
        with self._log.locked() as log:
            swept = self._present is not None
            log.append("erased", self._signer, people=people, swept=swept, tombstones=state, **facts)

    def _signers(self) -> Sequence[Key | None]:
        return self._keys or [None]

    def _forgotten_before(self) -> set[str]:
        """The ids, as they were given, that are among the tombstones."""
        before = set[str]()
        for key in self._signers():
            known = known_digests(self._folder, key)
            before |= {user for user in self._users if digest("user", user, key) in known}
            hashes = {each: hashed for hashed, each in _pseudonyms(self._analyses, key).items()}
            before |= {each for each, hashed in hashes.items() if digest("pseudonym", hashed, key) in known}
        return before

    def _remember(self) -> None:
        """First of all: an export that is under way looks for tombstones before it is published."""
        sets = {key: (self._users, list(_pseudonyms(self._wanted, key))) for key in self._signers()}
        if all(
            {digest("user", each, key) for each in users} | {digest("pseudonym", each, key) for each in pseudonyms}
            <= known_digests(self._folder, key)
            for key, (users, pseudonyms) in sets.items()
        ):
            return
        erasure = secrets.token_hex(8)
        for key, (users, pseudonyms) in sets.items():
            add_tombstones(self._folder, erasure, users, pseudonyms, key)

    def _erase_from(self, manifest: Manifest, key: Key | None) -> set[str]:
        """Rewrite the files of an export; the ids, as they were given, of which there was something."""
        pseudonyms, found = _pseudonyms(self._wanted, key), set[str]()
        subjects = _hashed(self._users, key, SUBJECT_HASH.name)
        kept = None if self._present is None else {*_pseudonyms(self._present, key)}
        paths = [self._folder / file.path for file in manifest.files]
        refuse_links(*paths, *(path.parent for path in paths if path.parent != self._folder))
        _settle(self._folder, manifest)
        for file, path in zip(manifest.files, paths, strict=True):
            if not path.exists():  # pruned
                continue
            try:
                there = pseudonyms_in(path, path.name)
                theirs = analyses_of(path, path.name, {*subjects}) if subjects and file.kind == "pairs" else {}
            except ExportFileError:
                self._result.damaged.append(file.path)
                continue
            unwanted = there & {*pseudonyms, *theirs}
            if kept is not None:
                unwanted |= {each for each in there - kept if not each.startswith(NO_ANALYSIS) and each}
            found |= {each for hashed in unwanted & {*pseudonyms} for each in self._wanted[pseudonyms[hashed]]}
            found |= {subjects[subject] for subject in theirs.values()}
            if unwanted:
                erased = self._rewrite(manifest, file, unwanted)
                if file.kind != "rows":
                    self._result.files.append(file.path)
                    self._result.rows += erased
        return found

    def _rewrite(self, manifest: Manifest, file: DataFile, unwanted: Set[str]) -> int:
        """A file without some rows takes the place of the old one; how many rows it has less."""
        path = self._folder / file.path
        new = rewritten(path)
        new.unlink(missing_ok=True)  # of an erasure that was killed
        try:
            with open(create_private_file(new), "wb", buffering=0) as target:
                written, rows = write_without(path, path.name, unwanted, target)
                take_access(target.fileno(), path)
                os.fsync(target.fileno())
            if not self._dry_run:
                file.becoming = {"rows": rows, "bytes": written.bytes, "sha256": written.sha256}
                write_manifest(self._folder, manifest)
                new.replace(path)
                sync_folder(path.parent)
        finally:
            new.unlink(missing_ok=True)
        erased = file.rows - rows
        if not self._dry_run:
            _settle(self._folder, manifest)
        return erased


def _settle(folder: Path, manifest: Manifest) -> None:
    """Let the manifest say what is there, whether a file got its new content before a crash or not."""
    if not any(file.becoming for file in manifest.files):
        return
    for file in manifest.files:
        if file.becoming and sha256_of(folder / file.path) == file.becoming["sha256"]:
            manifest.risk |= {"stale": True} if manifest.risk else {}
            manifest.erased_rows += file.rows - file.becoming["rows"] if file.kind != "rows" else 0
            file.rows, file.bytes, file.sha256 = (file.becoming[name] for name in ("rows", "bytes", "sha256"))
        file.becoming = {}
    write_manifest(folder, manifest)


def _pseudonyms(wanted: Iterable[str], key: Key | None) -> dict[str, str]:
    """What stands in files for analyses, each with its analysis; rows without one have their feedback id."""
    wanted = list(wanted)
    without = {each: each for each in wanted if each.startswith(NO_ANALYSIS)}
    return _hashed([each for each in wanted if each not in without], key, "analysis_id") | without


def _hashed(ids: Sequence[str], key: Key | None, domain: str) -> dict[str, str]:
    """The pseudonyms of ids, each with its id."""
    texts = pl.Series("id", ids, dtype=pl.String)
    hashes = pl.select(hash_id(pl.lit(texts), key=key, domain=domain, unkeyed=key is None)).to_series()
    return dict(zip(hashes, texts, strict=True))
