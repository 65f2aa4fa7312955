"""The input of all tests of the checklist."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from feedback_etl.compliance.data_files import ExportContents
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.database.lookups import ApplicationSummary
from feedback_etl.privacy.keys import Key
from feedback_etl.records.manifest import Manifest
from feedback_etl.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """Input of the tests.

    Attributes:
        storage: Storage of the exports.
        remedies: Commands for it; their settings contain the requirements.
        exports: Manifests of the exports that were not pruned, the oldest first.
        files: Contents of those whose data files exist.
        database: Summary of the database; None without one.
        keys: Available keys.
        now: Time of the check, naive UTC.
    """

    storage: Storage
    remedies: Remedies
    exports: Sequence[Manifest] = ()
    files: Sequence[ExportContents] = ()
    database: ApplicationSummary | None = None
    keys: Sequence[Key] = ()
    now: datetime = datetime.max

    @property
    def application(self) -> ApplicationSummary:
        """The summary of the database, empty without one, for tests that require one."""
        return self.database or ApplicationSummary([], [], [], [], (), None)
