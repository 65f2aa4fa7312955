"""Add reasons to rejected rows, and count the reasons."""

from collections import Counter

import polars as pl

from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.transform.dataframes import compact
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.formulas import escape_formula
from feedback_etl.transform.raw_schema import add_reasons

_MAX_PENDING = 5_000
"""Rows that are explained together; adding reasons has a high fixed cost, however few the rows."""
_EMPTY = pl.DataFrame(schema={"feedback_id": pl.Null, "analysis_hash": pl.String, "reasons": pl.String})


class RejectedRows:
    """Collect the rejected rows of many batches, and add reasons to them together."""

    def __init__(self, options: TransformOptions) -> None:
        self._options = options
        self._pending: list[pl.DataFrame] = []
        self.reasons: Counter[str] = Counter()

    def add(self, rejected: pl.DataFrame) -> pl.DataFrame:
        """Add the rejected raw rows of a batch, and return the rows that were explained since the last call."""
        explained = _EMPTY
        if self._pending and rejected.schema != self._pending[-1].schema:  # possible for databases without column types
            explained = self.flush()
        if rejected.height or not self._pending:
            self._pending.append(compact(rejected))
        if sum(rows.height for rows in self._pending) < _MAX_PENDING:
            return explained
        return pl.concat([explained, self.flush()], how="vertical_relaxed")

    def flush(self) -> pl.DataFrame:
        """Explain the pending rows and return them: feedback_id, analysis_hash, reasons."""
        pending, self._pending = self._pending, []
        if not pending:
            return _EMPTY
        options = self._options
        explained = add_reasons(pl.concat(pending), options.schema, reject_formulas=options.reject_formulas)
        reasons = explained["reasons"].str.split(",").explode().value_counts()
        self.reasons.update(dict(reasons.iter_rows()))
        return self._select_listed(explained)

    def sort_reasons(self) -> dict[str, int]:
        """Return the number of rows of each reason, the most frequent first."""
        return dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0])))

    def _select_listed(self, explained: pl.DataFrame) -> pl.DataFrame:
        """Select the columns of the list of rejected rows, which contains no values but feedback ids and pseudonyms."""
        key, overrides = self._options.key, self._options.overrides
        is_text = explained.schema["feedback_id"] == pl.String
        pseudonyms: pl.Expr | pl.Series = hash_id("analysis_id", key=key, unkeyed=key is None)
        if overrides.hash_id is not None:
            pseudonyms = overrides.pseudonyms(explained["analysis_id"])
        return explained.select(
            escape_formula("feedback_id") if is_text else "feedback_id", analysis_hash=pseudonyms, reasons="reasons"
        )
