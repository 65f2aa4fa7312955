"""Commands that fix what the checklist reports, as they are typed in a shell."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from feedback_etl.database.cursor_name import CREATED_AT, UPDATED_AT
from feedback_etl.database.files_prefix import FILES_PREFIX
from feedback_etl.options.quality import QualityOptions
from feedback_etl.options.sharing import SHARED_PRECISIONS
from feedback_etl.records.manifest import Manifest
from feedback_etl.schema.model import IMAGE_URL, SUBJECT_HASH
from feedback_etl.settings.model import Settings
from feedback_etl.transform.expressions import PSEUDONYM_LENGTH

SET_DATABASE = "set FEEDBACK_ETL_DATABASE_URL"

_SHARED_TIME = "feedback_timestamp"
"""Quasi-identifier that only `--share` adds."""

_UNKNOWN_RECIPIENT = "unknown"
"""The recipient of exports that were shared before recipients had names."""


@dataclass(frozen=True)
class Remedies:
    """Commands for a folder of exports.

    Attributes:
        settings: Settings of the folder, as the checklist uses them.
        has_key: Whether a key is configured.
        is_new_key: Whether it differs from the key of the newest export.
    """

    settings: Settings
    has_key: bool = True
    is_new_key: bool = False

    @property
    def reads_files(self) -> bool:
        """Whether the database is a set of raw files."""
        url = self.settings.database_url
        return url is not None and url.get_secret_value().startswith(FILES_PREFIX)

    def command(self, *words: str) -> str:
        """Return a command for the folder.

        >>> from pathlib import Path
        >>> Remedies(Settings(output_dir=Path("my exports"))).command("prune", "--keep-days", "90")
        "feedback-etl prune --keep-days 90 'my exports'"
        """
        return shlex.join(["feedback-etl", *words, str(self.settings.output_dir)])

    def export(self, *options: str) -> str:
        """Return a command that exports into the folder."""
        return self.command("export", *options, "--output")

    def remove(self, stems: Iterable[str]) -> str:
        """Return the command that removes the files of exports and marks their manifests as pruned."""
        return self.command("prune", *(word for stem in stems for word in ("--export", stem)))

    def pass_key(self) -> str:
        """Return the command that repeats the checklist with another key; the user names its file."""
        return self.command("check", "--key-file", "FILE")

    def sweep(self) -> str:
        """Return the command that erases everyone who is not in the database, or not with consent.

        Files may contain a part of the people, and who is to be erased has to be named.
        """
        if self.reads_files:
            return self.command("erase", "--user-ids-file", "FILE")
        return self.command("erase", "--not-in-database", *self._query())

    def keep_k(self) -> str:
        """Return the command that removes the classes that erasures left smaller than k."""
        return self.command("erase", "--keep-k", *self._query())

    def replace(self, manifest: Manifest, **changes: Any) -> str:
        """Return the commands that export the window of an export again with its options, and then remove it.

        Args:
            manifest: Manifest of the export.
            changes: Values of options that differ from those of the export, by name; see `_list_options`.
        """
        options = self._list_options(manifest) | {
            f"--{name.replace('_', '-')}": value for name, value in changes.items()
        }
        return f"{self.export(*_list_words(options))}\n{self.remove([manifest.stem])}"

    def replace_texts(self, manifest: Manifest, names: Iterable[str], **changes: Any) -> str:
        """Return the commands that replace an export with faulty texts, without rated items if these are among them.

        Args:
            manifest: Manifest of the export.
            names: The columns and items with texts that must not be published.
            changes: See `replace`.
        """
        items = manifest.items
        if items not in names:
            return self.replace(manifest, **changes)
        keep = f"to keep {items}, correct it in {self.data} and add --items {items} to the export"
        return f"{keep}\n{self.replace(manifest, items=None, **changes)}"

    @property
    def select_others(self) -> str:
        """What exports other values, as a clause."""
        source = self.settings.source
        if source is None:
            return "select other values with --query"
        return "select other values in the query of [source]" if source.query else "declare another column of [source]"

    @property
    def data(self) -> str:
        """Where texts are corrected."""
        return "the files" if self.reads_files else "the database"

    def leave_out(self, name: str) -> str:
        """Return what exports no column of this name, as a clause."""
        return f"remove [columns.{name}]" if self.settings.source else "leave the column out of the query"

    def follow_changes(self, manifest: Manifest, now: datetime) -> str:
        """Return the command that begins a series with a cursor, and how to do without one.

        Args:
            manifest: Manifest of the first export of the series that it replaces.
            now: Present time: the new series begins at most a day before the start of that export.
        """
        start = manifest.window[0]
        days = (now - datetime.fromisoformat(start)).days + 1 if start else -1
        options = self._list_options(manifest) | {"--since": None, "--until": None, "--days": days, "--items": None}
        words = ("--incremental", "--cursor", UPDATED_AT, "--new-series", *_list_words(options))
        return f"{self.export(*words)}\nor set cursor = {CREATED_AT} if old values are wanted"

    def _query(self) -> list[str]:
        return ["--query", str(self.settings.query)] if self.settings.query else []

    def _list_options(self, manifest: Manifest) -> dict[str, Any]:
        """Return the options of a command that repeats an export, by name; None and False are left out."""
        used, settings, (start, end) = manifest.settings, self.settings, manifest.window
        extra_columns = manifest.schema.extra_columns
        adds_time = (
            _SHARED_TIME in used.get("quasi_identifiers", [])
            and _SHARED_TIME not in settings.effective_quasi_identifiers
        )
        recipient = manifest.recipient or (_UNKNOWN_RECIPIENT if adds_time else None)
        usual = SHARED_PRECISIONS[0] if recipient else settings.timestamp_precision
        precision = used.get("timestamp_precision", usual)
        return {
            "--since": start,
            "--until": end,
            "--days": -1 if end and not start else None,
            "--query": settings.query,
            "--allow-row-security": bool(used.get("allow_row_security")) and not settings.allow_row_security,
            "--min-fields": used.get("min_feedback_fields"),
            "--timestamp-precision": None if precision == usual else precision,
            "--k": used.get("k"),
            "--on-small-class": used.get("on_small_class", "suppress" if recipient else None),
            "--l": used.get("l"),
            "--t": used.get("t"),
            "--items": manifest.items or None,
            **self._list_limits(manifest.limits),
            **self._list_form(manifest),
            "--share": bool(recipient),
            "--recipient": recipient,
            "--hash-recommendation-id": used.get("recommendation_id") == "hash" and not recipient,
            "--include-image-urls": IMAGE_URL in extra_columns,
            "--include-subject-hash": SUBJECT_HASH in extra_columns,
            "--unkeyed": manifest.key_id is None and not self.has_key,
            "--allow-new-key": self.is_new_key,
        }

    def _list_limits(self, limits: dict[str, Any]) -> dict[str, Any]:
        """Return the limits of an export; None where the settings or the defaults are as strict."""
        rejected, suppressed = limits.get("max_rejected"), limits.get("max_suppressed", self.settings.max_suppressed)
        is_stricter = suppressed < self.settings.max_suppressed and self.settings.on_small_class != "fail"
        is_default = limits.get("strict") or rejected == QualityOptions.max_rejected
        return {
            "--strict": bool(limits.get("strict")),
            "--max-rejected": None if is_default else rejected,
            "--max-suppressed": suppressed if is_stricter else None,
        }

    def _list_form(self, manifest: Manifest) -> dict[str, Any]:
        """Return the options of the form of an export's texts and pseudonyms; None where the settings are the same."""
        recorded = "reject" if manifest.settings.get("formulas") == "reject" else "escape"
        formulas = manifest.limits.get("formulas", recorded)
        length = 32 if manifest.scheme.endswith(", 32 hex") else PSEUDONYM_LENGTH
        is_kept = not manifest.key_id or self.is_new_key or length == self.settings.pseudonym_length
        suffix = next((Path(file.path).suffix for file in manifest.all("pairs")), "")
        return {
            "--format": "parquet" if suffix == ".parquet" else None,
            "--compression": {".gz": "gzip", ".zst": "zstd"}.get(suffix),
            "--formulas": None if suffix == ".parquet" or formulas in ("allow", self.settings.formulas) else formulas,
            "--pseudonym-length": None if is_kept else length,
        }


def _list_words(options: Mapping[str, Any]) -> list[str]:
    """Return options as words of a command, without those that are None or False."""
    return [
        word
        for name, value in options.items()
        if value is not None and value is not False
        for word in ([name] if value is True else [name, str(value)])
    ]
