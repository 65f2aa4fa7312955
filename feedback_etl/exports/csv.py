"""Training pairs as CSV text: UTF-8, `\\n`, RFC 4180 quoting, null as an empty field."""

import os
import re
from typing import BinaryIO

import polars as pl

from feedback_etl.expressions import iso_timestamp

_TRUTH = {True: "True", False: "False"}
_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")


def write_csv(frame: pl.DataFrame, file: BinaryIO, *, header: bool) -> None:
    """Append the rows of a frame to a file; booleans as `True` and `False`, times as `datetime.isoformat()`.

    Raises:
        OSError: The file cannot take them, with the number of the error.
    """
    as_text = [
        pl.col(name).replace_strict(_TRUTH, return_dtype=pl.String)
        if dtype == pl.Boolean
        else iso_timestamp(name).alias(name)
        for name, dtype in frame.schema.items()
        if dtype in (pl.Boolean, pl.Datetime)
    ]
    try:
        frame.with_columns(as_text).write_csv(file, include_header=header)
    except OSError as error:
        number = _ERROR_NUMBER.search(str(error))  # Polars tells it in the text alone
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
