"""Generate the rows of the sample database: a fictitious skin-care adviser, with the defects of real feedback.

No person in it exists. Ages, conditions, ratings and times are correlated, so that a model has something to learn; a
few rows are unrated, repeated or invalid, so that no count of an export is zero.
"""

import json
import random
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import cycle, islice
from typing import NamedTuple

import sqlalchemy as sa

from feedback_etl.database import tables
from feedback_etl.demo.parameters import (
    AGE_BANDS,
    EXTRAS,
    FIRST_ANALYSIS,
    HOUR_WEIGHTS,
    KIND_WEIGHTS,
    MISSING_SHARES,
    SKINS,
    SUNSCREEN_RULE,
    TIMEFRAME_DELAYS,
    TIMEFRAME_EFFECTS,
    TIMEFRAME_WEIGHTS,
    TIMEFRAMES,
    WEEKDAY_WEIGHTS,
    WINDOW_HOURS,
    WRONG_CONDITIONS,
    WRONG_CONDITIONS_EVERY,
    WRONG_EVERY,
    WRONG_VALUES,
)
from feedback_etl.errors import UsageError

CHUNK_ROWS = 20_000

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000  # in microseconds

Row = tuple[int | str | None, ...]


class _Sample(NamedTuple):
    """Values shared by several tables; users and recommendations count from 0, their ids from 1."""

    ages: list[int]  # of each user
    owners: list[int]  # user of each recommendation
    skins: list[int]  # index into SKINS of each recommendation
    days: list[int]  # since EPOCH, of each recommendation, ascending
    kinds: list[str]  # of each feedback row
    visits: list[tuple[int, int, int]]  # time, recommendation, index into TIMEFRAMES; none for "repeated"


def generate_tables(rows: int, *, seed: int, now: datetime) -> Iterator[tuple[sa.Table, list[Row]]]:
    """Generate the rows of all tables in chunks of at most 20,000, parents before children.

    A row is a tuple in the order of the table's columns, of int, bool, str and None; times and JSON are text.
    `sqlite3.executemany` and PostgreSQL's COPY in text format take it as it is. A few feedback rows refer to
    no recommendation: PostgreSQL accepts them only with `session_replication_role = replica`.

    Args:
        rows: Number of feedback rows, 0 or more.
        seed: Seed of the random numbers.
        now: Naive UTC; the feedback is from the 180 days before it.

    Raises:
        UsageError: `rows` is negative, or `now` has a time zone.

    >>> *_, (table, chunk) = generate_tables(2, seed=7, now=datetime(2025, 10, 25))
    >>> table.name, len(chunk)
    ('recommendation_feedbacks', 2)
    """
    if rows < 0:
        raise UsageError("`rows` must be 0 or more.")
    if now.tzinfo is not None:
        raise UsageError("`now` must be naive UTC, without a time zone.")
    return _iterate_chunks(rows, random.Random(seed), now) if rows else iter(())


def _iterate_chunks(rows: int, rng: random.Random, now: datetime) -> Iterator[tuple[sa.Table, list[Row]]]:
    sample = _plan(rows, rng, now)
    photos = {number: rng.getrandbits(128) for number in range(1, len(sample.days) + 1) if rng.random() < 0.6}
    analyses = range(FIRST_ANALYSIS, FIRST_ANALYSIS + len(sample.days))
    contents: tuple[tuple[sa.Table, Iterable[Row]], ...] = (
        (tables.users, ((user,) for user in range(1, len(sample.ages) + 1))),
        (tables.profiles, _generate_profiles(sample.ages, rng)),
        (tables.photos, ((number, f"photos/{name:032x}.jpg") for number, name in photos.items())),
        (tables.analyses, ((id_, n if n in photos else None) for n, id_ in enumerate(analyses, 1))),
        (tables.recommendation_records, _generate_recommendations(sample, rng)),
        (tables.recommendation_feedbacks, _generate_feedback(sample, rng)),
    )
    for table, table_rows in contents:
        remaining = iter(table_rows)
        while chunk := list(islice(remaining, CHUNK_ROWS)):
            yield table, chunk


