"""Write training pairs that an application created itself, for the classic API."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from feedback_etl.clock import resolve_now
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.records.manifest_details import ManifestDetails
from feedback_etl.schema.feedback_columns import AGE_EDGES
from feedback_etl.transform.expressions import age_ranges
from feedback_etl.transform.overrides import Overrides
from feedback_etl.transform.pairs import FeedbackTrainingPair, to_frame
from feedback_etl.transform.training_schema import PSEUDONYM_PATTERN, validate_classic

_ORIGIN = "feedback_etl.processor.FeedbackProcessor._export_to_csv"
"""The function that manifests record for pseudonyms and labels of an unknown origin."""


def write_pairs(
    pairs: Sequence[FeedbackTrainingPair],
    output_dir: str | Path,
    options: TransactionOptions,
    age_edges: tuple[int, ...],
    overrides: Overrides,
) -> str:
    """Write pairs unchanged as an export, and return the path of the file.

    Raises:
        ValidationError: A value is of another type, a rating is out of range, or a text would run as a formula.
        ExportFileError: The folder cannot be used.
    """
    frame = validate_classic(to_frame(pairs))
    settings = _build_manifest_settings(frame, age_edges, overrides)
    options = replace(options, own_pseudonyms="hash_id" in settings.get("overridden", {}))
    with ExportTransaction(output_dir, resolve_now(), options, form=FileFormat()) as files:
        files.write(frame)
        details = ManifestDetails("classic", settings=settings, statistics={"exported_records": frame.height})
        return str(files.commit(details=details).pairs)


def _build_manifest_settings(frame: pl.DataFrame, age_edges: tuple[int, ...], overrides: Overrides) -> dict[str, Any]:
    """Return the settings that a manifest records of given pairs: the origin of their pseudonyms and labels."""
    overridden = {name: origin for name, origin in overrides.names().items() if name in ("hash_id", "bucket_age")}
    if not frame["analysis_hash"].str.contains(PSEUDONYM_PATTERN).all():
        overridden.setdefault("hash_id", _ORIGIN)
    if not frame["age_range"].drop_nulls().is_in(age_ranges(age_edges).categories.implode()).all():
        overridden.setdefault("bucket_age", _ORIGIN)
    settings: dict[str, Any] = {"overridden": overridden} if overridden else {}
    return settings | ({"age_edges": list(age_edges)} if age_edges != AGE_EDGES else {})
