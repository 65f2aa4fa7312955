"""The name of the cursor: the column with the time by which an incremental series continues."""

import re

from feedback_etl.errors import UsageError

CREATED_AT = "created_at"
"""The default cursor, which follows new rows and no changes."""

UPDATED_AT = "updated_at"
"""The column with the time of the last change in the default application schema."""

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def require_cursor(name: str) -> None:
    """Refuse a cursor that cannot be the name of a column.

    Raises:
        UsageError: The cursor is not a name of letters, digits and underscores.
    """
    if not _NAME.fullmatch(name):
        raise UsageError("`cursor` must be the name of a column with times, for example updated_at.")
