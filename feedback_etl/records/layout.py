"""The names and the folders of the files of an export.

    ml/feedback_training/
      feedback_training_20251025_120000.csv              the pairs; .csv.gz, .csv.zst or .parquet
      feedback_training_20251025_120000.manifest.json    named last: the commit point
      rejected/feedback_training_20251025_120000_rejected.txt
      items/feedback_training_20251025_120000_items.csv  the items of each pair; as the pairs
      .feedback_etl/feedback_training_20251025_120000.rows    digests of the rows that an incremental export read
      .feedback_etl/feedback_training_20251025_120000.pending    pending rows of a series
      .feedback_etl/feedback_training_20251025_120000.members    people of its equivalence classes, as digests
      .feedback_etl/feedback_training_20251025_120000.links    the analysis of each row of a shared export

Lists of rejected rows are CSV, and named `.txt` so that `**/*.csv` does not find them. Exports of earlier versions
call them `.csv`. A second export of the same second is called `..._1`. While a file is being written it has
the same name with a dot before it and `.tmp` after it.

An export in parts, which several machines have written or an object store contains, has folders instead of files:

      feedback_training_20251025_120000/part-00000.parquet             a range of time each, in their order
      rejected/feedback_training_20251025_120000/part-00000.txt
      .feedback_etl/feedback_training_20251025_120000/part-00000.rows    digests of the rows of an incremental export
      .feedback_etl/feedback_training_20251025_120000/part-00000.links    the analyses of the rows of a shared part
      .feedback_etl/feedback_training_20251025_120000/part-00000.arrow    spooled rows, with `--k`, until the commit
"""

import re
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from feedback_etl.storage.base import STATE_FOLDER

PREFIX = "feedback_training_"
MANIFEST_SUFFIX = ".manifest.json"
DATA_SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
REJECTED_FOLDER = "rejected"
REJECTED_SUFFIX = ".txt"
ITEMS_FOLDER = "items"
DATA_FOLDERS = (REJECTED_FOLDER, ITEMS_FOLDER)
"""The folders of further data files, beside that of the pairs."""
STEM = re.compile(rf"{PREFIX}\d{{8}}_\d{{6}}(_\d+)?(?!\d)")
"""The beginning of the names of the files and folders of an export."""

STATE_KINDS = frozenset({"rows", "members", "pending"})
"""The kinds of files of the state of a series, which the next export of the series supersedes."""

_MAX_PER_SECOND = 10_000


_REJECTED_LIST = re.compile(rf"{REJECTED_FOLDER}/(.+_rejected|.+/part-\d+){re.escape(REJECTED_SUFFIX)}")
_STATE_FILES = {f"{STATE_FOLDER}/{name}" for name in ("lock", "audit.jsonl", "tombstones.jsonl")}
_STATE_OBJECT = re.compile(rf"{re.escape(STATE_FOLDER)}/(audit|tombstones)/\d{{8}}\.json")


def candidate_stems(now: datetime) -> Iterator[str]:
    """Iterate over the stems that an export of this second may use, in order of preference."""
    stem = f"{PREFIX}{now:%Y%m%d_%H%M%S}"
    yield stem
    yield from (f"{stem}_{number}" for number in range(1, _MAX_PER_SECOND))


def manifest_path(stem: str) -> str:
    """Return the path of the manifest in the folder."""
    return f"{stem}{MANIFEST_SUFFIX}"


def rejected_path(stem: str) -> str:
    """Return the path of the list of rejected rows in the folder."""
    return _rejected_paths(stem)[0]


def items_path(stem: str, suffix: str) -> str:
    """Return the path of the item rows in the folder."""
    return f"{ITEMS_FOLDER}/{stem}_items{suffix}"


def part_path(stem: str, number: int, suffix: str) -> str:
    """Return the path of a part of the pairs in the folder.

    >>> part_path("feedback_training_20251025_120000", 7, ".parquet")
    'feedback_training_20251025_120000/part-00007.parquet'
    """
    return f"{stem}/part-{number:05}{suffix}"


def rejected_part_path(stem: str, number: int) -> str:
    """Return the path of the rejected rows of a part in the folder."""
    return f"{REJECTED_FOLDER}/{stem}/part-{number:05}{REJECTED_SUFFIX}"


