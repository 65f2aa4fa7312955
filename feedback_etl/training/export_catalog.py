"""The committed exports that a folder, URL or pattern names, and whether their files are what their manifests say."""

import glob
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.columns import AGE_EDGES
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.catalog import list_manifests
from feedback_etl.exports.layout import DATA_SUFFIXES, REJECTED_FOLDER, manifest_path
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.storage.base import LocalStorage, open_storage
from feedback_etl.storage.errors import explain_read_errors
from feedback_etl.storage.object_store import ObjectInfo, ObjectStorage
from feedback_etl.storage.posix import hash_file
from feedback_etl.storage.urls import is_object_store, refuse_unsupported_url
from feedback_etl.transform.expressions import age_ranges


class Kind(NamedTuple):
    """What exports have to have in common to fit together: otherwise nobody finds the same person or pair in both.

    Attributes:
        key: What made the pseudonyms: the id of the key, "unkeyed", or a function of the application.
        precision: Of the times.
        age_edges: The ages at which ranges begin, or the function of the application that names them, in words.
        recommendation_id: Its form, "keep" or "hash".
    """

    key: str
    precision: str
    age_edges: str
    recommendation_id: str


class Committed(NamedTuple):
    """An export whose files are there.

    Attributes:
        place: Where it is.
        files: Those of its pairs: one, or its parts in the order of their rows.
        manifest: What it is.
        window: From when to when, half-open; as wide as can be where that is not known.
        chain: Of an incremental export, the place and the settings of its chain, and its number there.
    """

    place: LocalStorage | ObjectStorage
    files: list[DataFile]
    manifest: Manifest
    window: tuple[datetime, datetime]
    chain: tuple[str, str, int] | None

    @classmethod
    def of(cls, place: LocalStorage | ObjectStorage, manifest: Manifest, files: list[DataFile]) -> Self:
        """That of a manifest."""
        start, end = (datetime.fromisoformat(time) if time else None for time in manifest.window)
        chain = (str(place), manifest.settings_digest, manifest.chain["number"]) if manifest.chain else None
        return cls(place, files, manifest, (start or datetime.min, end or datetime.max), chain)

    @property
    def name(self) -> str:
        """Of its file; of the folder of its parts where it has several, or could have."""
        path = self.files[0].path
        return path.split("/")[0]

    @property
    def address(self) -> str:
        """Where that is."""
        return self.place.address(self.name)

    @property
    def age_edges(self) -> tuple[int, ...]:
        """The ages at which its ranges begin."""
        return tuple(self.manifest.settings.get("age_edges", AGE_EDGES))

    @property
    def age_type(self) -> pl.DataType:
        """The type of its age ranges: text where labels are the application's own."""
        return pl.String() if "bucket_age" in self.manifest.overridden else age_ranges(self.age_edges)

    def setting(self, name: str, usual: str) -> str:
        """What was asked for; the usual if the manifest does not tell."""
        return str(self.manifest.settings.get(name, usual))

    @property
    def precision(self) -> str:
        """Of its times."""
        return self.setting("timestamp_precision", "exact")

    @property
    def kind(self) -> Kind:
        """Whether it fits together with another, which then is of the same."""
        own = self.manifest.overridden.get("bucket_age")
        edges = f"by {own}" if own else f"from {', '.join(map(str, self.age_edges))}"
        key = self.manifest.pseudonyms or "unkeyed"
        return Kind(key, self.precision, edges, self.setting("recommendation_id", "keep"))


def may_share(one: Committed, other: Committed) -> bool:
    """Whether two exports may hold the same pair: their windows overlap, and no chain has kept them apart."""
    (a_start, a_end), (b_start, b_end) = one.window, other.window
    overlap = a_start < b_end and b_start < a_end
    if not (overlap and one.chain and other.chain):
        return overlap
    (*a_chain, a_number), (*b_chain, b_number) = one.chain, other.chain
    return a_chain != b_chain or a_number == b_number


def exports_at(where: str | Path) -> list[Committed]:
    """What a folder, a URL or a pattern names, the oldest first."""
    refuse_unsupported_url(str(where))
    return sorted(_stored(str(where)) if is_object_store(str(where)) else _local(where), key=age_of)


def _stored(url: str) -> Iterator[Committed]:
    """What is at a prefix of an object store, or of that what the pattern at the end of the URL names."""
    prefix, _, pattern = url.rpartition("/")
    if not any(each in pattern for each in "*?["):
        return exports_in(open_storage(url))
    return (each for each in exports_in(open_storage(prefix)) if fnmatchcase(each.name, pattern))


