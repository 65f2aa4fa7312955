"""Exports in parts for tests: rows of real exports, put into an object store or a folder."""

import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from databases import Database
from folders import NOW, exported
from pseudonym_keys import KEY

from feedback_etl.data_files.row_filter import list_pseudonyms, write_without
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import part_path, rejected_part_path
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.records.manifest_details import ManifestDetails
from feedback_etl.records.tombstones import Tombstones, hash_identity
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.storage.posix import hash_file

ROWS_OF_A_PART = 4


class LocalParts:
    """The files of a local export of a database, as parts on this machine."""

    def __init__(self, database: Database, folder: Path, **options: Any) -> None:
        self.now: datetime = options.get("now", NOW)
        exported(database, folder, **{"format": "parquet"} | options)
        (self.manifest,) = list_manifests(folder)
        self.folder = folder

    @property
    def pairs(self) -> list[Path]:
        """The pairs: a Parquet file is cut into several."""
        path = self.folder / self.manifest.all("pairs")[0].path
        if path.suffix != ".parquet":
            return [path]
        frames, made = pl.read_parquet(path).iter_slices(ROWS_OF_A_PART), []
        for number, frame in enumerate(frames):
            made.append(path.with_name(f"part-{number}.parquet"))
            frame.write_parquet(made[-1])
        return made

    @property
    def rejected(self) -> list[Path]:
        """The list of rejected rows."""
        return [self.folder / file.path for file in self.manifest.all("rejected")]

    @property
    def details(self) -> ManifestDetails:
        """The details of its manifest."""
        manifest: Manifest = self.manifest
        window = [datetime.fromisoformat(end) if end else None for end in manifest.window]
        end = window[1]
        assert end
        return ManifestDetails(
            "full", (window[0], end), manifest.settings, manifest.statistics, manifest.source, risk=manifest.risk
        )

    def without_erased(self, tombstones: Sequence[Tombstones]) -> "LocalParts":
        """Remove the rows of erased people, as workers do."""
        digests = {pseudonym: erased.key for erased in tombstones for pseudonym in erased.pseudonyms}
        for file in self.manifest.files:
            path = self.folder / file.path
            present = list_pseudonyms(path, path.name)
            unwanted = {
                pseudonym
                for pseudonym in present
                for key in digests.values()
                if hash_identity("pseudonym", pseudonym, key) in digests
            }
            content = io.BytesIO()
            write_without(path, path.name, unwanted, content)
            path.write_bytes(content.getvalue())
        return self

    def put(self, storage: LocalStorage | ObjectStorage, stem: str) -> list[DataFile]:
        """Put the parts, as workers do."""
        suffix = "".join(self.pairs[0].suffixes)
        names = [(part_path(stem, number, suffix), path) for number, path in enumerate(self.pairs)]
        names += [(rejected_part_path(stem, number), path) for number, path in enumerate(self.rejected)]
        for name, path in names:
            with storage.staging_path(name) as draft:
                draft.write_bytes(path.read_bytes())
                draft.chmod(0o600)
                storage.put_new(name, draft)
        return [_describe(name, path) for name, path in names]


def _describe(name: str, path: Path) -> DataFile:
    kind = "rejected" if name.startswith("rejected") else "pairs"
    parquet = path.suffix == ".parquet"
    rows = pl.scan_parquet(path) if parquet else pl.scan_csv(path, infer_schema=False)
    return DataFile(name, kind, rows.select(pl.len()).collect().item(), path.stat().st_size, hash_file(path))


def export_parts(database: Database, url: str, **options: Any) -> str:
    """Export everything in parts to an object store; return the stem."""
    with TemporaryDirectory() as folder:
        local_parts = LocalParts(database, Path(folder) / "exports", **options)
        bucket = ObjectStorage(url)
        transaction = TransactionOptions(key=Key(options.get("key", KEY)), allow_new_key=True)
        with ExportTransaction(bucket, local_parts.now, transaction) as export:
            remaining = local_parts.without_erased(export.tombstones)
            export.commit(remaining.put(bucket, export.stem), local_parts.details)
        return export.stem


def read_pairs(bucket: ObjectStorage, files: Sequence[DataFile]) -> pl.DataFrame:
    """Read the rows of parts as text."""
    frames = []
    for file in files:
        with bucket.local_copy(file.path) as path:
            parquet = path.suffix == ".parquet"
            frames.append(pl.read_parquet(path).cast(pl.String) if parquet else pl.read_csv(path, infer_schema=False))
    return pl.concat(frames)
