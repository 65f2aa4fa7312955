"""Forgetting people: their rows leave every file of a folder, and no later export brings them back.

An export holds pseudonyms of analyses, no user ids; so a user's analyses are looked up in the database first. What a
folder has forgotten it remembers as keyed digests (`exports.tombstones`).
"""

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.failures import explained
from feedback_etl.exports.lock import LOCK_TIMEOUT, locked
from feedback_etl.exports.manifest import DataFile, Manifest, sha256_of, write_manifest
from feedback_etl.exports.names import temporary
from feedback_etl.exports.recovery import recover
from feedback_etl.exports.retention import contents_of
from feedback_etl.exports.rewriting import pseudonyms_in, write_without
from feedback_etl.exports.tombstones import add_tombstones
from feedback_etl.expressions import hash_id
from feedback_etl.privacy.keys import Key
from feedback_etl.private_files import create_private_file, sync_folder
from feedback_etl.source.connect import Database
from feedback_etl.source.people import analyses_in, analyses_of


@dataclass
class Erasure:
    """What was erased; with `dry_run`, what would be.

    Attributes:
        rows: Rows of people that left the files: training pairs and rejected rows.
        files: Which files held some, by their paths in the folder.
        not_found: Ids, as they were given, of whom no file held anything.
        without_key: Exports that could not be looked into, since the key that made them is not at hand.
        foreign: Files without a manifest, which were not looked into either.
    """

    rows: int = 0
    files: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    without_key: list[str] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)


def erase(
    folder: str | Path,
    *,
    user_ids: Sequence[int | str] = (),
    analysis_ids: Sequence[int | str] = (),
    not_in_database: bool = False,
    database: Database | None = None,
    query: str | None = None,
    db_schema: str | None = None,
    connect_timeout: float = 2.0,
    keys: Sequence[Key],
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
        connect_timeout: Seconds to wait for the database.
        keys: All keys that made exports of the folder and are still known; the first signs the audit record.
        dry_run: Look, and change nothing.
        lock_timeout: Seconds to wait for others who use the folder.

    Raises:
        UsageError: There is nobody to forget, or no database where one is needed.
        SourceError: The database cannot be read.
        ExportFileError: A file cannot be read or written; run it again when that is mended.
        FolderLocked: Others use the folder.
        KeyMissing: The audit log is signed, and there is no key.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     erase(folder, analysis_ids=[42], keys=[Key("k" * 32)]).not_found
    ['42']
    """
    if not (user_ids or analysis_ids or not_in_database):
        raise UsageError("Name somebody to erase: user_ids, analysis_ids or not_in_database.")
    if database is None and (user_ids or not_in_database):
        raise UsageError("The analyses of users are in the database: pass it, or erase by analysis_ids.")
    AuditLog(Path(folder)).require_signer(keys[0] if keys else None)
    where: dict[str, Any] = {"query": query, "db_schema": db_schema, "connect_timeout": connect_timeout}
    users = list(map(str, user_ids))
    analyses = analyses_of(database, users, **where) if database is not None and users else {}
    given = {analysis: analysis for analysis in map(str, analysis_ids)}
    wanted = given | {analysis: user for user, ones in analyses.items() for analysis in ones}
    present = analyses_in(database, **where) if database is not None and not_in_database else None
    if present is not None and not present:
        raise UsageError(
            "The database has no feedback (with consent) at all, so that everybody would be erased. Is it the right "
            "one? To remove whole exports, prune them."
        )
    with explained(Path(folder)), locked(Path(folder), lock_timeout):
        task = _Task(Path(folder), keys, wanted, users, present, dry_run)
        return task.run([*users, *given])


class _Task:
    """An erasure that holds the folder's lock."""

    def __init__(
        self,
        folder: Path,
        keys: Sequence[Key],
        wanted: Mapping[str, str],
        users: Sequence[str],
        present: Sequence[str] | None,
        dry_run: bool,
    ) -> None:
        self._folder, self._keys, self._dry_run = folder, keys, dry_run
        self._wanted, self._users, self._present = wanted, users, present
        self._log = AuditLog(folder)
        self._signer = keys[0] if keys else None
        self._result = Erasure()

    def run(self, asked: Sequence[str]) -> Erasure:
        """Do it; `asked` are the ids as they were given."""
        with self._log.locked() as log:
            recover(self._folder, log, self._signer)
        exports, self._result.foreign = contents_of(self._folder)
        keys: dict[str | None, Key | None] = {None: None} | {key.id: key for key in self._keys}
        if not self._dry_run:
            self._remember(keys, exports)
        found: set[str] = set()
        for manifest in exports:
            if manifest.key_id in keys:
                found |= self._erase_from(manifest, keys[manifest.key_id])
            else:
                self._result.without_key.append(manifest.stem)
        self._result.not_found = [each for each in asked if each not in found]
        if not self._dry_run:
            with self._log.locked() as log:
                facts = {"rows": self._result.rows, "files": self._result.files}
                log.append("erased", self._signer, people=len(asked), **facts)
        return self._result

    def _remember(self, keys: Mapping[str | None, Key | None], exports: Sequence[Manifest]) -> None:
        """First of all: an export that is under way looks for tombstones before it is published."""
        started = {each["key_id"] for each in self._log.records() if each["event"] == "started"}  # under way, perhaps
        used = {manifest.key_id for manifest in exports} | started | {key.id for key in self._keys[:1]}
        for key_id in used & {*keys}:
            add_tombstones(self._folder, "user", self._users, keys[key_id])
            add_tombstones(self._folder, "pseudonym", _pseudonyms(self._wanted, keys[key_id]), keys[key_id])

    def _erase_from(self, manifest: Manifest, key: Key | None) -> set[str]:
        """Rewrite the files of an export; the ids, as they were given, of which there was something."""
        _settle(self._folder, manifest)
        pseudonyms, found = _pseudonyms(self._wanted, key), set()
        kept = None if self._present is None else {*_pseudonyms(self._present, key)}
        for file in manifest.files:
            path = self._folder / file.path
            if not path.exists():  # pruned
                continue
            there = pseudonyms_in(path, path.name)
            unwanted = there & {*pseudonyms} | (there - kept if kept is not None else set())
            found |= {self._wanted[pseudonyms[each]] for each in unwanted & {*pseudonyms}}
            if unwanted:
                erased = self._rewrite(manifest, file, unwanted)
                if file.kind != "rows":
                    self._result.files.append(file.path)
                    self._result.rows += erased
        return found

    def _rewrite(self, manifest: Manifest, file: DataFile, unwanted: Set[str]) -> int:
        """A file without some rows takes the place of the old one; how many rows it has less."""
        path = self._folder / file.path
        new = temporary(path)
        new.unlink(missing_ok=True)  # of an erasure that was killed
        try:
            with open(create_private_file(new), "wb", buffering=0) as target:
                written, rows = write_without(path, path.name, unwanted, target)
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
            manifest.erased_rows += file.rows - file.becoming["rows"] if file.kind != "rows" else 0
            file.rows, file.bytes, file.sha256 = (file.becoming[name] for name in ("rows", "bytes", "sha256"))
        file.becoming = {}
    write_manifest(folder, manifest)


def _pseudonyms(analysis_ids: Iterable[str], key: Key | None) -> dict[str, str]:
    """The pseudonyms of analyses, each with its analysis."""
    ids = pl.Series("analysis_id", list(analysis_ids), dtype=pl.String)
    hashes = pl.select(hash_id(pl.lit(ids).alias("analysis_id"), key=key, unkeyed=key is None)).to_series()
    return dict(zip(hashes, ids, strict=True))
