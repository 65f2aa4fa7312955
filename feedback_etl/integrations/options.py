"""Validate options of scheduled exports when they are given, not at the first run."""

from collections.abc import Mapping
from typing import Any

from feedback_etl.errors import UsageError

OF_EACH_RUN = ("database", "key", "unkeyed", "now", "idempotency_key", "overrides")
"""Arguments that each run determines itself, from the settings or anew."""

ARGUMENTS = ("key", "unkeyed", "now", "executor", "overrides", "on_progress", "on_phase")
"""Arguments of `export_feedback` that are not options."""


def require_options(options: Mapping[str, Any], *, incremental: bool = False) -> None:
    """Refuse options that no export accepts.

    Checks that depend on the settings of a run, such as the columns of a query, are left to the export.

    Args:
        options: Options of `export_feedback` that every export receives; without any, nothing is imported.
        incremental: Whether the exports are incremental, unless the options contain it.

    Raises:
        UsageError: An option does not exist, its value is not allowed, or each run determines it.

    >>> require_options({"days_bak": 7})
    Traceback (most recent call last):
    feedback_etl.errors.UsageError: There is no option days_bak. Did you mean days_back?
    """
    if not options:
        return
    from feedback_etl.options.export import ExportOptions, list_option_names, require_known

    if determined := [name for name in OF_EACH_RUN if name in options]:
        raise UsageError(f"{determined[0]} is determined anew for every export: leave it out.")
    require_known(options, [name for name in (*list_option_names(), *ARGUMENTS) if name not in OF_EACH_RUN])
    checked = {name: value for name, value in options.items() if name not in ARGUMENTS}
    try:
        ExportOptions.from_keywords(**{"incremental": incremental} | checked)
        return
    except (TypeError, AttributeError):  # their messages may contain values
        pass
    raise UsageError(f"One of the options {', '.join(options)} has a wrong type; see export_feedback.")
