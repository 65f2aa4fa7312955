"""Train on exports: read them, add labels, split, and encode features.

`FeedbackFeatures` needs scikit-learn, and is not listed where that is not installed.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from feedback_etl.lazy_names import build_lazy_names

if TYPE_CHECKING:
    __all__: list[str]

    from feedback_etl.training.answers import latest_per_recommendation as latest_per_recommendation
    from feedback_etl.training.answers import one_horizon as one_horizon
    from feedback_etl.training.dataset import latest_export as latest_export
    from feedback_etl.training.dataset import open_dataset as open_dataset
    from feedback_etl.training.dataset import scan_training as scan_training
    from feedback_etl.training.feature_matrix import LeakWarning as LeakWarning
    from feedback_etl.training.feature_matrix import features as features
    from feedback_etl.training.items import scan_items as scan_items
    from feedback_etl.training.labels import label as label
    from feedback_etl.training.recommender_data import interactions as interactions
    from feedback_etl.training.splits import NullGroupWarning as NullGroupWarning
    from feedback_etl.training.splits import PersonOverlapWarning as PersonOverlapWarning
    from feedback_etl.training.splits import k_folds as k_folds
    from feedback_etl.training.splits import split_by_hash as split_by_hash
    from feedback_etl.training.time_splits import NullTimeWarning as NullTimeWarning
    from feedback_etl.training.time_splits import rolling_origins as rolling_origins
    from feedback_etl.training.time_splits import split_by_time as split_by_time
    from feedback_etl.training.training_record import record_training as record_training
    from feedback_etl.training.transformer import FeedbackFeatures as FeedbackFeatures
    from feedback_etl.training.vocabulary import Vocabulary as Vocabulary
else:
    __getattr__, __dir__, __all__ = build_lazy_names(
        __name__,
        {
            "FeedbackFeatures": "training.transformer",
            "LeakWarning": "training.feature_matrix",
            "NullGroupWarning": "training.splits",
            "NullTimeWarning": "training.time_splits",
            "PersonOverlapWarning": "training.splits",
            "Vocabulary": "training.vocabulary",
            "features": "training.feature_matrix",
            "interactions": "training.recommender_data",
            "k_folds": "training.splits",
            "label": "training.labels",
            "latest_export": "training.dataset",
            "latest_per_recommendation": "training.answers",
            "one_horizon": "training.answers",
            "open_dataset": "training.dataset",
            "record_training": "training.training_record",
            "rolling_origins": "training.time_splits",
            "scan_items": "training.items",
            "scan_training": "training.dataset",
            "split_by_hash": "training.splits",
            "split_by_time": "training.time_splits",
        },
    )
    if find_spec("sklearn") is None:  # `help`, `dir` and `import *` use every listed name, and this one needs it
        __all__.remove("FeedbackFeatures")
