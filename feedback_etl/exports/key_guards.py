"""Guards that refuse a second key in a folder, and a log that no longer proves which keys its exports have.

`preconditions` calls them when an export begins, and again before it commits.
"""

from collections.abc import Iterable, Sequence

from feedback_etl.errors import ExportFileError, KeyMissingError, UsageError
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.audit_records import Line, Record, list_unfinished
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests, read_committed
from feedback_etl.records.layout import MANIFEST_SUFFIX
from feedback_etl.storage.base import Storage


def require_same_key(storage: Storage, records: Sequence[Record], key: Key | None, *, allow_new_key: bool) -> None:
    """Refuse an export with another key than the last one of its storage, unless a new key is allowed.

    Concurrent exports count, too: each puts its manifest before it is checked again.

    Raises:
        UsageError: It would have pseudonyms of another key.
    """
    keys = {str(record.get("run")): record["key_id"] for record in records if record["event"] == "started"}
    done = [str(record.get("run")) for record in records if _is_commit(record)]
    used = [keys[run] for run in done if run in keys]
    if key is None and any(keys.values()):
        raise UsageError(f"{storage} contains exports of a key: export unkeyed ones into another folder (--output).")
    mine = get_key_id(key)
    used += [key_id for key_id in _find_unrecorded_keys(storage, records, key) if key_id != mine]
    if used and used[-1] != mine and not allow_new_key:
        raise UsageError(
            f"Exports of {storage} were made with {_name_key(used[-1])}, and this one would use {_name_key(mine)}, so "
            "their pseudonyms would not match. Use that key, choose another folder (--output), or confirm with "
            "--allow-new-key."
        )


def _name_key(key_id: str | None) -> str:
    return f"the key {key_id}" if key_id else "no key"


def require_one_audience(storage: Storage, records: Sequence[Record], *, is_shared: bool) -> None:
    """Refuse to share into a folder of ordinary exports, and the reverse: a training set of both has two keys.

    Raises:
        UsageError: The storage contains exports of the other kind.
    """
    if not is_shared and not any(record.get("recipient") for record in records):
        return
    existing = (manifest for manifest in list_manifests(storage) if manifest.files and not manifest.pruned_at)
    if other := next((manifest.stem for manifest in existing if bool(manifest.recipient) != is_shared), None):
        raise UsageError(
            f"{storage} contains {'ordinary' if is_shared else 'shared'} exports such as {other}, and a shared row has "
            "another pseudonym: nothing was written. Keep both kinds apart: choose another folder (--output)."
        )


def _find_unrecorded_keys(storage: Storage, records: Sequence[Record], key: Key | None) -> list[str | None]:
    """Return the key ids of exports with another key that are published and not yet recorded."""
    others = (run for run in list_unfinished(records) if run["key_id"] != get_key_id(key))
    return [manifest.key_id for run in others if (manifest := read_committed(storage, run))]


def require_intact_log(storage: Storage, lines: Sequence[Line], keys: Sequence[Key], *, signed: bool) -> None:
    """Refuse to export if the log was tampered with, or is not signed and has to be: erased people could come back.

    Records of keys that are not among `keys` cannot be verified.

    Raises:
        ExportFileError: The log was tampered with.
    """
    if tampering := verify_lines(lines, keys, {}, signed=signed).tampering:
        raise ExportFileError(
            f"The audit log of {storage} does not verify, so erased people could come back ({tampering[0]}). "
            "Restore it, or export into another folder (--output); `feedback-etl audit verify` shows all problems."
        )


def require_recorded(
    storage: Storage, names: Iterable[str], records: Sequence[Record], keys: Sequence[Key], *, allow_new_key: bool
) -> None:
    """Refuse to export if the log does not record a manifest that exists, because the log was cut or replaced.

    Args:
        storage, names: The storage and the names of its files.
        records: The records of its log. An export with a key believes unsigned ones only if they record a commit, which
            `require_same_key` judges, and all of them only if the last one is of an available key.
        keys: The available keys; none for an unkeyed export.
        allow_new_key: Whether the storage may contain other exports, unkeyed ones too.

    Raises:
        ExportFileError: A manifest is not recorded.
        KeyMissingError: The last record is signed with an unavailable key.
    """
    stems = [name.removesuffix(MANIFEST_SUFFIX) for name in names if name.endswith(MANIFEST_SUFFIX)]
    last = records[-1]["key_id"] if records else None
    if stems and keys and last not in {None, *(key.id for key in keys)} and not allow_new_key:
        raise KeyMissingError(
            f"The last record in the audit log of {storage} is signed with the key {last}, which is not available. "
            "Retire that key here (feedback-etl keys retire --file FILE), or confirm with --allow-new-key."
        )
    committed = {str(record.get("run")) for record in records if _is_commit(record)}
    recorded = {
        str(record.get("stem"))
        for record in records
        if record["key_id"] or str(record.get("run")) in committed or not keys or allow_new_key
    }
    if missing := [stem for stem in stems if stem not in recorded]:
        raise ExportFileError(
            f"The audit log of {storage} does not record {missing[0]} with a signature: it was cut or replaced, so "
            "erased people could come back. Restore it, or export into another folder (--output); "
            "`feedback-etl audit verify` shows all problems."
        )


def _is_commit(record: Record) -> bool:
    """Return whether a record proves that an export was published."""
    is_recovered = record["event"] == "recovered" and record.get("outcome") == "committed"
    return is_recovered or (record["event"] == "committed" and bool(record.get("files")))
