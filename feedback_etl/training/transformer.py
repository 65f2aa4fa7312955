"""`features` as a scikit-learn transformer."""

from collections.abc import Sequence
from typing import Any, Self

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA, LateFeature
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.training.feature_matrix import feature_names, features
from feedback_etl.training.vocabulary import Vocabulary
from feedback_etl.transform.dataframes import Frame, to_polars
from feedback_etl.transform.transforms import TimestampPrecision

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError:
    raise ImportError("FeedbackFeatures needs scikit-learn: pip install 'feedback-etl[train]'") from None


class FeedbackFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transform training pairs to `features`, with the vocabulary of the rows it was fitted to.

    It accepts frames with named columns of Polars, pandas or Arrow, and returns the same kind; not lazy frames, whose
    rows scikit-learn cannot count, and not arrays, whose columns have no names. A pickle of it contains the vocabulary
    and nothing else of the rows.

    Args:
        min_rows: Names in fewer rows are counted as other; see `Vocabulary.fit`.
        ratings: Ratings to use as features. Labels are derived from ratings: exclude the rating of the label.
        include: What is known only when the feedback is given, see `features`: "timeframe", "time", or neither.
        timestamp_precision: Precision of the export's times.
        age_ranges: Labels of age ranges if the application names them itself; see `Vocabulary.fit`.
        vocabulary: A frozen vocabulary, which `fit` uses instead of learning one; `min_rows`, `age_ranges` and `lists`
            then have no effect.
        sparse: Return a SciPy CSR matrix; see `features`.
        schema: Schema of the feedback; the classic one by default.
        lists: Lists that are known when advice is given; see `Vocabulary.fit`.

    Attributes:
        vocabulary_: The vocabulary it was fitted to.
        feature_names_in_: The columns of the rows it was fitted to.
        n_features_in_: Their number.

    >>> import polars as pl
    >>> pairs = pl.DataFrame({"conditions_detected": ["acne,dry", None], "rules_applied": ["r001", "r002"],
    ...     "age_range": ["18-25", None]})
    >>> step = FeedbackFeatures().fit(pairs)
    >>> step.transform(pairs)["condition=acne"].to_list()
    [1.0, 0.0]
    """

    def __init__(  # noqa: PLR0913  one for each parameter
        self,
        *,
        min_rows: int = 1,
        ratings: Sequence[str] = (),
        include: Sequence[LateFeature] = (),
        timestamp_precision: TimestampPrecision = "exact",
        age_ranges: Sequence[str] | None = None,
        vocabulary: Vocabulary | None = None,
        sparse: bool = False,
        schema: FeedbackSchema | None = None,
        lists: Sequence[str] | None = None,
    ) -> None:
        self.min_rows = min_rows
        self.ratings = ratings
        self.include = include
        self.timestamp_precision = timestamp_precision
        self.age_ranges = age_ranges
        self.vocabulary = vocabulary
        self.sparse = sparse
        self.schema = schema
        self.lists = lists

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803  named by scikit-learn
        """Learn the vocabulary of training rows, unless one is given."""
        import numpy as np

        _refuse_lazy(X)
        learned = self.vocabulary or Vocabulary.fit(
            X,
            min_rows=self.min_rows,
            age_ranges=self.age_ranges,
            schema=self.schema or CLASSIC_SCHEMA,
            lists=self.lists,
        )
        self.feature_names_in_ = np.array(to_polars(X).columns, dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        self.vocabulary_ = learned
        return self

    def transform(self, X: Frame) -> Frame | Any:  # noqa: N803
        """Return the features of rows, by the learned vocabulary."""
        check_is_fitted(self)
        _refuse_lazy(X)
        return features(X, vocabulary=self.vocabulary_, sparse=self.sparse, **self._options())

    def get_feature_names_out(self, input_features: object = None) -> Any:  # noqa: ARG002
        """Return the names of the columns that `transform` returns, in their order."""
        import numpy as np

        check_is_fitted(self)
        return np.array(feature_names(self.vocabulary_, **self._options()), dtype=object)

    def _options(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("ratings", "include", "timestamp_precision")}
        return options | {"schema": self.schema or CLASSIC_SCHEMA}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _refuse_lazy(frame: object) -> None:
    if isinstance(frame, pl.LazyFrame):
        raise UsageError("scikit-learn does not accept a lazy frame: collect it first, with frame.collect().")
