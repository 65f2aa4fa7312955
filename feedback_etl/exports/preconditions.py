"""Preconditions of an export: what must hold when it begins, and is checked again before it commits.

One key, a consent filter once there was one, one export of a request, tombstones as recorded, and no sweep meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedback_etl.errors import ExportFileError, UsageError, ValidationError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.audit_records import END_EVENTS, Record, has_valid_stem, is_swept_since
from feedback_etl.exports.catalog import read_manifest
from feedback_etl.exports.idempotency import DuplicateRequestError, find_outcome
from feedback_etl.exports.incremental import require_latest
from feedback_etl.exports.manifest import ABANDONED, Manifest
from feedback_etl.exports.recovery import erase_digests
from feedback_etl.exports.tombstones import (
    Tombstones,
    find_last_state,
    hash_identity,
    list_erased_since,
    list_erasures,
    read_tombstones,
    require_state,
)
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.storage.base import ConflictError, Storage
from feedback_etl.storage.locks import LOCK_TIMEOUT


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
        own_pseudonyms: Whether the application computes the pseudonyms, so that no key finds a person's rows.
    """

    key: Key | None = None
    allow_new_key: bool = False
    known_keys: Callable[[], Sequence[Key]] = list
    consent: Sequence[str] = ()
    audit_details: Mapping[str, Any] = field(default_factory=dict)
    lock_timeout: float | None = LOCK_TIMEOUT
    continued: frozenset[str] | None = None
    own_pseudonyms: bool = False


class Preconditions:
    """Check the preconditions of a run.

    Attributes:
        has_erased: Whether people were erased since the export began.
    """

    def __init__(self, storage: Storage, options: TransactionOptions, run: str) -> None:
        self._storage, self._options, self._run = storage, options, run
        self._erasures = frozenset[str]()
        self.has_erased = False

    def check_start(self, records: Sequence[Record]) -> None:
        """Refuse another key, a missing consent filter, and a request that another run has answered meanwhile.

        In an object store, unfinished runs of the same request are aborted.

        Raises:
            UsageError: The export would have pseudonyms of another key.
            ValidationError: The last export filtered by consent, and this one would not.
            DuplicateRequestError: Another run of the request has committed.
        """
        self._require_same_key(records)
        require_consent(self._storage, records, self._options.consent)
        request = self._options.audit_details.get("request")
        if request is not None and find_outcome(self._storage, records, request, self._options.key):
            raise DuplicateRequestError("Meanwhile another run of the same request has published: ask for it again.")

    def read_tombstones(self, records: Sequence[Record]) -> tuple[frozenset[str], list[Tombstones]]:
        """Return the ids of the erasures before this export, which later ones are compared with, and the tombstones.

        Raises:
            ExportFileError: The tombstones differ from the state recorded in the log.
        """
        require_state(self._storage, find_last_state(records))
        self._erasures = list_erasures(self._storage)
        if not self._erasures:
            return self._erasures, []
        return self._erasures, read_tombstones(self._storage, [self._options.key, *self._options.known_keys()])

    def check_commit(self, records: Sequence[Record]) -> None:
        """Refuse another key and a sweep since the start, which compared only published files with the database.

        Raises:
            UsageError: Meanwhile there were exports of another key.
            ExportFileError: There was a sweep.
        """
        self._require_same_key(records)
        if is_swept_since(records, self._run):
            raise ExportFileError(f"{self._storage} was swept meanwhile (erase --not-in-database): run again.")

    def check_series(self, log: AuditLog) -> None:
        """Require that no other run has continued the same state of an incremental series; a folder is locked.

        Raises:
            SupersededError: Another run of the series was committed, or an export that this one continues taken back.
        """
        if self._options.continued is not None and not self._storage.has_locks:
            with log.lock() as opened:
                require_latest(self._storage, opened, self._run, self._options.continued, self._options.key)

    def find_erased(self) -> Callable[[str], bool] | None:
        """Return what recognises the pseudonyms erased since the export began; None if there are none.

        Raises:
            ExportFileError: They cannot be compared with the rows.
        """
        erased = self._list_erased()
        return (
            (lambda pseudonym: hash_identity("pseudonym", pseudonym, self._options.key) in erased) if erased else None
        )

    def erase_since(self, manifest: Manifest) -> Manifest:
        """Remove the rows of people erased while the manifest was put; return the manifest after that."""
        while erased := self._list_erased():
            try:
                erase_digests(self._storage, manifest, erased, self._options.key, self._options.key)
                break
            except ConflictError:  # the erasure rewrites the same files
                manifest = read_manifest(self._storage, manifest.stem) or manifest
        return manifest

    def _list_erased(self) -> frozenset[str]:
        erased = list_erased_since(self._storage, self._erasures, self._options.key)
        if erased and self._options.own_pseudonyms:
            raise ExportFileError(
                "Meanwhile people were erased, and their rows are not found by pseudonyms that the application makes "
                "itself: run again."
            )
        self.has_erased = self.has_erased or bool(erased)
        return erased

    def _require_same_key(self, records: Sequence[Record]) -> None:
        require_same_key(self._storage, records, self._options.key, allow_new_key=self._options.allow_new_key)


