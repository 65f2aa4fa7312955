"""Describe how the exports of a folder were made, for the record of processing: columns, k, consent, times, keys."""

from collections.abc import Iterator, Sequence

from feedback_etl.compliance.limits import describe_limits
from feedback_etl.records.manifest import ADOPTED, Manifest
from feedback_etl.schema.classic import CLASSIC_SCHEMA, is_classic
from feedback_etl.schema.model import AGE_RANGE_NAME, EXPORT_DATE, IMAGE_URL, PSEUDONYM, SUBJECT_HASH, TIME
from feedback_etl.transform.age_hierarchy import is_generalized

FREE_TEXT = "free_text"
"""Role of a declared column that may contain anything that people wrote."""

_FEEDBACK, _RECORDS = "recommendation_feedbacks", "recommendation_records"
_ORIGINS = {
    "analysis_hash": ("identifier", f"pseudonym of {_FEEDBACK}.analysis_id"),
    "recommendation_id": ("identifier", f"{_RECORDS}.recommendation_id"),
    **{name: ("sensitive", f"{_FEEDBACK}.{name}") for name in CLASSIC_SCHEMA.rating_names},
    **{column.name: ("sensitive", f"{_RECORDS}.{column.raw_name}") for column in CLASSIC_SCHEMA.lists},
    **{column.name: ("insensitive", f"{_FEEDBACK}.{column.name}") for column in CLASSIC_SCHEMA.columns},
    "age_range": ("insensitive", "range of profiles.age"),
    "feedback_timestamp": ("insensitive", f"{_FEEDBACK}.created_at"),
    "export_date": ("insensitive", "time of the export"),
    IMAGE_URL.name: ("sensitive", "photos.s3_key, with image_opt_in"),
    SUBJECT_HASH.name: ("identifier", f"pseudonym of {_FEEDBACK}.user_id"),
}
"""The role and the origin in the default schema of each column that this package defines."""


def describe_processing(exports: Sequence[Manifest]) -> list[str]:
    """Return a Markdown section for each way in which exports were made: equal exports are described once."""
    sections = dict.fromkeys("\n".join(_describe(export)) for export in exports)
    if not sections:
        return ["The folder contains no export."]
    return [f"## Exports, form {number}\n\n{section}" for number, section in enumerate(sections, 1)]


def _describe(export: Manifest) -> Iterator[str]:
    if free_texts := [column.name for column in export.declared_columns if column.role == FREE_TEXT]:
        yield f"**FREE TEXT: {', '.join(free_texts)}** may contain anything that people wrote, names included.\n"
    yield "| column | role | origin |"
    yield "|---|---|---|"
    for name in export.columns:
        yield f"| {name} | {' | '.join(_describe_column(export, name))} |"
    yield ""
    yield f"- **k-anonymity**: {_describe_k(export)}"
    yield f"- **Limits**: {describe_limits(export.limits)}"
    yield f"- **Consent**: {_describe_consent(export)}"
    if export.recipient:
        yield f"- **Shared with**: {export.recipient}; each row has a pseudonym of its own"
    yield f"- **Times**: {_describe_times(export)}"
    yield f"- **Pseudonyms**: {export.scheme}{', with a key that is stored apart' if export.key_id else ''}"
    if export.settings.get("allow_row_security"):
        yield "- **Rows**: those that row-level security shows to the role of the export"


def _describe_column(export: Manifest, name: str) -> tuple[str, str]:
    """Return the role and the origin of a column."""
    if export.mode == ADOPTED:
        return "unknown", "unknown: the file was adopted"
    used = export.settings
    declared = {column.name: column for column in export.declared_columns}
    if not is_classic(export.schema) and name not in declared:
        return _describe_declared(export, name)
    if name in declared and (name not in _ORIGINS or not is_classic(export.schema)):
        column = declared[name]
        form = "pseudonym" if column.role == "identifier" else f"{column.type}, exported unchanged"
        return column.role, f"declared column of the query ({form})"
    role, origin = _ORIGINS.get(name, ("unknown", "unknown"))
    if own := export.overridden.get({"analysis_hash": "hash_id", "age_range": "bucket_age"}.get(name, "")):
        origin = f"function of the application ({own})"
    elif used.get("query_sha256"):
        origin = f"column of the query (instead of {origin})"
    if name == "recommendation_id" and used.get("recommendation_id") == "hash":
        origin = f"pseudonym of {origin}"
    return ("quasi-identifier" if name in used.get("quasi_identifiers", []) else role), origin


def _describe_declared(export: Manifest, name: str) -> tuple[str, str]:
    """Return the role and the origin of a column of a declared schema that is not exported unchanged."""
    schema = export.schema
    roles = {
        **{column.name: column.role for column in schema.lists},
        **dict.fromkeys(schema.rating_names, "sensitive"),
        **dict.fromkeys((PSEUDONYM, *schema.item_columns), "identifier"),
    }
    form = "pseudonym" if name == PSEUDONYM else "range of the age" if name == AGE_RANGE_NAME else "declared column"
    origin = {TIME: "time of the feedback", EXPORT_DATE: "time of the export"}.get(name, f"{form} of the source")
    is_known = name in export.settings.get("quasi_identifiers", [])
    return "quasi-identifier" if is_known else roles.get(name, "insensitive"), origin


def _describe_k(export: Manifest) -> str:
    k, names = export.settings.get("k"), export.settings.get("quasi_identifiers", [])
    if not names:
        return "not measured"
    used = [f"{name} = {export.settings[name]:g}" for name in ("l", "t") if name in export.settings]
    diversity = f", with {' and '.join(used)}" if used else ""
    handled = "generalised or suppressed" if is_generalized(export.settings) else "suppressed"
    result = (
        f"equivalence classes of fewer than {k} people were {handled}{diversity}"
        if k
        else "measured, none was required"
    )
    return f"{result}: {', '.join(names)}"


def _describe_consent(export: Manifest) -> str:
    if export.consent:
        return f"recorded by {', '.join(export.consent)}; rows without it were not read"
    return "no column recorded it; rows were read without it"


def _describe_times(export: Manifest) -> str:
    precision = export.settings.get("timestamp_precision")
    return {None: "unknown", "exact": "exact"}.get(precision, f"truncated to the {precision}")
