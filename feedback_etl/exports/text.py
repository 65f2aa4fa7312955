"""The rows of a data file as text, as they were written, whatever its form."""

from pathlib import Path

import polars as pl
import polars.selectors as cs

from feedback_etl.expressions import iso_timestamp


def scan_text(path: Path) -> pl.LazyFrame:
    """A data file in any form, with all columns as a CSV file would hold them."""
    if not path.name.endswith(".parquet"):
        return pl.scan_csv(path, infer_schema=False, glob=False)
    frame = pl.scan_parquet(path, glob=False)
    schema = frame.collect_schema()
    times = [iso_timestamp(name) for name in cs.expand_selector(schema, cs.datetime())]
    truths = cs.boolean().replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    return frame.with_columns(times).with_columns(truths).with_columns(pl.all().cast(pl.String))
