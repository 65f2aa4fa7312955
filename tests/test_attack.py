"""An attacker with an export and all possible ids identifies no one without the key."""

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import exported, rows_of
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.privacy.keys import Key

attacked = pytest.mark.parametrize(
    "most",
    [10_000, pytest.param(100_000, marks=pytest.mark.slow), pytest.param(1_000_000, marks=pytest.mark.torture)],
)
"""How many ids the attacker tries."""


def ids_up_to(most: int) -> list[int]:
    return [0, 7, 4_711, most // 2, most - 1, most]


@pytest.fixture
def application(sqlite_database: Database, most: int) -> Database:
    """Feedback on analyses all over the range."""
    ids = [{"id": n, "user_id": n, "analysis_id": id_} for n, id_ in enumerate(ids_up_to(most), 1)]
    rows = [row | {"recommendation_id": 1, "helpful_rating": 5, "created_at": "2025-10-20 10:00:00"} for row in ids]
    sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}], feedbacks=rows)
    return sqlite_database


def pseudonyms(database: Database, folder: Path, **options: Any) -> set[str]:
    return {*rows_of(Path(exported(database, folder, **options).export_filename))["analysis_hash"]}


def forms(number: pl.Expr) -> Iterator[pl.Expr]:
    """An id as it may be written: decimal, padded, as a UUID."""
    text = number.cast(pl.String)
    yield text
    for width in (6, 7, 8, 10, 12):
        yield text.str.zfill(width)
    yield pl.format("00000000-0000-0000-0000-{}", text.str.zfill(12))


def guesses(secret: str | None, most: int) -> Iterator[pl.Series]:
    """The hashes of all ids in all forms, with and without the published details of the method."""
    numbers = pl.DataFrame({"id": range(most + 1)})
    published = ["", "analysis_id:"] + ["feedback_etl:", "feedback_etl analysis_id:"] * (secret is None)
    for form in forms(pl.col("id")):
        for before in published:
            text = pl.lit(before) + form
            hashed = text.chash.sha2_256() if secret is None else text.chash.hmac_sha256(key=secret)  # type: ignore[attr-defined]
            yield numbers.select(hashed.str.slice(0, 16)).to_series()


def hits(found: set[str], secret: str | None, most: int) -> set[str]:
    """The pseudonyms that an attacker guesses."""
    wanted = pl.Series(sorted(found)).implode()
    return {pseudonym for series in guesses(secret, most) for pseudonym in series.filter(series.is_in(wanted))}


@attacked
def test_hashes_of_all_ids_match_no_keyed_pseudonym(application: Database, tmp_path: Path, most: int) -> None:
    """Neither plain hashes, nor those with a key that we have published, its id, or an empty word."""
    found = pseudonyms(application, tmp_path)
    assert len(found) == len(ids_up_to(most))
    assert hits(found, None, most) == set()
    for published in (DEMO_KEY.text, Key(KEY).id, "analysis_id"):
        assert hits(found, published, most) == set()


@attacked
def test_all_ids_lead_to_everybody_in_an_unkeyed_one(application: Database, tmp_path: Path, most: int) -> None:
    """Therefore unkeyed pseudonyms require an option."""
    found = pseudonyms(application, tmp_path, key=None, unkeyed=True)
    assert hits(found, None, most) == found


@pytest.mark.parametrize("most", [10_000])
def test_two_keys_share_no_pseudonym(application: Database, tmp_path: Path) -> None:
    """Exports of different keys cannot be joined."""
    assert not pseudonyms(application, tmp_path / "a") & pseudonyms(application, tmp_path / "b", key=OTHER_KEY)


def test_a_number_is_another_in_another_column() -> None:
    """The same number as an analysis and as a recommendation has two pseudonyms; so has a user."""
    frame = pl.DataFrame({"analysis_id": [42], "recommendation_id": [42], "user_id": [42]})
    made = frame.select(fe.hash_id(name, key=KEY) for name in frame.columns).row(0)
    assert len({*made}) == 3
    assert made[0] == hmac.new(KEY.encode(), b"analysis_id:42", hashlib.sha256).hexdigest()[:16]
