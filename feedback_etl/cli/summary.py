"""The summary of an export on stderr."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from feedback_etl.cli.console import echo_err
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport

LABEL_WIDTH = 11
"""Columns of the label of a line."""


def print_summary(report: "ExportReport", min_fields: int) -> None:
    """Print the summary of an export to stderr, one labelled line for each figure that is not zero."""
    for line in format_summary(report, min_fields):
        echo_err(line, indent=LABEL_WIDTH)


def format_summary(report: "ExportReport", min_fields: int) -> Iterator[str]:
    """Yield the lines of the summary of an export."""
    yield f"window     {report.window}"
    yield from format_excluded(report)
    if report.export_filename:
        yield f"exported   {report.exported_records:,} of {report.total_feedback_records:,} rows"
    else:
        yield f"Nothing exported: {explain_empty(report, min_fields)}"
    yield from format_outcomes(report, min_fields)
    if report.escaped_texts:
        escaped = ", ".join(f"{column} {texts:,}" for column, texts in report.escaped_texts.items())
        yield f"escaped    {escaped}: an apostrophe was added for spreadsheets; remove it before values are compared"
    if report.export_filename:
        yield from _format_k(report.risk)
        yield f"file       {report.export_filename}"
        if report.items_filename:
            yield f"items      {report.exported_items:,} rows in {report.items_filename}"
        yield f"key        {report.key_id or 'none: unkeyed pseudonyms can be inverted'}"
    yield f"duration   {report.execution_time_seconds:.2f} s"
    if report.late_records:
        late = pluralize(report.late_records, "row")
        yield f"late       at least {late} arrived after the lookback"
        yield "           the same command with --backfill exports those that no export contains"
    if report.advice:
        yield f"advice     {report.advice}"


def format_excluded(report: "ExportReport") -> Iterator[str]:
    """Yield a line for each count of rows that were not read: without consent, or of erased people."""
    yield from _format_counts(
        ("excluded", report.excluded_records, "without consent"), ("erased", report.erased_records, "of erased people")
    )


def format_outcomes(report: "ExportReport", min_fields: int) -> Iterator[str]:
    """Yield a line for each count of rows that are not exported, and of values that are exported as null."""
    rejected = f"listed in {report.rejected_filename}" if report.rejected_filename else "by reason:"
    yield from _format_counts(
        ("skipped", report.skipped_records, f"with fewer than {pluralize(min_fields, 'rating')}"),
        ("duplicates", report.deduplicated_records, "dropped"),
        ("rejected", report.errors, rejected),
    )
    for reason, rows in report.rejected_reasons.items():
        yield f"           {rows:,} {reason}"
    yield from _format_counts(
        ("ages", report.implausible_ages, "below 0 or above 130; age_range is empty"),
        ("times", report.unreadable_times, "unreadable in declared time columns; null in the export"),
        ("suppressed", report.suppressed_records, "in equivalence classes smaller than k"),
        ("pending", report.pending_records, "until k people of the series share their equivalence class"),
    )


def _format_counts(*counts: tuple[str, int, str]) -> Iterator[str]:
    """Yield a line for each count that is not zero: label, number and what was counted."""
    return (f"{label:<10} {count:,} {text}" for label, count, text in counts if count)


def _format_k(risk: dict[str, Any]) -> Iterator[str]:
    """Yield the people of the smallest equivalence class, what that assumes, and the number of rows at risk."""
    yield f"k          {'at least ' * risk['at_least']}{risk['k']} ({', '.join(risk['quasi_identifiers'])})"
    yield f"           {pluralize(risk['rows_in_classes_under_5'], 'row')} in classes of fewer than 5 people"
    if risk.get("scope") == "series":
        yield "           counted over all exports of the series: no file alone has this k"
    yield "assumes    that only these columns of one row are known of a person"
    yield "           `feedback-etl risk` measures linked rows, and classes of equal answers"
    if "generalization" in risk:
        yield from _format_generalization(risk["generalization"])


def _format_generalization(measured: dict[str, Any]) -> Iterator[str]:
    """Yield the cells that were made coarser or emptied in each column, and the information that this cost."""
    for label, figure in (("coarser", "generalized"), ("emptied", "emptied")):
        cells = [f"{column} {cells[figure]:,}" for column, cells in measured["columns"].items() if cells[figure]]
        if cells:
            yield f"{label:<10} {', '.join(cells)}"
    if empty := measured.get("empty_columns"):
        yield f"           {', '.join(empty)}: no value is left"
    yield f"loss       {measured['non_uniform_entropy']:.1%} of the information in these columns"


def explain_empty(report: "ExportReport", min_fields: int) -> str:
    """Return the reason why nothing was exported: the first that applies."""
    total, is_incremental = report.total_feedback_records, report.mode == "incremental"
    few_ratings = f"all rows in the window have fewer than {pluralize(min_fields, 'rating')} (--min-fields)."
    reasons = (
        (report.errors and not report.rejected_filename, "every row with enough ratings was rejected."),
        (total and report.deduplicated_records == total, "all new rows are duplicates of earlier ones."),
        (total and report.skipped_records == total, few_ratings),
        (
            total and report.pending_records == total,
            "all new rows are pending until k people of the series share their equivalence class.",
        ),
        (total, "all new rows were dropped, as listed below."),
        (report.mode == "backfill", "the exports contain every row of the earlier windows that can be exported."),
        (is_incremental and report.excluded_records, "no user with new feedback has given consent."),
        (report.known_records, "there are no new rows since the last incremental export."),
        (
            report.excluded_records and report.erased_records,
            "all rows in the window are without consent or of erased people.",
        ),
        (report.erased_records, "all rows in the window are of erased people."),
        (report.excluded_records, "no user with feedback in the window has given consent."),
        (is_incremental, "there are no new rows since the last incremental export."),
    )
    default = "there is no feedback in the window (--days -1 exports everything)."
    return next((reason for applies, reason in reasons if applies), default)
