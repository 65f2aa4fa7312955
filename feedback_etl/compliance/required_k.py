"""Test the k of exports: each must have the k that the settings require and the k that it was made with."""

import functools
from collections.abc import Callable, Sequence

import polars as pl

from feedback_etl.columns import SUBJECT_HASH, all_quasi_identifiers
from feedback_etl.compliance.application_database import fetch_settings_owners
from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import ExportContents
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.compliance.remedies import SET_DATABASE, Remedies
from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.remaining_classes import hash_export_owners, measure_remaining_k
from feedback_etl.privacy.risk_measures import linkage_risk
from feedback_etl.records.manifest import Manifest


def check_k(context: CheckContext) -> ChecklistItem:
    """Test the k of the exports, and measure the risk of linking their rows by a pseudonym.

    An export must have the k of the settings or its own, whichever is greater. After an erasure k is measured again.
    """
    exports, remedies = context.files, context.remedies
    find_owners = _create_owner_lookup(context)
    problems, untested, required = [], [], 0
    for export in exports:
        k = max(remedies.settings.k or 0, export.manifest.settings.get("k") or 0)
        required = max(required, k)
        if not k:
            untested.append(Finding(f"{_describe_k(export.manifest)}, and none is required", "set k in the settings"))
        elif not export.manifest.risk.get("stale"):
            problems += _find_k_problems(export.manifest, k, remedies)
        elif (measured := _measure(export, find_owners)) is None:
            clause = (
                f"people of {export.path.name}, from which rows were erased, cannot be counted without the database"
            )
            untested.append(Finding(f"{clause} and the key", SET_DATABASE))
        elif 0 < measured < k:  # 0 is that of no rows
            problems.append(_describe_remaining_k(export.manifest, measured, k, remedies))
        else:
            problems += _find_k_problems(export.manifest, 0, remedies)
    passed = (
        f"{_describe_k(exports[-1].manifest)}; {required} is required.{_describe_linkage(exports)}" if required else ""
    )
    return build_item("k", problems, passed=passed, untested=untested)


def _create_owner_lookup(context: CheckContext) -> Callable[[Manifest], pl.LazyFrame | None]:
    """Return a function that finds the users of an export; None without a database or its key.

    The database is read at its first call.
    """
    keys: dict[str | None, Key | None] = {None: None} | {key.id: key for key in context.keys}
    read_owners = functools.cache(lambda: fetch_settings_owners(context.remedies.settings))

    def find_owners(manifest: Manifest) -> pl.LazyFrame | None:
        is_known = context.database is not None and manifest.lookup_key in keys
        if not is_known:
            return None
        return hash_export_owners(context.storage, manifest, read_owners(), keys[manifest.lookup_key])

    return find_owners


def _measure(export: ExportContents, find_owners: Callable[[Manifest], pl.LazyFrame | None]) -> int | None:
    owners = None if SUBJECT_HASH.name in export.columns else find_owners(export.manifest)
    return measure_remaining_k(export.rows, export.manifest.risk["quasi_identifiers"], owners)


def _describe_k(manifest: Manifest) -> str:
    risk = manifest.risk
    if not risk:
        return f"k of {manifest.stem} was not measured"
    k = f"{'at least ' if risk['at_least'] else ''}{risk['k']} for {', '.join(risk['quasi_identifiers'])}"
    return f"k of {manifest.stem} is {k}" + (", measured before people were erased" if risk["stale"] else "")


def _find_k_problems(manifest: Manifest, required: int, remedies: Remedies) -> list[Finding]:
    """Return why the k of an export may be smaller than required."""
    risk, settings = manifest.risk, remedies.settings
    names = all_quasi_identifiers(settings.quasi_identifiers, settings.extra_columns)
    remedy = remedies.replace(manifest, k=max(settings.k or 0, manifest.settings.get("k") or 0))
    if not risk or int(risk["k"]) < required:
        return [Finding(f"{_describe_k(manifest)}, and {required} is required", remedy)]
    if settings.k and not {*names} <= {*risk["quasi_identifiers"]}:
        return [Finding(f"{_describe_k(manifest)}, but {', '.join(names)} may be known", remedy)]
    return []


def _describe_remaining_k(manifest: Manifest, measured: int, required: int, remedies: Remedies) -> Finding:
    """Describe the k that an erasure left; the small classes are removed, if the export was made with that k."""
    names = ", ".join(manifest.risk["quasi_identifiers"])
    clause = f"k of {manifest.stem} is {measured} for {names} since people were erased, and {required} is required"
    if manifest.settings.get("k") == required:
        return Finding(clause, remedies.keep_k())
    return Finding(clause, remedies.replace(manifest, k=required))


def _describe_linkage(exports: Sequence[ExportContents]) -> str:
    """Describe the risk if an attacker links the rows of all files."""
    names = exports[-1].manifest.risk.get("quasi_identifiers", [])
    files = [export for export in exports if names and {*names} <= {*export.columns}]
    if not files:
        return ""
    by = SUBJECT_HASH.name if all(SUBJECT_HASH.name in export.columns for export in files) else PSEUDONYM
    risk = linkage_risk(pl.concat([export.rows.select(by, *names) for export in files]), names, by=by)
    noun = "analyses" if by == PSEUDONYM else "people"
    return (
        f" Linked by {by} over {pluralize(len(files), 'file')}, equivalence classes have {risk.k} {noun} or more, and "
        f"{risk.share_unique:.1%} of the {noun} are unique."
    )
