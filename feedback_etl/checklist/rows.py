"""What is tested on the rows that exports hold."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from feedback_etl.checklist.item import Item, item
from feedback_etl.columns import IMAGE_URL, training_columns
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.manifest import Manifest
from feedback_etl.exports.text import scan_text
from feedback_etl.expressions import AGE_EDGES, age_ranges, bounded, hash_id
from feedback_etl.transforms import PAIR_KEY

GUESSED_IDS = 1_000_000
"""Integers from 0 on that everybody tries first."""

SHORTEST_ID = 6
"""Characters; shorter ids are in texts by chance."""

_IDS_AT_ONCE = 200_000
_IMAGE = r"(?i)^[a-z0-9]+://|\.(jpe?g|png|webp|heic|gif)\b"


class Written(NamedTuple):
    """What the data file of an export holds.

    Attributes:
        manifest: Of the export.
        path: Of the file.
        columns: Its columns.
        rows: How many there are.
        repeated: Rows that are the same feedback as an earlier one.
        pseudonyms: Each once.
        texts: The distinct values of its other columns of text, by column.
    """

    manifest: Manifest
    path: Path
    columns: list[str]
    rows: int
    repeated: int
    pseudonyms: pl.Series
    texts: dict[str, pl.Series]


def written(folder: Path, manifest: Manifest) -> Written | None:
    """What an export holds; None where its file is gone.

    Raises:
        ExportFileError: The file cannot be read.
    """
    file = manifest.file("pairs")
    if file is None or not (folder / file.path).exists():
        return None
    path = folder / file.path
    try:
        rows = scan_text(path)
        columns = rows.collect_schema().names()
        key = [name for name in PAIR_KEY if name in columns]
        height, pairs = rows.select(pl.len(), pl.struct(key).n_unique()).collect().row(0)
        names = [name for name in columns if name not in ("feedback_timestamp", "export_date")]
        values = {name: rows.select(pl.col(name).drop_nulls().unique()).collect().to_series() for name in names}
    except (OSError, pl.exceptions.PolarsError):  # whose texts may hold values
        raise ExportFileError(f"{path} cannot be read: it is damaged, or not what its name says.") from None
    return Written(manifest, path, columns, height, height - pairs, values.pop("analysis_hash"), values)


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
    hashes = pl.concat([known, guessed]).to_frame().select(hash_id("id", unkeyed=True)).to_series().implode()

    def fault(each: Written) -> str:
        found = int(each.pseudonyms.is_in(hashes).sum())
        return f"has {found:,} plain hashes of ids" if found else ""

    passed = f"none is the plain hash of {len(known):,} ids of the application, or of 0 to {GUESSED_IDS - 1:,}"
    return _each("pseudonyms", exports, fault, passed=passed)


def raw_ids(exports: Sequence[Written], users: Iterable[str]) -> Item:
    """No text holds the id of a user, where that is long enough not to be there by chance."""
    ids = list(dict.fromkeys(user for user in users if len(user) >= SHORTEST_ID))
    patterns = pl.Series("id", ids, dtype=pl.String).to_frame().select(bounded("id")).to_series().drop_nulls().to_list()
    some = [patterns[start : start + _IDS_AT_ONCE] for start in range(0, len(patterns), _IDS_AT_ONCE)]

    def fault(each: Written) -> str:
        texts = {name: values.to_frame().select(bounded(name)).to_series() for name, values in each.texts.items()}
        names = [name for name, text in texts.items() if any(text.str.contains_any(ids).any() for ids in some)]
        return f"holds ids of users in {', '.join(names)}" if names else ""

    passed = f"no text holds one of {len(ids):,} ids of users of {SHORTEST_ID} characters or more"
    return _each("raw ids", exports, fault, passed=passed, again="--recommendation-id hash")


def ages(exports: Sequence[Written]) -> Item:
    """Ages are ranges."""
    nothing = pl.Series([], dtype=pl.String)

    def fault(each: Written) -> str:
        ranges = list(age_ranges(each.manifest.settings.get("age_edges", AGE_EDGES)).categories)
        return "" if each.texts.get("age_range", nothing).is_in(ranges).all() else "has other ages than ranges"

    return _each("ages", exports, fault, passed="only ranges")


def images(exports: Sequence[Written]) -> Item:
    """URLs of images are only where they were asked for, by users who agreed."""

    def fault(each: Written) -> str:
        asked_for = {IMAGE_URL.name}.intersection(_contract(each.manifest))
        names = [n for n, values in each.texts.items() if n not in asked_for and values.str.contains(_IMAGE).any()]
        return f"holds URLs or names of images in {', '.join(names)}" if names else ""

    return _each("images", exports, fault, passed="no URL of one without opt-in")


def duplicates(exports: Sequence[Written]) -> Item:
    """No feedback is in a file twice; where times were cut down, that cannot be seen."""
    exact = [each for each in exports if each.manifest.settings.get("timestamp_precision", "exact") == "exact"]

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
