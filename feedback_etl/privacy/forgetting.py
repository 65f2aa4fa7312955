"""Forgetting in a folder: who has to go leaves its files, and is remembered as somebody to keep out.

It holds the folder's lock. Who the analyses are of has been looked up before, in `erasure`.
"""

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from feedback_etl.columns import SUBJECT_HASH
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.failures import refuse_links
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


class Forgetting:
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
