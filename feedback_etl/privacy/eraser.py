"""Forgetting in a place: who has to go leaves its files, and is remembered as somebody to keep out.

In a folder it holds the lock; in an object store it begins again where others have come first. Who the analyses are of
has been looked up before, in `erasure`.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl

from feedback_etl.columns import SUBJECT_HASH
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.catalog import manifest_at
from feedback_etl.exports.housekeeping import log_of, take_up
from feedback_etl.exports.maintenance import contents_of
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.exports.object_recovery import unfinished
from feedback_etl.exports.rewrite import fetched_if_there, leave_out, looked_into, settle
from feedback_etl.exports.row_filter import NO_ANALYSIS, analyses_of, pseudonyms_in
from feedback_etl.exports.tombstones import (
    add_tombstones,
    digest,
    known_digests,
    last_state,
    require_state,
    state_of,
)
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.base import Folder
from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.object_store import Bucket, Changed
from feedback_etl.transform.expressions import hash_id


@dataclass
class ErasureResult:
    """What was erased; with `dry_run`, what would be.

    Attributes:
        rows: Rows of people that left the files: training pairs and rejected rows.
        files: Which files held some, by their paths in the folder.
        not_found: Ids, as they were given, of whom no file held anything and who were not forgotten before.
        without_key: Exports that could not be looked into, since the key that made them is not at hand, or since their
            application made the pseudonyms itself.
        damaged: Files that could not be read, and still hold what they held.
        unmanaged: Files without a manifest, which were not looked into either.
        unfinished: Exports of an object store that have not ended: they leave out who is forgotten when they are
            published; what was killed is removed a day after it began.
    """

    rows: int = 0
    files: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    without_key: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unmanaged: list[Path] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


class Eraser:
    """An erasure that holds the folder's lock.

    Args:
        wanted: Analyses, or NO_ANALYSIS and a feedback id, each with the ids that were given for it.
        users: Users that were given, in every spelling, each with the ids that were given for it.
        analyses: Analyses that were given, likewise.
    """

    def __init__(
        self,
        place: Folder | Bucket,
        keys: Sequence[Key],
        wanted: Mapping[str, Set[str]],
        users: Mapping[str, Set[str]],
        analyses: Mapping[str, Set[str]],
        present: Sequence[str] | None,
        dry_run: bool,
    ) -> None:
        self._place, self._keys, self._dry_run = place, keys, dry_run
        self._wanted, self._users, self._analyses, self._present = wanted, users, analyses, present
        self._given = [each for some in (users, analyses) for each in dict.fromkeys(chain(*some.values()))]
        self._log = log_of(place)
        self._signer = keys[0] if keys else None
        self._result, self._found = ErasureResult(), set[str]()

    def run(self) -> ErasureResult:
        """Do it."""
        with self._log.locked() as log:
            take_up(self._place, log, self._signer, self._keys)
            require_state(self._place, last_state(log.records()))
        exports, self._result.unmanaged = contents_of(self._place)
        keys: dict[str | None, Key | None] = {None: None} | {key.id: key for key in self._keys}
        self._found = self._forgotten_before()
        if not self._dry_run:
            self._remember()
            if isinstance(self._place, Bucket):  # an exporter that put its manifest before sees none of this
                self._announce()
                exports = contents_of(self._place).exports
        for manifest in exports:
            if manifest.pseudonyms in keys:
                self._erase_all_from(manifest, keys[manifest.pseudonyms])
            else:
                self._result.without_key.append(manifest.stem)
        if isinstance(self._place, Bucket):
            self._result.unfinished = unfinished(self._log.records())
        self._result.not_found = [each for each in self._given if each not in self._found]
        if not self._dry_run:
            self._record()
        return self._result

    def _announce(self) -> None:
        """A sweep leaves no tombstones by which an export that is under way could see it."""
        if self._present is not None:
            with self._log.locked() as log:
                log.append("erasing", self._signer, swept=True)

    def _record(self) -> None:
        facts = {"rows": self._result.rows, "files": self._result.files, "damaged": self._result.damaged}
        people = len(self._given)
        state = list(state_of(self._place))
        with self._log.locked() as log:
            swept = self._present is not None
            log.append("erased", self._signer, people=people, swept=swept, tombstones=state, **facts)

    def _signers(self) -> Sequence[Key | None]:
        return self._keys or [None]

    def _forgotten_before(self) -> set[str]:
        """The ids, as they were given, that are among the tombstones."""
        before = set[str]()
        for key in self._signers():
            known = known_digests(self._place, key)
            for user, given in self._users.items():
                before |= given if digest("user", user, key) in known else set()
            for hashed, analysis in _pseudonyms(self._analyses, key).items():
                before |= self._analyses[analysis] if digest("pseudonym", hashed, key) in known else set()
        return before

    def _remember(self) -> None:
        """First of all: an export that is under way looks for tombstones before it is published."""
        sets = {key: (list(self._users), list(_pseudonyms(self._wanted, key))) for key in self._signers()}
        if all(
            {digest("user", each, key) for each in users} | {digest("pseudonym", each, key) for each in pseudonyms}
            <= known_digests(self._place, key)
            for key, (users, pseudonyms) in sets.items()
        ):
            return
        erasure = secrets.token_hex(8)
        for key, (users, pseudonyms) in sets.items():
            add_tombstones(self._place, erasure, users, pseudonyms, key)

    def _erase_all_from(self, manifest: Manifest, key: Key | None) -> None:
        """Rewrite the files of an export, and begin again where somebody else in its store does the same."""
        now: Manifest | None = manifest
        while now:
            try:
                self._erase_from(now, key)
                break
            except Changed:
                now = manifest_at(self._place, manifest.stem) if isinstance(self._place, Bucket) else None

    def _erase_from(self, manifest: Manifest, key: Key | None) -> None:
        """Rewrite the files of an export that hold something of them."""
        if isinstance(self._place, Folder):
            top = self._place.path
            paths = [top / file.path for file in manifest.files]
            refuse_links(*paths, *(top / each for path in paths for each in path.relative_to(top).parents if each.name))
        settle(self._place, manifest)
        kept = None if self._present is None else {*_pseudonyms(self._present, key)}
        sought = _Sought(_pseudonyms(self._wanted, key), _hashed([*self._users], key, SUBJECT_HASH.name), kept)
        found = looked_into(self._place, manifest.files, partial(self._theirs_in, sought=sought))
        holding = [(file, theirs) for file, theirs in zip(manifest.files, found, strict=True) if theirs]
        unwanted = [(file, theirs.pseudonyms) for file, theirs in holding if theirs.pseudonyms]
        self._result.damaged += [
            file.path for file, theirs in holding if theirs.damaged and file.path not in self._result.damaged
        ]
        self._found |= {each for _, theirs in holding for each in theirs.ids}
        for file, erased in leave_out(self._place, manifest, unwanted, dry_run=self._dry_run):
            if file.kind != "rows":
                self._result.files += [file.path] if file.path not in self._result.files else []
                self._result.rows += erased

    def _theirs_in(self, file: DataFile, sought: "_Sought") -> "_Theirs | None":
        """What a file holds of them; None where it was pruned."""
        with fetched_if_there(self._place, file.path) as path:
            if path is None:
                return None
            try:
                there = pseudonyms_in(path, path.name)
                has_subjects = sought.subjects and file.kind == "pairs"
                theirs = analyses_of(path, path.name, {*sought.subjects}) if has_subjects else {}
            except ExportFileError:
                return _Theirs(damaged=True)
        unwanted = there & {*sought.pseudonyms, *theirs}
        if sought.kept is not None:
            unwanted |= {each for each in there - sought.kept if not each.startswith(NO_ANALYSIS) and each}
        ids = {each for hashed in unwanted & {*sought.pseudonyms} for each in self._wanted[sought.pseudonyms[hashed]]}
        return _Theirs(unwanted, ids.union(*(self._users[sought.subjects[subject]] for subject in theirs.values())))


class _Sought(NamedTuple):
    """Whom to look for in the files of a key: pseudonyms and what they stand for; with a sweep, who may stay."""

    pseudonyms: dict[str, str]
    subjects: dict[str, str]
    kept: set[str] | None


class _Theirs(NamedTuple):
    """What is to leave a file, and the ids, as they were given, of which there was something."""

    pseudonyms: Set[str] = frozenset()
    ids: Set[str] = frozenset()
    damaged: bool = False


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
