"""What is tested on the rows that exports hold."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import polars as pl

from feedback_etl.columns import AGE_EDGES, IMAGE_URL, training_columns
from feedback_etl.compliance.data_files import Written, unknown_pseudonyms
from feedback_etl.compliance.item import Item, item
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.exports.manifest import Manifest
from feedback_etl.transform.expressions import age_ranges, hash_id
from feedback_etl.transform.identifiers import bounded, unbroken
from feedback_etl.transform.training_schema import PSEUDONYM_PATTERN

GUESSED_IDS = 1_000_000
"""Integers from 0 on that everybody tries first."""

NARROWEST_RANGE = 5
"""Years; an age in a narrower range is hardly a range."""

SHORTEST_ID = 6
"""Characters; shorter ids are in texts by chance."""

_IDS_AT_ONCE = 200_000
_FORMS = (bounded, unbroken)
_IMAGE = r"(?i)^[a-z0-9]+://|\.(jpe?g|png|webp|heic|gif)\b"


def contract_columns(exports: Sequence[Written]) -> Item:
    """Only columns of the contract."""

    def fault(each: Written) -> str:
        foreign = [name for name in each.columns if name not in _contract(each.manifest)]
        return f"has {', '.join(foreign)}" if foreign else ""

    return _each("columns", exports, fault, passed=f"only those of the contract, in {_files(exports)}")


def guessable(exports: Sequence[Written], ids: Iterable[str]) -> Item:
    """No pseudonym is the plain hash of an id that somebody knows or guesses."""
    known = pl.Series("id", list(ids), dtype=pl.String)
    guessed = pl.select(pl.int_range(GUESSED_IDS).cast(pl.String).alias("id")).to_series()
    ids_tried = pl.concat([known, guessed]).to_frame()
    plain = ids_tried.select(hash_id("id", unkeyed=True)).to_series().implode()
    published = ids_tried.select(hash_id("id", key=DEMO_KEY, domain="analysis_id")).to_series().implode()

    def fault(each: Written) -> str:
        if "hash_id" in each.manifest.overridden:
            return f"cannot be tested: {unknown_pseudonyms(each.manifest)}"
        if strange := int((~each.pseudonyms.str.contains(PSEUDONYM_PATTERN)).sum()):
            return f"has {strange:,} values that are no pseudonyms"
        if each.without_analysis:
            return f"has {each.without_analysis:,} rows without a pseudonym"
        if found := int(each.pseudonyms.is_in(plain).sum()):
            return f"has {found:,} plain hashes of ids"
        found = int(each.analyses.is_in(published).sum())
        return f"has {found:,} pseudonyms of the published key of the demo" if found else ""

    passed = (
        f"none is the plain hash of {len(known):,} ids of the application or of 0 to {GUESSED_IDS - 1:,}, or made with "
        "the published key of the demo"
    )
    return _each("pseudonyms", exports, fault, passed=passed)


def raw_ids(exports: Sequence[Written], users: Iterable[str]) -> Item:
    """No text holds the id of a user, where that is long enough not to be there by chance."""
    ids = list(dict.fromkeys(user for user in users if len(user) >= SHORTEST_ID))
    of_users = pl.DataFrame({"id": ids}, schema={"id": pl.String})
    patterns = {form: of_users.select(form("id")).to_series().drop_nulls().to_list() for form in _FORMS}
    names = {
        each.path: [
            name
            for name, values in each.texts.items()
            if any(_holds(values.to_frame().select(form(name)).to_series(), patterns[form]) for form in _FORMS)
        ]
        for each in exports
    }

    def fault(each: Written) -> str:
        return f"holds ids of users in {', '.join(names[each.path])}" if names[each.path] else ""

    passed = f"no text holds one of {len(ids):,} ids of users of {SHORTEST_ID} characters or more"
    if not ids:
        passed = f"not to be told: no user has an id of {SHORTEST_ID} characters or more, and shorter ones are in texts"
    again = "--hash-recommendation-id" if any("recommendation_id" in found for found in names.values()) else ""
    return _each("raw ids", exports, fault, passed=passed, again=again)


def _holds(texts: pl.Series, ids: Sequence[str]) -> bool:
    """Whether one of the texts holds one of the ids."""
    some = (list(ids[start : start + _IDS_AT_ONCE]) for start in range(0, len(ids), _IDS_AT_ONCE))
    return any(texts.str.contains_any(each).any() for each in some)


def ages(exports: Sequence[Written]) -> Item:
    """Ages are ranges."""
    nothing = pl.Series([], dtype=pl.String)

    def fault(each: Written) -> str:
        labels = each.texts.get("age_range", nothing)
        if "bucket_age" in each.manifest.overridden:
            return _age_in(labels)
        edges = each.manifest.settings.get("age_edges", AGE_EDGES)
        ranges = list(age_ranges(edges).categories)
        if narrow := [f"{low}-{high}" for low, high in pairwise(edges) if high - low < NARROWEST_RANGE]:
            return f"has ranges of fewer than {NARROWEST_RANGE} years: {', '.join(narrow)}"
        return "" if labels.is_in(ranges).all() else "has other ages than ranges"

    return _each("ages", exports, fault, passed="only ranges, or labels of the application's own that are no ages")


def _age_in(labels: pl.Series) -> str:
    """Return what is wrong with an application's own labels: one that is an age, or a range of few years."""
    bounds = labels.str.extract_groups(r"^(\d+)(?:\s*-\s*(\d+))?$").struct.unnest().cast(pl.Float64)
    ages = int(bounds.select((pl.nth(0).is_not_null() & pl.nth(1).is_null()).sum()).item())
    narrow = int(bounds.select((pl.nth(1) - pl.nth(0) < NARROWEST_RANGE).sum()).item())
    if ages:
        return f"has {ages:,} labels that are ages"
    return f"has {narrow:,} ranges of fewer than {NARROWEST_RANGE} years" if narrow else ""


