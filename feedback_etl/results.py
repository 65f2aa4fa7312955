"""Statistics and report of an export."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self

from feedback_etl.database.window import Window


@dataclass
class FeedbackProcessingStats:
    """The statistics of one run; nothing is carried over from run to run.

    total_feedback_records = exported_records + deduplicated_records + skipped_records + errors + suppressed_records,
    always.

    The classic eight come first, in the classic order.

    Attributes:
        total_feedback_records: Rows read in the window.
        exported_records: Rows written.
        deduplicated_records: Rows removed because an earlier row is the same feedback.
        anonymized_records: Rows pseudonymised: exported and suppressed.
        skipped_records: Rows with too few ratings.
        errors: Rows rejected as invalid.
        execution_time_seconds: From the call to the published file.
        export_filename: The data file, as the folder was given; "" when nothing was written.
        suppressed_records: Rows of equivalence classes smaller than k.
        excluded_records: Rows without consent: counted, never read, and no part of the total.
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


@dataclass
class ExportReport(FeedbackProcessingStats):
    """The statistics of one run, with details for people.

    Attributes:
        rejected_filename: The list of rejected rows; "" when there are none.
        rejected_reasons: How many rows were rejected for each reason, most frequent first; a row can have several.
        implausible_ages: Training pairs, suppressed ones included, without an age_range since the age is below 0 or
            above 130.
        withheld_image_urls: Image URLs replaced by null since they contain the id of the user or of the analysis.
        unreadable_times: Values of extra time columns that are null in the export since they lie outside the years 1
            to 9999.
        window: The half-open window, UTC.
        key_id: The id of the pseudonym key; None for unkeyed pseudonyms.
        risk: How many people share each combination of quasi-identifiers: k, classes, risks; see docs/commands.md. Of
            `people_in_classes_under_5`, a person with rows in several such classes counts in each.
        audit_head: The MAC of the last record of the audit log: stored elsewhere, it reveals a truncated log.
        mode: "full" or "incremental".
        late_records: Rows that arrived too late for every incremental export, in windows that are not read again.
        advice: How a long export could be faster, or that a new incremental series began; "" otherwise.
    """

    rejected_filename: str = ""
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    implausible_ages: int = 0
    withheld_image_urls: int = 0
    unreadable_times: int = 0
    window: Window | None = None
    key_id: str | None = None
    risk: dict[str, Any] = field(default_factory=dict)
    audit_head: str = ""
    mode: str = "full"
    late_records: int = 0
    advice: str = ""

    @classmethod
    def from_audit_summary(cls, facts: Mapping[str, Any]) -> Self:
        """Return the report of a committed export from its summary in the audit log, without its files."""
        start, end = (datetime.fromisoformat(time) if time else None for time in facts["window"])
        report = cls(**facts["statistics"], mode=facts["mode"], risk=facts["risk"], key_id=facts["key_id"])
        report.anonymized_records = report.exported_records + report.suppressed_records
        report.window = Window(start, end) if end else None
        return report

    def to_statistics(self) -> dict[str, Any]:
        """Return the counts, as manifests contain them."""
        counts = {name: value for name, value in asdict(self).items() if name.endswith("_records") or name == "errors"}
        names = ("rejected_reasons", "implausible_ages", "withheld_image_urls", "unreadable_times")
        return counts | {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return all values in types of JSON; the bounds of the window as ISO 8601 text in UTC."""
        figures = asdict(self) | {"window": None}
        if self.window:
            figures["window"] = [end.isoformat() if end else None for end in self.window]
        return figures
