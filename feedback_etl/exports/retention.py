"""What a folder holds, and how it gets rid of it: list, adopt, prune."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from feedback_etl.clock import instant
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.failures import explained, reading, refuse_links
from feedback_etl.exports.lock import LOCK_TIMEOUT, locked
from feedback_etl.exports.manifest import DataFile, Manifest, manifests_in, write_manifest
from feedback_etl.exports.names import DATA_SUFFIXES, REJECTED_FOLDER
from feedback_etl.exports.recovery import clear_rewritten, recover
from feedback_etl.privacy.keys import Key
from feedback_etl.private_files import sync_folder

MOST_DAYS = 100_000


class Contents(NamedTuple):
    """What is in a folder.

    Attributes:
        exports: The manifests, the oldest first; those of pruned exports too.
        foreign: Data files without a manifest: older exports, copies. `adopt` gives one a manifest.
    """

    exports: list[Manifest]
    foreign: list[Path]


def contents_of(folder: str | Path) -> Contents:
    """What a folder holds.

    Raises:
        ExportFileError: A manifest cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "copy.csv").write_text("")
    ...     [path.name for path in contents_of(folder).foreign]
    ['copy.csv']
    """
    folder = Path(folder)
    with reading(folder):
        return _contents_of(folder)


def _contents_of(folder: Path) -> Contents:
    exports = manifests_in(folder)
    ours = {folder / file.path for manifest in exports for file in manifest.files}
    found = [path for place in (folder, folder / REJECTED_FOLDER) for path in place.glob("[!.]*")]
    foreign = [path for path in found if path.name.endswith(DATA_SUFFIXES) and path not in ours]
    return Contents(exports, sorted(foreign))


class Pruned(NamedTuple):
    """What was removed.

    Attributes:
        exports: The manifests of the exports whose files are gone.
        kept: Those whose files are still there.
        foreign: Files without a manifest, which nothing removes.
    """

    exports: list[Manifest]
    kept: list[Manifest]
    foreign: list[Path]


def prune(
    folder: str | Path,
    *,
    keep_days: int,
    keep_last: int = 0,
    key: Key | None,
    now: datetime | None = None,
    dry_run: bool = False,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Pruned:
    """Remove the files of exports that are older than `keep_days` days; their manifests stay.

    What has no manifest is never touched.

    Args:
        folder: Where the exports are.
        keep_days: Files of this age or younger stay; days of 24 hours since the time in the manifest.
        keep_last: The newest exports that stay, however old.
        key: Signs the audit record; None for a folder of unkeyed exports.
        now: The time from which ages are counted, UTC; the present unless given.
        dry_run: Remove nothing.
        lock_timeout: Seconds to wait for others who use the folder.

    Raises:
        UsageError: A number is not allowed.
        ExportFileError: An export is from the future, so that the clock is not to be trusted; or a file cannot be
            removed.
        FolderLocked: Others use the folder.
        KeyMissing: The audit log is signed, and there is no key.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     prune(folder, keep_days=90, key=None)
    Pruned(exports=[], kept=[], foreign=[])
    """
    for name, number in (("keep_days", keep_days), ("keep_last", keep_last)):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MOST_DAYS:
            raise UsageError(f"{name} must be a whole number from 0 to {MOST_DAYS:,}.")
    if not Path(folder).is_dir():
        raise UsageError(f"There is no folder {folder}.")
    now, folder, log = instant(now), Path(folder), AuditLog(Path(folder))
    log.require_signer(key)
    with explained(folder), locked(folder, lock_timeout):
        with log.locked() as opened:
            recover(folder, opened, key)
            clear_rewritten(folder, opened)
        exports, foreign = contents_of(folder)
        if ahead := [manifest.stem for manifest in exports if _time_of(manifest) > now]:
            raise ExportFileError(
                f"{ahead[-1]} is from the future of this machine's clock ({now:%Y-%m-%d %H:%M:%S} UTC), which may have "
                "gone backwards. Nothing was removed; set the clock and run again."
            )
        present = [each for each in exports if any((folder / file.path).exists() for file in _removable(each))]
        last = present[len(present) - keep_last :] if keep_last else []
        refuse_links(folder / REJECTED_FOLDER)
        too_old = now - timedelta(days=keep_days)
        old = [each for each in present if each.pruned_at or (_time_of(each) < too_old and each not in last)]
        kept = [manifest for manifest in present if manifest not in old]
        if old and not dry_run:
            _remove(folder, old, now, _needed(exports))
            with log.locked() as opened:
                opened.append("pruned", key, exports=[manifest.stem for manifest in old], keep_days=keep_days)
    return Pruned(old, kept, foreign)


def _time_of(manifest: Manifest) -> datetime:
    return datetime.fromisoformat(manifest.created_at)


def _removable(manifest: Manifest) -> list[DataFile]:
    """What holds rows of people."""
    return [file for file in manifest.files if file.kind != "rows"]


def _needed(exports: list[Manifest]) -> set[str]:
    """What the newest export of each chain remembers, so that the chain can go on."""
    chains = sorted((each for each in exports if each.chain), key=lambda each: int(each.chain["number"]))
    newest = {each.settings_digest: each for each in chains}
    return {file.path for each in newest.values() for file in each.files if file.kind == "rows"}


def _remove(folder: Path, manifests: list[Manifest], now: datetime, needed: set[str]) -> None:
    """First say so in the manifest, then remove: whatever interrupts it, the next run goes on."""
    for manifest in manifests:
        manifest.pruned_at = manifest.pruned_at or now.replace(microsecond=0).isoformat()
        write_manifest(folder, manifest)
        for file in (file for file in manifest.files if file.path not in needed):
            (folder / file.path).unlink(missing_ok=True)
            sync_folder((folder / file.path).parent)
