"""Rows that an incremental series has read before, identified by keyed digests.

A row is identified by all that makes it that row: feedback id, created_at, analysis id and recommendation id. The
feedback id alone does not identify it: SQLite gives the id of a deleted row to the next one, and the tables of a UNION
ALL count on their own. A pair is identified by the same without the feedback id.

A file has a line for each row and each pair: analysis_hash, digest, minute (since 1970, UTC) and version. Version 1
identified a row by its feedback id alone, and joined ids so that `a|b`, `c` equalled `a`, `b|c`; its lines have no
version. They are compared together with their pseudonym and minute until they are older than the lookback.

With a cursor, the time of a row is that of its last change, and its digest covers that time, the ratings and other
columns: a changed row is not the row that was read before. Its pair is the same.

Rows whose time cannot be read are in every window and remembered for ever: their time is `timestamps.UNREADABLE`.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from feedback_etl.data_files.series_cursor import SeriesCursor
from feedback_etl.data_files.verified_files import open_verified
from feedback_etl.privacy.keys import Key, sign_column
from feedback_etl.records.manifest import DataFile
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.timestamps import is_unreadable

_VERSION = 2
_SCHEMA = {"analysis_hash": pl.String, "digest": pl.String, "minute": pl.Int64, "version": pl.Int64}
_MINUTE = timedelta(minutes=1)

Kind = Literal["row", "pair"]


class SeenRows:
    """Identify the rows that were read before, and remember those that are read now.

    Digests are made with a key of their own: they are not pseudonyms.

    Args:
        seen: The lines that the last export of the series has stored; see `read_seen_rows`.
        key: The key of the pseudonyms.
        since: From when on rows are to be remembered; None for all.
        cursor: The time by which the series continues.
        schema: The schema of the rows.
    """

    def __init__(
        self,
        seen: pl.DataFrame,
        key: Key | None,
        since: datetime | None,
        cursor: SeriesCursor = SeriesCursor(),  # noqa: B008  immutable
        schema: FeedbackSchema = CLASSIC_SCHEMA,
    ) -> None:
        self._schema, self._cursor, self._time, self._changed = schema, cursor, cursor.time(), 0
        self._seen = seen.filter(pl.col("version") == _VERSION)["digest"].implode()
        self._seen_in_version_1 = seen.filter(pl.col("version") == 1)
        dated = seen.filter(pl.col("minute") <= _get_minute(datetime.max))
        last: int | None = dated.select(pl.col("minute").max()).item()
        self._until = datetime.min if last is None else datetime(1970, 1, 1) + (last + 1) * _MINUTE
        self._has_seen = seen.height > 0
        self._since, self._key = since, key
        self._carried = _select_recent(seen, since)
        self._remembered = list[pl.DataFrame]()

    def filter_new_rows(self, raw: pl.DataFrame, is_valid: Callable[[pl.DataFrame], pl.Expr]) -> pl.DataFrame:
        """Return the rows that were not read before, and remember them.

        Args:
            raw: Raw rows in the order of their times.
            is_valid: Make the expression that is true for the rows of a frame that can be exported.
        """
        new = raw = raw.filter(~self._cursor.is_old()) if self._cursor.follows_changes else raw
        if self._may_have_seen(raw):
            is_known = self._is_seen("row")
            if self._seen_in_version_1.height:
                # A valid row whose pair was not exported is another row with the same id.
                is_known |= self._is_seen_in_version_1("row") & (self._is_pair_seen() | ~is_valid(raw))
            new = raw.filter(~is_known)
        self._remember(new, "row")
        return new

    def filter_new_pairs(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose pair was not exported before, or that were changed, and remember them."""
        new = valid
        if self._cursor.follows_changes:
            new = valid.filter(self._cursor.is_changed() | ~self._is_pair_seen())
        elif self._may_have_seen(valid):
            new = valid.filter(~self._is_pair_seen())
        self._remember(new, "pair")
        return new

    def count_changed(self, exported: pl.DataFrame) -> None:
        """Count the rows to be exported whose pair an earlier export contains."""
        if self._cursor.follows_changes:
            was_exported = self._is_pair_seen() | self._cursor.was_exported()
            self._changed += exported.select((self._cursor.is_changed() & was_exported).sum()).item()

    def take_changed(self) -> int:
        """Return the number of rows that are exported again since the last call."""
        changed, self._changed = self._changed, 0
        return changed

    def rows(self) -> pl.DataFrame:
        """Return the lines to store for the next export."""
        lines = pl.concat([self._carried, *self._remembered])
        return lines.unique(subset="digest", keep="first", maintain_order=True)

    def take_new_rows(self) -> pl.DataFrame:
        """Return the lines of the rows that were remembered since the last call."""
        remembered, self._remembered = self._remembered, []
        return pl.concat([pl.DataFrame(schema=_SCHEMA), *remembered])

    def _may_have_seen(self, rows: pl.DataFrame) -> bool:
        """Return whether any row is as old as the seen rows, or has no comparable time."""
        may = self._time.is_null() | (self._time < self._until) | is_unreadable("created_at")
        return self._has_seen and rows.select(may.any()).item()

    def _is_pair_seen(self) -> pl.Expr:
        seen = self._is_seen("pair")
        return seen | self._is_seen_in_version_1("pair") if self._seen_in_version_1.height else seen

    def _is_seen(self, kind: Kind) -> pl.Expr:
        return self._digest(kind).is_in(self._seen)

    def _digest(self, kind: Kind) -> pl.Expr:
        """Return the digest of a row, a version of a row, or a pair: 32 hex characters."""
        created = pl.col("created_at").dt.epoch("us")
        pair = [created if name == "created_at" else pl.col(name) for name in self._schema.dedup_key]
        if kind == "pair":
            return sign_column(_joined(*pair), f"incremental pair {_VERSION}", self._key).str.slice(0, 32)
        if not self._cursor.follows_changes:
            return sign_column(_joined("feedback_id", *pair), f"incremental row {_VERSION}", self._key).str.slice(0, 32)
        answers = self._schema.answers  # numbers are integers, or fractions in some batch
        values = (pl.col(name).cast(pl.Float64) if is_number else pl.col(name) for name, is_number in answers.items())
        version = _joined("feedback_id", *pair, self._time.dt.epoch("us"), *values)
        return sign_column(version, f"incremental version {_VERSION}", self._key).str.slice(0, 32)

    def _is_seen_in_version_1(self, kind: Kind) -> pl.Expr:
        lines = self._seen_in_version_1.select(_joined("analysis_hash", "minute", "digest")).to_series()
        return _joined(self._pseudonym(), self._minute(), _digest_of_version_1(kind, self._key)).is_in(lines.implode())

    def _pseudonym(self) -> pl.Expr:
        return hash_id("analysis_id", key=self._key, unkeyed=self._key is None)

    def _remember(self, rows: pl.DataFrame, kind: Kind) -> None:
        time = self._time
        recent = rows.filter(time.is_not_null() if self._since is None else time >= self._since)
        if recent.height:
            digest, minute = self._digest(kind), self._minute()
            lines = {"analysis_hash": self._pseudonym(), "digest": digest, "minute": minute, "version": _VERSION}
            self._remembered.append(recent.select(**lines).cast(_SCHEMA))  # type: ignore[arg-type]

    def _minute(self) -> pl.Expr:
        return self._time.dt.epoch("s") // 60


