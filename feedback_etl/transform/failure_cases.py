"""The rows and columns that do not satisfy a pandera schema."""

import pandera.polars as pa
import polars as pl
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors


def failure_cases(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> pl.DataFrame:
    """Return pandera's failure cases, one per row; an empty frame if there are none.

    pandera cannot put cases of columns of wrong types and of others in one frame; then those of the types are returned.
    """
    try:
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        return pl.DataFrame(errors.failure_cases)
    except pl.exceptions.PolarsError:
        types = schema.update_columns({name: {"checks": []} for name in schema.columns})
        types.checks = []
        cases = failure_cases(types, frame)
        if cases.is_empty():
            raise
        return cases
    return pl.DataFrame()
