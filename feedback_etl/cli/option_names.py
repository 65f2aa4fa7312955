"""Names of options in messages, as they are typed."""

import re

OPTION_NAMES = {
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            *("since", "until", "query", "allow_row_security", "bulk", "workers", "executor", "database_url"),
            *("strict", "max_rejected", "row_model", "hash_recommendation_id", "timestamp_precision", "k"),
            *("on_small_class", "max_suppressed", "include_image_urls", "include_subject_hash", "incremental"),
            *("lookback", "format", "compression", "unkeyed", "allow_new_key", "not_in_database", "keep_days"),
            *("keep_last", "rows"),
        )
    },
    "days_back": "--days",
    "min_feedback_fields": "--min-fields",
    "output_dir": "--output",
    "for_sharing": "--share",
    "user_ids": "--user-ids-file",
    "analysis_ids": "--analysis-ids-file",
}
"""The options of commands, by the names that the library has for them."""


def name_options(message: str) -> str:
    """Replace the names of the library's options, which its messages quote with backticks, by those of the commands.

    >>> name_options("`days_back` must be 1 or more; `age_edges` must increase.")
    '--days must be 1 or more; `age_edges` must increase.'
    """
    return re.sub("`([a-z_]+)`", lambda quoted: OPTION_NAMES.get(quoted[1], quoted[0]), message)
