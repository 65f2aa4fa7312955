"""What is tested on a folder of exports."""

import shlex
import stat
from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from feedback_etl.columns import SUBJECT_HASH
from feedback_etl.compliance.data_files import Written
from feedback_etl.compliance.item import Item, item
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.exports.audit_verification import verify_folder
from feedback_etl.exports.layout import PREFIX, REJECTED_FOLDER, STATE_FOLDER
from feedback_etl.exports.manifest import Manifest
from feedback_etl.exports.row_filter import PSEUDONYM
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.risk import linkage_risk
from feedback_etl.storage.base import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keyed(exports: Sequence[Manifest]) -> Item:
    """Ids are hashed with a key that is not published."""
    published = Key.parse(DEMO_KEY).id
    faults = [f"{each.stem} is unkeyed" for each in exports if each.key_id is None]
    faults += [f"{each.stem} is of the published key of the demo" for each in exports if each.key_id == published]
    ids = sorted({each.key_id for each in exports if each.key_id})
    mend = "feedback-etl keys new, prune the old files, and export again"
    return item("keys", faults, passed=f"ids are hashed with {', '.join(ids)}", mend=mend)


def private(place: LocalStorage | ObjectStorage) -> Item:
    """Nobody else can read: files 0600, folders 0700."""
    if isinstance(place, ObjectStorage):
        return Item("modes", True, "not to be told: an object store has none, and its policies say who can read")
    top = place.path
    places = [top, top / REJECTED_FOLDER, top / STATE_FOLDER]
    places += [path for folder in (top, top / REJECTED_FOLDER) for path in folder.glob(f"{PREFIX}*")]
    folders = [path for path in places if path.is_dir()]
    paths = [*folders, *(path for place in folders for path in place.iterdir() if path.is_file())]
    open_to_others = [path for path in paths if path.stat().st_mode & _OTHERS]
    return item(
        "modes",
        [f"others can use {path} ({stat.filemode(path.stat().st_mode)[1:]})" for path in open_to_others],
        passed=f"{len(paths) - len(folders):,} files and {len(folders)} folders are the owner's alone",
        mend=f"chmod go= {' '.join(shlex.quote(str(path)) for path in open_to_others)}",
    )


def retention(exports: Sequence[Manifest], days: int | None, now: datetime) -> Item:
    """How long exports are kept is set, obeyed, and not defeated by windows that reach further back."""
    if days is None:
        return Item("retention", False, "it is not set how long exports are kept", "set retention_days in the settings")
    kept = timedelta(days=days)
    old = [each.stem for each in exports if datetime.fromisoformat(each.created_at) < now - kept]
    if old:
        return Item(
            "retention", False, f"older than {days} days: {', '.join(old)}", f"feedback-etl prune --keep-days {days}"
        )
    long = [each.stem for each in exports if _reaches_back(each, kept)]
    mend = f"remove these files; from then on feedback-etl export --days {days} or fewer"
    told = [f"with windows of more than {days} days: {', '.join(long)}"] if long else []
    return item("retention", told, passed=f"{days} days, and no export is older or reaches further back", mend=mend)


def _reaches_back(manifest: Manifest, kept: timedelta) -> bool:
    start, end = manifest.window
    return end is not None and (
        start is None or datetime.fromisoformat(manifest.created_at) - datetime.fromisoformat(start) > kept
    )


def logged(place: LocalStorage | ObjectStorage, exports: Sequence[Manifest], keys: Sequence[Key]) -> Item:
    """Nobody has changed the audit log."""
    verdict = verify_folder(place, exports, keys)
    return item(
        "audit log",
        verdict.faults,
        passed=f"{verdict.records:,} records, in one chain",
        mend="feedback-etl audit verify",
    )


def anonymous(exports: Sequence[Written], asked: int | None, known: Sequence[str]) -> Item:
    """The k of the exports, and what linking rows by a pseudonym makes of it.

    Args:
        exports: The newest last.
        asked: What the settings ask for, if anything.
        known: The quasi-identifiers of the settings.
    """
    faults = {each.path: fault for each in exports if asked and (fault := _k_fault(each.manifest, asked, known))}
    told = f"{_k_of(exports[-1].manifest)}; {asked or 'none'} is asked for{_linking(exports)}"
    mend = f"rm {' '.join(shlex.quote(str(path)) for path in faults)} && feedback-etl export --k {asked}"
    return item("k", list(faults.values()), passed=told, mend=mend)


def _k_of(manifest: Manifest) -> str:
    risk = manifest.risk
    if not risk:
        return f"{manifest.stem} does not tell it"
    told = f"{'at least ' * bool(risk['at_least'])}{risk['k']} for {', '.join(risk['quasi_identifiers'])}"
    return f"{told} in {manifest.stem}" + ", before people were erased" * bool(risk["stale"])


def _k_fault(manifest: Manifest, asked: int, known: Sequence[str]) -> str:
    """Why an export may have a smaller k than what is asked for."""
    risk = manifest.risk
    if risk and int(risk["k"]) >= asked and not risk["stale"] and {*known} <= {*risk["quasi_identifiers"]}:
        return ""
    if risk and int(risk["k"]) >= asked and not risk["stale"]:
        return f"{_k_of(manifest)}, but {', '.join(known)} may be known"
    return f"{_k_of(manifest)}, and {asked} is asked for"


def _linking(exports: Sequence[Written]) -> str:
    """What somebody finds who links the rows of all files."""
    names = exports[-1].manifest.risk.get("quasi_identifiers", [])
    files = [each for each in exports if names and {*names} <= {*each.columns}]
    if not files:
        return ""
    by = SUBJECT_HASH.name if all(SUBJECT_HASH.name in each.columns for each in files) else PSEUDONYM
    found = linkage_risk(pl.concat([each.rows.select(by, *names) for each in files]), names, by=by)
    noun = "analyses" if by == PSEUDONYM else "people"
    return (
        f". Who links rows by {by} over {len(files)} files finds classes of {found.k} {noun} or more, and "
        f"{found.share_unique:.1%} of the {noun} alone in theirs"
    )
