"""The options that decide what happens to a row, as one value that can be sent to workers."""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.options.export import ExportOptions
from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.keys import Key
from feedback_etl.transform.overrides import Overrides
from feedback_etl.transform.step_options import StepOptions


@dataclass(frozen=True, kw_only=True)
class TransformOptions(StepOptions):
    """Options that decide what happens to a row, in its own batch or together with all other rows."""

    key: Key | None
    strict: bool
    max_rejected: float
    k_policy: KAnonymityPolicy
    row_model: Any
    has_own_query: bool

    @classmethod
    def from_options(
        cls, options: ExportOptions, now: datetime, key: Key | None, overrides: Overrides | None = None
    ) -> Self:
        """Select the options that concern single rows from those of an export."""
        quality, privacy = options.quality, options.privacy
        return cls(
            now=now,
            key=key,
            min_feedback_fields=quality.min_feedback_fields,
            hash_recommendation_id=privacy.hash_recommendation_id,
            strict=quality.strict,
            max_rejected=quality.max_rejected,
            timestamp_precision=privacy.timestamp_precision,
            k_policy=replace(privacy.k_anonymity, has_own_ages="bucket_age" in (overrides or Overrides()).names()),
            schema=options.full_schema,
            row_model=quality.row_model,
            has_own_query=options.read.query is not None or options.read.source is not None,
            overrides=overrides or Overrides(),
            reject_formulas=options.output.file_format.rejects_formulas,
        )


def build_parquet_metadata(options: TransformOptions, file_format: FileFormat) -> dict[str, str]:
    """Return the metadata of a Parquet file: the key id and the JSON Schema of its rows; empty for other formats."""
    if file_format.format != "parquet":
        return {}
    from feedback_etl.transform.row_schema import build_row_schema

    names, generalized = options.overrides.names(), options.k_policy.generalizes
    contract = json.dumps(build_row_schema(options.schema, names, generalized=generalized))
    return {"feedback_etl.key_id": options.key.id if options.key else "", "feedback_etl.contract": contract}
