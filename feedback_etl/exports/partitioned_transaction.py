"""An export in parts: others write them into its folder, and a manifest, published last, makes them an export.

Until then the parts lie under their final names in `<stem>/`, where nobody takes them for an export. A part's name
follows from the range of time it holds, so that a range that was read twice is one part.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.layout import folders_of, names_of, temporary
from feedback_etl.exports.manifest import DataFile
from feedback_etl.exports.manifest_details import Facts, told
from feedback_etl.exports.recovery import cleared_parts
from feedback_etl.exports.row_filter import pseudonyms_in, write_without
from feedback_etl.exports.transaction import BegunExport
from feedback_etl.storage.errors import explained, refuse_links
from feedback_etl.storage.posix import (
    create_private_file,
    give_name,
    make_private_folder,
    sync_folder,
    take_name_back,
    temporary_path,
)


class PartedExport(BegunExport):
    """An export whose parts others write, as a context that leaves nothing half-done.

    with PartedExport("ml/feedback_training", now, key=key) as export:
        ...  # parts come to be under names.part_of(export.stem, ...)
        export.publish(parts, facts)
    """

    def _names_of(self, stem: str) -> list[str]:
        return [*names_of(stem), *folders_of(stem)]

    @property
    def _announced(self) -> list[str]:
        return folders_of(self.stem)

    def _begin(self) -> None:
        """Workers write into these folders, and make none: what comes too late finds none, and leaves nothing."""
        for folder in folders_of(self.stem):
            make_private_folder(self._folder / folder)

    def publish(self, parts: Sequence[DataFile], facts: Facts = Facts()) -> None:  # noqa: B008
        """Give the manifest its name; without parts there is nothing to publish.

        Args:
            parts: What was written, in the order of the rows.
            facts: What the manifest tells.
        """
        with explained(self._folder):
            if parts:
                self._require(parts)
                with self._locked():
                    self._look_again()
                    if forgotten := self._forgotten_meanwhile():
                        parts = [self._without(part, forgotten) for part in parts]
                    self._remove_all_but({part.path for part in parts})
                    self._give_name(parts, facts)
            else:
                self._end("committed", **told(self._described([], facts)))
        self._discard()

    def _require(self, parts: Sequence[DataFile]) -> None:
        """Make sure that they are here, and not on some worker's own disk."""
        missing = [part.path for part in parts if not _has_size(self._folder / part.path, part.bytes)]
        if missing:
            raise ExportFileError(
                f"{len(missing):,} of {len(parts):,} parts are not in {self._folder} as they were written: do all "
                "workers share it? Nothing was published."
            )

    def _give_name(self, parts: Sequence[DataFile], facts: Facts) -> None:
        manifest = self._described(list(parts), facts)
        self._manifest.write_anew(manifest.to_json().encode())
        try:
            refuse_links(self._manifest.path)
            give_name(temporary(self._manifest.path), self._manifest.path)
            sync_folder(self._folder)
            self._is_published = True
            self._end("committed", **told(manifest))
        except BaseException:
            if not self._ended:
                self._is_published = False
                take_name_back(temporary(self._manifest.path), self._manifest.path)
            raise

    def _without(self, part: DataFile, forgotten: Callable[[str], bool]) -> DataFile:
        """A part, written anew where it holds rows of pseudonyms that are to be forgotten."""
        path = self._folder / part.path
        unwanted = {each for each in pseudonyms_in(path, path.name) if forgotten(each)}
        if not unwanted:
            return part
        new = temporary_path(path.parent, path.name)
        try:
            with create_private_file(new) as file:
                written, rows = write_without(path, path.name, unwanted, file)
                file.sync(written.bytes, written.sha256)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        return replace(part, rows=rows, bytes=written.bytes, sha256=written.sha256)

    def _remove_all_but(self, names: set[str]) -> None:
        """What attempts that were given up have left, and what waited to be let through."""
        for folder in folders_of(self.stem):
            for path in (self._folder / folder).glob("*"):
                if f"{folder}/{path.name}" not in names:
                    path.unlink(missing_ok=True)
            if (self._folder / folder).is_dir():
                sync_folder(self._folder / folder)
                _remove_if_empty(self._folder / folder)

    def _discard(self) -> None:
        if self.stem and not self._is_published:
            with suppress(OSError):  # the next start removes what is left
                list(cleared_parts(self._folder, self.stem))
        super()._discard()

    _is_published = False


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
