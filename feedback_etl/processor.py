"""The classic API: `FeedbackProcessor`, a thin layer over `pipeline` for callers in FastAPI, APScheduler or Celery.

stats = FeedbackProcessor(db_session=session).process_and_export(days_back=7)

`python -m feedback_etl.processor --days 7` is the classic script.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import getattr_static
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import UUID

import polars as pl

from feedback_etl.database.connect import Database
from feedback_etl.errors import AllRejectedError, UsageError
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.integrations.options import ARGUMENTS, require_options
from feedback_etl.pipeline.classic_pairs import write_pairs
from feedback_etl.pipeline.export import export_feedback
from feedback_etl.pipeline.keys import list_available_keys
from feedback_etl.privacy.keys import Key
from feedback_etl.records.legacy_key_ids import bind_key
from feedback_etl.results import FeedbackProcessingStats
from feedback_etl.settings.keys import find_active_key
from feedback_etl.settings.model import Settings, load_settings
from feedback_etl.transform.expressions import bucket_age, hash_id, pair_hash
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.overrides import Overrides
from feedback_etl.transform.pairs import FeedbackTrainingPair

logger = logging.getLogger(__name__)

__all__ = ["FeedbackProcessingStats", "FeedbackProcessor", "FeedbackTrainingPair"]

_CALL_OPTIONS = ("days_back", "since", "until", "min_feedback_fields", "output_dir")
"""Options that `options` must not contain: the constructor or `process_and_export` declares them."""


class FeedbackProcessor:
    """Export an application's feedback as training data.

    Arguments take precedence over settings (environment, settings file). A subclass can override `_hash_id`,
    `_bucket_age` and `_get_pair_hash`; such a method is called once for each distinct value of a batch.

    Args:
        db_session: A Session, Connection, Engine or URL of SQLAlchemy.
        output_dir: Folder of the exports; by default that of the settings.
        key: Pseudonym key; by default the configured one.
        unkeyed: Use plain SHA-256 without a key: anyone who can list the ids can invert it.
        allow_new_key: Export into a folder whose exports have pseudonyms of another key.
        options: Other options of `export_feedback`, such as `age_edges=(18, 30, 65)`, `k=5` or `format="parquet"`.

    Raises:
        UsageError: An option does not exist, or its value is not allowed.
    """

    def __init__(
        self,
        db_session: Database,
        output_dir: str | Path | None = None,
        *,
        key: Key | str | None = None,
        unkeyed: bool = False,
        allow_new_key: bool = False,
        **options: Any,
    ) -> None:
        if key is not None and unkeyed:
            raise UsageError("Give a key or unkeyed=True, not both.")
        if misplaced := ", ".join(name for name in options if name in _CALL_OPTIONS):
            raise UsageError(f"{misplaced} cannot be set for all exports: process_and_export(days_back=...).")
        require_options(options)
        self.db_session = db_session
        self._output_dir = output_dir
        self._key = Key.parse(key) if key is not None else None
        self._unkeyed, self._allow_new_key = unkeyed, allow_new_key
        self._arguments = {name: options.pop(name) for name in ARGUMENTS if name in options}
        self._options = options | {"allow_new_key": allow_new_key}

    @property
    def output_dir(self) -> str | Path:
        """The folder of the exports."""
        return self._settings().output_dir if self._output_dir is None else self._output_dir

    @output_dir.setter
    def output_dir(self, folder: str | Path) -> None:
        self._output_dir = folder

    def process_and_export(self, days_back: int = 1, min_feedback_fields: int = 1) -> FeedbackProcessingStats:
        """Export the feedback of the last days; raises the errors of `export_feedback`.

        Rejected rows are not an error here, as in the classic API, unless `max_rejected` or `strict` is
        given. If all rows are rejected, a warning is logged, and the report names no file.

        Args:
            days_back: Window in days of 24 hours before now; -1 for all feedback.
            min_feedback_fields: Skip rows with fewer of the ratings: four, unless a schema is declared.

        Returns:
            The statistics of this run, not accumulated over runs.

        Raises:
            ValidationError: An overridden method raised an error, or returned a value of another type.
        """
        settings = load_settings()
        key = self._resolve_key(settings)
        own = {"output_dir": self._output_dir} if self._output_dir is not None else {}
        try:
            with self._cache_lookups(settings, key):
                return export_feedback(
                    self.db_session,
                    options=settings.to_options(**{"max_rejected": 1.0} | own | self._options),
                    days_back=days_back,
                    min_feedback_fields=min_feedback_fields,
                    key=key,
                    unkeyed=self._unkeyed,
                    overrides=self._overrides(),
                    **self._arguments,
                )
        except AllRejectedError as error:
            logger.warning("%s", error)
            return cast("FeedbackProcessingStats", error.report)

    @contextmanager
    def _cache_lookups(self, settings: Settings, key: Key | None) -> Iterator[None]:
        """Use these settings and this key while an export calls the methods for each distinct value."""
        token = _RUNNING.set(_RunningExport(self, settings, key))
        try:
            yield
        finally:
            _RUNNING.reset(token)

    def _overrides(self) -> Overrides:
        """Return the methods that this processor or its class overrides."""
        overridden = {
            name: getattr(self, method)
            for name, method in _METHODS.items()
            if getattr_static(self, method) is not _BUILT_IN[name]
        }
        return Overrides(**overridden)

    def _settings(self) -> Settings:
        running = _RUNNING.get()
        return running.settings if running and running.processor is self else load_settings()

    def _resolve_key(self, settings: Settings | None = None) -> Key | None:
        running = _RUNNING.get()
        if running and running.processor is self:
            return running.key
        if self._unkeyed:
            return None
        length = self._options.get("pseudonym_length") or (settings or self._settings()).pseudonym_length
        return (self._key or find_active_key(settings)).with_length(length)

    def _hash_id(self, id: int | str | UUID) -> str:  # noqa: A002  the classic name
        """Return the pseudonym of an analysis id, as in an export.

        Raises:
            UsageError: The id is of another type; a float, for one, is not an exact id.
        """
        if not isinstance(id, Integral | str | UUID):
            raise UsageError(f"An id must be an integer, text or a UUID, not {type(id).__name__}.")
        require_usable_polars()
        key = self._resolve_key()
        digest = hash_id(pl.lit(str(id)), key=key, domain="analysis_id", unkeyed=key is None)
        return str(pl.select(digest).item())

    def _bucket_age(self, age: float | None) -> str | None:
        """Return the range of an age in years; None for None and NaN.

        An implausible age has a range here, and none in an export.
        """
        require_usable_polars()
        label: str | None = pl.select(bucket_age(pl.lit(age, pl.Float64), edges=self._age_edges())).item()
        return label

    def _age_edges(self) -> tuple[int, ...]:
        return tuple(self._options.get("age_edges") or self._settings().age_edges)

    def _get_pair_hash(self, pair: FeedbackTrainingPair) -> str:
        """Return the hash that equal feedback shares: 64 hex characters."""
        require_usable_polars()
        parts = (pair.analysis_hash, pair.recommendation_id, pair.feedback_timestamp)
        return str(pl.select(pair_hash(*map(pl.lit, parts))).item())

    def _export_to_csv(self, pairs: Sequence[FeedbackTrainingPair]) -> str:
        """Write pairs unchanged, and return the path of the file; write nothing and return "" for an empty list.

        Pseudonyms and labels can have any form. Times are ISO 8601 text, in UTC unless with an offset; "" is null.

        Raises:
            ValidationError: A value is of another type, a rating is out of range, or a text would run as a formula.
            ExportFileError: The folder cannot be used.
        """
        if not pairs:
            return ""
        require_usable_polars()
        key = bind_key(self.output_dir, self._resolve_key())
        options = TransactionOptions(key=key, allow_new_key=self._allow_new_key, known_keys=list_available_keys)
        return write_pairs(pairs, self.output_dir, options, self._age_edges(), self._overrides())


class _RunningExport(NamedTuple):
    """The settings and the key of a running export."""

    processor: FeedbackProcessor
    settings: Settings
    key: Key | None


_RUNNING: ContextVar[_RunningExport | None] = ContextVar("feedback_etl_running_export", default=None)

_METHODS = {"hash_id": "_hash_id", "bucket_age": "_bucket_age", "pair_hash": "_get_pair_hash"}
_BUILT_IN: dict[str, Callable[..., Any]] = {name: vars(FeedbackProcessor)[method] for name, method in _METHODS.items()}


if __name__ == "__main__":
    from feedback_etl.cli.classic import main

    main()
