"""A report combines the exports that can be combined, and names the others and the reason."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pseudonym_keys
import pytest
from databases import Database
from folders import NOW, exported, people
from pseudonym_keys import KEY

from feedback_etl import write_report
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.maintenance import prune
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report.data import ReportData, collect_data, find_report_exports
from feedback_etl.schema.column_types import ExtraColumn

CANARY = "canary-4711"
FOLDER = Path("out")
OTHER_KEY = {"key": pseudonym_keys.OTHER_KEY, "allow_new_key": True}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("another key", OTHER_KEY),
    ("another timestamp precision", {"timestamp_precision": "day"}),
    ("other age ranges", {"age_edges": [40]}),
    ("another form of recommendation_id", {"hash_recommendation_id": True}),
]


def export_daily(database: Database, *options: dict[str, Any], folder: Path = FOLDER) -> list[Path]:
    """Create one export for each day, and return the files."""
    reports = (
        exported(database, folder, now=NOW + timedelta(days=day), **keywords) for day, keywords in enumerate(options)
    )
    return [Path(report.export_filename) for report in reports]


def collect(*locations: Path) -> ReportData:
    """Collect the data of a report on folders or files."""
    return collect_data(find_report_exports(locations or [FOLDER]), [Key(KEY)], NOW)


def render(*locations: Path) -> str:
    """Write a report and return its HTML."""
    return write_report("report.html", locations or FOLDER, keys=[KEY], now=NOW).read_text(encoding="utf-8")


class TestKinds:
    """Exports of different kinds, whose people or rows cannot be matched, are not combined."""

    def test_people_of_two_keys_do_not_count_twice(self, sqlite_database: Database) -> None:
        """Three people have two pseudonyms each; they are fewer than five, so their value is not shown."""
        data = people(12, each=1)
        for row in data["feedbacks"]:
            row["timeframe"] = CANARY if row["user_id"] > 9 else "1_week"
        sqlite_database.fill(**data)
        export_daily(sqlite_database, {}, OTHER_KEY)
        page = render()
        assert CANARY not in page
        assert sum(size.rows for size in collect().sizes) == 12

    @pytest.mark.sample("another key")
    @pytest.mark.parametrize(("why", "options"), OTHERS, ids=[why for why, _ in OTHERS])
    def test_export_of_another_kind_is_excluded(
        self, sqlite_database: Database, why: str, options: dict[str, Any]
    ) -> None:
        """The page gives reason and number; drift is measured between combined exports."""
        sqlite_database.fill(**people(8))
        files = export_daily(sqlite_database, {}, options, options)
        page, data = render(), collect()
        assert f"1 export is excluded here: {why} (1)." in page
        assert "2 exports together, 24 rows." in page
        assert "<dt>Rows</dt><dd>24<small>each pair once, of 2 of 3 exports</small>" in page
        assert {(item.rows, item.column.name) for item in data.dictionary} == {
            (24, name) for name in list_manifests(FOLDER)[-1].columns
        }
        assert [f"{FOLDER}/{export.manifest.data}" for export in data.selection.compared] == [
            str(file) for file in files[1:]
        ]

    def test_each_reason_is_counted(self, sqlite_database: Database) -> None:
        """An export can differ for several reasons; without two exports the page explains why drift is missing."""
        sqlite_database.fill(**people(8))
        other = OTHER_KEY | {"timestamp_precision": "day"}
        export_daily(sqlite_database, {"age_edges": [40]}, other, OTHER_KEY, {"allow_new_key": True})
        page = render()
        assert (
            "3 exports are excluded here: another key (2), another timestamp precision (1), other age ranges (1)."
        ) in page
        assert collect().drift == []
        assert "Drift needs two exports" in page

    def test_outcome_and_risk_cover_all_exports(self, sqlite_database: Database) -> None:
        """Excluded exports are listed in both tables."""
        sqlite_database.fill(**people(8))
        export_daily(sqlite_database, {}, OTHER_KEY)
        page = render()
        assert "<dt>Exports</dt><dd>2<small>" in page
        assert [page.count(f">{(NOW + timedelta(days=day)):%Y-%m-%d %H:%M:%S}<") for day in range(2)] == [2, 2]

    def test_page_names_no_exclusion_if_all_can_be_combined(self, sqlite_database: Database) -> None:
        """A pruned export of another kind is not mentioned either."""
        sqlite_database.fill(**people(8))
        export_daily(sqlite_database, OTHER_KEY, {"allow_new_key": True})
        assert "excluded here" in render()
        prune(FOLDER, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=1, hours=12))
        page = render()
        assert "excluded here" not in page
        assert "each pair once</small>" in page

    def test_column_that_was_a_pseudonym_in_one_export_is_hidden(self, sqlite_database: Database) -> None:
        """It is hidden even if a later export declares the column as insensitive."""
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
        first, _ = export_daily(
            sqlite_database,
            usual | {"extra_columns": [ExtraColumn("shop", "identifier")]},
            usual | {"extra_columns": [ExtraColumn("shop", "insensitive")], "since": between, "until": NOW},
        )
        (pseudonym,) = {line.rsplit(",", 1)[-1] for line in first.read_text().splitlines()[1:]}
        assert len(pseudonym) == 16
        page = render()
        assert pseudonym not in page
        assert "north" not in page


class TestFiles:
    """A file that does not match its manifest is an error."""

    def test_truncated_file_is_refused(self, sqlite_database: Database) -> None:
        """Truncated at the end of a line, the file is still valid CSV."""
        data = people(8)
        for row in data["feedbacks"]:
            row["timeframe"] = "1_week"
        sqlite_database.fill(**data)
        (file,) = export_daily(sqlite_database, {})
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[: len(lines) // 2]))
        with pytest.raises(ExportFileError, match=rf"^{file} does not match its manifest: it is missing, trunc"):
            render()
        assert not Path("report.html").exists()

    def test_changed_file_of_equal_size_is_refused(self, sqlite_database: Database) -> None:
        """The digest differs."""
        sqlite_database.fill(**people(8))
        file, _ = export_daily(sqlite_database, {}, {})
        file.write_bytes(file.read_bytes().replace(b"acne", b"ache"))
        with pytest.raises(ExportFileError, match=rf"^{file} does not match its manifest"):
            render()

    def test_file_pruned_during_report_is_skipped(self, sqlite_database: Database) -> None:
        """The report covers the other exports."""
        sqlite_database.fill(**people(8))
        export_daily(sqlite_database, {}, {})
        exports = find_report_exports([FOLDER])
        prune(FOLDER, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=1, hours=12))
        data = collect_data(exports, [Key(KEY)], NOW)
        assert (data.rows, len(data.exports), data.selection.compared) == (24, 2, [])


class TestFolders:
    """Drift is measured within one folder: a difference between two sites is not drift."""

    def test_drift_is_measured_in_the_folder_of_the_newest_export(self, sqlite_database: Database) -> None:
        """The other folder has an export of the same time and name."""
        south, north = Path("south"), Path("north")
        sqlite_database.fill(**people(8))
        export_daily(sqlite_database, {}, {}, folder=south)
        data = people(8)
        for row in data["feedbacks"]:
            row |= {"analysis_id": row["analysis_id"] + 10_000, "timeframe": "9_weeks"}
        sqlite_database.clear()
        sqlite_database.fill(**data)
        export_daily(sqlite_database, {}, {}, folder=north)
        stems = [manifest.stem for manifest in list_manifests(north)]
        assert stems == [manifest.stem for manifest in list_manifests(south)]
        report = collect(south, north)
        assert [(str(export.storage), export.manifest.stem) for export in report.selection.compared] == [
            ("north", stem) for stem in stems
        ]
        assert [item for item in report.drift if item.psi] == []
        assert f"From {stems[0]} to {stems[1]} in north, by" in render(south, north)

    def test_single_exports_of_two_folders_have_no_drift(self, sqlite_database: Database) -> None:
        """The older export is in another folder."""
        sqlite_database.fill(**people(8))
        for folder in ("south", "north"):
            export_daily(sqlite_database, {}, folder=Path(folder))
        data = collect(Path("south"), Path("north"))
        assert (data.rows, data.selection.compared, data.drift) == (24, [], [])
        assert not re.search("From feedback.* to", render(Path("south"), Path("north")))