def _plan(rows: int, rng: random.Random, now: datetime) -> _Sample:
    kinds = rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()), k=rows)
    kinds[0] = "rated"  # nothing before it to repeat
    kinds[WRONG_EVERY // 2 :: WRONG_EVERY] = ["wrong"] * len(kinds[WRONG_EVERY // 2 :: WRONG_EVERY])
    days, visits = _draw_visits(rng, _draw_times(rng, rows - kinds.count("repeated"), now))
    users = range(len(days) * 3 // 5 + 1)
    ages = [14 + int(66 * rng.betavariate(1.6, 3.0)) for _ in users]
    activity = [min(rng.paretovariate(2), 30.0) for _ in users]  # a few ask for advice again and again
    owners = rng.choices(users, activity, k=len(days))
    return _Sample(ages, owners, _draw_skins(rng, ages, owners), days, kinds, visits)


def _draw_times(rng: random.Random, count: int, now: datetime) -> list[int]:
    """Return strictly ascending microseconds since EPOCH, half of them whole seconds, weighted by hour and weekday."""
    start = now.replace(microsecond=0) - timedelta(hours=WINDOW_HOURS)
    hours = [start + timedelta(hours=n) for n in range(WINDOW_HOURS)]
    weights = [
        (1 + 0.6 * n / WINDOW_HOURS) * WEEKDAY_WEIGHTS[hour.weekday()] * HOUR_WEIGHTS[hour.hour]
        for n, hour in enumerate(hours)
    ]
    first = (start - EPOCH) // MICROSECOND
    drawn = (
        first + n * HOUR + int(rng.random() * 3_599 * SECOND)  # a second is kept free before `now`
        for n in rng.choices(range(WINDOW_HOURS), weights, k=count)
    )
    times = sorted(time - time % SECOND if time % 2 else time for time in drawn)
    for n in range(1, count):
        times[n] = max(times[n], times[n - 1] + 1)
    return times


def _draw_visits(rng: random.Random, times: list[int]) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Find a recommendation that is due for feedback at each time, or create one; about three visits share one."""
    days: list[int] = []
    due: defaultdict[tuple[int, int], list[int]] = defaultdict(list)  # recommendations by timeframe and day
    recommended: list[int] = []
    frames = rng.choices(range(len(TIMEFRAMES)), TIMEFRAME_WEIGHTS, k=len(times))
    for time, frame in zip(times, frames, strict=True):
        delays = TIMEFRAME_DELAYS[frame]
        candidates = [time // DAY - delay for delay in rng.sample(delays, len(delays))]
        day = next((day for day in candidates if due.get((frame, day))), None)
        if day is not None:
            recommended.append(due[frame, day].pop())
            continue
        for later in range(frame + 1, len(TIMEFRAMES)):
            due[later, candidates[0]].append(len(days))
        recommended.append(len(days))
        days.append(candidates[0])
    order = sorted(range(len(days)), key=days.__getitem__)
    position = dict(zip(order, range(len(order)), strict=True))
    return sorted(days), [(t, position[old], frame) for t, old, frame in zip(times, recommended, frames, strict=True)]


def _draw_skins(rng: random.Random, ages: list[int], owners: list[int]) -> list[int]:
    """Return the index into SKINS of each recommendation, mostly the usual one of its owner."""
    indexes = range(len(SKINS))
    weights = [[skin.weights[band] for skin in SKINS] for band in range(len(AGE_BANDS) + 1)]
    common = [weights[bisect(AGE_BANDS, age)] for age in ages]
    usual = [rng.choices(indexes, chances)[0] for chances in common]
    return [usual[n] if rng.random() < 0.7 else rng.choices(indexes, common[n])[0] for n in owners]


def _generate_profiles(ages: list[int], rng: random.Random) -> Iterator[Row]:
    copies = rng.choices((0, 1, 2), (10, 88, 2), k=len(ages))
    owners = (user for user, count in enumerate(copies) for _ in range(count))
    for number, user in enumerate(owners, 1):
        yield number, user + 1, None if rng.random() < 0.1 else ages[user]


def _generate_recommendations(sample: _Sample, rng: random.Random) -> Iterator[Row]:
    wrong = cycle(WRONG_CONDITIONS)
    today, counter = sample.days[0], 0
    for number, (day, skin) in enumerate(zip(sample.days, sample.skins, strict=True), 1):
        today, counter = day, counter + 1 if day == today else 1
        name = f"rec_{EPOCH + timedelta(days=day):%Y%m%d}_{counter:03d}"
        is_wrong = number % WRONG_CONDITIONS_EVERY == WRONG_CONDITIONS_EVERY // 2
        conditions = next(wrong) if is_wrong else json.dumps(SKINS[skin].conditions)
        rules = [*SKINS[skin].rules, *[SUNSCREEN_RULE] * (rng.random() < 0.3)]
        yield number, name, conditions, json.dumps(rules)


def _generate_feedback(sample: _Sample, rng: random.Random) -> Iterator[Row]:
    visits, wrong = iter(sample.visits), cycle(WRONG_VALUES)
    names = tables.recommendation_feedbacks.columns.keys()
    row: list[int | str | None] = []
    for number, kind in enumerate(sample.kinds, 1):
        if kind != "repeated":
            time, advice, frame = next(visits)
            user, created_at = sample.owners[advice], (EPOCH + time * MICROSECOND).isoformat(" ")
            effect = SKINS[sample.skins[advice]].effect + TIMEFRAME_EFFECTS[frame]
            ratings = _draw_ratings(sample.ages[user], effect, rng, is_unrated=kind == "unrated")
            extras = [rng.choice(texts) if rng.random() < share else None for share, texts in EXTRAS]
            row = [number, user + 1, FIRST_ANALYSIS + advice, advice + 1, *ratings, TIMEFRAMES[frame]]
            row += [*extras, created_at, created_at]
        if kind == "wrong":
            name, value = next(wrong)
            row[names.index(name)] = value
        yield (number, *row[1:])


def _draw_ratings(age: int, effect: float, rng: random.Random, *, is_unrated: bool) -> list[int | None]:
    """Return the four ratings: completion increases with age, and the other ratings with completion."""
    completion = 0 if rng.random() < 0.05 else _clamp(rng.gauss(55 + 0.4 * age + 5 * effect, 20), 1, 100)
    score = 1.9 + effect + 0.006 * age + 0.021 * completion + rng.gauss(0, 0.6)
    helpful, satisfaction = _clamp(score, 1, 5), _clamp(score + rng.gauss(-0.1, 0.6), 1, 5)
    ratings = (helpful, satisfaction, completion, score + rng.gauss(0, 0.4) > 3.2)
    missing = [is_unrated or rng.random() < share for share in MISSING_SHARES]
    return [None if is_missing else rating for rating, is_missing in zip(ratings, missing, strict=True)]


def _clamp(value: float, low: int, high: int) -> int:
    return min(max(round(value), low), high)
