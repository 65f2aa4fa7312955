"""Item rows of an export, as `transform.items` makes them of its pairs."""

from typing import Any

import polars as pl

from feedback_etl.data_files.csv_files import get_csv_sources
from feedback_etl.records.manifest import Manifest
from feedback_etl.schema.feedback_columns import Rating
from feedback_etl.schema.model import TIME
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import ISO_FORMAT
from feedback_etl.transform.formulas import unescape
from feedback_etl.transform.items import ITEM, RATING, list_item_columns


def scan_item_rows(storage: Storage, manifest: Manifest) -> pl.LazyFrame:
    """Scan the item rows of an export that has some, with their types; escaped texts are restored.

    Raises:
        ExportFileError: A compressed file cannot be read, or contains too much.
    """
    names = [file.path for file in manifest.all("items")]
    options: dict[str, Any] = {"glob": False, "storage_options": storage.polars_options}
    if names[0].endswith(".parquet"):
        return pl.scan_parquet(list(map(storage.uri, names)), **options)
    texts = dict.fromkeys(list_item_columns(manifest.columns), pl.String())
    types = texts | {RATING: Rating(**manifest.settings["items"]).dtype}
    rows = pl.scan_csv(get_csv_sources(storage, manifest, names), schema=pl.Schema(types), **options)
    time = pl.col(TIME).str.to_datetime(ISO_FORMAT, time_unit="us", time_zone="UTC")
    return rows.with_columns(time, *([unescape(ITEM)] if manifest.statistics.get("escaped_items") else []))
