"""The schema of feedback: which ratings, lists and other columns it has, and what identifies a feedback.

A raw row has the columns of `FeedbackSchema.raw_columns`, a row of an export those of `training_columns`. All other
modules ask a schema instead of naming columns; `classic.CLASSIC_SCHEMA` is the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from feedback_etl.errors import UsageError
from feedback_etl.schema.column_types import ExtraColumn, RawTypeName
from feedback_etl.schema.feedback_columns import AgeColumn, Label, ListColumn, Rating
from feedback_etl.schema.names import require_names, require_text_roles

AGE_RANGE_NAME = "age_range"
"""The name of a bucketed age in an export."""

RAW_ITEM = "recommendation_id"
"""The name of the item that was rated in raw rows; an export calls it `FeedbackSchema.item`."""

RAW_IDS = ("feedback_id", "user_id", "analysis_id")
"""The ids that every raw row has; `analysis_id` is what the feedback is about, and becomes `analysis_hash`."""

PSEUDONYM, TIME, EXPORT_DATE = "analysis_hash", "feedback_timestamp", "export_date"
"""The columns that every export has."""

CONSENT, IMAGE_OPT_IN = "consent", "image_opt_in"
"""Optional raw columns that record consent; no export contains them."""

IMAGE_URL = ExtraColumn("image_url")
"""The value of photos.s3_key, if the user has opted in and it contains no id of the row."""

SUBJECT_HASH = ExtraColumn("subject_hash", "identifier")
"""The pseudonym of the user; its domain is not that of analyses, so the pseudonyms of equal ids differ."""

RESERVED = frozenset({*RAW_IDS, RAW_ITEM, "created_at", PSEUDONYM, TIME, EXPORT_DATE, CONSENT, IMAGE_OPT_IN})
"""The names that no declared column may have."""


@dataclass(frozen=True, kw_only=True)
class FeedbackSchema:
    """The columns of feedback, raw and in an export. A value: hashable, comparable, and sent to workers.

    Attributes:
        ratings: The ratings; `min_feedback_fields` counts those that are not null.
        lists: Columns of lists.
        columns: Other columns of the feedback.
        age: The age of the person; None if there is none.
        item: Name of the item that was rated in the export; None if a feedback is about no item.
        dedup_key: Raw columns that identify a feedback: of rows with equal values the first is exported. It contains
            `created_at`, so that duplicates are adjacent.
        extra_columns: Columns that follow all others in an export.
        items: Ratings of several items in one feedback, in the raw rows as a JSON map of item to rating.
        exported_items: Those of them that an export has, as rows of their own in a second file; None for none.

    Raises:
        UsageError: A name is reserved, used twice or malformed; or `dedup_key` names no raw column.
    """

    ratings: tuple[Rating, ...] = ()
    lists: tuple[ListColumn, ...] = ()
    columns: tuple[ExtraColumn, ...] = ()
    age: AgeColumn | None = None
    item: str | None = "recommendation_id"
    dedup_key: tuple[str, ...] = ("analysis_id", "recommendation_id", "created_at")
    extra_columns: tuple[ExtraColumn, ...] = ()
    items: tuple[Rating, ...] = ()
    exported_items: Rating | None = None

    def __post_init__(self) -> None:
        if not self.ratings:
            raise UsageError("A schema needs at least one rating: declare [ratings.NAME].")
        require_text_roles((*self.columns, *self.extra_columns))
        own = self._own_names
        require_names(own, "column", taken=RESERVED)
        if self.item is not None and self.item != RAW_ITEM:
            require_names([self.item], "column", taken=RESERVED)
        renamed = [*(column.raw_name for column in self.lists), *([self.age.raw_name] if self.age else [])]
        taken = {*self.raw_ids, "created_at", *self.rating_names, *(column.name for column in self.columns)}
        if repeated := [name for name in renamed if name in taken or renamed.count(name) > 1]:
            raise UsageError(
                f"Two columns are called {repeated[0]} in raw rows: rename one, or set another `raw_name` of a list."
            )
        extra = [column.name for column in self.extra_columns]
        used = {*RESERVED, *own, *taken, *renamed, *self.item_columns}
        require_names(extra, "extra column", taken=used)
        require_names([rating.name for rating in self.items], "item rating", taken={*used, *extra})
        unknown = [name for name in self.dedup_key if name not in self.raw_columns]
        if unknown or "created_at" not in self.dedup_key:
            raise UsageError(
                f"The key of [dedup] must contain created_at and only columns of the feedback: "
                f"{', '.join(self.raw_columns)}. What was rated is called as its [columns.NAME] of the role item."
            )

    @property
    def _own_names(self) -> list[str]:
        declared: tuple[Rating | ListColumn | ExtraColumn, ...] = (*self.ratings, *self.lists, *self.columns)
        return [*(column.name for column in declared), *([AGE_RANGE_NAME] if self.age else [])]

    def _find_columns(self, role: str) -> list[str]:
        """Return the lists and columns of a role."""
        columns: tuple[ListColumn | ExtraColumn, ...] = (*self.lists, *self.all_columns)
        return [column.name for column in columns if column.role == role]

    @property
    def raw_ids(self) -> tuple[str, ...]:
        """The ids of a raw row."""
        return (*RAW_IDS, *((RAW_ITEM,) if self.item else ()))

    @property
    def raw_types(self) -> dict[str, RawTypeName]:
        """The raw columns in their order, with the names of their types."""
        types: dict[str, RawTypeName] = dict.fromkeys(self.raw_ids, "identifier")
        types |= {rating.name: rating.type for rating in self.ratings}
        types |= {column.raw_name: "list" for column in self.lists}
        types |= {column.name: column.raw_type for column in self.columns}
        types |= {self.exported_items.name: "list"} if self.exported_items else {}
        types |= {self.age.raw_name: self.age.raw_type} if self.age else {}
        return types | {"created_at": "time"} | {column.name: column.raw_type for column in self.raw_extra_columns}

    @property
    def raw_extra_columns(self) -> tuple[ExtraColumn, ...]:
        """The extra columns that raw rows must have; the pseudonym of the user is derived from `user_id`."""
        return tuple(column for column in self.extra_columns if column != SUBJECT_HASH)

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """The names of all raw columns in their order."""
        return tuple(self.raw_types)

    @property
    def rating_names(self) -> tuple[str, ...]:
        """The names of the ratings."""
        return tuple(rating.name for rating in self.ratings)

    @property
    def answers(self) -> dict[str, bool]:
        """The ratings and other columns of the feedback, without lists; whether each is compared as a number."""
        columns = {column.name: column.type in ("integer", "number") for column in self.columns}
        return dict.fromkeys(self.rating_names, True) | columns

    @property
    def item_columns(self) -> tuple[str, ...]:
        """The column of the item in an export, if there is one."""
        return (self.item,) if self.item else ()

    @property
    def list_names(self) -> tuple[str, ...]:
        """The names of the lists in an export."""
        return tuple(column.name for column in self.lists)

    @property
    def training_columns(self) -> tuple[str, ...]:
        """The columns of an export in their order."""
        extra = (column.name for column in self.extra_columns)
        return (PSEUDONYM, *self.item_columns, *self._own_names, TIME, EXPORT_DATE, *extra)

    @property
    def pair_key(self) -> tuple[str, ...]:
        """The columns of an export that identify a feedback, as far as it contains `dedup_key`."""
        names = (PSEUDONYM, *(name for name in self._exported_key if name in self.training_columns))
        return tuple(dict.fromkeys(names))

    @property
    def has_whole_key(self) -> bool:
        """Whether an export contains all of `dedup_key`, so that two of its rows never have equal `pair_key`."""
        return {*self._exported_key} <= {*self.training_columns}

    @property
    def _exported_key(self) -> list[str]:
        renamed = {
            "analysis_id": PSEUDONYM,
            RAW_ITEM: self.item or "",
            "created_at": TIME,
            "user_id": SUBJECT_HASH.name,
        }
        return [renamed.get(name, name) for name in self.dedup_key]

    @property
    def all_columns(self) -> tuple[ExtraColumn, ...]:
        """The columns that are exported unchanged or pseudonymised, in their order."""
        return (*self.columns, *self.extra_columns)

    @property
    def quasi_identifiers(self) -> tuple[str, ...]:
        """The columns that an attacker may know about a person, the most important one first.

        If none is declared it is the time of the feedback, so that k is measured in every export.
        """
        return (*((AGE_RANGE_NAME,) if self.age else ()), *self._find_columns("quasi_identifier")) or (TIME,)

    @property
    def sensitive_columns(self) -> tuple[str, ...]:
        """The columns of answers that must not become known of a person: the ratings, and columns of that role."""
        return (*self.rating_names, *self._find_columns("sensitive"))

    @property
    def labels(self) -> dict[str, Label]:
        """The labels that can be derived from ratings, by name."""
        return {rating.label or rating.name: rating.label_source for rating in self.ratings}

    @property
    def never_null(self) -> tuple[str, ...]:
        """The columns of an export that are never null."""
        return (PSEUDONYM, *self.item_columns, TIME, EXPORT_DATE)

    @property
    def time_columns(self) -> tuple[str, ...]:
        """The columns of an export that contain times of the feedback, and so can be truncated."""
        times = (column.name for column in self.all_columns if column.type == "time" and column.role != "identifier")
        return (TIME, *times)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of an export that contain short texts: the item, joined lists and texts."""
        joined = (column.name for column in self.lists if column.is_joined)
        texts = (column.name for column in self.all_columns if column.type == "text")
        return (*self.item_columns, *joined, *texts)

    @property
    def age_edges(self) -> tuple[int, ...]:
        """The ages at which a new age range begins."""
        return self.age.edges if self.age else ()

    def with_extra_columns(self, extra_columns: Sequence[ExtraColumn]) -> Self:
        """Return the schema with these extra columns instead of its own."""
        return replace(self, extra_columns=tuple(extra_columns))

    def with_items(self, name: str | None) -> Self:
        """Return the schema whose exports have the item ratings of this name; raises UsageError for an unknown one."""
        if name is None:
            return self
        by_name = {rating.name: rating for rating in self.items}
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise UsageError(f"No item ratings {name} are declared (declared: {known}): declare [items.{name}].")
        return replace(self, exported_items=by_name[name])

    def with_options(self, extra_columns: Sequence[ExtraColumn], age_edges: Sequence[int] | None) -> Self:
        """Return the schema with these extra columns after its own, and other age ranges if they are given."""
        schema = self.with_extra_columns((*self.extra_columns, *extra_columns)) if extra_columns else self
        if age_edges is None or schema.age is None:
            return schema
        return replace(schema, age=replace(schema.age, edges=tuple(age_edges)))
