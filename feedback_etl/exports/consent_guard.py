"""The guard against exports that no longer filter by consent, though those before them in the folder did."""

from collections.abc import Sequence

from feedback_etl.errors import ValidationError
from feedback_etl.exports.audit import LockedAuditLog


def require_consent(folder: object, log: LockedAuditLog, consent: Sequence[str]) -> None:
    """Refuse an export without a consent filter if the last one had one.

    Raises:
        ValidationError: The last export filtered by it, and this one would not.
    """
    done = [record.get("consent") for record in log.records() if record["event"] == "committed" and record.get("files")]
    if done and done[-1] and not consent:
        raise ValidationError(
            f"The last export in {folder} left people out by {', '.join(map(str, done[-1]))}, and now nothing records "
            "consent: nothing was written. Bring the column back, or export into another folder (--output)."
        )
