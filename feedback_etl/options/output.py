"""Options for the destination and format of an export. Importing this module imports no third-party library."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from feedback_etl.clock import parse_duration
from feedback_etl.database.cursor_name import CREATED_AT, require_cursor
from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.data_files.file_formats import FileFormat


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Options for the destination and format of an export, and its relation to earlier exports.

    Attributes:
        output_dir: The folder of the exports (0700), or `s3://bucket/prefix`, where each is a folder of parts.
        format: "csv" or "parquet" (compressed with zstd).
        compression: "none", "gzip" or "zstd", for CSV.
        items: Declared item ratings (`[items.NAME]`) that are exported as rows of their own in a second file: the
            pseudonym, the item, its rating and the time of each. None exports none.
        formulas: What happens in CSV to a text that spreadsheets would run: "escape" puts an apostrophe before it,
            "reject" rejects its row, "allow" writes it as it is.
        incremental: Export the rows that are new since the folder's last incremental export with the same settings:
            every row exactly once.
        cursor: The column by which an incremental export continues: "created_at", or a column such as "updated_at" with
            the time of a row's last change (null where there was none). A row that was changed is then exported again,
            and `scan_training` keeps the newest version. Full exports ignore it.
        lookback: How late rows may arrive, as "30m", "2h", "1d" or a timedelta: the next incremental export reads again
            so far before this watermark. Later rows are counted in `late_records`.
        new_series: Begin a series whose settings differ from those of the folder's other series, which exports their
            rows again; refused otherwise. A series that has begun is continued.
        backfill: Export the rows of the earlier windows of the series that no export contains, such as those that
            arrived later than `lookback`, and no other rows.
        max_pending: How long rows of an incremental series with `k` may be pending until k people share their
            equivalence class, as "90d" or a timedelta; then `on_small_class` applies to them.
        lock_timeout: Seconds to wait for other programs that use the folder.
        idempotency_key: An opaque id of the request, such as a task's UUID. For an id that already has an export
            nothing is read, and its figures are returned. The folder is locked meanwhile.
        allow_new_key: Export into a folder whose exports have pseudonyms of another key.
        recipient: Who gets the data outside the organisation, a name such as "acme-research". The preset for shared
            data applies then (`options.sharing`), and each row has a pseudonym of its own, of a key for the recipient.
        allow_overlap: Share a window again of which the recipient got a part, with other options or other rows.
        lineage: Where OpenLineage events go: the URL of a server, a file that they are appended to, or "openlineage"
            for what openlineage-python is configured for (`OPENLINEAGE_URL`, `openlineage.yml`). None sends no events.
        lineage_hosts: The events contain the host of the database and the name of this machine.
    """

    output_dir: str | Path = "ml/feedback_training"
    format: Literal["csv", "parquet"] = "csv"
    compression: Literal["none", "gzip", "zstd"] = "none"
    items: str | None = None
    formulas: Literal["escape", "reject", "allow"] = "escape"
    incremental: bool = False
    cursor: str = CREATED_AT
    lookback: str | timedelta = "1h"
    new_series: bool = False
    backfill: bool = False
    max_pending: str | timedelta = "90d"
    lock_timeout: float = 60.0
    idempotency_key: str | None = None
    allow_new_key: bool = False
    recipient: str | None = None
    allow_overlap: bool = False
    lineage: str | None = None
    lineage_hosts: bool = False

    def __post_init__(self) -> None:
        parse_duration(self.lookback)
        parse_duration(self.max_pending, "max_pending")
        require_cursor(self.cursor)
        self.file_format  # noqa: B018  it validates
        if self.incremental and self.idempotency_key is not None:
            raise UsageError("An incremental export never repeats a row: leave `idempotency_key` out.")
        if self.incremental and self.recipient is not None:
            raise UsageError(
                "An incremental export cannot have a `recipient`: its k is that of each file alone. Share a window "
                "(`since` and `until`) that begins where the last one ended."
            )
        if self.allow_overlap and self.recipient is None:
            raise UsageError("`allow_overlap` has no effect without `recipient`.")
        if self.lineage is not None and _may_contain_secret(self.lineage):
            raise UsageError(
                "`lineage` must not contain a password or a query, such as one with a key: set it to openlineage, and "
                "OPENLINEAGE_URL and OPENLINEAGE_API_KEY in the environment."
            )
        if self.items is not None and self.recipient is not None:
            raise UsageError("Shared data has no link between rows, and so no `items`: leave one of the two out.")
        if self.items is not None and self.incremental and self.cursor != CREATED_AT:
            raise UsageError(
                "`items` cannot follow changes: items that a new version of a feedback lacks would stay. Leave "
                "`cursor` or `items` out."
            )
        if self.lineage_hosts and self.lineage is None:
            raise UsageError("`lineage_hosts` has no effect without `lineage`.")
        for name in ("new_series", "backfill"):
            if getattr(self, name) and not self.incremental:
                raise UsageError(f"`{name}` has no effect without `incremental`.")

    @property
    def file_format(self) -> "FileFormat":
        """The format of the data files."""
        from feedback_etl.data_files.file_formats import FileFormat

        return FileFormat(self.format, self.compression, self.formulas).checked()


def _may_contain_secret(url: str) -> bool:
    """Return whether the URL of a server contains more than its address: a user, a query or a fragment."""
    parts = urlsplit(url)
    return "@" in parts.netloc or (parts.scheme in ("http", "https") and bool(parts.query or parts.fragment))
