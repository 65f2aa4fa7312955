"""The script that an engineer writes instead: ConnectorX (or ADBC) into Polars, HMAC, `unique`, CSV, all in memory.

Nothing is judged, counted for k, written whole or verified; invalid rows are exported as they are.

    python by_script.py FOLDER [adbc]
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl
import polars_hash as plh  # noqa: F401  registers the `chash` namespace
from own_share import connectorx_url
from statements import BARE_JOIN

RATINGS = ["helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend"]
AGES = ["<18", "18-25", "25-35", "35-50", "50+"]


def export(url: str, key: str, folder: Path, now: datetime, engine: Literal["adbc", "connectorx"]) -> None:
    """Read, pseudonymise and write everything there is."""
    query = f"{BARE_JOIN} WHERE f.created_at < '{now}'"
    if engine == "adbc":  # it returns JSON as a type of its own
        for column in ("r.conditions_analyzed", "r.rules_applied"):
            query = query.replace(column, f"CAST({column} AS text) AS {column[2:]}")
    frame = pl.read_database_uri(query, connectorx_url(url), engine=engine)
    lists = {"conditions_analyzed": "conditions_detected", "rules_applied": "rules_applied"}
    analysis: pl.Expr = pl.format("analysis_id:{}", "analysis_id").chash.hmac_sha256(key=key)  # type: ignore[attr-defined]
    (
        frame.lazy()
        .filter(pl.any_horizontal(pl.col(RATINGS).is_not_null()))
        .sort("created_at", "feedback_id")
        .unique(["analysis_id", "recommendation_id", "created_at"], keep="first", maintain_order=True)
        .select(
            analysis.str.slice(0, 16).alias("analysis_hash"),
            "recommendation_id",
            *RATINGS[:3],
            pl.when("would_recommend").then(pl.lit("True")).when(~pl.col("would_recommend")).then(pl.lit("False")),
            *(
                pl.col(column)
                .str.extract_all('"[^"]*"')
                .list.join(",")
                .str.replace_all('"', "", literal=True)
                .alias(name)
                for column, name in lists.items()
            ),
            "timeframe",
            pl.col("age").cut([18, 25, 35, 50], labels=AGES, left_closed=True).alias("age_range"),
            pl.col("created_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.f").alias("feedback_timestamp"),
            pl.lit(now.replace(microsecond=0).isoformat()).alias("export_date"),
        )
        .collect()
        .write_csv(folder / "export.csv")
    )


if __name__ == "__main__":
    export(
        os.environ["FEEDBACK_ETL_DATABASE_URL"],
        os.environ["FEEDBACK_ETL_KEY"],
        Path(sys.argv[1]),
        datetime.now(UTC).replace(tzinfo=None),
        "adbc" if sys.argv[2:] == ["adbc"] else "connectorx",
    )
