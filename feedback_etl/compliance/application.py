"""What is tested on the application's database, and with its ids."""

import re
from collections.abc import Mapping, Sequence

import polars as pl

from feedback_etl.compliance.data_files import Written, unknown_pseudonyms
from feedback_etl.compliance.item import Item, item
from feedback_etl.database.lookups import ApplicationSummary
from feedback_etl.errors import FeedbackError
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.settings import Settings
from feedback_etl.storage.base import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.transform.expressions import hash_id


def indexed(found: ApplicationSummary) -> Item:
    """There is an index on created_at."""
    return Item(
        "index",
        not found.missing_index,
        "none on created_at" if found.missing_index else "on created_at",
        found.missing_index,
    )


_CONSENT = re.compile(r"consent|einwillig|6\(1\)(lit\.?)?\(?a\)?|9\(2\)(lit\.?)?\(?a\)?|lit\.?a")
"""How a legal basis says that it is consent (GDPR, Articles 6(1)(a) and 9(2)(a)), without spaces."""


def consented(found: ApplicationSummary, files: Sequence[Written], keys: Sequence[Key], settings: Settings) -> Item:
    """It is known who has consented, and nobody is in an export who has withdrawn.

    Nothing has to be known where the record of processing names another legal basis.
    """
    if found.is_partial:
        told = "row-level security hides people from this role, who may have withdrawn (allow_row_security)"
        return Item("consent", False, told, "run the check as a role with BYPASSRLS, without allow_row_security")
    if found.consent:
        consenting = {*found.consenting}
        withdrawn = hashes_by_key([each for each in found.analyses if each not in consenting], keys)
        faults = [fault for each in files if (fault := _withdrawn_in(each, withdrawn))]
        told = f"recorded by {', '.join(found.consent)}, and nobody is in an export who has withdrawn"
        return item("consent", faults, passed=told, mend="feedback-etl erase --not-in-database")
    basis = "".join((settings.legal_basis or "").lower().split())
    if basis and not _CONSENT.search(basis):
        return Item("consent", True, "no column records it, and the record of processing names another legal basis")
    told = f"neither users nor profiles has {settings.opt_in_column} or {settings.opt_out_column}"
    return Item("consent", False, told, "set opt_in_column, or legal_basis where feedback is used without consent")


def _withdrawn_in(each: Written, withdrawn: Mapping[str | None, pl.Series]) -> str:
    made_by = each.manifest.pseudonyms
    if made_by not in withdrawn:
        return f"{each.path.name} cannot be looked into: {unknown_pseudonyms(each.manifest)}"
    rows = int(each.analyses.is_in(withdrawn[made_by].implode()).sum())
    return f"{each.path.name} has {rows:,} analyses of people who have withdrawn" if rows else ""


def hashes_by_key(analyses: Sequence[str], keys: Sequence[Key]) -> dict[str | None, pl.Series]:
    """The pseudonyms of analyses under each key at hand, and unkeyed ones."""
    ids = pl.DataFrame({"analysis_id": analyses}, schema={"analysis_id": pl.String})
    known: list[Key | None] = [None, *keys]
    return {
        key.id if key else None: ids.select(hash_id("analysis_id", key=key, unkeyed=key is None)).to_series()
        for key in known
    }


def erasable(
    place: LocalStorage | ObjectStorage, exports: Sequence[Written], found: ApplicationSummary, keys: Sequence[Key]
) -> Item:
    """An erasure of somebody who is in the newest export would find them, tried without changing anything."""
    last = exports[-1]
    if last.manifest.pseudonyms != last.manifest.key_id:
        return Item("erasure", False, f"{last.path.name} cannot be looked into: {unknown_pseudonyms(last.manifest)}")
    key = next((key for key in keys if key.id == last.manifest.key_id), None)
    if key is None and last.manifest.key_id is not None:
        return Item("erasure", False, f"the key {last.manifest.key_id} is not at hand", "name it with --key-file")
    somebody = _in_export(last, found.analyses, key)
    if somebody is None:
        told = f"nobody in {last.path.name} is found in the database: its key is another one, or they have all left"
        return Item(
            "erasure", False, told, "feedback-etl list; if the key is right, feedback-etl erase --not-in-database"
        )
    try:
        done = erase(place, analysis_ids=[somebody], keys=keys, dry_run=True)
    except FeedbackError as error:
        return Item("erasure", False, str(error), "feedback-etl erase --dry-run")
    faults = {
        f"damaged: {', '.join(done.damaged)}": ("feedback-etl list", done.damaged),
        f"made with keys that are not at hand: {', '.join(done.without_key)}": ("--key-file", done.without_key),
        f"not ours: {', '.join(path.name for path in done.unmanaged)}": ("feedback-etl adopt", done.unmanaged),
        "somebody who is in the newest export was not found": ("feedback-etl list", [] if done.rows else [somebody]),
    }
    wrong = {told: mend for told, (mend, found_there) in faults.items() if found_there}
    passed = "somebody who is in the newest export would be found, and all files looked into"
    return Item("erasure", not wrong, "; ".join(wrong) or passed, ", ".join(dict.fromkeys(wrong.values())))


def _in_export(export: Written, analyses: Sequence[str], key: Key | None) -> str | None:
    """An analysis that is in an export."""
    ids = pl.DataFrame({"id": analyses}, schema={"id": pl.String})
    hashes = hash_id("id", key=key, domain="analysis_id", unkeyed=key is None)
    there = ids.filter(hashes.is_in(export.analyses.implode()))["id"]
    return str(there[0]) if len(there) else None
