"""k over a series that follows changes: over all versions of its rows, and over the newest ones."""

import errno
import os
import random
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from anonymity_checker import published_rows
from databases import Database
from folders import NOW, visible
from pseudonym_keys import KEY
from test_series_k import DAY, HOUR, K, add, check_k, export_night
from test_series_k import app as app  # a fixture
from test_series_k import folder as folder  # a fixture

import feedback_etl as fe
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.options.export import ExportOptions
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.overrides import Overrides


def edit(app: Database, day: int, timeframe: str, *ids: int) -> None:
    """Change the timeframe of rows, by their ids, on a day."""
    with app.engine.begin() as connection:
        for number in ids:
            connection.exec_driver_sql(
                f"UPDATE recommendation_feedbacks SET timeframe = '{timeframe}', "
                f"updated_at = '{NOW + day * DAY - HOUR}' WHERE id = {number}"
            )


def follow(app: Database, folder: Path | str, day: int, **options: Any) -> ExportReport:
    """Export the new and the changed rows of a day."""
    return export_night(app, folder, day, cursor="updated_at", **options)


def newest(folder: Path) -> dict[str, int]:
    """Count the rows of each class that a reader of the newest versions finds; each is of another person."""
    rows = fe.scan_training(folder).collect()
    return dict(rows.group_by("timeframe").len().rows())


def test_k_of_newest_versions_is_checked_where_files_were_counted_alone(
    app: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions did: both files have k, but of the first class one person remains."""
    monkeypatch.setattr(ExportRequest, "counts_series", property(lambda _: False))
    add(app, 1, (1, "a"), (2, "a"), (3, "a"))
    assert follow(app, folder, 1).risk["k"] == 3
    add(app, 2, (7, "b"))
    edit(app, 2, "b", 1000, 1001)
    assert follow(app, folder, 2).risk["k"] == 3
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"`k` was counted in .* alone.* Begin a series in another folder"):
        follow(app, folder, 3)
    assert newest(folder) == {"a": 1, "b": 3}
    item = check_k(app, folder)
    assert item.status == "failed"
    assert " is 1 for age_range, conditions_detected, timeframe counted over all versions of its rows" in item.detail
    result = fe.privacy.erase(folder, keep_k=True, database=app.url, keys=[Key(KEY)])
    assert (result.suppressed, newest(folder)) == (6, {})
    assert check_k(app, folder).status == "ok"


@pytest.mark.parametrize(
    "requirements", [{"on_small_class": "generalize"}, {"l": 2}, {"t": 0.3}], ids=["generalize", "l", "t"]
)
def test_requirement_that_newest_versions_could_violate_is_refused(folder: Path, requirements: dict[str, Any]) -> None:
    """A full export ignores the cursor; without k nothing is generalised."""
    options = requirements | {"cursor": "updated_at"}
    assert ExportOptions.from_keywords(k=K, **options).privacy.k == K
    with pytest.raises(UsageError, match=r"or omit `cursor`|or `incremental`"):
        ExportOptions.from_keywords(k=K, incremental=True, **options)


def test_k_of_versions_is_refused_where_an_application_makes_the_pseudonyms(app: Database, folder: Path) -> None:
    """Versions that it makes cannot be counted together; without k, or without the cursor, they need not be."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"))
    overrides = Overrides(hash_id=str)
    with pytest.raises(UsageError, match="leave `cursor` or `k` out"):
        follow(app, folder, 1, overrides=overrides)
    assert follow(app, folder, 1, overrides=overrides, k=None).exported_records == 3


def test_version_waits_that_would_leave_too_few_people_in_its_class(app: Database, folder: Path) -> None:
    """Two of three people would leave a class: they wait, until the third one leaves it as well."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b"))
    assert follow(app, folder, 1).risk["scope"] == "series"
    edit(app, 2, "b", 1000, 1001)
    report = follow(app, folder, 2)
    assert (report.exported_records, report.pending_records, newest(folder)) == (0, 2, {"a": 3, "b": 3})
    add(app, 3, (7, "b"))
    report = follow(app, folder, 3)
    assert (report.exported_records, report.pending_records, newest(folder)) == (1, 2, {"a": 3, "b": 4})
    edit(app, 4, "b", 1002)
    report = follow(app, folder, 4)
    assert (report.exported_records, report.pending_records, newest(folder)) == (3, 0, {"b": 7})
    assert (report.risk["k"], check_k(app, folder).status) == (3, "ok")


def test_version_that_waits_is_replaced_by_a_newer_one(app: Database, folder: Path) -> None:
    """One row of the pair is exported, and the other one counts as a duplicate."""
    add(app, 1, (1, "a"))
    follow(app, folder, 1)
    edit(app, 2, "b", 1000)
    report = follow(app, folder, 2)
    assert (report.deduplicated_records, report.pending_records) == (1, 1)
    add(app, 3, (2, "b"), (3, "b"))
    assert (follow(app, folder, 3).exported_records, newest(folder)) == (3, {"b": 3})


def test_version_that_waits_too_long_is_suppressed(app: Database, folder: Path) -> None:
    """The version before it stays."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b"))
    follow(app, folder, 1)
    edit(app, 2, "b", 1000)
    follow(app, folder, 2, max_pending="10d")
    report = follow(app, folder, 13, max_pending="10d")
    assert (report.suppressed_records, report.pending_records, newest(folder)) == (1, 0, {"a": 3, "b": 3})


