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


class Rows:
    """What a local export of a database has made, as parts on this machine."""

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
    def facts(self) -> ManifestDetails:
        """What is told of it."""
        told: Manifest = self.manifest
        window = [datetime.fromisoformat(end) if end else None for end in told.window]
        end = window[1]
        assert end
        return ManifestDetails("full", (window[0], end), told.settings, told.statistics, told.source, risk=told.risk)

    def without(self, forgotten: Sequence[Tombstones]) -> "Rows":
        """The same without whom the place has forgotten, as workers read it."""
        digests = {each: tombstones.key for tombstones in forgotten for each in tombstones.pseudonyms}
        for file in self.manifest.files:
            path = self.folder / file.path
            there = list_pseudonyms(path, path.name)
            unwanted = {
                each for each in there for key in digests.values() if hash_identity("pseudonym", each, key) in digests
            }
            content = io.BytesIO()
            write_without(path, path.name, unwanted, content)
            path.write_bytes(content.getvalue())
        return self

    def put(self, place: LocalStorage | ObjectStorage, stem: str) -> list[DataFile]:
        """Put the parts, as workers do."""
        suffix = "".join(self.pairs[0].suffixes)
        names = [(part_path(stem, number, suffix), path) for number, path in enumerate(self.pairs)]
        names += [(rejected_part_path(stem, number), path) for number, path in enumerate(self.rejected)]
        for name, path in names:
            with place.staging_path(name) as draft:
                draft.write_bytes(path.read_bytes())
                draft.chmod(0o600)
                place.put_new(name, draft)
        return [_described(name, path) for name, path in names]


def _described(name: str, path: Path) -> DataFile:
    kind = "rejected" if name.startswith("rejected") else "pairs"
    parquet = path.suffix == ".parquet"
    rows = pl.scan_parquet(path) if parquet else pl.scan_csv(path, infer_schema=False)
    return DataFile(name, kind, rows.select(pl.len()).collect().item(), path.stat().st_size, hash_file(path))


def stored(database: Database, where: str, **options: Any) -> str:
    """An export of everything in an object store; its stem."""
    with TemporaryDirectory() as folder:
        rows = Rows(database, Path(folder) / "exports", **options)
        bucket = ObjectStorage(where)
        transaction = TransactionOptions(key=Key(options.get("key", KEY)), allow_new_key=True)
        with ExportTransaction(bucket, rows.now, transaction) as export:
            export.commit(rows.without(export.tombstones).put(bucket, export.stem), rows.facts)
        return export.stem


def pairs_in(bucket: ObjectStorage, files: Sequence[DataFile]) -> pl.DataFrame:
    """The rows of parts, as text."""
    frames = []
    for file in files:
        with bucket.local_copy(file.path) as path:
            parquet = path.suffix == ".parquet"
            frames.append(pl.read_parquet(path).cast(pl.String) if parquet else pl.read_csv(path, infer_schema=False))
    return pl.concat(frames)
