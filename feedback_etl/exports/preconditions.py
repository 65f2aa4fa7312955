"""Preconditions of an export: what must hold when it begins, and is checked again before it commits.

One key, a consent filter once there was one, one export of a request, tombstones as recorded, and no sweep meanwhile.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedback_etl.errors import ExportFileError, ValidationError
from feedback_etl.exports.idempotency import DuplicateRequestError, find_outcome
from feedback_etl.exports.key_guards import (
    require_intact_log,
    require_one_audience,
    require_recorded,
    require_same_key,
)
from feedback_etl.exports.overlaps import Release, require_equal_rows, require_no_overlap
from feedback_etl.exports.recovery import erase_digests
from feedback_etl.exports.series_conflicts import require_latest
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import Line, Record, is_swept_since
from feedback_etl.records.catalog import read_manifest
from feedback_etl.records.legacy_key_ids import name_keys
from feedback_etl.records.manifest import Manifest
from feedback_etl.records.manifest_verification import LogEvidence, verify_manifest
from feedback_etl.records.tombstone_seals import require_own
from feedback_etl.records.tombstones import TombstoneFile, Tombstones, TombstoneState, hash_identity
from feedback_etl.storage.base import LOCK_TIMEOUT, ConflictError, Storage


@dataclass(frozen=True, kw_only=True)
class TransactionOptions:
    """Options of a transaction.

    Attributes:
        key: The key of the pseudonyms; it signs the audit records. None for unkeyed exports.
        allow_new_key: Whether the folder may contain exports of another key.
        known_keys: Returns other keys of tombstones; called only if there are tombstones.
        consent: The consent columns that filtered the rows.
        audit_details: Further details of the audit record `started`.
        lock_timeout: Seconds to wait for the folder's lock; None if the caller has acquired it.
        continued: The stems of the exports that an incremental export continues; None for other exports.
        state: The manifest of the last of them, whose state it continues.
        own_pseudonyms: Whether the application computes the pseudonyms, so that no key finds a person's rows.
        release: What is shared with a recipient; None for other exports.
        allow_overlap: Whether the recipient may compare it with earlier files.
    """

    key: Key | None = None
    allow_new_key: bool = False
    known_keys: Callable[[], Sequence[Key]] = list
    consent: Sequence[str] = ()
    audit_details: Mapping[str, Any] = field(default_factory=dict)
    lock_timeout: float | None = LOCK_TIMEOUT
    continued: frozenset[str] | None = None
    state: Manifest | None = None
    own_pseudonyms: bool = False
    release: Release | None = None
    allow_overlap: bool = False

    @property
    def start_details(self) -> dict[str, Any]:
        """Further details of the audit record `started`."""
        shared = self.release._asdict() if self.release else {}
        return shared | ({"allow_overlap": True} if self.allow_overlap else {}) | {**self.audit_details}

    @property
    def exclusive_release(self) -> Release | None:
        """What the recipient may not compare with other files; None for other exports, and where it may."""
        return None if self.allow_overlap else self.release


class Preconditions:
    """Check the preconditions of a run.

    Attributes:
        tombstones, erasures: The tombstones when the export began, and the ids of their erasures.
        has_erased: Whether people were erased since.
        rows_digest: The digest of the rows of a shared export, which is known at the commit.
    """

    def __init__(self, storage: Storage, options: TransactionOptions, run: str) -> None:
        self._storage, self._options, self._run, self._key = storage, options, run, options.key
        self.erasures, self.tombstones = frozenset[str](), list[Tombstones]()
        self._tombstones: TombstoneFile | None = None
        self._key_names = b""
        self._own_keys = [self._key] if self._key else []
        self.has_erased, self.rows_digest = False, ""

    def check_start(self, lines: Sequence[Line], names: Iterable[str]) -> None:
        """Refuse an export that does not fit those before it, and one after tampering.

        The first call reads who was erased before, which later erasures are compared with. In an object store,
        unfinished runs of the same request are aborted.

        Raises:
            UsageError: The export would have pseudonyms of another key.
            ValidationError: The last export filtered by consent, and this one would not.
            ExportFileError: The log was changed or cut, or the tombstones differ from the state recorded in it.
            DuplicateRequestError: Another run of the request has committed.
        """
        records = [line.record for line in lines if line.record is not None]
        self._require_same_key(records)
        require_consent(self._storage, records, self._options.consent)
        is_first, self._tombstones = self._tombstones is None, self._tombstones or TombstoneFile(self._storage)
        self._key_names = b"".join(line.content for line in lines) + self._tombstones.content
        if is_first:
            self._read_tombstones(self._tombstones, lines, records)
        keys, allow_new_key = self._list_keys(records) if self._key else [], self._options.allow_new_key
        require_recorded(self._storage, names, records, keys, allow_new_key=allow_new_key)
        if release := self._options.exclusive_release:
            require_no_overlap(records, release, self._run)
        request = self._options.audit_details.get("request")
        if request is not None and find_outcome(self._storage, records, request, self._key):
            raise DuplicateRequestError("Another run of the same request was published meanwhile: repeat the request.")

    def _read_tombstones(self, tombstones: TombstoneFile, lines: Sequence[Line], records: Sequence[Record]) -> None:
        tombstones.require_state(TombstoneState.from_records(records))
        if tombstones.content:
            require_own(self._storage, tombstones, {key.id: key for key in self._list_keys(records)})
        require_intact_log(self._storage, lines, self._list_keys(records), signed=tombstones.are_signed)
        self._require_intact_state(records)
        self.erasures = tombstones.erasures
        if self.erasures:
            self.tombstones = tombstones.select([self._key, *self._bind_known_keys()])

    def _require_intact_state(self, records: Sequence[Record]) -> None:
        """Refuse to continue an incremental series from a manifest that was changed: rows could be left out."""
        state = self._options.state
        if state is None or not self._find_problem(state, records):
            return
        current = read_manifest(self._storage, state.stem)  # an erasure may have replaced it
        is_same = current is not None and current.chain == state.chain
        if problem := self._find_problem(current if current and is_same else state, records):
            raise ExportFileError(f"{problem}. Restore it, or begin a series in another folder (--output).")

    def _find_problem(self, manifest: Manifest, records: Sequence[Record]) -> str:
        by_id = {key.id: key for key in self._list_keys(records)}
        problems = verify_manifest(manifest, LogEvidence.from_records(records), by_id)
        return next((problem.text for problem in problems if problem.is_certain), "")

    def _list_keys(self, records: Iterable[Record]) -> list[Key]:
        """Return the key, and the others that are known if the log names another."""
        other_ids = {record["key_id"] for record in records} - {None, get_key_id(self._key)}
        return [*self._own_keys, *(self._bind_known_keys() if other_ids else ())]

    def _bind_known_keys(self) -> list[Key]:
        return name_keys([*self._own_keys, *self._options.known_keys()], self._key_names)

    def check_commit(self, records: Sequence[Record]) -> None:
        """Refuse another key and a sweep since the start, which compared only published files with the database.

        Raises:
            UsageError: Meanwhile there were exports of another key.
            ValidationError: The recipient got other rows of the window before.
            ExportFileError: There was a sweep.
        """
        self._require_same_key(records)
        if release := self._options.exclusive_release:
            require_equal_rows(records, release, self._run, self.rows_digest)
        if is_swept_since(records, self._run):
            raise ExportFileError(
                f"{self._storage} was swept meanwhile (erase --not-in-database), so nothing was published: run again."
            )

    @property
    def end_details(self) -> dict[str, Any]:
        """Further details of the audit record `committed`."""
        return {"rows_digest": self.rows_digest} if self.rows_digest else {}

    def check_series(self, log: AuditLog) -> None:
        """Require that no other run has continued the same state of an incremental series; a folder is locked.

        Raises:
            SupersededError: Another run of the series was committed, or an export that this one continues was
                rolled back.
        """
        if self._options.continued is not None and not self._storage.has_locks:
            with log.lock() as opened:
                require_latest(self._storage, opened, self._run, self._options.continued, self._key)

    def find_erased(self) -> Callable[[str], bool] | None:
        """Return what recognises the pseudonyms erased since the export began; None if there are none.

        Raises:
            ExportFileError: They cannot be compared with the rows.
        """
        erased = self._list_erased()
        return (lambda pseudonym: hash_identity("pseudonym", pseudonym, self._key) in erased) if erased else None

    def erase_since(self, manifest: Manifest) -> Manifest:
        """Remove the rows of people erased while the manifest was put; return the manifest after that."""
        while erased := self._list_erased():
            try:
                erase_digests(self._storage, manifest, erased, self._key, self._key)
                break
            except ConflictError:  # the erasure rewrites the same files
                manifest = read_manifest(self._storage, manifest.stem) or manifest
        return manifest

    def _list_erased(self) -> frozenset[str]:
        erased = TombstoneFile(self._storage).list_erased_since(self.erasures, self._key)
        if erased and self._options.own_pseudonyms:
            raise ExportFileError(
                "Meanwhile people were erased, and their rows cannot be found by pseudonyms that the application makes "
                "itself, so nothing was published: run again."
            )
        self.has_erased = self.has_erased or bool(erased)
        return erased

    def _require_same_key(self, records: Sequence[Record]) -> None:
        require_same_key(self._storage, records, self._key, allow_new_key=self._options.allow_new_key)
        require_one_audience(self._storage, records, is_shared=self._options.release is not None)


def require_consent(storage: Storage, records: Sequence[Record], consent: Sequence[str]) -> None:
    """Refuse an export without a consent filter if the last one had one.

    Raises:
        ValidationError: The last export filtered by it, and this one would not.
    """
    done = [record.get("consent") for record in records if record["event"] == "committed" and record.get("files")]
    if done and done[-1] and not consent:
        raise ValidationError(
            f"The last export in {storage} excluded people by {', '.join(map(str, done[-1]))}, and now no column "
            "records consent: nothing was written. Bring the column back, or export into another folder (--output)."
        )
