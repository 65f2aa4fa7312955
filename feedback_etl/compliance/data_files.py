"""What the data file of an export contains, as far as it is tested."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from feedback_etl.columns import IMAGE_URL
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.exports.text_scan import scan_text
from feedback_etl.storage.base import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.transform.transforms import PAIR_KEY


class Written(NamedTuple):
    """What the data file of an export holds.

    Attributes:
        manifest: Of the export.
        place: Where it is.
        path: Of the file, or of the folder of its parts.
        columns: Its columns.
        repeated: Rows that are the same feedback as an earlier one.
        without_analysis: Rows without a pseudonym of the analysis.
        analyses: The pseudonyms of analyses, each once.
        pseudonyms: These, and those of whatever else is an identifier.
        imaged: The pseudonyms of analyses in rows with the URL of an image.
        texts: The distinct values of its other columns of text, by column.
    """

    manifest: Manifest
    place: LocalStorage | ObjectStorage
    path: Path
    columns: list[str]
    repeated: int
    without_analysis: int
    analyses: pl.Series
    pseudonyms: pl.Series
    imaged: pl.Series
    texts: dict[str, pl.Series]

    @property
    def files(self) -> list[DataFile]:
        """Its data file, or its parts."""
        return self.manifest.all("pairs")

    @property
    def rows(self) -> pl.LazyFrame:
        """All of it, as text."""
        return scan_text(self.place, self.manifest)


def written(place: LocalStorage | ObjectStorage, manifest: Manifest) -> Written | None:
    """What an export holds; None where a file of it is gone.

    Raises:
        ExportFileError: The file cannot be read.
    """
    names = [file.path for file in manifest.all("pairs")]
    if not names or place.present(names) != {*names}:
        return None
    path = Path(manifest.data) if isinstance(place, ObjectStorage) else place.path / manifest.data
    try:
        rows = scan_text(place, manifest)
        columns = rows.collect_schema().names()
        key = [name for name in PAIR_KEY if name in columns]
        counts = rows.select(pl.len(), pl.struct(key).n_unique().alias("pairs"), pl.col("analysis_hash").null_count())
        height, pairs, nameless = counts.collect().row(0)
        others = [name for name in columns if name not in ("feedback_timestamp", "export_date")]
        values = {name: rows.select(pl.col(name).drop_nulls().unique()).collect().to_series() for name in others}
        identifiers = [name for name, role, _ in manifest.settings.get("extra_columns", []) if role == "identifier"]
        hashes = [values.pop(name) for name in ("analysis_hash", *identifiers)]
        imaged = hashes[0].clear()
        if IMAGE_URL.name in columns:
            imaged = rows.filter(pl.col(IMAGE_URL.name).is_not_null()).select("analysis_hash").collect().to_series()
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError):  # whose texts may hold values
        raise ExportFileError(f"{path} cannot be read: it is damaged, or not what its name says.") from None
    pseudonyms = pl.concat([each.alias("pseudonym").cast(pl.String) for each in hashes]).unique()
    return Written(
        manifest, place, path, columns, height - pairs, nameless, hashes[0], pseudonyms, imaged.unique(), values
    )


def unknown_pseudonyms(manifest: Manifest) -> str:
    """Return why nobody can be looked up by their id in an export."""
    if name := manifest.overridden.get("hash_id"):
        return f"its pseudonyms are made by the application itself ({name})"
    return "its key is not at hand (--key-file)"
