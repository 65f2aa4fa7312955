"""`FeedbackFeatures` works as a step of a scikit-learn pipeline."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frames import pair_frame
from polars.testing import assert_frame_equal
from processes import python
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_array

import feedback_etl as fe
from feedback_etl.errors import UsageError
from feedback_etl.training.transformer import FeedbackFeatures
from feedback_etl.training.vocabulary import Vocabulary

PAIRS = pair_frame(
    *(
        {"conditions_detected": text, "age_range": age, "helpful_rating": rating}
        for text, age, rating in [("acne", "18-25", 5), ("dry", "50+", 2), ("acne,dry", None, 4), (None, "<18", 1)] * 5
    )
)


class ArrayFeatures(FeedbackFeatures):
    """Accept the numeric arrays of scikit-learn's checks, each row as a pair; the rest is unchanged."""

    def fit(self, X: Any, y: Any = None) -> "ArrayFeatures":  # noqa: N803
        """Fit to the pairs of an array."""
        super().fit(to_pairs(X), y)
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Return an array."""
        return super().transform(to_pairs(X)).to_numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def to_pairs(array: Any) -> pl.DataFrame:
    """Return numbers as names of conditions; refuse other arrays, as scikit-learn would."""
    rows = np.nan_to_num(check_array(array, ensure_all_finite=False)).astype(int)
    return pair_frame(*({"conditions_detected": ",".join(f"c{number % 7}" for number in row)} for row in rows))


BY_NAME = "columns are found by their names: a frame may have more, or in another order"
DO_NOT_APPLY = dict.fromkeys(
    ("check_n_features_in", "check_n_features_in_after_fitting", "check_transformer_general"), BY_NAME
)


@parametrize_with_checks([ArrayFeatures()], expected_failed_checks=lambda _: DO_NOT_APPLY)  # type: ignore[untyped-decorator]
def test_checks_of_scikit_learn_pass(estimator: Any, check: Any) -> None:
    """All for transformers; those in `DO_NOT_APPLY` fail for the reason given there."""
    check(estimator)


def test_pipeline_and_grid_search() -> None:
    """With frames of Polars and pandas; the search clones the transformer."""
    labelled = PAIRS.pipe(fe.training.label, "helpful")
    steps = make_pipeline(FeedbackFeatures(), LogisticRegression(random_state=0))
    predicted = steps.fit(labelled, labelled["label"]).predict(labelled)
    assert predicted.tolist() == labelled["label"].to_list()
    frame = PAIRS.to_pandas()
    search = GridSearchCV(steps, {"feedbackfeatures__min_rows": [1, 100]}, cv=2)
    search.fit(frame, fe.training.label(frame, "helpful")["label"].astype(int))
    assert search.best_params_ == {"feedbackfeatures__min_rows": 1}


def test_transform_equals_features() -> None:
    """With the vocabulary of the rows it was fitted to."""
    step = FeedbackFeatures(min_rows=2, ratings=("would_recommend",), timestamp_precision="day").fit(PAIRS.head(2))
    known = fe.training.Vocabulary.fit(PAIRS.head(2), min_rows=2)
    wanted = fe.training.features(PAIRS, vocabulary=known, ratings=["would_recommend"], timestamp_precision="day")
    assert_frame_equal(step.transform(PAIRS), wanted)
    assert step.get_feature_names_out().tolist() == wanted.columns
    assert step.vocabulary_ == known


def test_set_output_determines_the_kind_of_frame() -> None:
    """pandas or Polars, for any input."""
    step = FeedbackFeatures().fit(PAIRS)
    as_pandas = clone(step).set_output(transform="pandas").fit_transform(PAIRS)
    assert isinstance(as_pandas, pd.DataFrame)
    assert list(as_pandas.columns) == step.get_feature_names_out().tolist()
    as_polars = clone(step).set_output(transform="polars").fit_transform(PAIRS.to_pandas())
    assert_frame_equal(as_polars, step.transform(PAIRS))


def test_pickle_contains_the_vocabulary() -> None:
    """A loaded model predicts the same."""
    step = FeedbackFeatures().fit(PAIRS)
    assert_frame_equal(pickle.loads(pickle.dumps(step)).transform(PAIRS), step.transform(PAIRS))


def test_unfitted_transformer_is_refused() -> None:
    """As scikit-learn's own are."""
    step = FeedbackFeatures()
    calls: list[Callable[[], Any]] = [lambda: step.transform(PAIRS), step.get_feature_names_out]
    for call in calls:
        with pytest.raises(NotFittedError):
            call()