def require_same_key(storage: Storage, records: Sequence[Record], key: Key | None, *, allow_new_key: bool) -> None:
    """Refuse an export with another key than the last one of its storage, unless a new key is allowed.

    Concurrent exports count, too: each puts its manifest before it is checked again.

    Raises:
        UsageError: It would have pseudonyms of another key.
    """
    keys = {str(record.get("run")): record["key_id"] for record in records if record["event"] == "started"}
    done = [
        str(record.get("run"))
        for record in records
        if (record["event"] == "committed" and record.get("files"))
        or (record["event"] == "recovered" and record.get("outcome") == "committed")
    ]
    used = [keys[run] for run in done if run in keys]
    if key is None and any(keys.values()):
        raise UsageError(f"{storage} holds exports of a key: unkeyed ones go into another folder (--output).")
    mine = get_key_id(key)
    used += [key_id for key_id in _find_unrecorded_keys(storage, records, key) if key_id != mine]
    if used and used[-1] != mine and not allow_new_key:
        raise UsageError(
            f"Exports of {storage} were made with {_named(used[-1])}, and this one would use {_named(mine)}, so their "
            "pseudonyms would not match. Use that key, choose another folder (--output), or confirm with "
            "--allow-new-key."
        )


def _named(key_id: str | None) -> str:
    return f"the key {key_id}" if key_id else "no key"


def require_consent(storage: Storage, records: Sequence[Record], consent: Sequence[str]) -> None:
    """Refuse an export without a consent filter if the last one had one.

    Raises:
        ValidationError: The last export filtered by it, and this one would not.
    """
    done = [record.get("consent") for record in records if record["event"] == "committed" and record.get("files")]
    if done and done[-1] and not consent:
        raise ValidationError(
            f"The last export in {storage} left people out by {', '.join(map(str, done[-1]))}, and now nothing records "
            "consent: nothing was written. Bring the column back, or export into another folder (--output)."
        )


def _find_unrecorded_keys(storage: Storage, records: Sequence[Record], key: Key | None) -> list[str | None]:
    """Return the key ids of exports with another key that are published and not yet recorded."""
    mine = get_key_id(key)
    ended = {record.get("run") for record in records if record["event"] in END_EVENTS}
    unfinished = [
        run for run in records if run["event"] == "started" and has_valid_stem(run) and run["run"] not in ended
    ]
    manifests = [(run, read_manifest(storage, run["stem"])) for run in unfinished if run["key_id"] != mine]
    return [
        manifest.key_id
        for run, manifest in manifests
        if manifest and manifest.run == run["run"] and manifest.mode != ABANDONED
    ]
