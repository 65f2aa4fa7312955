"""The manifests of a place, whichever it is."""

from concurrent.futures import ThreadPoolExecutor

from feedback_etl.exports.layout import MANIFEST_SUFFIX, manifest_of
from feedback_etl.exports.manifest import Manifest, manifest_in, manifests_in, write_manifest
from feedback_etl.storage.base import Folder, Where, place_of
from feedback_etl.storage.object_store import Bucket

ABANDONED = "abandoned"
"""The mode of a manifest that only says that there will be no export of its name."""

_AT_ONCE = 16


def manifests_at(where: Where) -> list[Manifest]:
    """The manifests of a place, the oldest export first.

    Raises:
        ExportFileError: One cannot be read.
    """
    place = place_of(where)
    if not isinstance(place, Bucket):
        return manifests_in(place.path)
    names = [name for name in place.names() if name.endswith(MANIFEST_SUFFIX)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [each for each in pool.map(lambda name: _manifest_at(place, name), names) if each]
    exports = [each for each in found if each.mode != ABANDONED]
    return sorted(exports, key=lambda manifest: (manifest.created_at, manifest.stem))


def manifest_at(bucket: Bucket, stem: str) -> Manifest | None:
    """The manifest of a stem, also one that says that there will be no export; None where there is none."""
    return _manifest_at(bucket, manifest_of(stem))


def _manifest_at(bucket: Bucket, name: str) -> Manifest | None:
    try:
        content, version = bucket.read_version(name)
    except FileNotFoundError:  # withdrawn since it was listed
        return None
    manifest = manifest_in(content, bucket.address(name))
    manifest.version = version
    return manifest


def keep_manifest(place: Folder | Bucket, manifest: Manifest) -> None:
    """Replace the manifest of an export; in a folder, for one that holds its lock.

    Raises:
        OSError: It cannot be written.
        Changed: In a store, it is no longer the one that was read.
    """
    if isinstance(place, Bucket):
        content = manifest.to_json().encode()
        manifest.version = place.put(manifest_of(manifest.stem), content, instead_of=manifest.version)
    else:
        write_manifest(place.path, manifest)
