"""From an application's feedback tables to a pseudonymised training set.

>>> import feedback_etl as fe
>>> fe.__version__
'0.1.0'

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from feedback_etl import errors
    from feedback_etl.exports.adoption import adopt
    from feedback_etl.exports.maintenance import list_exports, prune
    from feedback_etl.pipeline.estimate import Plan, plan
    from feedback_etl.pipeline.export import export_feedback
    from feedback_etl.pipeline.load import load_feedback, load_training
    from feedback_etl.privacy.erasure import erase
    from feedback_etl.privacy.keys import Key
    from feedback_etl.privacy.risk_measures import Risk, risk
    from feedback_etl.processor import FeedbackProcessor, FeedbackTrainingPair
    from feedback_etl.report.croissant import write_croissant
    from feedback_etl.report.write import write_report
    from feedback_etl.results import ExportReport, FeedbackProcessingStats
    from feedback_etl.settings import find_key
    from feedback_etl.training.dataset import latest_export, scan_training
    from feedback_etl.training.feature_matrix import features
    from feedback_etl.training.labels import label
    from feedback_etl.training.splits import NullGroupWarning, PersonOverlapWarning, split_by_hash
    from feedback_etl.training.transformer import FeedbackFeatures
    from feedback_etl.training.vocabulary import Vocabulary
    from feedback_etl.transform.expressions import bucket_age, hash_id, iso_timestamp, pair_hash
    from feedback_etl.transform.json_lists import join_list
    from feedback_etl.transform.raw_schema import RawFeedback, Split, split_valid
    from feedback_etl.transform.training_schema import TrainingPair, validate
    from feedback_etl.transform.transforms import anonymize, coarsen, deduplicate, latest_per_recommendation

_MODULE_OF = {
    "ExportReport": "results",
    "FeedbackFeatures": "training.transformer",
    "FeedbackProcessingStats": "results",
    "FeedbackProcessor": "processor",
    "FeedbackTrainingPair": "processor",
    "Key": "privacy.keys",
    "NullGroupWarning": "training.splits",
    "PersonOverlapWarning": "training.splits",
    "Plan": "pipeline.estimate",
    "RawFeedback": "transform.raw_schema",
    "Risk": "privacy.risk_measures",
    "Split": "transform.raw_schema",
    "TrainingPair": "transform.training_schema",
    "Vocabulary": "training.vocabulary",
    "adopt": "exports.adoption",
    "anonymize": "transform.transforms",
    "bucket_age": "transform.expressions",
    "coarsen": "transform.transforms",
    "list_exports": "exports.maintenance",
    "deduplicate": "transform.transforms",
    "erase": "privacy.erasure",
    "export_feedback": "pipeline.export",
    "features": "training.feature_matrix",
    "find_key": "settings",
    "hash_id": "transform.expressions",
    "iso_timestamp": "transform.expressions",
    "join_list": "transform.json_lists",
    "label": "training.labels",
    "latest_export": "training.dataset",
    "latest_per_recommendation": "transform.transforms",
    "load_feedback": "pipeline.load",
    "load_training": "pipeline.load",
    "pair_hash": "transform.expressions",
    "plan": "pipeline.estimate",
    "prune": "exports.maintenance",
    "risk": "privacy.risk_measures",
    "scan_training": "training.dataset",
    "split_by_hash": "training.splits",
    "split_valid": "transform.raw_schema",
    "validate": "transform.training_schema",
    "write_croissant": "report.croissant",
    "write_report": "report.write",
}

__all__ = [
    "ExportReport",
    "FeedbackFeatures",
    "FeedbackProcessingStats",
    "FeedbackProcessor",
    "FeedbackTrainingPair",
    "Key",
    "NullGroupWarning",
    "PersonOverlapWarning",
    "Plan",
    "RawFeedback",
    "Risk",
    "Split",
    "TrainingPair",
    "Vocabulary",
    "__version__",
    "adopt",
    "anonymize",
    "bucket_age",
    "coarsen",
    "deduplicate",
    "erase",
    "errors",
    "export_feedback",
    "features",
    "find_key",
    "hash_id",
    "iso_timestamp",
    "join_list",
    "label",
    "latest_export",
    "latest_per_recommendation",
    "list_exports",
    "load_feedback",
    "load_training",
    "pair_hash",
    "plan",
    "prune",
    "risk",
    "scan_training",
    "split_by_hash",
    "split_valid",
    "validate",
    "write_croissant",
    "write_report",
]
if (
    not TYPE_CHECKING and find_spec("sklearn") is None
):  # `help`, `dir` and `import *` touch every listed name, and this one needs it
    __all__.remove("FeedbackFeatures")

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("feedback_etl.errors")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"feedback_etl.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
