"""Test that no export was made with weaker limits than the settings, and name weak limits that they allow."""

from collections.abc import Iterator
from typing import Any

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.options.quality import QualityOptions
from feedback_etl.records.manifest import Manifest
from feedback_etl.settings.model import Settings


def check_limits(context: CheckContext) -> ChecklistItem:
    """Test that no export was made with weaker limits than the settings; weak ones that they allow are named.

    The limits of exports of earlier versions and of adopted files are not recorded, and l and t are not measured in an
    incremental series.
    """
    remedies, problems, untested, weak = context.remedies, [], [], list[str]()
    for manifest in context.exports:
        changes = _find_weaker_diversity(manifest, remedies.settings)
        if changes and manifest.chain:
            untested.append(
                Finding(f"{' and '.join(changes)} of {manifest.stem}, which no incremental series can have")
            )
            changes = {}
        clauses = [f"without {name} = {value:g}" for name, value in changes.items()]
        if clauses := [*clauses, *_list_weaker(manifest.limits, remedies.settings)]:
            repeat = remedies.remove([manifest.stem]) if manifest.recipient else remedies.replace(manifest, **changes)
            problems.append(Finding(f"{manifest.stem} was made {', '.join(clauses)} of the settings", repeat))
        if not manifest.limits:
            untested.append(Finding(f"the limits of {manifest.stem}, which its manifest does not record"))
        weak += [f" {manifest.stem} {clause}." for clause in _describe_weak(manifest.limits)]
    passed = f"No export has weaker limits than the settings.{''.join(weak)}"
    is_tested = any(manifest.limits for manifest in context.exports)
    return build_item("limits", problems, passed=passed if is_tested else "", untested=untested)


def describe_limits(limits: dict[str, Any]) -> str:
    """Describe the limits of an export for the record of processing."""
    if not limits:
        return "not recorded"
    rejected = f"at most {_format_share(limits['max_rejected'])} rejected rows"
    parts = ["no row may be rejected" if limits.get("strict") else rejected]
    if "max_suppressed" in limits:
        parts.append(f"at most {_format_share(limits['max_suppressed'])} suppressed rows")
    parts.append(f"row model {limits['row_model']}" if "row_model" in limits else "no row model")
    if "formulas" in limits:
        parts.append(f"formulas = {limits['formulas']}")
    if limits.get("allow_overlap"):
        parts.append("an overlap with an earlier release is allowed")
    return ", ".join(parts)


def _find_weaker_diversity(manifest: Manifest, settings: Settings) -> dict[str, float]:
    """Return l and t of the settings, if an export with k was made with weaker ones."""
    used = manifest.settings
    if not used.get("k"):
        return {}  # the item k reports it
    is_weaker = {
        "l": settings.l is not None and used.get("l", 0) < settings.l,
        "t": settings.t is not None and used.get("t", 1.0) > settings.t,
    }
    return {name: getattr(settings, name) for name, weaker in is_weaker.items() if weaker}


def _list_weaker(limits: dict[str, Any], settings: Settings) -> Iterator[str]:
    """Yield the limits of the settings that an export was made without, as clauses."""
    if limits.get("formulas") == "allow" and settings.formulas != "allow":
        yield f"with formulas = allow instead of {settings.formulas}"
    if limits.get("max_suppressed", 0) > settings.max_suppressed:
        yield f"with max_suppressed = {limits['max_suppressed']:g} instead of {settings.max_suppressed:g}"
    if settings.row_model and limits:
        model = settings.row_model.rpartition(":")[2]
        if limits.get("row_model") != model:
            yield f"without the row model {model}"


def _describe_weak(limits: dict[str, Any]) -> Iterator[str]:
    """Yield what limits allow beyond the defaults, as clauses about an export."""
    if limits.get("formulas") == "allow":
        yield "contains texts that a spreadsheet would run as they are"
    if not limits.get("strict") and limits.get("max_rejected", 0) > QualityOptions.max_rejected:
        yield f"could lose {_format_share(limits['max_rejected'])} of its rows as rejected"
    if limits.get("allow_overlap"):
        yield "shares a window again"


def _format_share(share: float) -> str:
    """Format a limit, which is never rounded to another one.

    >>> _format_share(0.5), _format_share(0.004)
    ('50%', '0.4%')
    """
    return f"{100 * share:.10g}%"
