"""Contents of an export that the checklist tests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from feedback_etl.compliance.item import Finding
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.data_files.csv_files import scan_text
from feedback_etl.data_files.item_rows import scan_item_rows
from feedback_etl.data_files.links import read_links
from feedback_etl.data_files.row_filter import LINKED
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.adoption import UNKNOWN_SCHEME
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.schema.model import IMAGE_URL
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.items import ITEM
from feedback_etl.transform.training_schema import PSEUDONYM_PATTERN


class ExportContents(NamedTuple):
    """Contents of the data file or parts of an export.

    Attributes:
        manifest: Manifest of the export.
        storage: Storage of the export.
        path: Path of the file, or of the folder of its parts.
        columns: Columns of the file.
        repeated: Rows that duplicate an earlier pair.
        without_analysis: Rows without a pseudonym of the analysis.
        is_each_row_unique: Whether no two rows have the same pseudonym of the analysis.
        analyses: Distinct pseudonyms of analyses; those of a shared export are in its links.
        pseudonyms: These, and those of other identifiers.
        imaged: Distinct pseudonyms of analyses in rows with an image URL.
        texts: Distinct values of the other columns, as text, by column; those of rated items by the name of the items.
            Pseudonyms of items are left out: they contain digits of ids by chance.
    """

    manifest: Manifest
    storage: Storage
    path: Path
    columns: list[str]
    repeated: int
    without_analysis: int
    is_each_row_unique: bool
    analyses: pl.Series
    pseudonyms: pl.Series
    imaged: pl.Series
    texts: dict[str, pl.Series]

    @property
    def files(self) -> list[DataFile]:
        """Return its data file, or its parts."""
        return self.manifest.all("pairs")

    def find_files(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the name and the columns of each file with some of these columns; rated items have one of their own."""
        if columns := [name for name in names if name != self.manifest.items]:
            yield self.path.name, ", ".join(columns)
        if len(columns) < len(names):
            yield Path(self.manifest.all("items")[0].path).name, self.manifest.items

    @property
    def rows(self) -> pl.LazyFrame:
        """Scan all rows as text."""
        return scan_text(self.storage, self.manifest)


def read_contents(storage: Storage, manifest: Manifest) -> ExportContents | None:
    """Read the contents of an export; return None if one of its files is missing.

    Raises:
        ExportFileError: The file cannot be read.
    """
    links = read_links(storage, manifest)
    names = [file.path for kind in ("pairs", "items") for file in manifest.all(kind)]
    if not manifest.all("pairs") or storage.stat_files(names).keys() != {*names}:
        return None
    path = storage.local_path(manifest.data) or Path(manifest.data)
    try:
        rows = scan_text(storage, manifest)
        columns = rows.collect_schema().names()
        key = [name for name in manifest.schema.pair_key if name in columns]
        counts = rows.select(pl.len(), pl.struct(key).n_unique().alias("pairs"), pl.col("analysis_hash").null_count())
        rows_count, pairs, without_analysis = counts.collect().row(0)
        others = [name for name in columns if name not in ("feedback_timestamp", "export_date")]
        values = {name: rows.select(pl.col(name).drop_nulls().unique()).collect().to_series() for name in others}
        identifiers = [column.name for column in manifest.schema.all_columns if column.role == "identifier"]
        hashes = [values.pop(name) for name in ("analysis_hash", *identifiers)]
        values |= _read_unhashed(manifest, values)
        if manifest.all("items"):
            items = scan_item_rows(storage, manifest).select(pl.col(ITEM).unique())
            values[manifest.items] = items.collect().to_series().alias(manifest.items)
        imaged = hashes[0].clear()
        if IMAGE_URL.name in columns:
            imaged = rows.filter(pl.col(IMAGE_URL.name).is_not_null()).select("analysis_hash").collect().to_series()
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError):  # their messages may contain values
        raise ExportFileError(f"{path} cannot be read: it is damaged, or not what its name says.") from None
    pseudonyms = pl.concat([column.alias("pseudonym").cast(pl.String) for column in hashes]).unique()
    return ExportContents(
        manifest,
        storage,
        path,
        columns,
        rows_count - pairs,
        without_analysis,
        hashes[0].len() == rows_count,
        hashes[0] if links is None else links[LINKED].unique(),
        pseudonyms,
        imaged.unique(),
        values,
    )


def _read_unhashed(manifest: Manifest, values: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
    """Return the items that are not pseudonyms, by column; none of an export that keeps items."""
    if manifest.settings.get("recommendation_id") != "hash":
        return {}
    items = {name: values[name] for name in manifest.schema.item_columns if name in values}
    return {name: texts.filter(~texts.str.contains(PSEUDONYM_PATTERN)) for name, texts in items.items()}


def hash_by_key(analyses: Sequence[str], keys: Sequence[Key]) -> dict[str | None, pl.Series]:
    """Return the pseudonyms of analyses under each available key and without a key, by key id."""
    ids = pl.DataFrame({"analysis_id": analyses}, schema={"analysis_id": pl.String})
    choices: list[Key | None] = [None, *keys]
    return {
        get_key_id(key): ids.select(hash_id("analysis_id", key=key, unkeyed=key is None)).to_series() for key in choices
    }


def explain_unknown_pseudonyms(manifest: Manifest) -> str:
    """Return why ids cannot be looked up in an export, as a clause."""
    if manifest.scheme == UNKNOWN_SCHEME:
        return "its pseudonyms are of an unknown scheme"
    if name := manifest.overridden.get("hash_id"):
        return f"its pseudonyms are created by the application ({name})"
    return "its key is not available (--key-file)"


def find_problems(
    exports: Sequence[ExportContents], find_problem: Callable[[ExportContents], str], remedies: Remedies
) -> list[Finding]:
    """Return the problems of files; the remedy replaces the export."""
    return [
        Finding(f"{export.path.name} {problem}", remedies.replace(export.manifest))
        for export in exports
        if (problem := find_problem(export))
    ]