def test_features_known_later_are_included_by_request() -> None:
    """In training and in prediction."""
    rows = PAIRS.drop("feedback_timestamp", "timeframe")
    step = FeedbackFeatures().fit(rows)
    assert_frame_equal(step.transform(rows), fe.training.features(PAIRS, vocabulary=step.vocabulary_))
    later = FeedbackFeatures(include=["timeframe", "time"]).fit(PAIRS)
    added = {*later.get_feature_names_out()} - {*step.get_feature_names_out()}
    times = {"hour_sin", "hour_cos", "weekday_sin", "weekday_cos"}
    assert added == {"timeframe_days", "timeframe_missing", *times}


def test_lazy_frames_are_refused() -> None:
    """Also in a pipeline, with the remedy: scikit-learn counts rows."""
    steps = make_pipeline(FeedbackFeatures(), LogisticRegression())
    labels = PAIRS.pipe(fe.training.label, "helpful")["label"]
    with pytest.raises(UsageError, match="collect it first"):
        steps.fit(PAIRS.lazy(), labels)
    with pytest.raises(UsageError, match="collect it first"):
        steps.fit(PAIRS, labels).predict(PAIRS.lazy())


def test_arrays_are_refused() -> None:
    """Their columns have no names."""
    with pytest.raises(UsageError, match=r"not ndarray\.$"):
        FeedbackFeatures().fit(np.zeros((3, 4)))


def test_message_without_scikit_learn_names_the_extra() -> None:
    """Other names do not need it."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from feedback_etl import training; training.features; training.FeedbackFeatures"
    )
    done = python(code)
    assert "ImportError: FeedbackFeatures needs scikit-learn: pip install 'feedback-etl[train]'" in done.stderr


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("feedback_etl", "scan_training"),
        ("feedback_etl.exports", "prune"),
        ("feedback_etl.privacy", "risk"),
        ("feedback_etl.report", "write_report"),
        ("feedback_etl.training", "features"),
        ("feedback_etl.transform", "anonymize"),
    ],
)
def test_public_names_can_be_listed_without_scikit_learn(package: str, name: str) -> None:
    """`help`, `dir`, `inspect.getmembers` and `import *` work in every installation."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        f"import inspect, pydoc, {package} as package\n"
        f"from {package} import *\n"
        "names = {*dir(package)}\n"
        "assert names == {*package.__all__} and 'FeedbackFeatures' not in names\n"
        f"assert {name!r} in names\n"
        "assert names <= {name for name, _ in inspect.getmembers(package)}\n"
        f"assert {name} is package.{name}\n"
        f"assert {name!r} in pydoc.render_doc(package)\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_frozen_vocabulary_is_used_instead_of_a_learned_one() -> None:
    """Whatever rows it is fitted to."""
    known = Vocabulary(conditions=("dry",), rules=("r001",))
    step = FeedbackFeatures(vocabulary=known).fit(pair_frame({}))
    assert step.vocabulary_ is known
    assert clone(step).vocabulary == known
    assert "condition=dry" in step.transform(pair_frame({})).columns


def test_columns_of_the_rows_are_attributes() -> None:
    """By scikit-learn's names, and a pipeline has them too."""
    frame = pair_frame({}, {"conditions_detected": "dry"})
    for rows in (frame, frame.to_pandas(), frame.to_arrow()):
        step = FeedbackFeatures().fit(rows)
        assert step.n_features_in_ == 12
        assert step.feature_names_in_.tolist() == frame.columns
    assert make_pipeline(FeedbackFeatures(), StandardScaler()).fit(frame).n_features_in_ == 12


def test_sparse_features_train_a_model() -> None:
    """In a pipeline, with the same predictions."""
    frame = pair_frame(*({"conditions_detected": "acne" if n % 3 else "dry"} for n in range(30)))
    target = [n % 3 == 0 for n in range(30)]
    dense, sparse = (
        make_pipeline(FeedbackFeatures(sparse=is_sparse), LogisticRegression()).fit(frame, target)
        for is_sparse in (False, True)
    )
    assert sparse.predict_proba(frame) == pytest.approx(dense.predict_proba(frame), abs=1e-6)
