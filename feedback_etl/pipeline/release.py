"""Release rows of an export once its equivalence classes are known: unchanged, generalised, or not at all."""

import polars as pl

from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.release_plan import apply_changes
from feedback_etl.transform.items import without_items


def validate_pairs(pairs: pl.DataFrame, options: TransformOptions, *, generalized: bool = False) -> pl.DataFrame:
    """Return training pairs if they are valid; call this before they are written or returned.

    Raises:
        ValidationError: The pairs do not satisfy the rules of their schema or the custom row model.
    """
    from feedback_etl.transform.training_schema import validate  # imports pandera

    validate(
        without_items(pairs),
        schema=options.schema,
        row_model=options.row_model,
        overridden=options.overrides.names(),
        generalized=generalized,
    )
    return pairs


def release_pairs(pairs: pl.DataFrame, changes: pl.DataFrame, options: TransformOptions) -> pl.DataFrame:
    """Return the rows to publish; generalised ones are validated again.

    Args:
        pairs: Valid training pairs; spooled ones have age ranges as text.
        changes: See `ReleasePlan.changes`.
        options: Options of the export.

    Raises:
        ValidationError: Generalised rows are not valid, as where a hierarchy contains a text that no column may have.
    """
    released = apply_changes(pairs, changes, options.k_policy)
    return validate_pairs(released, options, generalized=True) if options.k_policy.generalizes else released
