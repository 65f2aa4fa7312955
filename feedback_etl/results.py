"""Statistics and report of an export."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from feedback_etl.database.window import Window, parse_window


@dataclass
class FeedbackProcessingStats:
    """Statistics of one run, not accumulated over runs.

    It always holds that total_feedback_records = exported_records + deduplicated_records + skipped_records + errors +
    suppressed_records + pending_records. The eight fields of the classic API come first, in its order.

    Attributes:
        total_feedback_records: Rows read in the window, and rows of an incremental series that were pending before.
        exported_records: Rows written.
        deduplicated_records: Rows removed because an earlier row contains the same feedback.
        anonymized_records: Rows pseudonymised: exported, suppressed or pending.
        skipped_records: Rows with too few ratings.
        errors: Rows rejected as invalid.
        execution_time_seconds: Seconds from the call to the publication of the file.
        export_filename: Path of the data file, relative if the folder was; "" if nothing was written.
        suppressed_records: Rows of equivalence classes smaller than k.
        excluded_records: Rows without consent. Manifests of versions without `erased_records` count erased people here
            too. Neither these rows nor those of the next two figures are part of the total.
        erased_records: Rows of erased people.
        known_records: Rows that an earlier export of the incremental series has read.
        pending_records: Rows of an incremental series that are pending until k people share their equivalence class.
    """

    total_feedback_records: int = 0
    exported_records: int = 0
    deduplicated_records: int = 0
    anonymized_records: int = 0
    skipped_records: int = 0
    errors: int = 0
    execution_time_seconds: float = 0.0
    export_filename: str = ""
    suppressed_records: int = 0
    excluded_records: int = 0
    erased_records: int = 0
    known_records: int = 0
    pending_records: int = 0


@dataclass
class ExportReport(FeedbackProcessingStats):
    """Statistics of one run, with details for its reader.

    Attributes:
        rejected_filename: Path of the list of rejected rows; "" if there are none.
        items_filename: Path of the file of item rows; "" if there are none.
        exported_items: Item rows written.
        escaped_items: Items in a CSV file that have an additional apostrophe, as in `escaped_texts`.
        rejected_reasons: Number of rejected rows by reason, most frequent first; a row can have several reasons.
        implausible_ages: Training pairs, including suppressed ones, without an age_range because the age is below 0 or
            above 130.
        withheld_image_urls: Image URLs replaced by null because they contain the id of the user or of the analysis.
        unreadable_times: Values of extra time columns replaced by null because they lie outside the years 1 to 9999.
        escaped_texts: Number of texts by column that have an additional apostrophe in a CSV file, since spreadsheet
            programs would run them or they begin with an apostrophe; `transform.formulas.unescape` removes it.
        window: The half-open window, UTC.
        key_id: The id of the pseudonym key; None for unkeyed pseudonyms.
        risk: Sizes of the equivalence classes in people, and the risks that follow; see docs/commands.md. In
            `people_in_classes_under_5`, a person with rows in several such classes is counted in each.
        audit_head: MAC of the last record of the audit log; a copy stored elsewhere reveals a truncated log.
        mode: "full", "incremental" or "backfill".
        late_records: Rows that arrived later than the lookback allows: a minimum, since deleted rows of a window offset
            others. With `cursor`, those among them with a recent cursor are exported at once.
        changed_records: Rows, among those to export, that were exported before and have changed since, by `cursor`. A
            row that arrived late and was changed since may be counted too.
        advice: How to make a long export faster, a note that a new incremental series began, or why the lineage was not
            reported; "" otherwise.
    """

    rejected_filename: str = ""
    items_filename: str = ""
    exported_items: int = 0
    escaped_items: int = 0
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    implausible_ages: int = 0
    withheld_image_urls: int = 0
    unreadable_times: int = 0
    escaped_texts: dict[str, int] = field(default_factory=dict)
    window: Window | None = None
    key_id: str | None = None
    risk: dict[str, Any] = field(default_factory=dict)
    audit_head: str = ""
    mode: str = "full"
    late_records: int = 0
    changed_records: int = 0
    advice: str = ""

    @classmethod
    def from_audit_summary(cls, summary: Mapping[str, Any]) -> Self:
        """Return the report of a committed export from its summary in the audit log, without the names of its files."""
        report = cls(**summary["statistics"], mode=summary["mode"], risk=summary["risk"], key_id=summary["key_id"])
        report.anonymized_records = report.exported_records + report.suppressed_records + report.pending_records
        report.window = parse_window(summary["window"])
        return report

    def to_statistics(self) -> dict[str, Any]:
        """Return the counts, as manifests contain them."""
        counts = {name: value for name, value in asdict(self).items() if name.endswith("_records") or name == "errors"}
        names = ("rejected_reasons", "implausible_ages", "withheld_image_urls", "unreadable_times", "escaped_texts")
        items = {name: getattr(self, name) for name in ("exported_items", "escaped_items") if self.exported_items}
        return counts | {name: getattr(self, name) for name in names} | items

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as values that JSON can hold; the window's ends are ISO 8601 text in UTC."""
        window = [end.isoformat() if end else None for end in self.window] if self.window else None
        return asdict(self) | {"window": window}
