"""Validate frames with pandera: collect the failure cases, and report them without a value of a row.

Validation is complete for all values of PANDERA_VALIDATION_ENABLED and PANDERA_VALIDATION_DEPTH.
"""

import copy

import pandera.polars as pa
import polars as pl
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors

from feedback_etl.errors import ValidationError
from feedback_etl.plurals import pluralize
from feedback_etl.schema.requirements import KNOWN

Model = pa.DataFrameSchema | type[pa.DataFrameModel]
"""A custom pandera model or schema of some or all columns."""


def list_failure_cases(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> pl.DataFrame:
    """Return pandera's failure cases, one per row; an empty frame if there are none.

    pandera cannot put cases of wrong types and other cases in one frame; then only those of wrong types are returned.
    """
    try:
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        return pl.DataFrame(errors.failure_cases)
    except pl.exceptions.PolarsError:
        types = schema.update_columns({name: {"checks": []} for name in schema.columns})
        types.checks = []
        cases = list_failure_cases(types, frame)
        if cases.is_empty():
            raise
        return cases
    return pl.DataFrame()


def list_model_failure_cases(model: Model, table: pl.DataFrame) -> pl.DataFrame:
    """Return the failure cases of a custom model for all rows, including those that it would drop."""
    try:
        schema = copy.deepcopy(model if isinstance(model, pa.DataFrameSchema) else model.to_schema())
        schema.drop_invalid_rows = False
        return list_failure_cases(schema, table)
    except (Exception, SystemExit) as error:  # its text may contain values
        error_type = type(error).__name__
    raise ValidationError(f"The row model could not validate the rows ({error_type}); nothing was written.")


def require_none(cases: pl.DataFrame, table: pl.DataFrame) -> None:
    """Raise if there are failure cases, with the broken rules and the number of rows that break each."""
    if cases.is_empty():
        return
    # A failure case of the frame's columns has no row index, and the schema's name instead of the column's. The message
    # must contain no value: a custom model's case of whole rows may, and in a file without a header, names are values.
    of_frame, of_columns = pl.col("schema_context") == "DataFrameSchema", pl.col("check").str.starts_with("column")
    is_unknown = (pl.col("check") == "column_in_schema") & ~pl.col("failure_case").is_in(KNOWN)
    named = pl.when(is_unknown).then(pl.lit("unknown")).otherwise("failure_case")
    column = pl.when(of_frame & of_columns).then(named).when(of_frame).then(pl.lit("rows")).otherwise("column")
    rule = pl.concat_str(column, pl.lit(" "), pl.col("check").str.extract(r"^([\w ]*)"))
    rows = pl.when(pl.col("index").is_null()).then(table.height).otherwise(1).sum().clip(upper_bound=table.height)
    counts = cases.group_by(rule.alias("rule")).agg(rows=rows).sort("rows", "rule", descending=[True, False])
    reasons = dict(counts.iter_rows())
    listed = ", ".join(f"{name} ({pluralize(rows, 'row')})" for name, rows in reasons.items())
    raise ValidationError(f"The training set breaks its rules: {listed}.", reasons)
