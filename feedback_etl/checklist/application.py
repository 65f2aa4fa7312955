"""What is tested on the application's database, and with its ids."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from feedback_etl.checklist.item import Item
from feedback_etl.checklist.rows import Written
from feedback_etl.errors import FeedbackError
from feedback_etl.expressions import hash_id
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.settings import Settings
from feedback_etl.source.people import Application


def indexed(found: Application) -> Item:
    """There is an index on created_at."""
    return Item(
        "index",
        not found.missing_index,
        "none on created_at" if found.missing_index else "on created_at",
        found.missing_index,
    )


def consented(found: Application, settings: Settings) -> Item:
    """It is known who has consented, unless the record of processing names another legal basis."""
    if found.consent:
        return Item("consent", True, f"recorded by {', '.join(found.consent)}")
    basis = (settings.legal_basis or "").lower()
    if basis and "consent" not in basis:
        return Item("consent", True, "no column records it, and the record of processing names another legal basis")
    told = f"neither users nor profiles has {settings.opt_in_column} or {settings.opt_out_column}"
    return Item("consent", False, told, "set opt_in_column, or legal_basis where feedback is used without consent")


def erasable(folder: Path, exports: Sequence[Written], found: Application, keys: Sequence[Key]) -> Item:
    """An erasure of somebody who is in the newest export would find them, tried without changing anything."""
    last = exports[-1]
    key = next((key for key in keys if key.id == last.manifest.key_id), None)
    if key is None and last.manifest.key_id is not None:
        return Item("erasure", False, f"the key {last.manifest.key_id} is not at hand", "name it with --key-file")
    somebody = _in_export(last, found.analyses, key)
    if somebody is None:
        told = f"nobody in {last.path.name} is in the database (any more), so that user ids find nobody"
        return Item("erasure", False, told, "feedback-etl erase --not-in-database")
    try:
        done = erase(folder, analysis_ids=[somebody], keys=keys, dry_run=True)
    except FeedbackError as error:
        return Item("erasure", False, str(error), "feedback-etl erase --dry-run")
    faults = {
        f"damaged: {', '.join(done.damaged)}": ("feedback-etl list", done.damaged),
        f"made with keys that are not at hand: {', '.join(done.without_key)}": ("--key-file", done.without_key),
        f"not ours: {', '.join(path.name for path in done.foreign)}": ("feedback-etl adopt", done.foreign),
        "somebody who is in the newest export was not found": ("feedback-etl list", [] if done.rows else [somebody]),
    }
    wrong = {told: mend for told, (mend, found_there) in faults.items() if found_there}
    passed = "somebody who is in the newest export would be found, and all files looked into"
    return Item("erasure", not wrong, "; ".join(wrong) or passed, ", ".join(dict.fromkeys(wrong.values())))


def _in_export(export: Written, analyses: Sequence[str], key: Key | None) -> str | None:
    """An analysis that is in an export."""
    ids = pl.DataFrame({"id": analyses}, schema={"id": pl.String})
    hashes = hash_id("id", key=key, domain="analysis_id", unkeyed=key is None)
    there = ids.filter(hashes.is_in(export.pseudonyms.implode()))["id"]
    return str(there[0]) if len(there) else None
