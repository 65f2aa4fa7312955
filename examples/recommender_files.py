"""Write the interactions of a folder of exports for recommender libraries: python recommender_files.py FOLDER TARGET.

RecBole reads `feedback.inter`. `ratings.csv` has the form of MovieLens; LensKit reads it with
`from_interactions_df(pandas.read_csv("ratings.csv"), user_col="userId", item_col="movieId", rating_col="rating",
timestamp_col="timestamp")`. Libraries for preference training read `preferences.jsonl` with a prompt, a completion and
a label on each line.
"""

import sys
from pathlib import Path

import polars as pl

import feedback_etl as fe
from feedback_etl.training import interactions, label


def write_recbole(pairs: pl.DataFrame, path: Path) -> None:
    """Write an atomic file: tab-separated, with the types of the fields in the header."""
    names = {"user": "user_id:token", "item": "item_id:token", "value": "rating:float", "timestamp": "timestamp:float"}
    interactions(pairs, names=names).write_csv(path, separator="\t")


def write_movielens(pairs: pl.DataFrame, path: Path) -> None:
    """Write the columns of MovieLens, whose users rate an item once: the last rating of each."""
    names = {"user": "userId", "item": "movieId", "value": "rating"}
    ratings = interactions(pairs, names=names).sort("timestamp", maintain_order=True)
    ratings.unique(["userId", "movieId"], keep="last", maintain_order=True).write_csv(path)


def write_preferences(pairs: pl.DataFrame, path: Path) -> None:
    """Write what was known, what was recommended, and whether it was helpful."""
    conditions, age = (pl.col(name).cast(pl.String).fill_null("unknown") for name in KNOWN)
    prompt = pl.format("Conditions: {}. Age: {}.", conditions, age)
    labelled = label(pairs, "helpful").drop_nulls("label")
    labelled.select(
        prompt=prompt, completion=pl.col("recommendation_id"), label=pl.col("label").cast(pl.Boolean)
    ).write_ndjson(path)


KNOWN = ("conditions_detected", "age_range")


def main(folder: str, target: str) -> None:
    """Write all three files."""
    pairs, to = fe.scan_training(folder).collect(), Path(target)
    to.mkdir(parents=True, exist_ok=True)
    write_recbole(pairs, to / "feedback.inter")
    write_movielens(pairs, to / "ratings.csv")
    write_preferences(pairs, to / "preferences.jsonl")


if __name__ == "__main__":
    main(*sys.argv[1:])
