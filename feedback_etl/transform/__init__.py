"""Transform frames: the steps of an export, their expressions and the schemas of their rows."""

from typing import TYPE_CHECKING

from feedback_etl.lazy_names import build_lazy_names

if TYPE_CHECKING:
    __all__: list[str]

    from feedback_etl.transform.column_transforms import bucket_ages as bucket_ages
    from feedback_etl.transform.column_transforms import hash_ids as hash_ids
    from feedback_etl.transform.expressions import bucket_age as bucket_age
    from feedback_etl.transform.expressions import hash_id as hash_id
    from feedback_etl.transform.expressions import iso_timestamp as iso_timestamp
    from feedback_etl.transform.expressions import pair_hash as pair_hash
    from feedback_etl.transform.json_lists import join_list as join_list
    from feedback_etl.transform.raw_schema import RawFeedback as RawFeedback
    from feedback_etl.transform.raw_schema import Split as Split
    from feedback_etl.transform.raw_schema import split_valid as split_valid
    from feedback_etl.transform.training_schema import TrainingPair as TrainingPair
    from feedback_etl.transform.training_schema import validate as validate
    from feedback_etl.transform.transforms import anonymize as anonymize
    from feedback_etl.transform.transforms import deduplicate as deduplicate
else:
    __getattr__, __dir__, __all__ = build_lazy_names(
        __name__,
        {
            "RawFeedback": "transform.raw_schema",
            "Split": "transform.raw_schema",
            "TrainingPair": "transform.training_schema",
            "anonymize": "transform.transforms",
            "bucket_age": "transform.expressions",
            "bucket_ages": "transform.column_transforms",
            "deduplicate": "transform.transforms",
            "hash_id": "transform.expressions",
            "hash_ids": "transform.column_transforms",
            "iso_timestamp": "transform.expressions",
            "join_list": "transform.json_lists",
            "pair_hash": "transform.expressions",
            "split_valid": "transform.raw_schema",
            "validate": "transform.training_schema",
        },
    )
