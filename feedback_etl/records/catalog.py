"""The manifests of a storage."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_records import Record
from feedback_etl.records.layout import MANIFEST_SUFFIX, manifest_path
from feedback_etl.records.manifest import ABANDONED, Manifest, parse_manifest
from feedback_etl.storage.base import ConflictError, Storage
from feedback_etl.storage.errors import explain_read_errors
from feedback_etl.storage.location import StorageLike, open_storage

_CONCURRENCY = 16


def list_manifests(where: StorageLike) -> list[Manifest]:
    """Return the manifests of a storage, the oldest export first.

    Raises:
        ExportFileError: One cannot be read.
    """
    storage = open_storage(where)
    names = [name for name in storage.names() if name.endswith(MANIFEST_SUFFIX)]
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        manifests = [manifest for manifest in pool.map(lambda name: _read(storage, name), names) if manifest]
    exports = [manifest for manifest in manifests if manifest.mode != ABANDONED]
    return sorted(exports, key=lambda manifest: (manifest.created_at, manifest.stem))


def find_latest_increments(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Return the last export of each incremental series by the digest of its settings."""
    increments = (manifest for manifest in manifests if manifest.chain)
    ordered = sorted(increments, key=lambda manifest: int(manifest.chain["number"]))
    return {manifest.settings_digest: manifest for manifest in ordered}


def read_manifest(storage: Storage, stem: str) -> Manifest | None:
    """Return the manifest of a stem, abort markers included; None if there is none."""
    return _read(storage, manifest_path(stem))


def read_committed(storage: Storage, started: Record) -> Manifest | None:
    """Return the manifest of a run, given the record of its start; None if the run has not committed."""
    manifest = read_manifest(storage, started["stem"])
    return manifest if manifest and manifest.run == started["run"] and manifest.mode != ABANDONED else None


def _read(storage: Storage, name: str) -> Manifest | None:
    uri = storage.uri(name)
    with explain_read_errors(uri):
        try:
            content, version = storage.read_version(name)
        except FileNotFoundError:  # removed since it was listed
            return None
    manifest = parse_manifest(content, uri)
    manifest.version = version
    return manifest


def replace_manifest(storage: Storage, manifest: Manifest, signer: Key | None) -> None:
    """Replace the manifest of an export by its next revision, signed by `signer`; the caller has locked a folder.

    Raises:
        OSError: It cannot be written.
        ConflictError: It has changed since it was read.
    """
    manifest.revision += 1
    manifest.sign(signer)
    name, content = manifest_path(manifest.stem), manifest.to_json().encode()
    manifest.version = storage.replace(name, content, manifest.version)


def mark_pruned(storage: Storage, manifest: Manifest, at: str, signer: Key | None) -> Manifest:
    """Record in the manifest of an export that its files were removed, and return it as it was written."""
    manifest.pruned_at = manifest.pruned_at or at
    try:
        replace_manifest(storage, manifest, signer)
    except ConflictError:  # an erasure replaced it
        if current := read_manifest(storage, manifest.stem):
            return mark_pruned(storage, current, at, signer)
    return manifest
