"""Fields of a manifest that are objects themselves, and the configuration that all of them are validated with."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, TypeAdapter, with_config
from typing_extensions import TypedDict

from feedback_etl.errors import UsageError
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.record import read_schema

STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
PARTIAL = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)


def _require_naive_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is not None:
        raise ValueError("a time of a manifest has no offset")
    return text


def _require_schema(record: dict[str, Any]) -> dict[str, Any]:
    try:
        read_schema({"schema": record})
    except (TypeError, KeyError, AttributeError, UsageError):
        raise ValueError("a manifest records a schema of feedback") from None
    return record


Time = Annotated[str, AfterValidator(_require_naive_time)]


@with_config(STRICT)
class Increment(TypedDict):
    """The state of an incremental series after an export, for the next one; see `incremental.IncrementalState`."""

    number: int
    known_since: Time | None
    counted: list[Annotated[tuple[Time | None, Time, NonNegativeInt], Field(strict=False)]]  # lists in JSON
    excluded: NotRequired[NonNegativeInt | None]


@with_config(STRICT)
class Replacement(TypedDict):
    """Rows, size in bytes and digest of the content that is about to replace a file."""

    rows: int
    bytes: int
    sha256: str


@with_config(PARTIAL)
class Settings(TypedDict):
    """Declare the settings that readers of an export use; the others are only compared."""

    overridden: NotRequired[dict[str, str]]
    extra_columns: NotRequired[Sequence[ExtraColumn]]
    age_edges: NotRequired[Sequence[int]]
    schema: NotRequired[Annotated[dict[str, Any], AfterValidator(_require_schema)]]
    recipient: NotRequired[str]


@with_config(PARTIAL)
class Limits(TypedDict):
    """Declare the options that the checklist reads; see `Manifest.limits`."""

    max_rejected: float
    strict: bool
    formulas: NotRequired[str]
    row_model: NotRequired[str]
    max_suppressed: NotRequired[float]
    allow_overlap: NotRequired[bool]


@with_config(PARTIAL)
class RiskSummary(TypedDict):
    """Declare the measures of risk that the checklist reads; see `k_anonymity.summarize`."""

    k: int | None
    at_least: bool
    quasi_identifiers: Sequence[str]
    stale: bool


def or_empty(model: type) -> AfterValidator:
    """Return a validator of an object that is empty or matches this model."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)

    def validate(value: dict[str, Any]) -> dict[str, Any]:
        _ = value and adapter.validate_python(value)
        return value  # as it was written, so that digests of it stay equal

    return AfterValidator(validate)
