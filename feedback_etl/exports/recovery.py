"""What dead runs left behind, removed at the next start: only what they announced, and never a committed export."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import OpenLog, Record
from feedback_etl.exports.layout import (
    PREFIX,
    REJECTED_FOLDER,
    STATE_FOLDER,
    STEM,
    folders_of,
    manifest_of,
    names_of,
    rewritten,
    temporary,
)
from feedback_etl.exports.manifest import Manifest, read_manifest
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.posix import sha256_of

_PART = re.compile(r"\.?(part-\d{5,}|small_classes)\.[a-z.]+[a-z](\.\d+-[0-9a-f]+)?(\.tmp2?)?")
"""What parts are called, what workers write them to, and what rewrites them."""

ENDS = {"committed", "failed", "recovered"}


def recover(folder: Path, log: OpenLog, key: Key | None) -> None:
    """Finish or undo every export that was started and whose process is gone, and record it.

    Raises:
        OSError: A file cannot be removed.
    """
    records, leftovers = log.records(), _stems_of_leftovers(folder)
    ended = {record.get("run") for record in records if record["event"] in ENDS}
    # A stem that a dead run has left may have become that of a later run: only the last one can own its files.
    started = {record["stem"]: record for record in records if record["event"] == "started" and is_ours(record)}
    for record in started.values():
        is_open = record["run"] not in ended
        if (is_open or record["stem"] in leftovers) and not _is_alive(folder, record):
            removed = list(_cleared(folder, record))
            outcome = "committed" if _committed(folder, record) else "removed"
            if is_open or removed:
                log.append("recovered", key, run=record["run"], outcome=outcome, removed=removed)


def clear_rewritten(folder: Path, log: OpenLog) -> None:
    """Remove what was to take the place of a file when its writer died; for one that holds the folder's lock.

    Only who holds it writes such files, so that nobody does now. What a worker has left in a folder of parts that are
    published goes with it.

    Raises:
        OSError: A file cannot be removed.
    """
    announced = {each["stem"] for each in log.records() if each["event"] in {"started", "adopted"} and is_ours(each)}
    for stem in announced & _stems_of_leftovers(folder):
        for name in names_of(stem):
            rewritten(folder / name).unlink(missing_ok=True)
    for stem in announced:
        # Where the manifest is, workers that come too late have nothing to write any more, either.
        pattern = ".part-*.tmp*" if (folder / manifest_of(stem)).exists() else ".part-*.tmp2"
        for place in (folder / each for each in folders_of(stem) if (folder / each).is_dir()):
            for path in place.glob(pattern):
                path.unlink(missing_ok=True)


def is_ours(record: Record) -> bool:
    """Whether a stem is such as we give: a log that was tampered with must not lead elsewhere."""
    texts = record.get("stem"), record.get("run")
    return all(isinstance(text, str) for text in texts) and STEM.fullmatch(record["stem"]) is not None


def _stems_of_leftovers(folder: Path) -> set[str]:
    """What temporary files are there of: of runs that live, or that were killed, perhaps when they had recorded all."""
    places = (folder, folder / REJECTED_FOLDER, folder / STATE_FOLDER)
    names = [path.name for place in places for path in place.glob(f".{PREFIX}*.tmp*")]
    return {found[0] for name in names if (found := STEM.match(name[1:]))}


def _is_alive(folder: Path, started: Record) -> bool:
    """Whether somebody still holds the manifest that the run began with; it may have its name by now."""
    manifest = folder / manifest_of(started["stem"])
    return any(map(_is_held, (temporary(manifest), manifest)))


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # NFS wants a file open for writing for the other one
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _committed(folder: Path, started: Record) -> Manifest | None:
    """The run's manifest, if it has its name."""
    with suppress(ExportFileError):
        manifest = read_manifest(folder / manifest_of(started["stem"]))
        return manifest if manifest.run == started["run"] else None
    return None


def _cleared(folder: Path, started: Record) -> Iterator[str]:
    """Remove what the run announced, but for what it committed; the names of what was removed."""
    keep = _committed(folder, started) is not None
    for name in names_of(started["stem"]):
        path = folder / name
        if not keep and _is_of(path, folder / manifest_of(started["stem"])):
            path.unlink()
            yield name
    if not keep and all(name in started.get("names", ()) for name in folders_of(started["stem"])):
        yield from cleared_parts(folder, started["stem"])
    # The manifest's temporary name goes last: it tells what is of this run.
    for name in names_of(started["stem"]):
        if temporary(folder / name).is_file():
            temporary(folder / name).unlink()
            yield temporary(Path(name)).as_posix()


def cleared_parts(folder: Path, stem: str) -> Iterator[str]:
    """Remove the parts that the workers of a run have made, and their folders, unless something else is in these.

    A folder first loses its name: a worker that still lives then finds none, and leaves nothing behind.

    Raises:
        OSError: A file cannot be removed.
    """
    for name in folders_of(stem):
        place = folder / name
        hidden = temporary(place)
        refuse_links(place.parent, place, hidden)
        if place.is_dir():  # else there never was one, or somebody was killed who had renamed it
            place.rename(hidden)
        for path in hidden.glob("*"):
            if _PART.fullmatch(path.name) and not path.is_symlink():
                path.unlink()
                yield f"{name}/{path.name}"
        if hidden.is_dir() and any(hidden.iterdir()):
            hidden.rename(place)
        elif hidden.is_dir():
            hidden.rmdir()


def _is_of(path: Path, manifest: Path) -> bool:
    """Whether a file with a final name is the run's own: linked to its temporary name, or as its manifest says."""
    if path.is_symlink() or not path.is_file():
        return False
    if temporary(path).exists():
        return path.samefile(temporary(path))
    with suppress(ExportFileError):
        files = read_manifest(temporary(manifest)).files
        return any(path.as_posix().endswith(file.path) and sha256_of(path) == file.sha256 for file in files)
    return False
