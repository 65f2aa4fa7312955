"""The files of an export: written privately under temporary names, then published whole or not at all.

1. Under the lock of the audit log, a stem is chosen that nothing uses, and its names are announced in a record.
2. Rows go to temporary files, 0600 from the first byte. That of the manifest is locked while its writer lives.
3. Complete and on disk, the files get their names by hard links, which never replace what is there; the manifest last.

Until the manifest has its name there is no export. Whatever fails or interrupts it before leaves the folder as it was;
what a kill leaves, `recovery` removes at the next start.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import polars as pl

from feedback_etl.errors import ExportFileError, FolderLocked
from feedback_etl.exports.audit import LOG_TIMEOUT, AuditLog, OpenLog
from feedback_etl.exports.facts import Facts, described, told
from feedback_etl.exports.failures import explained, refuse_links
from feedback_etl.exports.lock import LOCK_TIMEOUT, locked
from feedback_etl.exports.manifest import Manifest
from feedback_etl.exports.names import (
    REJECTED_FOLDER,
    STATE_FOLDER,
    manifest_of,
    names_of,
    rejected_of,
    rewritten,
    rows_of,
    spool_of,
    stems,
    temporary,
)
from feedback_etl.exports.one_key import require_same_key
from feedback_etl.exports.output import Form
from feedback_etl.exports.part import Part
from feedback_etl.exports.recovery import clear_rewritten, recover
from feedback_etl.exports.same_consent import require_consent
from feedback_etl.exports.tombstones import (
    Tombstones,
    digest,
    erasures_in,
    forgotten_since,
    last_state,
    read_tombstones,
    require_state,
)
from feedback_etl.privacy.keys import Key
from feedback_etl.private_files import (
    give_name,
    make_private_folder,
    sync_folder,
    take_name_back,
)


class Published(NamedTuple):
    """Where the files of an export are; None for a file that was not needed."""

    pairs: Path | None
    rejected: Path | None


class ExportFiles:
    """The files of one export, as a context that leaves nothing half-done.

    with ExportFiles("ml/feedback_training", now, key=key) as files:
        files.append(pairs)
        published = files.publish(facts)

    Every method raises ExportFileError if a folder or a file cannot be used (the message says which and why), and
    FolderLocked if others use the folder for too long.
    """

    def __init__(
        self,
        folder: str | Path,
        now: datetime,
        *,
        key: Key | None = None,
        form: Form = Form(),  # noqa: B008  it cannot be changed
        contract: str = "",
        new_key: bool = False,
        known_keys: Callable[[], Sequence[Key]] = list,
        consent: Sequence[str] = (),
        plan: Mapping[str, Any] = MappingProxyType({}),
        lock_timeout: float | None = LOCK_TIMEOUT,
    ) -> None:
        """Args are those of `export_feedback`, and:

        contract: What a Parquet file tells of its rows; a JSON Schema.
        known_keys: Gives other keys, under which people may have been forgotten; called if there are any such.
        consent: The columns by which people were left out.
        plan: What the log tells of the run when it begins.
        lock_timeout: None where the caller holds the folder's lock.
        """
        self._folder = Path(folder)
        self._now, self._key, self._new_key, self._form, self._lock_timeout = now, key, new_key, form, lock_timeout
        self._log = AuditLog(self._folder)
        self._run = secrets.token_hex(8)
        self._stem = ""
        metadata = {"feedback_etl.key_id": key.id if key else "", "feedback_etl.contract": contract}
        self._pairs = Part("pairs", form, metadata)
        self._rejected = Part("rejected", Form())
        self._remembered = Part("rows", Form())
        self._manifest = Part("manifest", Form())
        self._spool = Part("spool", Form("arrow"))
        self._ended = True
        self.audit_head = ""
        self._has_forgotten = False
        self._consent = list(consent)
        self._known_keys, self._plan, self._erasures = known_keys, plan, frozenset[str]()
        self.forgotten: list[Tombstones] = []

    def __enter__(self) -> Self:
        try:
            with explained(self._folder):
                make_private_folder(self._folder)
                with self._log.locked() as log:
                    recover(self._folder, log, self._key)
                    require_same_key(self._folder, log, self._key, new_key=self._new_key)
                    require_consent(self._folder, log, self._consent)
                    require_state(self._folder, last_state(log.records()))
                    self._erasures = erasures_in(self._folder)
                    if self._erasures:
                        self.forgotten = read_tombstones(self._folder, [self._key, *self._known_keys()])
                    self._announce(log)
            return self
        except BaseException as error:
            self._leave(type(error))
            raise

    def _announce(self, log: OpenLog) -> None:
        """Choose a stem, record it, and take it by making the manifest's temporary file."""
        refuse_links(*(self._folder / name for name in (REJECTED_FOLDER, STATE_FOLDER)))
        for stem in stems(self._now):
            paths = [self._folder / name for name in names_of(stem)]
            refuse_links(*paths)
            if not any(os.path.lexists(name) for path in paths for name in (path, temporary(path), rewritten(path))):
                self._stem = stem
                log.append("started", self._key, run=self._run, stem=stem, names=self._names, **self._plan)
                self._ended = False
                for part in (*self._parts, self._spool):
                    part.move(self._folder / self._name_of(part))
                self._manifest.open()
                return
        raise ExportFileError(f"{self._folder} holds too many exports of this second; no name is left.")

    @property
    def _parts(self) -> tuple[Part, ...]:
        """In the order in which they get their names: the manifest last."""
        return self._remembered, self._rejected, self._pairs, self._manifest

    def _name_of(self, part: Part) -> str:
        if part is self._pairs:
            return f"{self._stem}{self._form.suffix}"
        names = {"rows": rows_of, "rejected": rejected_of, "manifest": manifest_of, "spool": spool_of}
        return names[part.kind](self._stem)

    @property
    def _names(self) -> list[str]:
        return [self._name_of(part) for part in self._parts]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(kind)

    def _leave(self, kind: type[BaseException] | None) -> None:
        """Leave nothing but what was published, and record how it ended."""
        try:
            self._discard()
        except BaseException:  # an interrupt may come at any point
            self._discard()
            raise
        finally:
            if not self._ended:
                with suppress(OSError, FolderLocked):  # the next start records it
                    self._end("failed", timeout=1, error=kind.__name__ if kind else "nothing was published")

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
                with nullcontext() if self._lock_timeout is None else locked(self._folder, self._lock_timeout):
                    with self._log.locked() as log:
                        require_same_key(self._folder, log, self._key, new_key=self._new_key)
                        self._require_no_sweep(log)
                        clear_rewritten(self._folder, log)
                    self._forget(written)
                    self._give_names(written, facts)
            else:
                self._end("committed", **told(self._described([], facts)))
        self._discard()
        return Published(
            self._pairs.path if self._pairs.rows else None, self._rejected.path if self._rejected.rows else None
        )

    def _forget(self, written: list[Part]) -> None:
        """Leave out who was erased since the rows were read."""
        new = forgotten_since(self._folder, self._erasures, self._key)
        if new:
            self._has_forgotten = True
            for part in written:
                part.forget(lambda pseudonym: digest("pseudonym", pseudonym, self._key) in new)

    def _require_no_sweep(self, log: OpenLog) -> None:
        """A sweep compares what is published with the database; what is under way would pass it by."""
        started = False
        for record in log.records():
            started = started or record.get("run") == self._run
            if not (started and record.get("swept")):
                continue
            raise ExportFileError("Meanwhile the folder was swept (erase --not-in-database): run again.")

    def _give_names(self, written: list[Part], facts: Facts) -> None:
        """Name all files under one stem, or none of them; if others have taken a name, under the next stem."""
        while True:
            manifest = self._described(written, facts)
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

    def _described(self, written: list[Part], facts: Facts) -> Manifest:
        files = [part.described(self._folder) for part in written]
        stale = {"stale": True} if self._has_forgotten and facts.risk else {}
        facts = facts._replace(consent=self._consent, risk=facts.risk | stale)
        return described(facts, self._stem, self._run, self._now, self._key, files, self._log.head())

    def _end(self, event: str, /, timeout: float = LOG_TIMEOUT, **facts: Any) -> None:
        """Record how the run ended."""
        with self._log.locked(timeout) as log:
            self.audit_head = log.append(event, self._key, run=self._run, stem=self._stem, **facts)
        self._ended = True

    def _discard(self) -> None:
        for part in (*self._parts, self._spool):
            part.discard()
