"""Guards that refuse an export which would not fit those before it: one key, and a consent filter once there is one."""

from collections.abc import Iterable, Sequence

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.exports.audit import LockedAuditLog
from feedback_etl.exports.audit_records import END_EVENTS, Record, has_valid_stem
from feedback_etl.exports.catalog import read_manifest
from feedback_etl.exports.manifest import ABANDONED
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.storage.base import Storage


def require_same_key(
    folder: object, log: LockedAuditLog, key: Key | None, *, allow_new_key: bool, unrecorded: Iterable[str | None] = ()
) -> None:
    """Refuse an export with another key than the last one of its folder, unless a new key is allowed.

    Args:
        folder: The folder, for messages.
        log: The locked audit log of the folder.
        key: The key of the new export.
        allow_new_key: Whether another key than before is allowed.
        unrecorded: Key ids of published exports that the log does not record as committed yet.

    Raises:
        UsageError: It would have pseudonyms of another key.
    """
    records = log.records()
    keys = {str(record.get("run")): record["key_id"] for record in records if record["event"] == "started"}
    done = [
        str(record.get("run"))
        for record in records
        if (record["event"] == "committed" and record.get("files"))
        or (record["event"] == "recovered" and record.get("outcome") == "committed")
    ]
    used = [keys[run] for run in done if run in keys]
    if key is None and any(keys.values()):
        raise UsageError(f"{folder} holds exports of a key: unkeyed ones go into another folder (--output).")
    mine = get_key_id(key)
    used += [key_id for key_id in unrecorded if key_id != mine]
    if used and used[-1] != mine and not allow_new_key:
        raise UsageError(
            f"Exports of {folder} were made with {_named(used[-1])}, and this one would use {_named(mine)}, so their "
            "pseudonyms would not match. Use that key, choose another folder (--output), or confirm with "
            "--allow-new-key."
        )


def _named(key_id: str | None) -> str:
    return f"the key {key_id}" if key_id else "no key"


def require_consent(folder: object, log: LockedAuditLog, consent: Sequence[str]) -> None:
    """Refuse an export without a consent filter if the last one had one.

    Raises:
        ValidationError: The last export filtered by it, and this one would not.
    """
    done = [record.get("consent") for record in log.records() if record["event"] == "committed" and record.get("files")]
    if done and done[-1] and not consent:
        raise ValidationError(
            f"The last export in {folder} left people out by {', '.join(map(str, done[-1]))}, and now nothing records "
            "consent: nothing was written. Bring the column back, or export into another folder (--output)."
        )


def find_unrecorded_keys(storage: Storage, records: Iterable[Record], key: Key | None) -> list[str | None]:
    """Return the key ids of exports with another key that are published and not yet recorded."""
    records, mine = list(records), get_key_id(key)
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


def is_swept_since(records: Iterable[Record], run: str) -> bool:
    """Return whether a sweep (`erase --not-in-database`) was recorded after the start of a run."""
    records = list(records)
    start = next((number for number, record in enumerate(records) if record.get("run") == run), len(records))
    return any(record.get("swept") for record in records[start:])
