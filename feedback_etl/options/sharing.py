"""Rules of data that leaves the organisation: the preset, and what would weaken it."""

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from feedback_etl.errors import UsageError
from feedback_etl.options.privacy import PrivacyOptions

SHARED_K = 5
"""The minimum k of shared data."""

SHARED_PRECISIONS: Final = ("month", "quarter", "week", "day")
"""Precisions of the times of shared data, the default first."""

PERSONAL_ROLES = ("identifier", "free_text")
"""Roles of extra columns that shared data must not contain."""

_RECIPIENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""One spelling for each recipient: another one would be another recipient, with other pseudonyms and no overlaps."""


def prepare_for_sharing(privacy: PrivacyOptions, given: Collection[str] = ()) -> PrivacyOptions:
    """Return the options with at least the preset.

    It is k of 5, months, hashed recommendations, all quasi-identifiers, and small classes generalised.
    Quasi-identifiers can only be added: the default ones and the time stay, behind those that were configured.

    Args:
        privacy: The options.
        given: Names of options that are not to be replaced: `timestamp_precision` and `on_small_class`.
    """
    return replace(
        privacy,
        hash_recommendation_id=True,
        timestamp_precision=privacy.timestamp_precision if "timestamp_precision" in given else SHARED_PRECISIONS[0],
        on_small_class=privacy.on_small_class if "on_small_class" in given else "generalize",
        k=max(SHARED_K, privacy.k or 0),
        quasi_identifiers=tuple(dict.fromkeys((*privacy.effective_quasi_identifiers, *_list_required(privacy)))),
    )


def require_shareable(privacy: PrivacyOptions, recipient: str) -> None:
    """Refuse options that shared data must not have.

    Raises:
        UsageError: The name of the recipient is not allowed, columns identify people, or options are weaker than the
            preset.
    """
    if not _RECIPIENT.fullmatch(recipient):
        raise UsageError(
            "`recipient` must be a name of 1 to 64 lower-case letters, digits, dots, underscores and hyphens, such as "
            "acme-research: a second spelling would be a second recipient."
        )
    if privacy.include_image_urls or privacy.include_subject_hash:
        raise UsageError("Shared data must not contain images or pseudonyms of users: leave both options out.")
    if personal := [column.name for column in privacy.full_schema.all_columns if column.role in PERSONAL_ROLES]:
        raise UsageError(
            f"Shared data must not contain columns of the roles {' and '.join(PERSONAL_ROLES)}: leave out "
            f"{', '.join(personal)}."
        )
    is_weaker = (
        (privacy.k or 0) < SHARED_K
        or not privacy.hash_recommendation_id
        or privacy.timestamp_precision not in SHARED_PRECISIONS
        or not {*_list_required(privacy)} <= {*privacy.effective_quasi_identifiers}
    )
    if is_weaker:
        raise UsageError(
            f"`recipient` requires k of at least {SHARED_K}, hashed recommendations, times to the day or coarser, "
            "and the default quasi-identifiers with feedback_timestamp: give it to ExportOptions.from_keywords, which "
            "sets them."
        )


def _list_required(privacy: PrivacyOptions) -> tuple[str, ...]:
    return (*privacy.schema.quasi_identifiers, "feedback_timestamp")
