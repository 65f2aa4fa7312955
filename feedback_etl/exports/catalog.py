"""The manifests of a storage of either kind."""

from concurrent.futures import ThreadPoolExecutor

from feedback_etl.exports.layout import MANIFEST_SUFFIX, manifest_path
from feedback_etl.exports.manifest import Manifest, list_local_manifests, parse_manifest, write_manifest
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.storage.object_store import ObjectStorage

ABANDONED = "abandoned"
"""The mode of a manifest that only says that there will be no export of its name."""

_CONCURRENCY = 16


def list_manifests(where: StorageLike) -> list[Manifest]:
    """Return the manifests of a storage, the oldest export first.

    Raises:
        ExportFileError: One cannot be read.
    """
    place = open_storage(where)
    if not isinstance(place, ObjectStorage):
        return list_local_manifests(place.path)
    names = [name for name in place.names() if name.endswith(MANIFEST_SUFFIX)]
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        found = [each for each in pool.map(lambda name: _read_object_manifest(place, name), names) if each]
    exports = [each for each in found if each.mode != ABANDONED]
    return sorted(exports, key=lambda manifest: (manifest.created_at, manifest.stem))


def read_object_manifest(bucket: ObjectStorage, stem: str) -> Manifest | None:
    """Return the manifest of a stem, abort markers included; None if there is none."""
    return _read_object_manifest(bucket, manifest_path(stem))


def _read_object_manifest(bucket: ObjectStorage, name: str) -> Manifest | None:
    try:
        content, version = bucket.read_version(name)
    except FileNotFoundError:  # withdrawn since it was listed
        return None
    manifest = parse_manifest(content, bucket.uri(name))
    manifest.version = version
    return manifest


def replace_manifest(place: LocalStorage | ObjectStorage, manifest: Manifest) -> None:
    """Replace the manifest of an export; in a folder, for one that holds its lock.

    Raises:
        OSError: It cannot be written.
        Changed: In a store, it is no longer the one that was read.
    """
    if isinstance(place, ObjectStorage):
        content = manifest.to_json().encode()
        manifest.version = place.replace(manifest_path(manifest.stem), content, if_match=manifest.version)
    else:
        write_manifest(place.path, manifest)