def parse_part_number(path: str) -> int:
    """Parse the number of a part of any kind from its path.

    >>> parse_part_number("rejected/feedback_training_20251025_120000/part-00007.txt")
    7
    """
    return int(path.rpartition("part-")[2].partition(".")[0])


def earlier_seen_rows_path(stem: str) -> str:
    """Return the path of the seen rows of the exports before, in the folder, for the workers of a partitioned one."""
    return f"{STATE_FOLDER}/{stem}/part-00000.seen.rows"


def small_classes_path(stem: str) -> str:
    """Return the path of the list of small equivalence classes, whose spooled rows are suppressed or generalised."""
    return f"{STATE_FOLDER}/{stem}/small_classes.arrow"


def state_path(stem: str, kind: str) -> str:
    """Return the path of a file of the state folder: rows, members, pending, links; spool, under its staged name only.

    >>> state_path("feedback_training_20251025_120000", "rows")
    '.feedback_etl/feedback_training_20251025_120000.rows'
    """
    return f"{STATE_FOLDER}/{stem}.{kind}"


def state_part_path(stem: str, kind: str, number: int) -> str:
    """Return the path of a part of a file of the state folder; spooled rows are of the kind arrow."""
    return f"{STATE_FOLDER}/{stem}/part-{number:05}.{kind}"


def part_folders(stem: str) -> list[str]:
    """Return the folders that a partitioned export may use."""
    return [stem, f"{REJECTED_FOLDER}/{stem}", f"{STATE_FOLDER}/{stem}"]


def export_paths(stem: str) -> list[str]:
    """Return all paths in the folder that an export may use."""
    data = (path for suffix in DATA_SUFFIXES for path in (f"{stem}{suffix}", items_path(stem, suffix)))
    state = (state_path(stem, kind) for kind in ("rows", "links", "members", "pending", "spool"))
    return [*data, *_rejected_paths(stem), *state, manifest_path(stem)]


def _rejected_paths(stem: str) -> list[str]:
    """Return the paths that an export may use, the second in earlier versions."""
    return [f"{REJECTED_FOLDER}/{stem}_rejected{suffix}" for suffix in (REJECTED_SUFFIX, ".csv")]


def contains_rows(path: str) -> bool:
    """Return whether a path in the folder has the name of a data file or of a list of rejected rows.

    >>> [contains_rows(path) for path in ("copy.csv", "rejected/copy_rejected.txt", "notes.txt")]
    [True, True, False]
    """
    return path.endswith(DATA_SUFFIXES) or _REJECTED_LIST.fullmatch(path) is not None


def is_state_file(path: str, *, is_object: bool) -> bool:
    """Return whether a path is that of the lock, the audit log or the tombstones, in a folder or in an object store.

    >>> [is_state_file(f".feedback_etl/{name}", is_object=False) for name in ("lock", "audit/00000001.json", "a.csv")]
    [True, False, False]
    """
    return _STATE_OBJECT.fullmatch(path) is not None if is_object else path in _STATE_FILES


def has_stem(path: str, stems: Collection[str]) -> bool:
    """Return whether a path in the folder belongs to an export with one of these stems, staged files included."""
    matches = (STEM.match(part.removeprefix(".")) for part in path.split("/"))
    return any(match is not None and match[0] in stems for match in matches)


def staged_path(path: Path) -> Path:
    """Return the path of a file until it is published."""
    return path.with_name(f".{path.name}.tmp")


def is_path_of_export(path: str, stem: str) -> bool:
    """Return whether a path is of an export by its name and folder; parts are in folders named after the stem."""
    *folders, name = path.split("/")
    own = {
        (): name == stem or name.startswith(f"{stem}."),
        (REJECTED_FOLDER,): f"{REJECTED_FOLDER}/{name}" in _rejected_paths(stem),
        (ITEMS_FOLDER,): path in [items_path(stem, suffix) for suffix in DATA_SUFFIXES],
        (STATE_FOLDER,): name.removeprefix(f"{stem}.") in ("rows", "links", "members", "pending"),
    } | dict.fromkeys([(stem,), (REJECTED_FOLDER, stem), (STATE_FOLDER, stem)], name.startswith("part-"))
    return own.get(tuple(folders), False) and "\0" not in name
