"""Select one answer of each person to each recommendation: the last one, or the one after a given time."""

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA, TIMEFRAME
from feedback_etl.schema.model import PSEUDONYM, TIME, FeedbackSchema
from feedback_etl.schema.requirements import require_pairs
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe

_POSITION = "position in the frame"


@accepts_any_dataframe
def latest_per_recommendation(frame: Frame, *, schema: FeedbackSchema = CLASSIC_SCHEMA) -> Frame:
    """Keep the newest row of each analysis and recommendation, in the order of the frame.

    People give feedback on a recommendation after one week, two, and so on; this keeps their last answer. Of rows of
    the same time the last one stays, and a row without a time is older than all others.

    Args:
        frame: Training pairs.
        schema: Schema of the feedback, whose item replaces the recommendation.

    Raises:
        ValidationError: The frame lacks a column of the pair, or one is of a wrong type; texts are not times.

    >>> from datetime import datetime
    >>> pair = {"analysis_hash": "73475cb40a568e8d", "recommendation_id": "rec_1"}
    >>> times = [datetime(2025, 10, 25), datetime(2025, 10, 18)]
    >>> pairs = pl.DataFrame([pair | {"feedback_timestamp": time} for time in times])
    >>> latest_per_recommendation(pairs)["feedback_timestamp"].dt.day().to_list()
    [25]
    """
    recommendation = [PSEUDONYM, *schema.item_columns]
    require_pairs(frame, [*recommendation, TIME])
    by_time = frame.with_row_index(_POSITION).sort(TIME, nulls_last=False, maintain_order=True)
    latest = by_time.unique(subset=recommendation, keep="last", maintain_order=True)
    in_order: Frame = latest.sort(_POSITION).drop(_POSITION)
    return in_order


@accepts_any_dataframe
def one_horizon(frame: Frame, timeframe: str) -> Frame:
    """Keep the rows of one timeframe, and of those the newest one of each analysis and recommendation.

    All answers are then given the same time after the recommendation. Rows without a timeframe are left out.

    Args:
        frame: Training pairs.
        timeframe: The timeframe as the export contains it, such as "4_weeks".

    Returns:
        The rows in their order, lazy if the frame is.

    Raises:
        UsageError: The timeframe is not text.
        ValidationError: The frame lacks a column of the pair or timeframe, or one is of a wrong type.

    >>> from datetime import datetime
    >>> pair = {"analysis_hash": "73475cb40a568e8d", "recommendation_id": "rec_1"}
    >>> pairs = pl.DataFrame([
    ...     pair | {"timeframe": "1_week", "feedback_timestamp": datetime(2025, 10, 18)},
    ...     pair | {"timeframe": "4_weeks", "feedback_timestamp": datetime(2025, 11, 8)},
    ... ])
    >>> one_horizon(pairs, "1_week")["feedback_timestamp"].dt.day().to_list()
    [18]
    """
    if not isinstance(timeframe, str):
        raise UsageError(f'{TIMEFRAME} must be text, such as "4_weeks".')
    require_pairs(frame, [*CLASSIC_SCHEMA.pair_key, TIMEFRAME])
    selected: Frame = latest_per_recommendation(frame.filter(pl.col(TIMEFRAME).cast(pl.String) == timeframe))
    return selected
