"""Taking a file that has no manifest into the care of its folder: an older export, or a copy."""

import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import polars as pl

from feedback_etl.data_files.row_filter import LINKED, PSEUDONYM, count_rows, list_pseudonyms, read_columns
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.rewrite import read_pseudonyms
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import require_untampered
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import DATA_SUFFIXES, manifest_path
from feedback_etl.records.legacy_key_ids import bind_key
from feedback_etl.records.manifest import ADOPTED, DataFile, Manifest
from feedback_etl.records.manifest_details import describe_scheme
from feedback_etl.records.tombstones import TombstoneFile, hash_identity
from feedback_etl.schema.model import EXPORT_DATE, SUBJECT_HASH, TIME
from feedback_etl.storage.base import LOCK_TIMEOUT
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.locks import lock_folder
from feedback_etl.storage.posix import hash_file
from feedback_etl.storage.urls import is_object_store
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.items import ITEM, RATING

_STAMP = re.compile(r"\d{8}_\d{6}")


UNKNOWN_SCHEME = "unknown"
"""The scheme of pseudonyms that `adopt` did not recognise: no key finds a person in the file."""
_MIN_RECOGNIZED = 0.5
"""The share of pseudonyms that must be known; not all are, since people may have left the database."""

UNKNOWN_PSEUDONYMS, EMPTY_PSEUDONYMS = "unknown_pseudonyms", "has_empty_pseudonyms"
"""The statistics of an adopted file about the rows that no erasure of a person searches."""

_OTHER_KINDS = {
    "rated items": {ITEM, RATING},
    "links of shared rows": {LINKED},
    "rejected rows": {"feedback_id", "reasons"},
}
"""Columns of the files of an export that contain no pairs, beside those that pairs have, too."""

_EMPTY = {"", "none"}
"""Pseudonyms of rows that have none, in CSV and in Parquet."""


