"""The files of an export: written privately under temporary names, then published whole or not at all.

1. Under the lock of the audit log, a stem is chosen that nothing uses, and its names are announced in a record.
2. Rows go to temporary files, 0600 from the first byte. That of the manifest is locked while its writer lives.
3. Complete and on disk, the files get their names by hard links, which never replace what is there; the manifest last.

Until the manifest has its name there is no export. Whatever fails or interrupts it before leaves the folder as it was;
what a kill leaves, `recovery` removes at the next start.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl

from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.folder_transaction import FolderTransaction
from feedback_etl.exports.layout import export_paths, rejected_path, seen_rows_path, spool_path
from feedback_etl.exports.manifest_details import ManifestDetails, audit_summary
from feedback_etl.exports.staged_file import StagedFile
from feedback_etl.exports.transaction import TransactionOptions
from feedback_etl.storage.errors import explain_write_errors


class CommittedFiles(NamedTuple):
    """Contain the paths of the files of an export; None for a file without rows."""

    pairs: Path | None
    rejected: Path | None


class LocalExportTransaction(FolderTransaction):
    """Run an export to local files as a transaction: commit all files or none.

    with LocalExportTransaction("ml/feedback_training", now, TransactionOptions(key=key)) as files:
        files.write(pairs)
        published = files.commit(details)
    """

    def __init__(
        self,
        folder: str | Path,
        now: datetime,
        options: TransactionOptions = TransactionOptions(),  # noqa: B008  frozen
        *,
        form: FileFormat = FileFormat(),  # noqa: B008  frozen
        contract: str = "",
    ) -> None:
        """Take the arguments of `FolderTransaction` and those below.

        form: The format of the data file.
        contract: The JSON Schema of the rows, stored in the metadata of a Parquet file.
        """
        super().__init__(folder, now, options)
        self._form = form
        metadata = {"feedback_etl.key_id": self._key.id if self._key else "", "feedback_etl.contract": contract}
        self._pairs = StagedFile("pairs", form, metadata)
        self._rejected = StagedFile("rejected", FileFormat())
        self._remembered = StagedFile("rows", FileFormat())
        self._spool = StagedFile("spool", FileFormat("arrow"))

    @property
    def _parts(self) -> tuple[StagedFile, ...]:
        """Return the staged files in the order of publication; the manifest follows."""
        return self._remembered, self._rejected, self._pairs

    def _names_of(self, stem: str) -> list[str]:
        return export_paths(stem)

    @property
    def _announced(self) -> list[str]:
        return [self._name_of(part) for part in self._parts]

    def _name_of(self, part: StagedFile) -> str:
        if part is self._pairs:
            return f"{self.stem}{self._form.suffix}"
        names = {"rows": seen_rows_path, "rejected": rejected_path, "spool": spool_path}
        return names[part.kind](self.stem)

    def _begin(self) -> None:
        for part in (*self._parts, self._spool):
            part.move(self._folder / self._name_of(part))

    def write(self, pairs: pl.DataFrame) -> None:
        """Add rows to the data file."""
        with explain_write_errors(self._folder):
            self._pairs.append(pairs)

    @property
    def escaped_texts(self) -> dict[str, int]:
        """Return the number of escaped texts in the data file by column."""
        return self._pairs.escaped_texts

    def spool(self, pairs: pl.DataFrame) -> None:
        """Spool rows that may have to be suppressed, until `release_spooled`."""
        with explain_write_errors(self._folder):
            self._spool.append(pairs)

    def release_spooled(self, chosen: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Add the spooled rows that `chosen` keeps to the data file."""
        with explain_write_errors(self._folder):
            for pairs in self._spool.frames():
                self._pairs.append(chosen(pairs))
            self._spool.discard()

    def write_rejected(self, rows: pl.DataFrame) -> None:
        """Add rows to the list of rejected rows, which the first of them creates."""
        with explain_write_errors(self._rejected.path.parent):
            self._rejected.append(rows)

    def write_seen_rows(self, rows: pl.DataFrame) -> None:
        """Add digests of rows that were read, for the next export of the series."""
        with explain_write_errors(self._folder):
            self._remembered.append(rows)

    def commit(self, details: ManifestDetails = ManifestDetails()) -> CommittedFiles:  # noqa: B008
        """Publish the files under their final names, the manifest last; without rows, publish nothing."""
        written = [part for part in self._parts if part.rows]
        with explain_write_errors(self._folder):
            for part in written:
                part.complete()
            if self._pairs.rows or self._rejected.rows:
                with self._locked():
                    self._check_preconditions()
                    if erased := self._list_erased():
                        for part in written:
                            part.remove_rows(partial(self._is_erased, erased=erased))
                    self._publish_with_free_stem(written, details)
            else:
                self._end("committed", **audit_summary(self._build_manifest([], details)))
        self._discard()
        return CommittedFiles(
            self._pairs.path if self._pairs.rows else None, self._rejected.path if self._rejected.rows else None
        )

    def _publish_with_free_stem(self, written: list[StagedFile], details: ManifestDetails) -> None:
        """Publish all files under one stem, or none; if a name is taken, retry with the next stem."""
        while True:
            files = [part.described(self._folder) for part in written]
            try:
                self._publish(written, self._build_manifest(files, details))
                break
            except FileExistsError:
                if self._ended:
                    raise
            with self._log.lock() as log:
                self._announce(log)

    def _discard(self) -> None:
        for part in (*self._parts, self._spool):
            part.discard()
        super()._discard()
