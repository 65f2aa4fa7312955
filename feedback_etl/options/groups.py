"""Groups of options, frozen and keyword-only: the only place where options are declared, defaulted and validated.

The command line takes its defaults from this module, so importing it imports no third-party library.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from feedback_etl.clock import parse_lookback
from feedback_etl.database.window import Time, Window, window_between, window_of_days
from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.columns import ExtraColumn
    from feedback_etl.data_files.file_formats import FileFormat
    from feedback_etl.database.batches import BatchOptions
    from feedback_etl.database.consent import ConsentColumnNames
    from feedback_etl.privacy.k_anonymity import KAnonymityPolicy
    from feedback_etl.transform.training_schema import Model

SHARED_K = 5
"""The minimum k of `PrivacyOptions.for_sharing`."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options that select the rows to read, and how they are read.

    Attributes:
        days_back: The window in days of 24 hours before the time of the export; -1 for all rows. For an incremental
            export, the window of the first export of its series.
        since: The start of the window as an ISO 8601 date or time (UTC), instead of `days_back`.
        until: The end of the window, exclusive; the time of the export by default. Requires `since`.
        query: A SELECT that yields the canonical raw columns, instead of the default schema.
        db_schema: The schema of the default tables (on MySQL, the database).
        opt_in_column: A column of users or profiles. If it exists, only feedback of users with true is read.
        opt_out_column: A column of users or profiles. If it exists, feedback of users with true is not read.
        connect_timeout: Seconds to wait for the database.
        allow_row_security: Export only the rows that PostgreSQL's row-level security shows, instead of failing.
        bulk: Read time ranges in parallel (PostgreSQL); the result is the same.
        workers: Number of parallel readers; the number of processors, at most 4, by default. With an executor, the
            tasks in flight (64 by default), and so the least number of parts, unless these had under 20,000 rows.
        batch_size: Rows per batch; the result is the same.
        read_timeout: Seconds without a row after which reading fails.
    """

    days_back: int = 30
    since: Time | None = None
    until: Time | None = None
    query: str | None = None
    db_schema: str | None = None
    opt_in_column: str = "training_data_opt_in"
    opt_out_column: str = "training_data_opt_out"
    connect_timeout: float = 2.0
    allow_row_security: bool = False
    bulk: bool = False
    workers: int | None = None
    batch_size: int = 65_536
    read_timeout: float = 600.0

    def __post_init__(self) -> None:
        self.window(datetime.max if self.since else datetime(9999, 1, 1))  # validates: no time is later than these
        self.batch_options  # noqa: B018  it validates

    def window(self, now: datetime) -> Window:
        """Return the half-open window that ends at `now` (naive UTC) or earlier.

        Raises:
            UsageError: The options do not describe a window, or one that ends after `now`.
        """
        if self.since is not None:
            return window_between(self.since, self.until, now=now)
        if self.until is not None:
            raise UsageError("The end of a window (`until`) requires a start (`since`).")
        return window_of_days(self.days_back, now=now)

    @property
    def batch_options(self) -> "BatchOptions":
        """The options that control how batches are read."""
        from feedback_etl.database.batches import BatchOptions

        return BatchOptions(self.bulk, self.workers, self.batch_size, self.read_timeout)

    @property
    def consent(self) -> "ConsentColumnNames":
        """The columns that record consent."""
        from feedback_etl.database.consent import ConsentColumnNames

        return ConsentColumnNames(self.opt_in_column, self.opt_out_column)


@dataclass(frozen=True, kw_only=True)
class QualityOptions:
    """Options that define valid rows, and how many rows may be rejected.

    Attributes:
        min_feedback_fields: Skip rows with fewer of the four ratings; 0 to 4.
        strict: Publish nothing if any row is rejected.
        max_rejected: Publish nothing if a larger share of the rows with enough ratings is rejected; 0 to 1.
        row_model: A pandera model that every batch must also satisfy.
    """

    min_feedback_fields: int = 1
    strict: bool = False
    max_rejected: float = 0.5
    row_model: "Model | None" = None

    def __post_init__(self) -> None:
        from feedback_etl.transform.transforms import has_min_ratings

        has_min_ratings(self.min_feedback_fields)
        if not 0 <= self.max_rejected <= 1:
            raise UsageError("`max_rejected` must be a share from 0 to 1, for example 0.05.")


def _quasi_identifiers() -> tuple[str, ...]:
    from feedback_etl.columns import QUASI_IDENTIFIERS

    return QUASI_IDENTIFIERS


def _age_edges() -> tuple[int, ...]:
    from feedback_etl.columns import AGE_EDGES

    return AGE_EDGES


@dataclass(frozen=True, kw_only=True)
class PrivacyOptions:
    """Options that select the columns of an export and protect the people in it.

    Attributes:
        hash_recommendation_id: Pseudonymise the recommendation as well.
        pseudonym_length: Number of hex characters of a pseudonym; 32 for 100 million analyses or more.
        timestamp_precision: "exact", or truncate feedback_timestamp to "minute", "hour" or "day".
        k: Least number of people in each equivalence class (rows with equal quasi-identifiers); None only measures.
        on_small_class: What happens to smaller classes: "suppress" their rows, or "fail" and publish nothing.
        max_suppressed: Publish nothing if a larger share of the rows would be suppressed; 0 to 1.
        quasi_identifiers: Columns of the export that an attacker may know about a person.
        include_image_urls: Add the column image_url, filled where the user's `image_opt_in` is true.
        include_subject_hash: Add the column subject_hash, the pseudonym of the user, to split data by person.
        extra_columns: Columns that the query returns besides the canonical ones; they follow the twelve columns.
        age_edges: The ages at which a new age range begins.
    """

    hash_recommendation_id: bool = False
    pseudonym_length: Literal[16, 32] = 16
    timestamp_precision: Literal["exact", "minute", "hour", "day"] = "exact"
    k: int | None = None
    on_small_class: Literal["suppress", "fail"] = "suppress"
    max_suppressed: float = 1.0
    quasi_identifiers: Sequence[str] = field(default_factory=_quasi_identifiers)
    include_image_urls: bool = False
    include_subject_hash: bool = False
    extra_columns: "Sequence[ExtraColumn]" = ()
    age_edges: Sequence[int] = field(default_factory=_age_edges)

    def __post_init__(self) -> None:
        from feedback_etl.columns import IMAGE_URL, SUBJECT_HASH, require_declarations
        from feedback_etl.transform.expressions import age_ranges
        from feedback_etl.transform.transforms import is_coarse

        if taken := {column.name for column in self.extra_columns} & {IMAGE_URL.name, SUBJECT_HASH.name}:
            raise UsageError(f"An extra column cannot be called {taken.pop()}: that name is reserved.")
        require_declarations(self.all_extra_columns)
        is_coarse(self.timestamp_precision)
        age_ranges(self.age_edges)
        self.k_anonymity  # noqa: B018  it validates

    @property
    def all_extra_columns(self) -> "tuple[ExtraColumn, ...]":
        """The columns of an export after the twelve."""
        from feedback_etl.columns import IMAGE_URL, SUBJECT_HASH

        images = (IMAGE_URL,) if self.include_image_urls else ()
        return (*self.extra_columns, *images, *((SUBJECT_HASH,) if self.include_subject_hash else ()))

    @property
    def k_anonymity(self) -> "KAnonymityPolicy":
        """The k-anonymity policy; extra columns of role "quasi_identifier" are among its quasi-identifiers."""
        from feedback_etl.columns import all_quasi_identifiers
        from feedback_etl.privacy.k_anonymity import KAnonymityPolicy

        names = all_quasi_identifiers(self.quasi_identifiers, self.all_extra_columns)
        return KAnonymityPolicy(self.k, self.on_small_class, self.max_suppressed, names, self.all_extra_columns)

    def for_sharing(self) -> Self:
        """Return the options for data that leaves the organisation: at least k = 5, days, hashed recommendations.

        Raises:
            UsageError: Images, pseudonyms of users or free text are included.
        """
        if texts := [column.name for column in self.extra_columns if column.role == "free_text"]:
            raise UsageError(f"Shared data must not contain free text: leave out {', '.join(texts)}.")
        if self.include_image_urls or self.include_subject_hash:
            raise UsageError("Shared data must not contain images or pseudonyms of users: leave both options out.")
        return replace(
            self,
            hash_recommendation_id=True,
            timestamp_precision="day",
            k=max(SHARED_K, self.k or 0),
            quasi_identifiers=tuple(dict.fromkeys((*self.quasi_identifiers, "feedback_timestamp"))),
        )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Options for the destination and format of an export, and its relation to earlier exports.

    Attributes:
        output_dir: The folder of the exports (0700), or `s3://bucket/prefix`, where each is a folder of parts.
        format: "csv" or "parquet" (compressed with zstd).
        compression: "none", "gzip" or "zstd", for CSV.
        formulas: What happens in CSV to a text that spreadsheets would run: "escape" puts an apostrophe before it,
            "reject" rejects its row, "allow" writes it as it is.
        incremental: Export the rows that are new since the folder's last incremental export with the same settings:
            every row exactly once. Edits of exported rows are not followed.
        lookback: How late rows may arrive, as "30m", "2h", "1d" or a timedelta: the next incremental export reads again
            so far before this watermark. Later rows are counted in `late_records`.
        lock_timeout: Seconds to wait for other programs that use the folder.
        idempotency_key: An opaque id of the request, such as a task's UUID. For an id that already has an export
            nothing is read, and its figures are returned. The folder is locked meanwhile.
        allow_new_key: Export into a folder whose exports have pseudonyms of another key.
    """

    output_dir: str | Path = "ml/feedback_training"
    format: Literal["csv", "parquet"] = "csv"
    compression: Literal["none", "gzip", "zstd"] = "none"
    formulas: Literal["escape", "reject", "allow"] = "escape"
    incremental: bool = False
    lookback: str | timedelta = "1h"
    lock_timeout: float = 60.0
    idempotency_key: str | None = None
    allow_new_key: bool = False

    def __post_init__(self) -> None:
        parse_lookback(self.lookback)
        self.file_format  # noqa: B018  it validates
        if self.incremental and self.idempotency_key is not None:
            raise UsageError("An incremental export never repeats a row: leave `idempotency_key` out.")

    @property
    def file_format(self) -> "FileFormat":
        """The format of the data files."""
        from feedback_etl.data_files.file_formats import FileFormat

        return FileFormat(self.format, self.compression, self.formulas).checked()
