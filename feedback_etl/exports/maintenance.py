"""Maintenance of exports: list and prune."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from feedback_etl.clock import resolve_now
from feedback_etl.data_files.pending_rows import find_expired_pending
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.recovery import recover_storage
from feedback_etl.exports.rewrite import remove_rows
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import list_unfinished
from feedback_etl.records.audit_verification import require_untampered
from feedback_etl.records.catalog import find_latest_increments, list_manifests, mark_pruned
from feedback_etl.records.layout import DATA_FOLDERS, REJECTED_FOLDER, STEM, contains_rows, part_folders
from feedback_etl.records.legacy_key_ids import bind_key
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.records.manifest_details import summarize_revisions
from feedback_etl.storage.base import LOCK_TIMEOUT, Storage
from feedback_etl.storage.errors import explain_read_errors, explain_write_errors
from feedback_etl.storage.location import StorageLike, open_storage, require_storage

MAX_DAYS = 100_000


class ExportListing(NamedTuple):
    """Contain the exports and the unmanaged files of a storage.

    Attributes:
        exports: The manifests, the oldest first; those of pruned exports too.
        unmanaged: Data files without a manifest: older exports, copies, parts of an export whose manifest was lost.
            Paths in an object store begin at its prefix. `adopt` gives a file of a folder a manifest.
    """

    exports: list[Manifest]
    unmanaged: list[Path]


def list_exports(folder: StorageLike) -> ExportListing:
    """List the exports of a folder or of a prefix of an object store (`s3://bucket/exports`).

    Raises:
        ExportFileError: A manifest cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "copy.csv").write_text("")
    ...     [path.name for path in list_exports(folder).unmanaged]
    ['copy.csv']
    """
    storage = open_storage(folder)
    with explain_read_errors(storage):
        return _list_exports(storage)


def _list_exports(storage: Storage) -> ExportListing:
    exports = list_manifests(storage)
    ours = {file.path for manifest in exports for file in manifest.files}
    folders = {"", *DATA_FOLDERS, *(path.rpartition("/")[0] for path in ours if not path.startswith("."))}
    folders |= {folder for stem in _find_unmanaged(storage, exports) for folder in (stem, f"{REJECTED_FOLDER}/{stem}")}
    paths = {entry for folder in folders for entry in _iterate_paths(storage, folder)}
    unmanaged = [path for path, name in paths if contains_rows(name) and name not in ours]
    return ExportListing(exports, sorted(unmanaged))


def _find_unmanaged(storage: Storage, exports: list[Manifest]) -> set[str]:
    """Return the stems of folders of parts without a manifest that no running export uses."""
    stems = {folder for folder in storage.folders() if STEM.fullmatch(folder)} - {export.stem for export in exports}
    return stems - {run["stem"] for run in list_unfinished(AuditLog(storage).records())} if stems else stems


def _iterate_paths(storage: Storage, folder: str) -> Iterator[tuple[Path, str]]:
    """Iterate over the paths and names in a folder; paths in an object store begin at its prefix."""
    top = storage.local_path()
    if top is None:
        yield from ((Path(name), name) for name in storage.names(folder))
    else:
        yield from ((path, path.relative_to(top).as_posix()) for path in (top / folder).glob("[!.]*"))


class PruneResult(NamedTuple):
    """Contain the exports that were pruned and those that were kept.

    Attributes:
        exports: The manifests of the exports whose files were removed.
        kept: Those whose files still exist.
        unmanaged: Files without a manifest, which nothing removes.
        pending_rows: Number of pending rows that were removed.
    """

    exports: list[Manifest]
    kept: list[Manifest]
    unmanaged: list[Path]
    pending_rows: int = 0


def prune(  # noqa: PLR0913  public, flat
    folder: StorageLike,
    *,
    keep_days: int | None = None,
    keep_last: int = 0,
    exports: Sequence[str] = (),
    key: Key | None,
    now: datetime | None = None,
    dry_run: bool = False,
    lock_timeout: float = LOCK_TIMEOUT,
) -> PruneResult:
    """Remove the files of exports that are older than `keep_days` days, or of named exports; their manifests stay.

    Rows of a series that have been pending for longer than `keep_days` are removed from younger exports.
    Files without a manifest are never touched. A named export whose files are missing already is marked as pruned too.

    Args:
        folder: The folder of the exports, or a prefix of an object store.
        keep_days: Files of this age or younger stay; days of 24 hours since the time in the manifest.
        keep_last: The newest exports that stay, however old.
        exports: The stems of the exports to remove, however young, instead of `keep_days` and `keep_last`.
        key: Signs the audit record; None for a folder of unkeyed exports.
        now: The time from which ages are counted, UTC; the present unless given.
        dry_run: Remove nothing.
        lock_timeout: Seconds to wait for the folder's lock.

    Raises:
        UsageError: A number is not allowed, there is no export of a given name, or not exactly one of `keep_days` and
            `exports` was given.
        ExportFileError: An export is from the future, so that the clock is not to be trusted; a file cannot be removed;
            or the folder was tampered with, so that no manifest is signed again.
        FolderLockedError: Others use the folder.
        KeyMissingError: The audit log is signed, and there is no key.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     prune(folder, keep_days=90, key=None)
    PruneResult(exports=[], kept=[], unmanaged=[], pending_rows=0)
    """
    _require_selection(keep_days, keep_last, exports)
    storage = open_storage(folder)
    require_storage(storage)
    now, log, key = resolve_now(now), AuditLog(storage), bind_key(storage, key)
    log.require_signer(key)
    with explain_write_errors(storage), storage.lock(lock_timeout):
        with log.lock() as opened:
            recover_storage(storage, opened, key, [key])
        listed, unmanaged = list_exports(storage)
        existing = storage.stat_files(file.path for export in listed for file in _list_removable(export))
        present = [export for export in listed if any(file.path in existing for file in _list_removable(export))]
        storage.refuse_links(*DATA_FOLDERS)
        if keep_days is None:
            expired = _select_named(listed, exports)
        else:
            _require_past(listed, now)
            expired = select_expired(present, now, keep_days=keep_days, keep_last=keep_last)
        kept = [export for export in listed if export not in expired]
        pending = [] if keep_days is None else find_expired_pending(storage, kept, now - timedelta(keep_days))
        rows = sum(file.rows for export in expired for file in export.all("pending") if file.path in existing)
        if (expired or pending) and not dry_run:
            require_untampered(storage, [key] if key else [], "removed")
        for export, unwanted in pending:
            rows += sum(count for _, count in remove_rows(storage, export, unwanted, key, dry_run=dry_run).rows)
        if (expired or pending) and not dry_run:
            changed = [*_remove(storage, expired, now, _list_needed(listed), key), *(export for export, _ in pending)]
            with log.lock() as opened:
                stems, revisions = [export.stem for export in expired], summarize_revisions(changed)
                opened.append("pruned", key, exports=stems, keep_days=keep_days, **revisions)
    return PruneResult(expired, [export for export in present if export not in expired], unmanaged, rows)


def _require_selection(keep_days: int | None, keep_last: int, exports: Sequence[str]) -> None:
    """Require numbers in range, and either names of exports or a number of days."""
    if isinstance(exports, str) or bool(exports) == (keep_days is not None) or (exports and keep_last):
        raise UsageError("Name exports as a list, or give keep_days (and keep_last), but not both.")
    for name, number in (("keep_days", 0 if keep_days is None else keep_days), ("keep_last", keep_last)):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_DAYS:
            raise UsageError(f"`{name}` must be a whole number from 0 to {MAX_DAYS:,}.")


def _select_named(exports: Sequence[Manifest], stems: Sequence[str]) -> list[Manifest]:
    """Return the exports of these stems, or with a data file of that name, the oldest first.

    Raises:
        UsageError: There is no such export.
    """
    named = {name: export for export in exports for name in (export.stem, *(file.path for file in export.files))}
    if unknown := {*stems} - {*named}:
        raise UsageError(f"There is no export {min(unknown)} in this folder; `feedback-etl list` shows the exports.")
    chosen = {named[name].stem for name in stems}
    return [export for export in exports if export.stem in chosen]


def select_expired(exports: Sequence[Manifest], now: datetime, *, keep_days: int, keep_last: int) -> list[Manifest]:
    """Return the exports to prune: those older than `keep_days`, and those whose pruning was interrupted.

    Args:
        exports: Exports with existing files, the oldest first.
        now: The time from which ages are counted, UTC.
        keep_days: Exports of this age in days of 24 hours, or younger, stay.
        keep_last: The number of newest exports that stay, however old.
    """
    oldest = now - timedelta(days=keep_days)
    last = exports[len(exports) - keep_last :] if keep_last else []
    return [export for export in exports if export.pruned_at or (_get_time(export) < oldest and export not in last)]


def _require_past(exports: Sequence[Manifest], now: datetime) -> None:
    """Refuse to prune if an export is from the future, since the clock cannot be trusted then."""
    if ahead := [export.stem for export in exports if _get_time(export) > now]:
        raise ExportFileError(
            f"{ahead[-1]} was created later than this machine's clock shows ({now:%Y-%m-%d %H:%M:%S} UTC): it may have "
            "gone backwards. Nothing was removed; set the clock and run again."
        )


def _get_time(manifest: Manifest) -> datetime:
    return datetime.fromisoformat(manifest.created_at)


def _list_removable(manifest: Manifest) -> list[DataFile]:
    """Return the files that contain rows of people."""
    return [file for file in manifest.files if file.kind != "rows"]


def _list_needed(exports: list[Manifest]) -> set[str]:
    """Return the paths of the seen rows that each incremental series needs to continue."""
    return {file.path for export in find_latest_increments(exports).values() for file in export.all("rows")}


def _remove(
    storage: Storage, manifests: list[Manifest], now: datetime, needed: set[str], signer: Key | None
) -> list[Manifest]:
    """Mark exports as pruned, delete their files and return their manifests; the next run resumes an interruption."""
    marked = list[Manifest]()
    for manifest in manifests:
        marked.append(mark_pruned(storage, manifest, now.replace(microsecond=0).isoformat(), signer))
        for file in (file for file in manifest.files if file.path not in needed):
            storage.delete(file.path)
        for folder in filter(None, map(storage.local_path, part_folders(manifest.stem))):
            with suppress(OSError):  # most exports have none, and what others have put there stays
                folder.rmdir()
    return marked