def images(exports: Sequence[Written], agreed: Mapping[str | None, pl.Series]) -> Item:
    """URLs of images are only where they were asked for, and of users who (still) agree.

    Args:
        exports: What there is.
        agreed: The pseudonyms of the analyses of those who do, by the id of the key.
    """

    def fault(each: Written) -> str:
        asked_for = {IMAGE_URL.name}.intersection(_contract(each.manifest))
        names = [n for n, values in each.texts.items() if n not in asked_for and values.str.contains(_IMAGE).any()]
        if names:
            return f"holds URLs or names of images in {', '.join(names)}"
        if each.imaged.is_empty():
            return ""
        if each.manifest.pseudonyms not in agreed:
            return f"holds images, and {unknown_pseudonyms(each.manifest)}"
        withdrawn = int((~each.imaged.is_in(agreed[each.manifest.pseudonyms].implode())).sum())
        return f"holds images of {withdrawn:,} analyses whose users do not agree (any more)" if withdrawn else ""

    return _each("images", exports, fault, passed="no URL of one without opt-in")


def contents(exports: Sequence[Written]) -> Item:
    """Files hold what was written."""

    def fault(each: Written) -> str:
        wholes = [
            each.place.described(file.path)[1] in (file.sha256, file.becoming.get("sha256")) for file in each.files
        ]
        return "" if all(wholes) else "does not match its manifest"

    return _each("contents", exports, fault, passed=f"{_files(exports)} match their manifests")


def duplicates(exports: Sequence[Written]) -> Item:
    """No feedback is in a file twice.

    It cannot be seen where times were cut down, or where the application recognises duplicates itself.
    """
    exact = [
        each
        for each in exports
        if each.manifest.settings.get("timestamp_precision", "exact") == "exact"
        and "pair_hash" not in each.manifest.overridden
    ]

    def fault(each: Written) -> str:
        return f"has {each.repeated:,} rows twice" if each.repeated else ""

    return _each("duplicates", exact, fault, passed=f"none in {_files(exact)} with exact times")


def _each(
    name: str, exports: Sequence[Written], fault: Callable[[Written], str], *, passed: str, again: str = ""
) -> Item:
    """An item that is tested on every file; those in which something is wrong are to be made again."""
    faults = {each.path: found for each in exports if (found := fault(each))}
    files = " ".join(shlex.quote(str(path)) for path in faults)
    told = [f"{path.name} {found}" for path, found in faults.items()]
    return item(name, told, passed=passed, mend=f"rm {files} && feedback-etl export {again}".strip())


def _contract(manifest: Manifest) -> list[str]:
    asked_for = manifest.settings.get("extra_columns", [])
    return [*training_columns(), *(name for name, *_ in asked_for)]


def _files(exports: Sequence[Written]) -> str:
    return f"{len(exports)} file{'' if len(exports) == 1 else 's'}"
