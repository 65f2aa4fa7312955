"""A report of several exports tells together what fits together, and says what it leaves out."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import KEY, NOW, exported, people

from feedback_etl import write_report
from feedback_etl.columns import ExtraColumn
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.catalog import list_manifests
from feedback_etl.exports.maintenance import prune
from feedback_etl.privacy.keys import Key
from feedback_etl.report.data import Gathered, find_report_exports, gather

CANARY = "canary-4711"
FOLDER = Path("out")
OTHER_KEY = {"key": "o" * 32, "allow_new_key": True}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("another key", OTHER_KEY),
    ("another timestamp precision", {"timestamp_precision": "day"}),
    ("other age ranges", {"age_edges": [40]}),
    ("another form of recommendation_id", {"hash_recommendation_id": True}),
]


def of_days(database: Database, *options: dict[str, Any], folder: Path = FOLDER) -> list[Path]:
    """The files of exports of one day after the other."""
    reports = (exported(database, folder, now=NOW + timedelta(days=day), **each) for day, each in enumerate(options))
    return [Path(each.export_filename) for each in reports]


def gathered(*places: Path) -> Gathered:
    """What a report tells of folders or files."""
    return gather(find_report_exports(places or [FOLDER]), [Key(KEY)], NOW)


def told(*places: Path) -> str:
    """The page."""
    return write_report("report.html", places or FOLDER, keys=[KEY], now=NOW).read_text(encoding="utf-8")


class TestKinds:
    """Exports whose people or rows cannot be recognised in each other are not counted together."""

    def test_people_of_two_keys_do_not_count_twice(self, sqlite_database: Database) -> None:
        """Three people have two pseudonyms each; they are fewer than five, and so their value is not told."""
        data = people(12, each=1)
        for row in data["feedbacks"]:
            row["timeframe"] = CANARY if row["user_id"] > 9 else "1_week"
        sqlite_database.fill(**data)
        of_days(sqlite_database, {}, OTHER_KEY)
        page = told()
        assert CANARY not in page
        assert sum(size.rows for size in gathered().sizes) == 12

    @pytest.mark.sample("another key")
    @pytest.mark.parametrize(("why", "options"), OTHERS, ids=[why for why, _ in OTHERS])
    def test_rows_of_another_kind_are_left_out(
        self, sqlite_database: Database, why: str, options: dict[str, Any]
    ) -> None:
        """With the reason, and how many exports; drift is between those that fit together."""
        sqlite_database.fill(**people(8))
        files = of_days(sqlite_database, {}, options, options)
        page, facts = told(), gathered()
        assert f"1 export is excluded here: {why} (1)." in page
        assert "2 exports together, 24 rows." in page
        assert "<dt>Rows</dt><dd>24<small>each pair once, of 2 of 3 exports</small>" in page
        assert {(each.rows, each.column.name) for each in facts.dictionary} == {
            (24, name) for name in list_manifests(FOLDER)[-1].columns
        }
        assert [f"{FOLDER}/{each.manifest.data}" for each in facts.chosen.compared] == [str(file) for file in files[1:]]

    def test_each_reason_is_counted(self, sqlite_database: Database) -> None:
        """One export can have several; where drift has nothing to compare, it says why."""
        sqlite_database.fill(**people(8))
        other = OTHER_KEY | {"timestamp_precision": "day"}
        of_days(sqlite_database, {"age_edges": [40]}, other, OTHER_KEY, {"allow_new_key": True})
        page = told()
        assert (
            "3 exports are excluded here: another key (2), another timestamp precision (1), other age ranges (1)."
        ) in page
        assert gathered().drift == []
        assert "Drift needs two exports" in page

    def test_all_exports_keep_their_figures(self, sqlite_database: Database) -> None:
        """What became of their rows is told of each, and their risk."""
        sqlite_database.fill(**people(8))
        of_days(sqlite_database, {}, OTHER_KEY)
        page = told()
        assert "<dt>Exports</dt><dd>2<small>" in page
        assert [page.count(f">{(NOW + timedelta(days=day)):%Y-%m-%d %H:%M:%S}<") for day in range(2)] == [2, 2]

    def test_nothing_is_said_where_all_fit_together(self, sqlite_database: Database) -> None:
        """Also of one that was pruned, of whatever kind."""
        sqlite_database.fill(**people(8))
        of_days(sqlite_database, OTHER_KEY, {"allow_new_key": True})
        assert "excluded here" in told()
        prune(FOLDER, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=1, hours=12))
        page = told()
        assert "excluded here" not in page
        assert "each pair once</small>" in page

    def test_what_was_a_pseudonym_once_is_never_shown(self, sqlite_database: Database) -> None:
        """Though a later export declares that the column is harmless."""
        data = people(12)
        for row in data["feedbacks"]:
            row["timeframe"] = "1_week"
        sqlite_database.fill(**data)
        query = (
            "SELECT id AS feedback_id, user_id, analysis_id, 'rec' AS recommendation_id, helpful_rating, "
            "product_satisfaction, routine_completion_pct, would_recommend, '[]' AS conditions_analyzed, "
            "'[]' AS rules_applied, timeframe, 30 AS age, created_at, 'north' AS shop FROM recommendation_feedbacks"
        )
        between = NOW - timedelta(hours=6, minutes=30)
        usual = {"query": query, "since": NOW - timedelta(days=9), "until": between}
        first, _ = of_days(
            sqlite_database,
            usual | {"extra_columns": [ExtraColumn("shop", "identifier")]},
            usual | {"extra_columns": [ExtraColumn("shop", "insensitive")], "since": between, "until": NOW},
        )
        (pseudonym,) = {line.rsplit(",", 1)[-1] for line in first.read_text().splitlines()[1:]}
        assert len(pseudonym) == 16
        page = told()
        assert pseudonym not in page
        assert "north" not in page


class TestFiles:
    """Files are what their manifests say, or the report says that they are not."""

    def test_a_file_that_was_cut_is_noticed(self, sqlite_database: Database) -> None:
        """At the end of a line it is still a table."""
        data = people(8)
        for row in data["feedbacks"]:
            row["timeframe"] = "1_week"
        sqlite_database.fill(**data)
        (file,) = of_days(sqlite_database, {})
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[: len(lines) // 2]))
        with pytest.raises(ExportFileError, match=rf"^{file} does not match its manifest: it is missing, trunc"):
            told()
        assert not Path("report.html").exists()

    def test_a_file_that_was_changed_is_noticed(self, sqlite_database: Database) -> None:
        """Though its size is the same."""
        sqlite_database.fill(**people(8))
        file, _ = of_days(sqlite_database, {}, {})
        file.write_bytes(file.read_bytes().replace(b"acne", b"ache"))
        with pytest.raises(ExportFileError, match=rf"^{file} does not match its manifest"):
            told()

    def test_a_file_that_was_pruned_meanwhile_is_none(self, sqlite_database: Database) -> None:
        """The others are told."""
        sqlite_database.fill(**people(8))
        of_days(sqlite_database, {}, {})
        found = find_report_exports([FOLDER])
        prune(FOLDER, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=1, hours=12))
        facts = gather(found, [Key(KEY)], NOW)
        assert (facts.rows, len(facts.exports), facts.chosen.compared) == (24, 2, [])


class TestPlaces:
    """Drift is of one place: two sites differ, and that is no change."""

    def test_drift_is_between_the_exports_of_one_place(self, sqlite_database: Database) -> None:
        """That which has the newest, though another has as new a one, of an equal name."""
        south, north = Path("south"), Path("north")
        sqlite_database.fill(**people(8))
        of_days(sqlite_database, {}, {}, folder=south)
        data = people(8)
        for row in data["feedbacks"]:
            row |= {"analysis_id": row["analysis_id"] + 10_000, "timeframe": "9_weeks"}
        sqlite_database.clear()
        sqlite_database.fill(**data)
        of_days(sqlite_database, {}, {}, folder=north)
        stems = [each.stem for each in list_manifests(north)]
        assert stems == [each.stem for each in list_manifests(south)]
        facts = gathered(south, north)
        assert [(str(each.storage), each.manifest.stem) for each in facts.chosen.compared] == [
            ("north", stem) for stem in stems
        ]
        assert [each for each in facts.drift if each.psi] == []
        assert f"From {stems[0]} to {stems[1]} in north, by" in told(south, north)

    def test_two_places_with_one_export_each_have_none(self, sqlite_database: Database) -> None:
        """The older one is of somebody else."""
        sqlite_database.fill(**people(8))
        for folder in ("south", "north"):
            of_days(sqlite_database, {}, folder=Path(folder))
        facts = gathered(Path("south"), Path("north"))
        assert (facts.rows, facts.chosen.compared, facts.drift) == (24, [], [])
        assert not re.search("From .* to", told(Path("south"), Path("north")))
