"""Options that are kept for exports to come, refused when they are given and not in the first night."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from feedback_etl.errors import UsageError

OF_EACH_RUN = ("database", "key", "unkeyed", "now", "request_id", "overrides")
"""What every export finds itself when it begins: the settings say it, or it is another one each time."""


def require_options(options: Mapping[str, Any], *, incremental: bool = False) -> None:
    """Refuse options that no export can be made with.

    What depends on the settings of that time, such as the columns of a query, is left to the export.

    Args:
        options: Those of `export_feedback` that are to be given to every export. Without any, nothing is imported.
        incremental: Whether the exports are, unless the options say it.

    Raises:
        UsageError: There is no such option, its value is wrong, or it is not one to be kept.

    >>> require_options({"days_bak": 7})
    Traceback (most recent call last):
    feedback_etl.errors.UsageError: There is no option days_bak of export_feedback. Is days_back meant?
    """
    if not options:
        return
    _require_names(options)
    with suppress(TypeError, AttributeError):  # whose texts may hold values
        _judge({"incremental": incremental} | dict(options))
        return
    raise UsageError(f"One of the options {', '.join(options)} is of a wrong type; see export_feedback.")


def _require_names(options: Mapping[str, Any]) -> None:
    from difflib import get_close_matches
    from inspect import signature

    from feedback_etl.pipeline.export import export_feedback

    known = [name for name in signature(export_feedback).parameters if name not in OF_EACH_RUN]
    for name in options:
        if name in OF_EACH_RUN:
            raise UsageError(f"{name} is found anew for every export: leave it out.")
        if name not in known:
            (near,) = get_close_matches(name, known, 1) or [""]
            hint = f"Is {near} meant?" if near else f"There are: {', '.join(known)}."
            raise UsageError(f"There is no option {name} of export_feedback. {hint}")


def _judge(options: Mapping[str, Any]) -> None:
    """Make what an export makes of its options; each refuses what cannot be."""
    from feedback_etl.clock import instant
    from feedback_etl.database.batches import Reading
    from feedback_etl.exports.file_formats import Form
    from feedback_etl.exports.incremental import lookback_of
    from feedback_etl.options import Rules
    from feedback_etl.pipeline.arguments import require_fitting, window_of
    from feedback_etl.privacy.k_anonymity import KAnonymityPolicy

    def given(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    require_fitting(options["incremental"], options.get("since"), None)
    now = instant(None)
    window_of(options.get("days_back", 1), None, None, now)
    window_of(1, options.get("since"), options.get("until"), datetime.max)  # by then, a time to come is past
    lookback_of(options.get("lookback", "1h"))
    Form(**given("format", "compress")).checked()
    Reading(**given("bulk", "workers", "batch_rows", "stall_timeout")).checked()
    KAnonymityPolicy(**given("k", "on_small_class", "max_suppressed"))
    usual: dict[str, Any] = {"min_feedback_fields": 1, "recommendation_id": "keep", "strict": False, "max_rejected": 1}
    Rules(now, None, **usual | given(*usual, "timestamp_precision", "age_edges"))
