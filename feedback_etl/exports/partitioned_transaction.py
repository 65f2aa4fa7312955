"""The transaction of a partitioned export: workers write parts, and the manifest, published last, commits them.

Until then the parts have their final names in `<stem>/`, where no reader takes them for an export. The name of a part
depends on its time range only, so that a range that was read twice is one part.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.folder_transaction import FolderTransaction
from feedback_etl.exports.layout import export_paths, part_folders, staged_path
from feedback_etl.exports.manifest import DataFile
from feedback_etl.exports.manifest_details import ManifestDetails, audit_summary
from feedback_etl.exports.recovery import remove_parts
from feedback_etl.exports.rewrite import remove_rows_from_part
from feedback_etl.storage.errors import explain_write_errors, refuse_links
from feedback_etl.storage.posix import (
    fsync_directory,
    link_exclusive,
    make_private_folder,
    unlink_if_ours,
)


class PartitionedExportTransaction(FolderTransaction):
    """Run an export whose parts workers write as a transaction: commit all parts or none.

    with PartitionedExportTransaction("ml/feedback_training", now, TransactionOptions(key=key)) as export:
        ...  # workers write parts at layout.part_path(export.stem, ...)
        export.commit(parts, facts)
    """

    def _names_of(self, stem: str) -> list[str]:
        return [*export_paths(stem), *part_folders(stem)]

    @property
    def _announced(self) -> list[str]:
        return part_folders(self.stem)

    def _begin(self) -> None:
        """Create the folders of the parts; workers create none, so that a late worker leaves nothing."""
        for folder in part_folders(self.stem):
            make_private_folder(self._folder / folder)

    def commit(self, parts: Sequence[DataFile], facts: ManifestDetails = ManifestDetails()) -> None:  # noqa: B008
        """Publish the manifest; without parts, publish nothing.

        Args:
            parts: What was written, in the order of the rows.
            facts: Details for the manifest.
        """
        with explain_write_errors(self._folder):
            if parts:
                self._require(parts)
                with self._locked():
                    self._check_preconditions()
                    if erased := self._list_erased():
                        is_erased = partial(self._is_erased, erased=erased)
                        parts = [remove_rows_from_part(self._storage, part, is_erased) for part in parts]
                    self._remove_all_but({part.path for part in parts})
                    self._give_name(parts, facts)
            else:
                self._end("committed", **audit_summary(self._build_manifest([], facts)))
        self._discard()

    def _require(self, parts: Sequence[DataFile]) -> None:
        """Require that the parts are in this folder, not on the disk of a worker."""
        missing = [part.path for part in parts if not _has_size(self._folder / part.path, part.bytes)]
        if missing:
            raise ExportFileError(
                f"{len(missing):,} of {len(parts):,} parts are not in {self._folder} as they were written: do all "
                "workers share it? Nothing was published."
            )

    def _give_name(self, parts: Sequence[DataFile], facts: ManifestDetails) -> None:
        manifest = self._build_manifest(list(parts), facts)
        self._manifest.write_anew(manifest.to_json().encode())
        try:
            refuse_links(self._manifest.path)
            link_exclusive(staged_path(self._manifest.path), self._manifest.path)
            fsync_directory(self._folder)
            self._is_published = True
            self._end("committed", **audit_summary(manifest))
        except BaseException:
            if not self._ended:
                self._is_published = False
                unlink_if_ours(staged_path(self._manifest.path), self._manifest.path)
            raise

    def _remove_all_but(self, names: set[str]) -> None:
        """Delete the parts of abandoned attempts and spooled rows."""
        for folder in part_folders(self.stem):
            for path in (self._folder / folder).glob("*"):
                if f"{folder}/{path.name}" not in names:
                    path.unlink(missing_ok=True)
            if (self._folder / folder).is_dir():
                fsync_directory(self._folder / folder)
                _remove_if_empty(self._folder / folder)

    def _discard(self) -> None:
        if self.stem and not self._is_published:
            with suppress(OSError):  # the next start removes what is left
                list(remove_parts(self._folder, self.stem))
        super()._discard()

    _is_published = False


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