def read_seen_rows(storage: Storage, files: Iterable[DataFile], since: datetime | None = None) -> pl.DataFrame:
    """Return the lines of the files of seen rows of an export, of rows from a time on; raises ExportFileError."""
    lines = pl.concat([pl.DataFrame(schema=_SCHEMA), *(_read(storage, file) for file in files)])
    return _select_recent(lines, since)


def _select_recent(lines: pl.DataFrame, since: datetime | None) -> pl.DataFrame:
    return lines if since is None else lines.filter(pl.col("minute") >= _get_minute(since))


def _read(storage: Storage, file: DataFile) -> pl.DataFrame:
    consequence = (
        "without it the incremental export would read rows twice. Restore it, or begin a series in another folder "
        "(--output)."
    )
    with open_verified(storage, file, consequence) as path:
        lines = pl.read_csv(path, schema_overrides=_SCHEMA)
    return lines if "version" in lines.columns else lines.with_columns(version=pl.lit(1, pl.Int64))


def _joined(*columns: str | pl.Expr) -> pl.Expr:
    """Join values unambiguously: each after its length in bytes, a null as `-`.

    >>> pl.select(_joined(pl.lit("a|b"), pl.lit(None), pl.lit(12))).item()
    '3:a|b-2:12'
    """
    texts = [(pl.col(column) if isinstance(column, str) else column).cast(pl.String) for column in columns]
    lengths = [text.str.len_bytes().cast(pl.String) for text in texts]
    measured = [pl.concat_str(length, pl.lit(":"), text) for length, text in zip(lengths, texts, strict=True)]
    return pl.concat_str(value.fill_null("-") for value in measured)


def _digest_of_version_1(kind: Kind, key: Key | None) -> pl.Expr:
    pair = pl.concat_str(
        pl.col("analysis_id", "recommendation_id").cast(pl.String),
        pl.col("created_at").dt.epoch("us").cast(pl.String),
        separator="|",
        ignore_nulls=True,
    )
    row = pl.coalesce(pl.col("feedback_id").cast(pl.String), pl.lit("no id|") + pair)
    return sign_column(row if kind == "row" else pair, f"incremental {kind}", key).str.slice(0, 32)


def _get_minute(time: datetime) -> int:
    return (time - datetime(1970, 1, 1)) // _MINUTE
