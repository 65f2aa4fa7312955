"""Incremental exports with a cursor: a changed row is exported again, and a training set has its newest version."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from clusters import Watched
from databases import Database
from folders import NOW
from pseudonym_keys import KEY
from test_incremental import DAY, HOUR, MINUTE, add, export_next, row
from test_incremental import app as app  # a fixture
from test_incremental import folder as folder  # a fixture
from test_incremental_in_parts import read_pairs

import feedback_etl as fe
from feedback_etl.errors import ExportFileError, SourceError, UsageError
from feedback_etl.options.output import OutputOptions
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.expressions import hash_id

SECOND = timedelta(seconds=1)
QUERY = """
SELECT f.id AS feedback_id, user_id, analysis_id, 'rec_1' AS recommendation_id, helpful_rating, product_satisfaction,
  routine_completion_pct, would_recommend, '[]' AS conditions_analyzed, '[]' AS rules_applied, timeframe, 30 AS age,
  created_at, updated_at
FROM recommendation_feedbacks f
"""


def follow(database: Database, place: Path | str, now: datetime, **options: Any) -> ExportReport:
    """Run the next incremental export that follows changes."""
    return export_next(database, place, now, cursor="updated_at", **options)  # type: ignore[arg-type]


def edit(database: Database, number: int, at: datetime | None, **values: Any) -> None:
    """Change a row at a time."""
    table = sa.table("recommendation_feedbacks", *map(sa.column, ("id", "updated_at", *values)))
    time = None if at is None else at.isoformat(sep=" ", timespec="microseconds")
    with database.engine.begin() as connection:
        connection.execute(table.update().where(table.c.id == number), {"updated_at": time, **values})


def ratings(place: Path | str) -> dict[int, int]:
    """Return the helpful rating of each analysis in the training set."""
    frame = fe.scan_training(place).select("analysis_hash", "helpful_rating").collect()
    assert frame["analysis_hash"].is_unique().all()
    by_hash = dict(frame.rows())
    hashes = pl.DataFrame({"analysis_id": range(1, 20)}).select(hash_id("analysis_id", key=Key(KEY))).to_series()
    return {number: by_hash[each] for number, each in enumerate(hashes, 1) if each in by_hash}


class TestChanges:
    """Rows that were exported and then changed."""

    @pytest.mark.parametrize("form", [{}, {"format": "parquet"}], ids=str)
    def test_changed_row_is_exported_again(self, app: Database, folder: Path, form: dict[str, Any]) -> None:
        """However long ago it was created; the other rows are not."""
        add(app, row(1, NOW - 20 * DAY), row(2, NOW - 9 * DAY), row(3, NOW - MINUTE), row(4, NOW - 40 * DAY))
        first = follow(app, folder, NOW, **form)
        assert (first.exported_records, first.changed_records) == (3, 0)
        edit(app, 1, NOW + HOUR, helpful_rating=1)
        edit(app, 4, NOW + HOUR, helpful_rating=1)  # it was created before the window of the series
        report = follow(app, folder, NOW + DAY, **form)
        assert (report.exported_records, report.changed_records, report.total_feedback_records) == (1, 1, 1)
        assert ratings(folder) == {1: 1, 2: 5, 3: 5}
        assert report.late_records == 0
        idle = follow(app, folder, NOW + DAY + MINUTE, **form)
        assert (idle.total_feedback_records, idle.export_filename) == (0, "")

    def test_new_rows_are_exported_once(self, app: Database, folder: Path) -> None:
        """Also one that arrives late, one whose cursor is its creation, and one with a cursor before its creation."""
        add(app, row(1, NOW - 50 * MINUTE), row(2, NOW - MINUTE, updated_at=NOW - MINUTE))
        follow(app, folder, NOW)
        late = row(3, NOW - 55 * MINUTE)
        add(app, late, row(4, NOW + MINUTE, updated_at=NOW - 9 * DAY), row(5, NOW + MINUTE, updated_at=NOW + MINUTE))
        report = follow(app, folder, NOW + HOUR)
        assert (report.exported_records, report.changed_records, report.late_records) == (3, 0, 0)
        assert follow(app, folder, NOW + 2 * HOUR).exported_records == 0
        assert ratings(folder) == dict.fromkeys(range(1, 6), 5)

    def test_row_that_arrives_late_with_a_recent_cursor_is_exported(self, app: Database, folder: Path) -> None:
        """Without a cursor it would be lost to the series. It is counted: it could have an old cursor."""
        add(app, row(1, NOW - MINUTE))
        follow(app, folder, NOW)
        add(app, row(2, NOW - 9 * DAY, updated_at=NOW + MINUTE))
        report = follow(app, folder, NOW + HOUR)
        assert (report.exported_records, report.late_records, ratings(folder)) == (1, 1, {1: 5, 2: 5})

    def test_row_that_arrives_later_than_the_lookback_is_counted(self, app: Database, folder: Path) -> None:
        """Whether it has an old cursor or none."""
        add(app, row(1, NOW - DAY), row(2, NOW - MINUTE))
        follow(app, folder, NOW)
        add(app, row(3, NOW - 2 * DAY), row(4, NOW - 3 * DAY, updated_at=NOW - 2 * DAY), row(5, NOW))
        assert follow(app, folder, NOW + HOUR).late_records == 2

    @pytest.mark.any_database
    def test_edits_hide_no_late_rows(self, app: Database, folder: Path) -> None:
        """An edit takes a row out of an earlier period of the cursor; the late rows are exported by a backfill."""
        add(app, *(row(number, NOW - 5 * DAY) for number in range(1, 5)), row(5, NOW - MINUTE))
        follow(app, folder, NOW)
        for number in range(1, 5):
            edit(app, number, NOW + MINUTE, helpful_rating=1)
        add(app, row(6, NOW - 3 * DAY), row(7, NOW - 4 * DAY, updated_at=NOW - 3 * DAY))
        report = follow(app, folder, NOW + HOUR)
        assert (report.changed_records, report.exported_records, report.late_records) == (4, 4, 2)
        assert [series.late_records for series in fe.exports.list_series(folder)] == [2]
        assert follow(app, folder, NOW + HOUR).late_records == 0
        assert follow(app, folder, NOW + HOUR, backfill=True).exported_records == 2
        assert ratings(folder) == dict.fromkeys(range(1, 5), 1) | dict.fromkeys((5, 6, 7), 5)
        assert [series.late_records for series in fe.exports.list_series(folder)] == [0]

    def test_several_changes_between_two_exports_make_one_version(self, app: Database, folder: Path) -> None:
        """And changes within the lookback, or in the same second, are distinguished."""
        add(app, row(1, NOW - 5 * MINUTE), row(2, NOW - MINUTE))
        follow(app, folder, NOW)
        for rating in (4, 3):
            edit(app, 1, NOW + rating * SECOND, helpful_rating=rating)
        assert follow(app, folder, NOW + MINUTE).changed_records == 1
        edit(app, 1, NOW + 3 * SECOND, helpful_rating=2)
        assert follow(app, folder, NOW + MINUTE).changed_records == 1
        assert follow(app, folder, NOW + 2 * MINUTE).exported_records == 0
        assert ratings(folder) == {1: 2, 2: 5}

    def test_invalid_version_is_rejected(self, app: Database, folder: Path) -> None:
        """The training set keeps the last valid one, until there is another."""
        add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
        follow(app, folder, NOW)
        edit(app, 1, NOW, helpful_rating=9)
        add(app, row(3, NOW))
        report = follow(app, folder, NOW + MINUTE)
        assert (report.exported_records, report.errors, ratings(folder)[1]) == (1, 1, 5)
        edit(app, 1, NOW + HOUR, helpful_rating=2)
        assert follow(app, folder, NOW + 2 * HOUR).changed_records == 1
        assert ratings(folder) == {1: 2, 2: 5, 3: 5}

    def test_duplicate_is_dropped_and_a_changed_one_replaces_its_pair(self, app: Database, folder: Path) -> None:
        """The newest version of a pair is kept, whichever row has it."""
        add(app, row(1, NOW - MINUTE))
        follow(app, folder, NOW)
        add(app, row(2, NOW - MINUTE, analysis_id=1), row(3, NOW))
        report = follow(app, folder, NOW + MINUTE)
        assert (report.exported_records, report.deduplicated_records) == (1, 1)
        edit(app, 2, NOW + HOUR, helpful_rating=1)
        assert follow(app, folder, NOW + 2 * HOUR).changed_records == 1
        assert ratings(folder) == {1: 1, 3: 5}

    @pytest.mark.any_database
    def test_unchanged_row_of_the_pair_does_not_hide_a_changed_one(self, app: Database, folder: Path) -> None:
        """It was corrected without a new cursor, and comes first."""
        add(app, row(1, NOW - MINUTE, helpful_rating=9), row(2, NOW - MINUTE, analysis_id=1))
        assert follow(app, folder, NOW).exported_records == 1
        edit(app, 1, None, helpful_rating=4)
        edit(app, 2, NOW, helpful_rating=1)
        report = follow(app, folder, NOW + MINUTE)
        assert (report.changed_records, report.deduplicated_records, ratings(folder)) == (1, 1, {1: 1})

    def test_erased_person_stays_erased(self, app: Database, folder: Path) -> None:
        """A change does not bring their rows back."""
        add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
        follow(app, folder, NOW)
        fe.privacy.erase(folder, user_ids=[1], database=app.url, keys=[Key(KEY)])
        edit(app, 1, NOW + MINUTE, helpful_rating=1)
        edit(app, 2, NOW + MINUTE, helpful_rating=1)
        report = follow(app, folder, NOW + HOUR)
        assert (report.erased_records, report.changed_records, ratings(folder)) == (1, 1, {2: 1})

    def test_withdrawn_consent_holds_for_changes(self, app: Database, folder: Path) -> None:
        """A row is not exported again after its user has withdrawn."""
        with app.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE users ADD COLUMN training_data_opt_in BOOLEAN")
        people = [{"id": number, "training_data_opt_in": True} for number in (1, 2)]
        with app.engine.begin() as connection:
            users = sa.table("users", sa.column("id"), sa.column("training_data_opt_in", sa.Boolean()))
            connection.execute(users.insert(), people)
        add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
        assert follow(app, folder, NOW).exported_records == 2
        with app.engine.begin() as connection:
            connection.execute(users.update().where(users.c.id == 1).values(training_data_opt_in=False))
        for number in (1, 2):
            edit(app, number, NOW + MINUTE, helpful_rating=1)
        report = follow(app, folder, NOW + HOUR)
        assert (report.excluded_records, report.changed_records, ratings(folder)) == (1, 1, {1: 5, 2: 1})


class TestProposal:
    """The cursor is proposed where a series begins without one, and rows were changed."""

    def test_series_proposes_the_cursor_once(self, app: Database, folder: Path) -> None:
        """Neither later runs do, nor other exports, nor a series with a cursor."""
        add(app, row(1, NOW - 5 * DAY, updated_at=NOW - DAY), row(2, NOW - MINUTE))
        assert export_next(app, folder / "full", NOW, incremental=False).advice == ""
        advice = export_next(app, folder, NOW).advice
        assert advice.startswith(
            "rows were changed after they were created, and this series does not export them again"
        )
        add(app, row(3, NOW, updated_at=NOW + HOUR))
        assert export_next(app, folder, NOW + HOUR).advice == ""
        assert follow(app, folder / "other", NOW).advice == ""
        assert export_next(app, folder / "query", NOW, query=QUERY.replace(", updated_at", "")).advice == ""

    def test_times_of_the_insertion_are_no_change(self, app: Database, folder: Path) -> None:
        """Two readings of the clock differ by less than a second."""
        time = NOW - 5 * DAY
        add(app, row(1, time, updated_at=time + SECOND / 2), row(2, NOW - MINUTE, updated_at=NOW - DAY))
        assert export_next(app, folder, NOW).advice == ""

    @pytest.mark.parametrize("type_name", ["timestamptz", "timestamp"])
    def test_times_with_a_zone_are_compared_in_utc(self, postgres: Database, folder: Path, type_name: str) -> None:
        with postgres.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE recommendation_feedbacks ALTER updated_at TYPE {type_name}")
            connection.exec_driver_sql("ALTER ROLE CURRENT_USER SET timezone = 'Asia/Tokyo'")
        try:
            postgres.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
            add(postgres, row(1, NOW - MINUTE, updated_at="2025-10-25 11:59:00Z"))
            assert export_next(postgres, folder, NOW).advice == ""
        finally:
            with postgres.engine.begin() as connection:
                connection.exec_driver_sql("ALTER ROLE CURRENT_USER RESET timezone")

    def test_store_proposes_the_cursor(self, sqlite_database: Database, bucket_url: str) -> None:
        add(sqlite_database, row(1, NOW - 5 * DAY, updated_at=NOW - DAY))
        sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
        assert "--cursor updated_at" in export_next(sqlite_database, bucket_url, NOW).advice  # type: ignore[arg-type]


class TestTimes:
    """Times that are null, unreadable, equal or ahead."""

    @pytest.mark.any_database
    def test_clock_that_went_back_keeps_the_order_of_versions(self, app: Database, folder: Path) -> None:
        """Less than the lookback; further back is an error."""
        add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
        follow(app, folder, NOW)
        edit(app, 1, NOW - 30 * SECOND, helpful_rating=3)
        assert follow(app, folder, NOW + 30 * SECOND).changed_records == 1
        edit(app, 1, NOW - 20 * SECOND, helpful_rating=2)
        assert follow(app, folder, NOW - 10 * SECOND).changed_records == 1
        assert ratings(folder) == {1: 2, 2: 5}
        with pytest.raises(ExportFileError, match="it may have gone backwards"):
            follow(app, folder, NOW - 3 * HOUR)

    @pytest.mark.any_database
    def test_cursor_ahead_of_the_clock_is_exported_once_and_moves_no_watermark(
        self, app: Database, folder: Path
    ) -> None:
        """A wrong time loses no row."""
        add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
        follow(app, folder, NOW)
        edit(app, 1, NOW + 900 * DAY, helpful_rating=1)
        add(app, row(3, NOW))
        assert follow(app, folder, NOW + MINUTE).changed_records == 1
        assert follow(app, folder, NOW + 2 * MINUTE).exported_records == 0
        add(app, row(4, NOW + 3 * MINUTE))
        assert follow(app, folder, NOW + 4 * MINUTE).exported_records == 1
        assert ratings(folder) == {1: 1, 2: 5, 3: 5, 4: 5}

    def test_unreadable_cursor_counts_as_creation(self, sqlite_database: Database, folder: Path) -> None:
        """SQLite stores any text."""
        add(sqlite_database, row(1, NOW - 5 * DAY, updated_at="soon"), row(2, NOW - MINUTE, updated_at=""))
        sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
        assert follow(sqlite_database, folder, NOW).exported_records == 2
        assert follow(sqlite_database, folder, NOW + MINUTE).exported_records == 0

    def test_cursor_of_numbers_is_refused(self, sqlite_database: Database, folder: Path) -> None:
        """They would compare as earlier than all texts."""
        add(sqlite_database, row(1, NOW - MINUTE, updated_at=1761393600))
        with pytest.raises(SourceError, match="updated_at contains numbers in 1 row"):
            follow(sqlite_database, folder, NOW)


class TestOptions:
    """The cursor as an option and a setting."""

    @pytest.mark.parametrize("name", ["", "updated at", 'x"; DROP', "f.updated_at"])
    def test_cursor_that_is_no_name_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match=r"^`cursor` must be the name of a column"):
            OutputOptions(cursor=name)

    @pytest.mark.any_database
    def test_missing_column_is_named(self, app: Database, folder: Path) -> None:
        message = r"recommendation_feedbacks has no column changed_at .*Correct the option with this name\.$"
        with pytest.raises(SourceError, match=message):
            export_next(app, folder, NOW, cursor="changed_at")

    @pytest.mark.any_database
    def test_other_cursor_is_another_series(self, app: Database, folder: Path) -> None:
        """Together with the first one, every pair occurs once."""
        add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
        export_next(app, folder, NOW)
        edit(app, 1, NOW + SECOND, helpful_rating=1)
        with pytest.raises(
            UsageError, match=r"again: `cursor` is updated_at, the series has created_at\. Pass `new_series`"
        ):
            follow(app, folder, NOW + MINUTE)
        assert follow(app, folder, NOW + MINUTE, new_series=True).exported_records == 2
        assert ratings(folder) == {1: 1, 2: 5}

    def test_custom_query_yields_the_cursor(self, app: Database, folder: Path) -> None:
        """It has to, and the export does not contain the column."""
        add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
        with pytest.raises(SourceError, match="The query lacks updated_at"):
            follow(app, folder, NOW, query=QUERY.replace(", updated_at", ""))
        assert follow(app, folder, NOW, query=QUERY).exported_records == 2
        edit(app, 1, NOW + SECOND, helpful_rating=1)
        report = follow(app, folder, NOW + MINUTE, query=QUERY)
        assert (report.changed_records, ratings(folder)) == (1, {1: 1, 2: 5})
        assert "updated_at" not in list_manifests(folder)[-1].columns

    def test_setting_applies_to_incremental_exports_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from feedback_etl.settings.model import load_settings

        monkeypatch.setenv("FEEDBACK_ETL_CURSOR", "updated_at")
        assert load_settings().to_options().output.cursor == "updated_at"


class TestParts:
    """The same in an object store, and with an executor."""

    def test_store_follows_changes(self, sqlite_database: Database, bucket_url: str) -> None:
        add(sqlite_database, row(1, NOW - 20 * DAY), row(2, NOW - MINUTE))
        sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
        assert follow(sqlite_database, bucket_url, NOW).exported_records == 2
        edit(sqlite_database, 1, NOW + MINUTE, helpful_rating=1)
        report = follow(sqlite_database, bucket_url, NOW + HOUR)
        assert (report.exported_records, report.changed_records) == (1, 1)
        assert read_pairs(open_storage(bucket_url))["helpful_rating"].to_list() == ["5", "5", "1"]
        assert follow(sqlite_database, bucket_url, NOW + HOUR).exported_records == 0

    def test_executor_follows_changes(self, postgres: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", postgres.url)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        postgres.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
        add(postgres, row(1, NOW - 20 * DAY), row(2, NOW - MINUTE))
        options: dict[str, Any] = {"cursor": "updated_at", "incremental": True, "output_dir": folder, "key": KEY}

        def run(now: datetime) -> ExportReport:
            return fe.export_feedback(postgres.url, executor=Watched(), now=now, **options)

        assert run(NOW).exported_records == 2
        edit(postgres, 1, NOW + MINUTE, helpful_rating=1)
        report = run(NOW + HOUR)
        assert (report.exported_records, report.changed_records, ratings(folder)) == (1, 1, {1: 1, 2: 5})
        assert run(NOW + HOUR).exported_records == 0
