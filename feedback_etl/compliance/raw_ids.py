"""Test that no text of an export contains the id of a user or an analysis."""

import functools
from collections.abc import Callable, Mapping, Sequence

import polars as pl

from feedback_etl.compliance.application_database import fetch_settings_owners
from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import ExportContents, explain_unknown_pseudonyms
from feedback_etl.compliance.free_text import find_declared_free_texts
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.data_files.item_rows import scan_item_rows
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.raw_ids import MAX_LONG
from feedback_etl.records.manifest import Manifest
from feedback_etl.schema.model import PSEUDONYM
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.identifiers import bounded, contains_id, unbroken
from feedback_etl.transform.items import ITEM

MIN_ID_LENGTH = 6
"""Characters; shorter ids occur in texts by chance."""

_IDS_AT_ONCE = 200_000
_FORMS = (bounded, unbroken)


def check_raw_ids(context: CheckContext) -> ChecklistItem:
    """Test that no text contains the id of a user or an analysis.

    Ids that are short enough to occur by chance cannot be tested. Items may be numbered as well, so that a number in an
    item is compared with the ids of its own row.
    """
    exports, remedies, application = context.files, context.remedies, context.application
    distinct = {*application.users, *application.analyses}
    ids = [id_ for id_ in distinct if len(id_) >= MIN_ID_LENGTH]
    numbers = [id_ for id_ in ids if id_.isdigit()]
    patterns, other_patterns = _list_forms(ids), _list_forms([*{*ids}.difference(numbers)])
    numbered = _NumberedItems(context, _list_forms(numbers))
    problems, untested = [], _find_short(distinct, ids)
    for export in exports:
        items = {*export.manifest.schema.item_columns, export.manifest.items}
        names = [
            name
            for name, values in export.texts.items()
            if _contains_ids(values, other_patterns if name in items else patterns)
            or (name in items and numbered.are_own_ids(export, name))
        ]
        remedy = _remove_ids(export.manifest, names, remedies)
        problems += [
            Finding(f"{file} contains ids of users or analyses in {columns}", remedy)
            for file, columns in export.find_files(names)
        ]
    passed = f"No text contains one of {len(ids):,} ids of users and analyses of {MIN_ID_LENGTH} characters or more"
    passed += "; a number in an item is not that of its row." if numbers else "."
    untested += [*numbered.untested, *find_declared_free_texts(exports)]
    return build_item("raw ids", problems, passed=passed if ids else "", untested=untested)


def _find_short(distinct: set[str], ids: Sequence[str]) -> list[Finding]:
    short = len(distinct) - len(ids)
    clause = f"{pluralize(short, 'id')} of fewer than {MIN_ID_LENGTH} characters, found in texts by chance"
    return [Finding(clause)] if short or not ids else []


class _NumberedItems:
    """Compare numbers in items with the ids of their own rows; the database is read at the first such number.

    Args:
        context: The input of the test.
        numbers: The patterns of ids that are numbers.
    """

    def __init__(self, context: CheckContext, numbers: "_Forms") -> None:
        self._numbers, self.untested = numbers, list[Finding]()
        self._keys: dict[str | None, Key | None] = {None: None} | {key.id: key for key in context.keys}
        self._read_owners = functools.cache(lambda: fetch_settings_owners(context.remedies.settings))

    def are_own_ids(self, export: ExportContents, name: str) -> bool:
        """Return whether more items than by chance are an id of their row; note what cannot be compared."""
        manifest, texts = export.manifest, export.texts[name]
        if not _contains_ids(texts, self._numbers):
            return False
        if manifest.lookup_key not in self._keys or manifest.recipient:
            reason = explain_unknown_pseudonyms(manifest)
            self.untested.append(Finding(f"numbers in {name} of {export.path.name}: {reason}"))
            return False
        is_rated = name == manifest.items
        rows = scan_item_rows(export.storage, manifest) if is_rated else export.rows
        rows = rows.select(PSEUDONYM, pl.col(ITEM if is_rated else name).alias("text")).drop_nulls("text")
        rows = rows.with_row_index("row")  # an analysis of several users has several owners
        own = rows.join(self._hash_owners(manifest), on=PSEUDONYM).filter(contains_id("text", ids=["analysis", "user"]))
        values, count = (int(frame.select(pl.col("row").n_unique()).collect().item()) for frame in (rows, own))
        return count > MAX_LONG * values

    def _hash_owners(self, manifest: Manifest) -> pl.LazyFrame:
        """Return the pseudonyms of analyses, with the ids of the analysis and its user that are long numbers."""
        columns = {"analysis": pl.String, "user": pl.String}
        owners = pl.LazyFrame(self._read_owners(), schema=columns, orient="row")
        key, is_number = self._keys[manifest.lookup_key], rf"^[0-9]{{{MIN_ID_LENGTH},}}$"
        hashed = hash_id("analysis", key=key, unkeyed=key is None, domain="analysis_id").alias(PSEUDONYM)
        numbers = (pl.when(pl.col(name).str.contains(is_number)).then(name).alias(name) for name in columns)
        return owners.select(hashed, *numbers).unique()


def _remove_ids(manifest: Manifest, names: Sequence[str], remedies: Remedies) -> str:
    """Return how ids are removed from columns; an item is pseudonymised, unless it is exported with rated items."""
    is_hashed = manifest.schema.item in names and (not manifest.items or manifest.items in names)
    others = [name for name in names if name != manifest.items and not (is_hashed and name == manifest.schema.item)]
    first = f"remove ids from {', '.join(others)} in {remedies.data}, or {remedies.select_others}\n" if others else ""
    return first + remedies.replace_texts(manifest, names, hash_recommendation_id=is_hashed)


_Forms = Mapping[Callable[[str], pl.Expr], Sequence[str]]


def _list_forms(ids: Sequence[str]) -> _Forms:
    """Return the patterns of ids, by the form of the texts that are searched for them."""
    frame = pl.DataFrame({"id": ids}, schema={"id": pl.String})
    return {form: frame.select(form("id")).to_series().drop_nulls().to_list() for form in _FORMS}


def _contains_ids(texts: pl.Series, patterns: _Forms) -> bool:
    """Return whether one of the texts contains one of the ids."""
    return any(
        _contains_any(texts.to_frame().select(form(texts.name)).to_series(), ids) for form, ids in patterns.items()
    )


def _contains_any(texts: pl.Series, ids: Sequence[str]) -> bool:
    """Return whether one of the texts contains one of the ids."""
    batches = (list(ids[start : start + _IDS_AT_ONCE]) for start in range(0, len(ids), _IDS_AT_ONCE))
    return any(texts.str.contains_any(batch).any() for batch in batches)