def _local(where: str | Path) -> Iterator[Committed]:
    named = [str(where)] if Path(where).exists() else glob.glob(str(where), recursive=True)  # noqa: PTH207  absolute too
    folders = {path for path in map(Path, named) if path.is_dir()}
    files = [path for path in map(Path, named) if path.name.endswith(DATA_SUFFIXES) and path not in folders]
    files = [path for path in files if REJECTED_FOLDER not in path.parts[-3:-1]]
    places = {_place_of_file(path) for path in (*folders, *files)} | folders
    exports = [export for place in places for export in exports_in(LocalStorage(place))]
    paths = {Path(export.place.address(file.path)) for export in exports for file in export.files}
    if foreign := [file for file in files if file not in paths]:
        raise ExportFileError(
            f"{foreign[0]} ({len(foreign):,} in all) has no manifest, so it is no export that is known to be complete. "
            "`feedback-etl adopt FILE` gives it one; or name the folder, which leaves such files out."
        )
    for export in exports:
        path = Path(export.address)
        is_named = path in folders or path.parent in folders
        chosen = [file for file in export.files if is_named or Path(export.place.address(file.path)) in files]
        if chosen:
            yield export._replace(files=chosen)


def _place_of_file(path: Path) -> Path:
    """The folder of exports in which a file is, or a folder of parts, or one of these."""
    is_part = (path.parent.parent / manifest_path(path.parent.name)).is_file()
    return path.parent.parent if is_part else path.parent


def require_some(exports: list[Committed], where: str | Path) -> list[Committed]:
    """The exports themselves.

    Raises:
        ExportFileError: There is none; of a folder or a prefix the message tells how many were pruned.
    """
    if not exports:
        pruned = f" ({count:,} pruned)" if (count := _pruned_at(str(where))) else ""
        raise ExportFileError(
            f"{where} holds no export whose file is there{pruned}; `feedback-etl list` tells what there is."
        )
    return exports


def _pruned_at(where: str) -> int:
    if not (is_object_store(where) or Path(where).is_dir()):
        return 0
    with explain_read_errors(where):
        return sum(bool(manifest.pruned_at) for manifest in list_manifests(open_storage(where)))


def age_of(export: Committed) -> tuple[str, int, str]:
    """What the newest export has most of; `..._10` is newer than `..._9`."""
    return export.manifest.created_at, len(export.name), export.address


def exports_in(place: LocalStorage | ObjectStorage) -> Iterator[Committed]:
    """Those that have pairs and were not pruned."""
    with explain_read_errors(place):
        for manifest in list_manifests(place):
            if not manifest.pruned_at and (files := manifest.all("pairs")):
                yield Committed.of(place, manifest, files)


def settled(export: Committed, *, verify: bool) -> Committed | None:
    """An export whose files are what its manifest says.

    An erasure may have rewritten both since they were read, or a prune removed the files: then there is None.
    """
    with explain_read_errors(export.address):
        if not (strange := _strange(export, verify)):
            return export
        now = next((each for each in exports_in(export.place) if each.name == export.name), None)
        if now is None or not (strange := _strange(now, verify=True)):
            return now
    raise ExportFileError(
        f"{export.place.address(strange)} is not as its manifest says: it is missing, or was truncated or changed. "
        "Restore it, or remove it together with its manifest and export its window again."
    )


def _strange(export: Committed, verify: bool) -> str:
    """The first file of an export that is not what its manifest says; "" if all are."""
    place = export.place
    if isinstance(place, ObjectStorage):
        there = place.listed(export.name)
        wholes = (_is_whole_object(place, file, there.get(file.path), verify) for file in export.files)
    else:
        manifest = place.path / manifest_path(export.manifest.stem)
        wholes = (_is_whole(place.path / file.path, file, manifest, verify) for file in export.files)
    return next((file.path for file, is_whole in zip(export.files, wholes, strict=True) if not is_whole), "")


def _is_whole(path: Path, file: DataFile, manifest: Path, verify: bool) -> bool:
    if not path.is_file():
        return False
    told = path.stat()
    may_be_the_same = told.st_size == file.bytes and not verify and not file.becoming
    if may_be_the_same and told.st_mtime_ns < manifest.stat().st_mtime_ns:  # as it was when the manifest was written
        return True
    return told.st_size in _sizes(file) and (told.st_size, hash_file(path)) in _allowed(file)


def _is_whole_object(bucket: ObjectStorage, file: DataFile, there: ObjectInfo | None, verify: bool) -> bool:
    if there is None or there.bytes not in _sizes(file):
        return False
    is_the_same = there == (file.bytes, file.etag)  # as it was when the manifest was put
    return (is_the_same and not verify) or bucket.described(file.path) in _allowed(file)


def _allowed(file: DataFile) -> list[tuple[int, str]]:
    """Size and digest of what a file is, and of what it is becoming."""
    becoming = [(file.becoming["bytes"], file.becoming["sha256"])] if file.becoming else []
    return [(file.bytes, file.sha256), *becoming]


def _sizes(file: DataFile) -> list[int]:
    return [size for size, _ in _allowed(file)]