def adopt(
    file: str | Path,
    *,
    key: Key | None,
    analyses: Iterable[int | str | UUID] = (),
    signer: Key | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Manifest:
    """Give a data file a manifest, so that `erase` and `prune` reach it. The file itself is not changed.

    Its age is that of the time in its name, or else of its last change. Unless at least half of its pseudonyms are
    those that the key makes of `analyses`, or are in other exports of the key in the folder, its pseudonyms are of an
    unknown scheme: `prune` reaches it, and `erase` reports that it was not searched. Of a file that has other
    pseudonyms too, or rows without one, `erase` reports that these were not searched.

    Args:
        file: A CSV (also compressed) or Parquet file with a column analysis_hash.
        key: The key that made its pseudonyms; None if they are plain SHA-256.
        analyses: Ids of analyses that it may contain, such as those of the database.
        signer: The key that signs the audit record, if it is another one.
        lock_timeout: Seconds to wait for the folder's lock.

    Raises:
        UsageError: It is in an object store.
        ExportFileError: It is not such a file, contains rated items, links or rejected rows instead of pairs, already
            has a manifest, or contains people who were erased from the folder; or the folder was tampered with.
        FolderLockedError: Others use the folder.
        KeyMissingError: The audit log is signed, and there is no key.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     old = Path(folder) / "feedback_training_20240101_000000.csv"
    ...     _ = old.write_text("analysis_hash\\n73475cb40a568e8d\\n")
    ...     manifest = adopt(old, key=None, analyses=[41, 42])
    >>> manifest.created_at, manifest.statistics, manifest.scheme
    ('2024-01-01T00:00:00', {'exported_records': 1}, 'sha256, 16 hex')
    """
    require_usable_polars()
    if is_object_store(str(file)):
        raise UsageError("adopt requires a local folder: copy the file there, or remove it.")
    path = Path(file)
    folder, stem = path.parent, _require_data_file(path)
    log, key, signer = AuditLog(folder), bind_key(folder, key), bind_key(folder, signer or key)
    log.require_signer(signer)
    with explain_write_errors(folder), lock_folder(folder, lock_timeout):
        require_untampered(folder, [candidate for candidate in (key, signer) if candidate], "adopted")
        exports = list_manifests(folder)
        if any(file.path == path.name for manifest in exports for file in manifest.files):
            raise ExportFileError(f"{path} already has a manifest.")
        if (folder / manifest_path(stem)).exists():  # of a file that differs in its suffix
            stem = path.name
        _require_no_erased(path, key)
        manifest = _build_manifest(path, stem, key, _count_unknown(path, key, analyses, exports), log.head())
        manifest.sign(signer)
        _publish(folder, log, manifest, signer)
    return manifest


def _publish(folder: Path, log: AuditLog, manifest: Manifest, signer: Key | None) -> None:
    name = manifest_path(manifest.stem)
    open_storage(folder).put_new(name, manifest.to_json().encode())
    try:
        with log.lock() as opened:
            opened.append("adopted", signer, run=manifest.run, stem=manifest.stem)
    except BaseException:  # a manifest that no record accounts for is a fault
        (folder / name).unlink()
        raise


def has_unknown_rows(manifest: Manifest) -> bool:
    """Return whether a file was adopted with rows that no erasure of a person searches, and still exists."""
    return not manifest.pruned_at and bool({UNKNOWN_PSEUDONYMS, EMPTY_PSEUDONYMS} & manifest.statistics.keys())


def _require_no_erased(path: Path, key: Key | None) -> None:
    """Raise if a file contains an analysis that was erased from its folder: the person would be back."""
    erased = TombstoneFile(path.parent).list_digests(key)
    pseudonyms = list_pseudonyms(path, path.name) if erased else set()
    if count := sum(hash_identity("pseudonym", pseudonym, key) in erased for pseudonym in pseudonyms):
        raise ExportFileError(
            f"{path} contains {pluralize(count, 'pseudonym')} of people who were erased from this folder: nothing was "
            "adopted. Delete the file, and export its window again."
        )


def _build_manifest(path: Path, stem: str, key: Key | None, unknown: "_UnknownPseudonyms", audit_head: str) -> Manifest:
    rows, is_known = count_rows(path), unknown.is_recognized
    return Manifest(
        stem=stem,
        mode=ADOPTED,
        created_at=_get_time(path).isoformat(),
        run=secrets.token_hex(8),
        window=[None, None],
        settings={} if is_known else {"overridden": {"hash_id": f"an {UNKNOWN_SCHEME} scheme"}},
        statistics={"exported_records": rows} | unknown.to_statistics(),
        columns=read_columns(path),
        files=[DataFile(path.name, "pairs", rows, path.stat().st_size, hash_file(path))],
        key_id=get_key_id(key) if is_known else None,
        scheme=describe_scheme(key) if is_known else UNKNOWN_SCHEME,
        source="",
        tools={},
        audit_head=audit_head,
    )


class _UnknownPseudonyms(NamedTuple):
    """Contain what `adopt` does not know of a file.

    Attributes:
        pseudonyms: The number of its pseudonyms that are none of the key's, as far as is known.
        has_empty: Whether rows have no pseudonym.
        is_recognized: Whether at least half of its pseudonyms are the key's; true for a file without rows.
    """

    pseudonyms: int
    has_empty: bool
    is_recognized: bool

    def to_statistics(self) -> dict[str, int | bool]:
        """Return the statistics of a manifest that erasures read; none if everything is known, or nothing."""
        statistics = {UNKNOWN_PSEUDONYMS: self.pseudonyms, EMPTY_PSEUDONYMS: self.has_empty}
        return {name: value for name, value in statistics.items() if value and self.is_recognized}


def _count_unknown(
    path: Path, key: Key | None, analyses: Iterable[int | str | UUID], exports: Sequence[Manifest]
) -> _UnknownPseudonyms:
    """Compare the pseudonyms of a file with those of these analyses, and with those in exports of this key."""
    all_pseudonyms = list_pseudonyms(path, path.name)
    pseudonyms = all_pseudonyms - _EMPTY
    has_empty = pseudonyms != all_pseudonyms
    ids = pl.Series("id", map(str, analyses), dtype=pl.String)
    hashes = pl.select(hash_id(pl.lit(ids), key=key, domain="analysis_id", unkeyed=key is None)).to_series()
    recognized = pseudonyms & {*hashes}
    of_key = (export for export in exports if export.pseudonyms == get_key_id(key) and export.mode != ADOPTED)
    for file in (file for export in of_key for file in export.all("pairs")):
        if len(recognized) < len(pseudonyms):
            with suppress(ExportFileError):  # a damaged file proves nothing
                recognized |= pseudonyms & read_pseudonyms(LocalStorage(path.parent), file)
    is_recognized = len(recognized) >= _MIN_RECOGNIZED * len(pseudonyms) and (bool(pseudonyms) or not has_empty)
    return _UnknownPseudonyms(len(pseudonyms - recognized), has_empty, is_recognized)


def _require_data_file(path: Path) -> str:
    """Return the name of a data file without its suffix, or raise if it is missing or no data file of feedback."""
    suffix = next((suffix for suffix in sorted(DATA_SUFFIXES, key=len)[::-1] if path.name.endswith(suffix)), "")
    if not path.exists():
        raise UsageError(f"There is no file {path}.")
    is_utf8 = path.name == path.name.encode(errors="replace").decode()  # as JSON requires
    if not (suffix and is_utf8) or path.is_symlink() or not path.is_file():
        raise ExportFileError(f"{path} is not a CSV or Parquet file, so it cannot be adopted.")
    columns = {*read_columns(path)}
    if PSEUDONYM not in columns:
        raise ExportFileError(f"{path} has no column analysis_hash, so it is not an export of feedback.")
    for kind, required in _OTHER_KINDS.items():
        if required <= columns <= required | {PSEUDONYM, SUBJECT_HASH.name, TIME}:
            raise ExportFileError(
                f"{path} contains {kind} and no training pairs ({EXPORT_DATE} is missing), so it was not adopted. "
                "Delete it, or move it out of the folder; its original is erased and pruned with its export."
            )
    return path.name.removesuffix(suffix)


def _get_time(path: Path) -> datetime:
    if stamp := _STAMP.search(path.name):
        try:
            return datetime.strptime(stamp[0], "%Y%m%d_%H%M%S")
        except ValueError:
            pass
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None, microsecond=0)
