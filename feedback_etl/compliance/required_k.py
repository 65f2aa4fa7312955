"""Test the k of exports: each must have the k that the settings require and the k that it was made with."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import polars as pl

from feedback_etl.compliance.application_database import fetch_settings_owners
from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import ExportContents
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.compliance.remedies import SET_DATABASE, Remedies
from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.remaining_classes import (
    concat_classes,
    hash_export_owners,
    is_counted_in_series,
    measure_remaining_k,
    must_be_recounted,
)
from feedback_etl.privacy.risk_measures import linkage_risk
from feedback_etl.records.manifest import Manifest
from feedback_etl.schema.classic import is_classic
from feedback_etl.schema.model import SUBJECT_HASH


def check_k(context: CheckContext) -> ChecklistItem:
    """Test the k of the exports, and measure the risk of linking their rows by a pseudonym.

    An export must have the k of the settings or its own, whichever is greater; one of a series with k, together with
    the other exports of the series. After an erasure k is measured again, in a series also after one was pruned, or
    where the newest versions of its rows were not counted.
    """
    exports, remedies = context.files, context.remedies
    find_owners = _create_owner_lookup(context)
    problems, untested, required, remaining = list[Finding](), list[Finding](), dict[str, int](), dict[str, int]()
    for group in _group(exports):
        manifests, last = [export.manifest for export in group], group[-1].manifest
        k = max(remedies.settings.k or 0, last.settings.get("k") or 0)
        required |= dict.fromkeys((manifest.stem for manifest in manifests), k)
        if not k:
            untested.append(Finding(f"{_describe_k(last)}, and none is required", "set k in the settings"))
        elif not _must_be_recounted(manifests, context.exports):
            problems += [finding for manifest in manifests for finding in _find_k_problems(manifest, k, remedies)]
        elif (measured := _measure(group, find_owners)) is None:
            people = f"people of {_name(last, group[-1].path.name)}, {_explain(last)}"
            untested.append(Finding(f"{people}, cannot be counted without the database and the key", SET_DATABASE))
        elif 0 < measured < k:  # 0 is that of no rows
            problems.append(_describe_remaining_k(last, measured, k, remedies))
        else:
            remaining[last.stem] = measured
            problems += _find_k_problems(last, 0, remedies)
        if _must_be_recounted(manifests, context.exports):
            untested += _find_uncounted_diversity(last, group[-1].path.name, remedies)
    newest = next((export.manifest for export in reversed(exports) if required[export.manifest.stem]), None)
    unlinked = _find_unlinked(exports) if newest else []
    untested += unlinked
    linkage = "" if unlinked else _describe_linkage(exports)
    passed = f"{_describe_k(newest, remaining)}; {required[newest.stem]} is required.{linkage}" if newest else ""
    return build_item("k", problems, passed=passed, untested=untested)


def _group(exports: Sequence[ExportContents]) -> list[list[ExportContents]]:
    """Group exports whose classes are counted together: a series with k is one group, any other export is its own."""
    groups: dict[str, list[ExportContents]] = {}
    for export in exports:
        name = export.manifest.settings_digest if is_counted_in_series(export.manifest) else export.manifest.stem
        groups.setdefault(name, []).append(export)
    return list(groups.values())


def _must_be_recounted(manifests: Sequence[Manifest], existing: Sequence[Manifest]) -> bool:
    """Return whether manifests do not say the k of exports; a pruned one of a series is not existing."""
    if must_be_recounted(manifests):
        return True
    last = manifests[-1]
    series = [export for export in existing if export.settings_digest == last.settings_digest]
    numbers = {export.chain["number"] for export in series if export.chain}
    return is_counted_in_series(last) and len(numbers) < max(numbers)


def _name(manifest: Manifest, name: str = "") -> str:
    """Return the name of an export, or of its series, in a message."""
    return f"the series of {manifest.stem}" if is_counted_in_series(manifest) else name or manifest.stem


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


def _measure(exports: Sequence[ExportContents], find_owners: Callable[[Manifest], pl.LazyFrame | None]) -> int | None:
    manifest, names = exports[-1].manifest, exports[-1].manifest.risk["quasi_identifiers"]
    has_people = all(SUBJECT_HASH.name in export.columns for export in exports)
    rows = concat_classes([(export.manifest, export.rows) for export in exports], names)
    return measure_remaining_k(rows, names, None if has_people else find_owners(manifest))


def _describe_k(manifest: Manifest, remaining: Mapping[str, int] = MappingProxyType({})) -> str:
    """Describe the k of an export: that of `remaining`, by stem, if it was measured again after an erasure."""
    risk = manifest.risk
    if not risk:
        return f"k of {manifest.stem} was not measured"
    if manifest.stem in remaining:
        names = ", ".join(risk["quasi_identifiers"])
        return f"k of {_name(manifest)} is {remaining[manifest.stem]} for {names} {_get_cause(manifest)}"
    k = f"{'at least ' if risk['at_least'] else ''}{risk['k']} for {', '.join(risk['quasi_identifiers'])}"
    return f"k of {_name(manifest)} is {k}" + (", measured before people were erased" if risk["stale"] else "")


def _get_cause(manifest: Manifest) -> str:
    """Return what happened to an export, or to its series, after its k was measured."""
    if manifest.settings.get("cursor"):
        return "counted over all versions of its rows, and over the newest ones"
    return "since people were erased" + " or exports pruned" * is_counted_in_series(manifest)


def _explain(manifest: Manifest) -> str:
    """Return why people are to be counted again, as a clause."""
    if manifest.settings.get("cursor"):
        return "of which a reader finds the newest versions of rows"
    return "which lost rows" if is_counted_in_series(manifest) else "from which rows were erased"


def _find_k_problems(manifest: Manifest, required: int, remedies: Remedies) -> list[Finding]:
    """Return why the k of an export may be smaller than required."""
    risk, settings = manifest.risk, remedies.settings
    names = settings.effective_quasi_identifiers
    remedy = remedies.replace(manifest, k=max(settings.k or 0, manifest.settings.get("k") or 0))
    if not risk or int(risk["k"] or 0) < required:
        return [Finding(f"{_describe_k(manifest)}, and {required} is required", remedy)]
    if settings.k and not {*names} <= {*risk["quasi_identifiers"]}:
        return [Finding(f"{_describe_k(manifest)}, but {', '.join(names)} may be known", remedy)]
    return []


def _find_uncounted_diversity(manifest: Manifest, name: str, remedies: Remedies) -> list[Finding]:
    """Return that l and t of an export are those of the rows that it had, if it was made with them."""
    if not manifest.risk.get("diversity"):
        return []
    is_repeatable = not (manifest.recipient or manifest.chain)  # else its rows must not differ
    remedy = remedies.replace(manifest) if is_repeatable else ""
    return [Finding(f"l and t of {_name(manifest, name)}, {_explain(manifest)}, are not measured again", remedy)]


def _describe_remaining_k(manifest: Manifest, measured: int, required: int, remedies: Remedies) -> Finding:
    """Describe the k that an erasure left; the small classes are removed, if the export was made with that k."""
    names = ", ".join(manifest.risk["quasi_identifiers"])
    clause = f"k of {_name(manifest)} is {measured} for {names} {_get_cause(manifest)}, and {required} is required"
    if manifest.settings.get("k") == required:
        return Finding(clause, remedies.keep_k())
    return Finding(clause, remedies.replace(manifest, k=required))


def _find_unlinked(exports: Sequence[ExportContents]) -> list[Finding]:
    """Return why linkage cannot be measured: rows of a declared schema that each have a pseudonym of their own."""
    files = [export for export in exports if SUBJECT_HASH.name not in export.columns]
    if not files or any(is_classic(export.manifest.schema) or not export.is_each_row_unique for export in files):
        return []
    clause = "the risk of linking the rows of a person, since each row has an analysis_hash of its own"
    return [Finding(clause, "export with --include-subject-hash, which links the rows of a person")]


def _describe_linkage(exports: Sequence[ExportContents]) -> str:
    """Describe the risk if an attacker links the rows of all files."""
    names = exports[-1].manifest.risk.get("quasi_identifiers", [])
    files = [export for export in exports if names and {*names} <= {*export.columns}]
    if not files:
        return ""
    by = SUBJECT_HASH.name if all(SUBJECT_HASH.name in export.columns for export in files) else PSEUDONYM
    risk = linkage_risk(pl.concat([export.rows.select(by, *names) for export in files]), names, by=by)
    one, all_ = ("an analysis", "analyses") if by == PSEUDONYM else ("a person", "people")
    return (
        f" This k is of single rows, and none is required of linked ones: to anyone who knows all rows of {one}, "
        f"linked by {by} over {pluralize(len(files), 'file')}, the smallest group has {risk.k} of the {all_}, and "
        f"{risk.share_unique:.1%} of them are unique."
    )
