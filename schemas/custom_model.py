"""An example of a custom row model: conditions that rows must meet besides the contract.

feedback-etl export --row-model schemas/custom_model.py:CustomPair

Each batch is validated; if a row violates a rule, nothing is published (exit code 4) and the message names the rule.
The model needs only the columns that it restricts, and cannot change values.
"""

import pandera.polars as pa
import polars as pl


class CustomPair(pa.DataFrameModel):
    """Training pairs with known conditions and one of four timeframes."""

    conditions_detected: str = pa.Field(nullable=False)
    timeframe: str = pa.Field(nullable=True, isin=["1_week", "2_weeks", "4_weeks", "8_weeks"])

    @pa.dataframe_check
    def satisfied_users_recommend(cls, data: pa.PolarsData) -> pl.LazyFrame:  # noqa: N805  pandera passes the class
        """Require that people who gave five stars twice do not advise against it."""
        stars = pl.all_horizontal(pl.col("helpful_rating", "product_satisfaction") == 5)
        return data.lazyframe.select(~(stars & ~pl.col("would_recommend")).fill_null(value=False))
