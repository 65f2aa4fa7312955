"""The rows of data files as text, as they were written, whatever its form."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import polars.selectors as cs

from feedback_etl.exports.bucket import Bucket
from feedback_etl.exports.place import Folder
from feedback_etl.exports.store import POLARS_OPTIONS
from feedback_etl.expressions import iso_timestamp


def scan_text(place: Folder | Bucket, names: Sequence[str]) -> pl.LazyFrame:
    """Data files of one form, one after the other, with all columns as a CSV file would hold them."""
    paths = [place.address(name) for name in names]
    options: dict[str, Any] = {"storage_options": POLARS_OPTIONS} if isinstance(place, Bucket) else {}
    if not paths[0].endswith(".parquet"):
        return pl.scan_csv(paths, infer_schema=False, glob=False, **options)
    frame = pl.scan_parquet(paths, glob=False, **options)
    schema = frame.collect_schema()
    times = [iso_timestamp(name) for name in cs.expand_selector(schema, cs.datetime())]
    truths = cs.boolean().replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    return frame.with_columns(times).with_columns(truths).with_columns(pl.all().cast(pl.String))
