"""All options of an export as one value, built from flat keywords.

Callers pass options as flat keywords (`export_feedback(url, days_back=90, k=5)`) or as one `ExportOptions`. The types
of the keywords are declared in `options.keywords`, for editors and type checkers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self, Unpack

from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.errors import UsageError
from feedback_etl.options.keywords import ExportKeywords
from feedback_etl.options.output import OutputOptions
from feedback_etl.options.privacy import PrivacyOptions
from feedback_etl.options.quality import QualityOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.options.sharing import prepare_for_sharing, require_shareable

if TYPE_CHECKING:
    from feedback_etl.schema.model import FeedbackSchema


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """All options of an export.

    >>> ExportOptions.from_keywords(days_back=90, k=5).privacy.k
    5
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        from feedback_etl.transform.transforms import has_min_ratings

        has_min_ratings(self.quality.min_feedback_fields, self.privacy.schema)
        self.full_schema  # noqa: B018  it validates
        if self.output.items is not None and self.privacy.hash_recommendation_id:
            raise UsageError("`items` are exported as they are: leave `hash_recommendation_id` or `items` out.")
        if self.output.incremental and (self.read.since, self.read.until) != (None, None):
            raise UsageError("An incremental export continues where the last one ended: leave `since` and `until` out.")
        if self.output.incremental and {self.privacy.l, self.privacy.t} != {None}:
            raise UsageError(
                "`l` and `t` are measured over all rows of one export, but an incremental series publishes its rows in "
                "several: omit `l` and `t`, or `incremental`."
            )
        if self.output.incremental and self.output.cursor != CREATED_AT and self.privacy.k_anonymity.generalizes:
            raise UsageError(
                "With `cursor`, the equivalence classes of the newest versions of rows cannot be generalised: give "
                "`on_small_class` the value suppress, or omit `cursor`."
            )
        if self.output.recipient is not None:
            require_shareable(self.privacy, self.output.recipient)

    @property
    def full_schema(self) -> "FeedbackSchema":
        """The schema with all extra columns, the chosen age ranges and the exported items."""
        return self.privacy.full_schema.with_items(self.output.items)

    @classmethod
    def from_keywords(cls, **keywords: Unpack[ExportKeywords]) -> Self:
        """Distribute flat keywords over the groups.

        Raises:
            UsageError: An option does not exist, its value is not allowed, or two options exclude each other.
        """
        return cls().with_keywords(**keywords)

    def with_keywords(self, **keywords: Unpack[ExportKeywords]) -> Self:
        """Return these options with the given ones replaced; with a recipient, at least the preset for shared data.

        Raises:
            UsageError: As for `from_keywords`.
        """
        if not keywords:
            return self
        groups = {group.name: getattr(self, group.name) for group in fields(self)}
        require_known(keywords, list_option_names())
        changes = {
            name: {option.name: keywords[option.name] for option in fields(group) if option.name in keywords}  # type: ignore[literal-required]
            for name, group in groups.items()
        }
        groups |= {name: replace(groups[name], **change) for name, change in changes.items() if change}
        if groups["output"].recipient is not None:
            groups["privacy"] = prepare_for_sharing(groups["privacy"], keywords)
        return replace(self, **groups)


def list_option_names() -> list[str]:
    """Return the names of all options."""
    return [*ExportKeywords.__annotations__]


def require_known(given: Mapping[str, Any] | Iterable[str], names: Sequence[str]) -> None:
    """Raise if an option does not exist; the message suggests the most similar name.

    Raises:
        UsageError: An option does not exist.

    >>> require_known(["days_bak"], list_option_names())
    Traceback (most recent call last):
    feedback_etl.errors.UsageError: There is no option days_bak. Did you mean days_back?
    """
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Options are {', '.join(names)}."
            raise UsageError(f"There is no option {name}. {hint}")
