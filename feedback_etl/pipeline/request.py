"""A requested export, resolved from the arguments of `export_feedback`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from feedback_etl.data_files.series_cursor import SeriesCursor
from feedback_etl.database.connect import find_dialect
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.custom_query import normalize_query
from feedback_etl.database.read import ReadRequest
from feedback_etl.errors import UsageError
from feedback_etl.exports.idempotency import build_request_details
from feedback_etl.exports.incremental import IncrementalState
from feedback_etl.exports.overlaps import Release
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.options.output import OutputOptions
from feedback_etl.pipeline.keys import list_available_keys
from feedback_etl.pipeline.transform_options import TransformOptions, build_parquet_metadata
from feedback_etl.privacy.keys import get_key_id
from feedback_etl.privacy.sharing import RowPseudonyms, derive_recipient_key
from feedback_etl.records.canonical_json import hash_settings
from feedback_etl.records.legacy_key_ids import bind_key
from feedback_etl.schema.record import record_schema
from feedback_etl.storage.base import Storage

if TYPE_CHECKING:
    from concurrent.futures import Executor


@dataclass(frozen=True)
class ExportRequest:
    """A requested export.

    Attributes:
        storage: Storage that receives the export.
        selection: Rows to read.
        transform_options: Options that decide what happens to a row.
        output: Format of the export, and its relation to earlier exports.
        started: Start of the request, a value of `time.perf_counter`.
        executor: Executor that runs the tasks of an export in parts; None to run them in this process.
        series: State of the incremental series that the export continues; None for other exports.

    Raises:
        UsageError: An overridden function could not be called for all rows.
    """

    storage: Storage
    selection: ReadRequest
    transform_options: TransformOptions
    output: OutputOptions
    started: float
    executor: "Executor | None" = None
    series: IncrementalState | None = None

    def __post_init__(self) -> None:
        overridden = {*self.transform_options.overrides.names()}
        if overridden and self.executor is not None:
            raise UsageError(
                "Overridden methods work only in this process and are not sent to an executor: leave executor out."
            )
        if self.is_partitioned and {"hash_id", "pair_hash"} & overridden:
            raise UsageError(
                "An overridden _hash_id or _get_pair_hash needs an export in one file: name a folder, not an object "
                "store."
            )
        if self.is_partitioned and self.output.items is not None:
            raise UsageError("`items` need an export in one file: name a folder, and leave `executor` out.")
        if self.output.recipient is not None and overridden:
            raise UsageError(
                "Overridden methods could put anything into shared data: leave `recipient` out, or override none."
            )
        if self.follows_changes and self.transform_options.k_policy.k is not None and "hash_id" in overridden:
            raise UsageError(
                "With `cursor`, `k` is counted over all versions of the rows of a series, but not where _hash_id is "
                "overridden: leave `cursor` or `k` out, or do not override _hash_id."
            )
        if self.output.incremental and "pair_hash" in overridden:
            raise UsageError(
                "An incremental export recognises duplicates of earlier exports by the built-in pair hash: leave "
                "`incremental` out, or do not override _get_pair_hash."
            )

    def with_bound_key(self) -> Self:
        """Return the request with its key under the name that the storage has for it, which is read from there."""
        key = bind_key(self.storage, self.transform_options.key)
        return replace(self, transform_options=replace(self.transform_options, key=key))

    @property
    def counts_series(self) -> bool:
        """Whether the equivalence classes are counted over all exports of the incremental series.

        Not where the application makes the pseudonyms, since it cannot be looked up whose rows are pending.
        """
        options = self.transform_options
        return self.output.incremental and options.k_policy.k is not None and options.overrides.hash_id is None

    @property
    def follows_changes(self) -> bool:
        """Whether changed rows are exported again."""
        return self.output.incremental and self.output.cursor != CREATED_AT

    @property
    def is_partitioned(self) -> bool:
        """Whether the export is written in parts."""
        return self.executor is not None or self.storage.local_path() is None

    def create_row_pseudonyms(self) -> RowPseudonyms | None:
        """Return the pseudonyms of the rows of a shared export; None for other exports."""
        recipient, key = self.output.recipient, self.transform_options.key
        if recipient is None or key is None:
            return None
        item = self.transform_options.schema.item
        return RowPseudonyms(key, recipient, folder=self.storage.local_path(), item=item)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of a Parquet file; that of a shared one names the recipient's key."""
        recipient, options = self.output.recipient, self.transform_options
        if recipient is not None and options.key is not None:
            options = replace(options, key=derive_recipient_key(options.key, recipient))
        return build_parquet_metadata(options, self.output.file_format)

    @property
    def lock_timeout(self) -> float | None:
        """Seconds to wait for the folder's lock; None where the caller holds it from the beginning."""
        holds_lock = self.output.incremental or self.output.idempotency_key is not None
        return None if holds_lock else self.output.lock_timeout

    def transaction_options(self, consent: Sequence[str]) -> TransactionOptions:
        """Return the options of the export's transaction, given the consent columns that filter the rows."""
        return TransactionOptions(
            key=self.transform_options.key,
            allow_new_key=self.output.allow_new_key,
            known_keys=list_available_keys,
            consent=consent,
            audit_details=self._audit_details,
            lock_timeout=self.lock_timeout,
            continued=self.series.stems if self.series else None,
            state=self.series.last if self.series else None,
            own_pseudonyms=self.transform_options.overrides.hash_id is not None,
            release=self._release,
            allow_overlap=self.output.allow_overlap,
        )

    @property
    def cursor(self) -> SeriesCursor:
        """The time by which an incremental series continues."""
        return SeriesCursor(self.output.cursor, self.selection.changed_since)

    @property
    def _release(self) -> Release | None:
        """What is shared with a recipient; None for other exports."""
        if self.output.recipient is None:
            return None
        window = [end.isoformat() if end else None for end in self.selection.window]
        return Release(self.output.recipient, window, hash_settings(self.settings))

    @property
    def _audit_details(self) -> dict[str, Any]:
        """Further details of the audit record of the start."""
        if self.series is None:
            return build_request_details(self.output.idempotency_key)
        backfill = {"backfill": True} if self.output.backfill else {}
        return self.series.audit_details(self.selection.window.start) | backfill

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that decide the rows of an export and their form; they identify an incremental series."""
        return self.candidate_settings[0] if self.series is None else dict(self.series.settings)

    @property
    def candidate_settings(self) -> list[dict[str, Any]]:
        """The settings with the normalised query; then with its text, by which earlier versions identified a series."""
        query, source = self.selection.options.query, self.selection.options.source
        if not query:
            return [self._settings(source.to_text(self.output.items) if source else None)]
        normalized = normalize_query(find_dialect(self.selection.database), query)
        return [self._settings(text) for text in dict.fromkeys((normalized, query))]

    @property
    def limits(self) -> dict[str, Any]:
        """The options that weaken or strengthen what is published, but do not identify a series."""
        options, policy = self.transform_options, self.transform_options.k_policy
        used = {
            "formulas": self.output.formulas if self.output.format == "csv" else None,
            "row_model": _name_model(options.row_model),
            "max_suppressed": policy.max_suppressed if policy.k is not None else None,
            "allow_overlap": self.output.allow_overlap or None,
        }
        limits = {name: value for name, value in used.items() if value is not None}
        return {"max_rejected": options.max_rejected, "strict": options.strict, **limits}

    def _settings(self, query: str | None) -> dict[str, Any]:
        options = self.transform_options
        optional = {
            **record_schema(options.schema),
            "allow_row_security": self.selection.options.allow_row_security,
            "overridden": options.overrides.names(),
            "formulas": "reject" if options.reject_formulas else "",
            "recipient": self.output.recipient,
            "cursor": self.output.cursor if self.output.incremental and self.output.cursor != CREATED_AT else "",
        }
        return {name: value for name, value in optional.items() if value} | {
            **options.k_policy.to_settings(),
            "min_feedback_fields": options.min_feedback_fields,
            "recommendation_id": "hash" if options.hash_recommendation_id else "keep",
            "timestamp_precision": options.timestamp_precision,
            "k": options.k_policy.k,
            "quasi_identifiers": list(options.k_policy.quasi_identifiers),
            "query_sha256": hashlib.sha256(query.encode()).hexdigest() if query else None,
            "db_schema": self.selection.options.db_schema,
            "key_id": get_key_id(options.key),
        }


def _name_model(model: Any) -> str | None:
    """Return the name of a pandera model or schema; None without one."""
    return None if model is None else str(getattr(model, "__name__", None) or model.name or "without a name")
