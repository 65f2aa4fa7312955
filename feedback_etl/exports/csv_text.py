"""Training pairs as CSV text: UTF-8, `\\n`, RFC 4180 quoting, null as an empty field."""

import os
import re
from typing import BinaryIO

import polars as pl
import polars.selectors as cs

from feedback_etl.transform.expressions import iso_timestamp

_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")


def write_csv(frame: pl.DataFrame, file: BinaryIO, *, header: bool) -> None:
    """Append the rows of a frame to a file; booleans as `True` and `False`, times as `datetime.isoformat()`.

    Raises:
        OSError: The file cannot take them, with the number of the error.
    """
    booleans = [_truth_text(name) for name in frame.select(cs.boolean()).columns]
    times = [_time_text(column) for column in frame.select(cs.datetime())]
    try:
        frame.with_columns(*booleans, *times).write_csv(file, include_header=header)
    except OSError as error:
        number = _ERROR_NUMBER.search(str(error))  # only the text of Polars' error contains it
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def _truth_text(name: str) -> pl.Expr:
    truth = pl.col(name)
    return pl.when(truth).then(pl.lit("True")).when(~truth).then(pl.lit("False")).alias(name)


def _time_text(times: pl.Series) -> pl.Expr:
    """Return times as text; the single time of a constant column, such as export_date, is formatted once."""
    instants = times.to_physical()
    if times.null_count() == 0 and instants.min() == instants.max() is not None:
        once = times.head(1).to_frame().select(iso_timestamp(times.name)).item()
        return pl.lit(once).alias(times.name)
    return iso_timestamp(times.name).alias(times.name)
