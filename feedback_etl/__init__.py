"""From an application's feedback tables to a pseudonymised training set.

>>> import feedback_etl as fe
>>> fe.__version__
'0.1.0'

The names for everyday use are here; `fe.training`, `fe.privacy`, `fe.exports`, `fe.report` and `fe.transform` contain
the others, and `fe.errors` the exceptions. Names are imported when they are first used, so importing the package costs
next to nothing.
"""

import logging
from typing import TYPE_CHECKING

from feedback_etl.lazy_names import build_lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    __all__: list[str]

    from feedback_etl import errors as errors
    from feedback_etl import exports as exports
    from feedback_etl import privacy as privacy
    from feedback_etl import report as report
    from feedback_etl import training as training
    from feedback_etl import transform as transform
    from feedback_etl.pipeline.estimate import Plan as Plan
    from feedback_etl.pipeline.estimate import plan as plan
    from feedback_etl.pipeline.export import export_feedback as export_feedback
    from feedback_etl.pipeline.load import load_feedback as load_feedback
    from feedback_etl.pipeline.load import load_training as load_training
    from feedback_etl.processor import FeedbackProcessor as FeedbackProcessor
    from feedback_etl.processor import FeedbackTrainingPair as FeedbackTrainingPair
    from feedback_etl.report.write import write_report as write_report
    from feedback_etl.results import ExportReport as ExportReport
    from feedback_etl.results import FeedbackProcessingStats as FeedbackProcessingStats
    from feedback_etl.settings.keys import find_key as find_key
    from feedback_etl.training.dataset import scan_training as scan_training
    from feedback_etl.transform.expressions import bucket_age as bucket_age
    from feedback_etl.transform.expressions import hash_id as hash_id
    from feedback_etl.transform.raw_schema import split_valid as split_valid
    from feedback_etl.transform.training_schema import validate as validate
    from feedback_etl.transform.transforms import anonymize as anonymize
    from feedback_etl.transform.transforms import deduplicate as deduplicate
else:
    __getattr__, __dir__, __all__ = build_lazy_names(
        __name__,
        {
            "ExportReport": "results",
            "FeedbackProcessingStats": "results",
            "FeedbackProcessor": "processor",
            "FeedbackTrainingPair": "processor",
            "Plan": "pipeline.estimate",
            "anonymize": "transform.transforms",
            "bucket_age": "transform.expressions",
            "deduplicate": "transform.transforms",
            "export_feedback": "pipeline.export",
            "find_key": "settings.keys",
            "hash_id": "transform.expressions",
            "load_feedback": "pipeline.load",
            "load_training": "pipeline.load",
            "plan": "pipeline.estimate",
            "scan_training": "training.dataset",
            "split_valid": "transform.raw_schema",
            "validate": "transform.training_schema",
            "write_report": "report.write",
        },
        submodules=["errors", "exports", "privacy", "report", "training", "transform"],
    )
    __all__.append("__version__")

logging.getLogger(__name__).addHandler(logging.NullHandler())
