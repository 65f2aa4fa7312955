"""The files of an export: written privately under temporary names, then published whole or not at all.

1. Under the lock of the audit log, a stem is chosen that nothing uses, and its names are announced in a record.
2. Rows go to temporary files, 0600 from the first byte. That of the manifest is locked while its writer lives.
3. Complete and on disk, the files get their names by hard links, which never replace what is there; the manifest last.

Until the manifest has its name there is no export. Whatever fails or interrupts it before leaves the folder as it was;
what a kill leaves, `recovery` removes at the next start.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.exports.file_formats import Form
from feedback_etl.exports.layout import names_of, rejected_of, rows_of, spool_of, temporary
from feedback_etl.exports.manifest_details import Facts, told
from feedback_etl.exports.staged_file import Part
from feedback_etl.exports.transaction import BegunExport
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.errors import explained, refuse_links
from feedback_etl.storage.posix import give_name, sync_folder, take_name_back


class Published(NamedTuple):
    """Where the files of an export are; None for a file that was not needed."""

    pairs: Path | None
    rejected: Path | None


class ExportFiles(BegunExport):
    """The files of one export, as a context that leaves nothing half-done.

    with ExportFiles("ml/feedback_training", now, key=key) as files:
        files.append(pairs)
        published = files.publish(facts)
    """

    def __init__(
        self,
        folder: str | Path,
        now: datetime,
        *,
        key: Key | None = None,
        form: Form = Form(),  # noqa: B008  it cannot be changed
        contract: str = "",
        **how: Any,
    ) -> None:
        """Args are those of `BegunExport`, and:

        form: Of the data file.
        contract: What a Parquet file tells of its rows; a JSON Schema.
        """
        super().__init__(folder, now, key=key, **how)
        self._form = form
        metadata = {"feedback_etl.key_id": key.id if key else "", "feedback_etl.contract": contract}
        self._pairs = Part("pairs", form, metadata)
        self._rejected = Part("rejected", Form())
        self._remembered = Part("rows", Form())
        self._spool = Part("spool", Form("arrow"))

    @property
    def _parts(self) -> tuple[Part, ...]:
        """In the order in which they get their names; the manifest follows."""
        return self._remembered, self._rejected, self._pairs

    def _names_of(self, stem: str) -> list[str]:
        return names_of(stem)

    @property
    def _announced(self) -> list[str]:
        return [self._name_of(part) for part in self._parts]

    def _name_of(self, part: Part) -> str:
        if part is self._pairs:
            return f"{self.stem}{self._form.suffix}"
        names = {"rows": rows_of, "rejected": rejected_of, "spool": spool_of}
        return names[part.kind](self.stem)

    def _begin(self) -> None:
        for part in (*self._parts, self._spool):
            part.move(self._folder / self._name_of(part))

    def append(self, pairs: pl.DataFrame) -> None:
        """Add rows to the data file."""
        with explained(self._folder):
            self._pairs.append(pairs)

    def hold(self, pairs: pl.DataFrame) -> None:
        """Keep rows that may have to be left out, until `let_through`."""
        with explained(self._folder):
            self._spool.append(pairs)

    def let_through(self, chosen: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Add what is chosen of the rows that were held to the data file."""
        with explained(self._folder):
            for pairs in self._spool.frames():
                self._pairs.append(chosen(pairs))
            self._spool.discard()

    def reject(self, rows: pl.DataFrame) -> None:
        """Add rows to the list of the rejected; the file is made with the first."""
        with explained(self._rejected.path.parent):
            self._rejected.append(rows)

    def remember(self, rows: pl.DataFrame) -> None:
        """Digests of rows that were read, for the next export of the chain."""
        with explained(self._folder):
            self._remembered.append(rows)

    def publish(self, facts: Facts = Facts()) -> Published:  # noqa: B008
        """Give the files their final names, the manifest last; without rows there is nothing to name."""
        written = [part for part in self._parts if part.rows]
        with explained(self._folder):
            for part in written:
                part.complete()
            if self._pairs.rows or self._rejected.rows:
                with self._locked():
                    self._look_again()
                    if forgotten := self._forgotten_meanwhile():
                        for part in written:
                            part.forget(forgotten)
                    self._give_names(written, facts)
            else:
                self._end("committed", **told(self._described([], facts)))
        self._discard()
        return Published(
            self._pairs.path if self._pairs.rows else None, self._rejected.path if self._rejected.rows else None
        )

    def _give_names(self, written: list[Part], facts: Facts) -> None:
        """Name all files under one stem, or none of them; if others have taken a name, under the next stem."""
        while True:
            manifest = self._described([part.described(self._folder) for part in written], facts)
            self._manifest.write_anew(manifest.to_json().encode())
            try:
                for part in (*written, self._manifest):
                    refuse_links(part.path)
                    give_name(temporary(part.path), part.path)
                    sync_folder(part.path.parent)
                self._end("committed", **told(manifest))
            except BaseException as error:
                if self._ended:  # interrupted when it was done
                    raise
                for part in (self._manifest, *written):
                    take_name_back(temporary(part.path), part.path)
                if not isinstance(error, FileExistsError):
                    raise
            else:
                return
            with self._log.locked() as log:
                self._announce(log)

    def _discard(self) -> None:
        for part in (*self._parts, self._spool):
            part.discard()
        super()._discard()
