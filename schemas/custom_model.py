"""An example of a model of one's own: what has to hold beyond the contract.

feedback-etl export --model schemas/custom_model.py:CustomPair

Every batch is judged; if a row does not fit, nothing is published (exit code 4) and the rule is named. The model names
only what it cares about, and changes nothing.
"""

import pandera.polars as pa
import polars as pl


class CustomPair(pa.DataFrameModel):
    """Training pairs for a model that needs to know the conditions, and knows four timeframes."""

    conditions_detected: str = pa.Field(nullable=False)
    timeframe: str = pa.Field(nullable=True, isin=["1_week", "2_weeks", "4_weeks", "8_weeks"])

    @pa.dataframe_check
    def satisfied_users_recommend(cls, data: pa.PolarsData) -> pl.LazyFrame:  # noqa: N805  as pandera wants it
        """Whoever gave five stars twice does not advise against it."""
        stars = pl.all_horizontal(pl.col("helpful_rating", "product_satisfaction") == 5)
        return data.lazyframe.select(~(stars & ~pl.col("would_recommend")).fill_null(value=False))
