"""The rows of data files as text, as they were written, whatever its form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from feedback_etl.exports.csv_files import translate_read_errors, without_empty_lines
from feedback_etl.exports.manifest import ADOPTED, Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import iso_timestamp


def scan_text(storage: Storage, manifest: Manifest) -> pl.LazyFrame:
    """Scan the data files of an export, one after the other, with all columns as a CSV file would hold them.

    Raises:
        ExportFileError: The file was adopted, and cannot be read.
    """
    names = [file.path for file in manifest.all("pairs")]
    if not names[0].endswith(".parquet"):
        return pl.scan_csv(
            csv_sources(storage, manifest, names),
            infer_schema=False,
            glob=False,
            storage_options=storage.polars_options,
        )
    frame = pl.scan_parquet([storage.uri(name) for name in names], glob=False, storage_options=storage.polars_options)
    schema = frame.collect_schema()
    times = [iso_timestamp(name) for name in cs.expand_selector(schema, cs.datetime())]
    truths = cs.boolean().replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    return frame.with_columns(times).with_columns(truths).with_columns(pl.all().cast(pl.String))


def csv_sources(storage: Storage, manifest: Manifest, names: Sequence[str]) -> list[Any]:
    """Return the sources of CSV files for Polars: their locations, or the records of an adopted file.

    Raises:
        ExportFileError: The file was adopted, and cannot be read.
    """
    addresses = [storage.uri(name) for name in names]
    if manifest.mode != ADOPTED:  # what this package writes has no empty lines
        return addresses
    (path,) = map(Path, addresses)
    with translate_read_errors(path):
        return [without_empty_lines(path)]