@pytest.mark.parametrize(
    ("function", "incremental", "in_parts"),
    [
        ("data_files.file_formats.RowWriter.finish", True, False),
        ("pipeline.exchange_files.hash_file", True, True),
        ("pipeline.exchange_files.small_classes_path", False, True),
    ],
)
def test_disk_that_fails_while_rows_are_chosen_is_reported(
    app: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, function: str, *, incremental: bool, in_parts: bool
) -> None:
    """As while they are written: in one sentence, and nothing is published."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"feedback_etl.{function}", fail)
    options: dict[str, Any] = {"cursor": "updated_at"} if incremental else {"incremental": False}
    with ThreadPoolExecutor(1) as executor, pytest.raises(ExportFileError, match=f"{folder}: the disk is full"):
        export_night(app, folder, 1, executor=executor if in_parts else None, **options)
    assert visible(folder) == []


def row_of(number: int, timeframe: str, day: int) -> dict[str, Any]:
    """Return a row of the user and the analysis of this number."""
    created = NOW + day * DAY - (number + 1) * HOUR / 100
    ids = dict.fromkeys(("id", "user_id", "analysis_id"), number)
    return {**ids, "recommendation_id": 1, "helpful_rating": 5, "timeframe": timeframe, "created_at": created}


def read_versions(place: str) -> list[tuple[str, str | None]]:
    """Return pseudonym (of a person here) and timeframe of each version, the newest last, without our readers."""
    storage = open_storage(place)
    manifests = sorted(list_manifests(storage), key=lambda manifest: manifest.chain["number"])
    with ExitStack() as stack:
        files = [file.path for manifest in manifests for file in manifest.all("pairs")]
        rows = published_rows([stack.enter_context(storage.local_copy(path)) for path in files])
    return [(str(row["analysis_hash"]), row["timeframe"]) for row in rows]


def least_people(rows: Iterable[tuple[str, str | None]]) -> int:
    """Return the number of people in the smallest class; k without rows."""
    classes = defaultdict[str | None, set[str]](set)
    for person, timeframe in rows:
        classes[timeframe].add(person)
    return min(map(len, classes.values()), default=K)


def draw_changes(seed: int) -> tuple[str, list[list[tuple[int, str]]]]:
    """Draw the way to export and, by night, the rows that are new or changed: id and timeframe."""
    draw = random.Random(seed)
    nights = []
    for _ in range(draw.randint(3, 5)):
        chosen = draw.sample(range(1, 13), draw.randint(2, 9))
        nights.append([(number, draw.choice("aab")) for number in chosen])
    return ("csv", "parquet", "store", "executor")[seed % 4], nights


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.torture) for n in range(4, 60))])
def test_all_ways_to_read_a_random_series_have_k(app: Database, tmp_path: Path, bucket_url: str, seed: int) -> None:
    """An independent count of people in all versions, and in the newest ones; no version leaves twice."""
    way, nights = draw_changes(seed)
    place = bucket_url if way == "store" else str(tmp_path / "exports")
    options: dict[str, Any] = {"format": "parquet"} if way == "parquet" else {}
    present: set[int] = set()
    with ThreadPoolExecutor(2) as executor:
        options |= {"executor": executor} if way == "executor" else {}
        for day, changes in enumerate(nights, 1):
            new = [(number, timeframe) for number, timeframe in changes if number not in present]
            app.fill(feedbacks=[row_of(number, timeframe, day) for number, timeframe in new])
            for number, timeframe in changes:
                if number in present:
                    edit(app, day, timeframe, number)
            present |= {number for number, _ in new}
            report = follow(app, place, day, **options)
            versions = read_versions(place)
            assert least_people(versions) >= K
            assert least_people(dict(versions).items()) >= K
            assert len(dict(versions)) + report.pending_records >= len(present)
