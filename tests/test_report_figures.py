"""The figures of a report add up, its exports are distinguished, and its drift is between comparable exports."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import NOW, exported, people
from pseudonym_keys import KEY, OTHER_KEY

from feedback_etl import write_report
from feedback_etl.exports import adopt
from feedback_etl.exports.maintenance import prune
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report.charts import Stack, draw_stacks
from feedback_etl.report.comparison import find_compared, is_comparable
from feedback_etl.report.data import ReportData, collect_data, find_report_exports
from feedback_etl.training.committed_export import CommittedExport

FOLDER = Path("out")
DAY = timedelta(days=1)


def collect(*folders: Path) -> ReportData:
    """Collect the data of a report."""
    return collect_data(find_report_exports(folders or [FOLDER]), [Key(KEY)], NOW)


def render(*folders: Path) -> str:
    """Write a report and return its HTML."""
    return write_report("report.html", folders or FOLDER, keys=[KEY], now=NOW).read_text(encoding="utf-8")


class TestNames:
    """No two exports have the same name."""

    def test_exports_of_one_day_have_their_times_in_the_chart(self, sqlite_database: Database) -> None:
        """The only export of a day needs none."""
        sqlite_database.fill(**people(4, days_ago=2))
        for now in (NOW - DAY, NOW, NOW + timedelta(hours=2)):
            exported(sqlite_database, FOLDER, now=now)
        labels = [outcome.label for outcome in collect().outcomes]
        assert labels == ["2025-10-24", "2025-10-25\n12:00:00", "2025-10-25\n14:00:00"]
        page = render()
        assert [page.count(f">{text}</text>") for text in ("12:00:00", "14:00:00", "2025-10-24")] == [1, 1, 1]

    def test_exports_of_one_second_have_numbers(self, sqlite_database: Database) -> None:
        """As their files do; an adopted file has its own name."""
        sqlite_database.fill(**people(4))
        for _ in range(2):
            exported(sqlite_database, FOLDER)
        (FOLDER / "old.csv").write_bytes((FOLDER / list_manifests(FOLDER)[0].data).read_bytes())
        adopt(FOLDER / "old.csv", key=Key(KEY), signer=Key(KEY))
        first, second, adopted = (
            outcome.name
            for outcome in sorted(collect().outcomes, key=lambda outcome: outcome.manifest.mode, reverse=True)
        )
        assert [first, second] == ["2025-10-25 12:00:00 (1)", "2025-10-25 12:00:00 (2)"]
        assert adopted[:4] != "2025"

    def test_equal_times_in_two_folders_have_the_folder(self, sqlite_database: Database) -> None:
        """And the number too where a folder has two of one second."""
        sqlite_database.fill(**people(4))
        for folder in ("north", "north", "south"):
            exported(sqlite_database, Path(folder))
        names = [outcome.name for outcome in collect(Path("north"), Path("south")).outcomes]
        assert sorted(names) == [
            "2025-10-25 12:00:00 north (1)",
            "2025-10-25 12:00:00 north (2)",
            "2025-10-25 12:00:00 south",
        ]

    def test_increments_have_their_numbers(self, sqlite_database: Database) -> None:
        """And the rows that the one before has read are named."""
        sqlite_database.fill(**people(4))
        for now in (NOW - timedelta(hours=2), NOW):
            exported(sqlite_database, FOLDER, now=now, incremental=True, lookback="3h")
        outcomes = collect().outcomes
        assert [outcome.mode for outcome in outcomes] == ["incremental 1", "incremental 2"]
        known = [outcome.manifest.statistics["known_records"] for outcome in outcomes]
        assert known[0] == 0
        assert known[1] > 0
        page = render()
        assert '<th scope="col" class="figure">read before</th>' in page
        assert re.search(rf"<td>incremental 2</td>.*<td class=\"figure\">{known[1]}</td>", page)


class TestAccount:
    """From the exported rows to those that the report describes."""

    def test_every_difference_has_a_line(self, sqlite_database: Database) -> None:
        """And the lines add up to the rows."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER, now=NOW - 40 * DAY, until=NOW - 41 * DAY, since="2000-01-01")
        exported(sqlite_database, FOLDER, now=NOW)
        exported(sqlite_database, FOLDER, now=NOW + timedelta(seconds=1), key=OTHER_KEY, allow_new_key=True)
        exported(sqlite_database, FOLDER, now=NOW + timedelta(seconds=2), allow_new_key=True)
        (FOLDER / "old.csv").write_bytes((FOLDER / list_manifests(FOLDER)[0].data).read_bytes())
        adopt(FOLDER / "old.csv", key=Key(KEY), signer=Key(KEY))
        erase(FOLDER, analysis_ids=[101, 102], keys=[KEY, OTHER_KEY])
        account = collect().account
        assert sum(number for _, number in account[:-1]) == account[-1][1] == 22
        assert dict(account) == {
            "exported": 72,
            "of adopted files": 24,
            "erased later": -8,
            "of excluded exports": -22,
            "in a newer export too": -44,
            "described below": 22,
        }

    def test_rows_of_pruned_exports_are_named(self, sqlite_database: Database) -> None:
        """In the table beside the chart; the outcomes add up to the rows that were read."""
        sqlite_database.fill(**people(8, each=4))
        exported(sqlite_database, FOLDER, now=NOW)
        exported(sqlite_database, FOLDER, now=NOW + 9 * DAY)
        prune(FOLDER, keep_days=1, key=Key(KEY), now=NOW + 10 * DAY)
        assert collect().account == [("exported", 48), ("of pruned exports", -24), ("described below", 24)]
        page = render()
        assert '<th scope="row">of pruned exports</th><td class="figure">-24</td>' in page
        assert '<th scope="row">read</th><td class="figure">64</td><td class="figure">100.0 %</td>' in page

    def test_a_single_export_needs_no_further_line(self, sqlite_database: Database) -> None:
        """Nothing is missing."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        assert collect().account == [("exported", 24), ("described below", 24)]


class TestComparison:
    """Drift is measured between exports whose rows were selected alike."""

    @pytest.fixture
    def export(self, sqlite_database: Database) -> Any:
        """Return a function that exports a window of hours, and returns the export."""
        data = people(20)
        for row in data["feedbacks"]:
            row["timeframe"] = "1_week" if row["user_id"] <= 8 else "2_weeks"
        sqlite_database.fill(**data)

        def create(start: int | None, end: int, **options: Any) -> CommittedExport:
            window = {"since": NOW + timedelta(hours=start), "until": NOW + timedelta(hours=end)} if start else {}
            create.now += timedelta(minutes=1)  # type: ignore[attr-defined]
            exported(sqlite_database, FOLDER, now=create.now, **window, **options)  # type: ignore[attr-defined]
            return find_report_exports([FOLDER])[-1]

        create.now = NOW  # type: ignore[attr-defined]
        return create

    def test_windows_of_different_length_are_not_compared(self, export: Any) -> None:
        """Twice the interval is allowed, since one night may fail."""
        short, double, long, everything = export(-4, -2), export(-8, -4), export(-13, -8), export(None, 0)
        assert is_comparable(short, double)
        assert is_comparable(double, long)
        assert not is_comparable(short, long)
        assert not is_comparable(everything, long)
        assert is_comparable(everything, everything)

    def test_windows_that_do_not_overlap_are_preferred(self, export: Any) -> None:
        """Even if an overlapping one is newer."""
        apart, overlapping, newest = export(-16, -12), export(-13, -9), export(-12, -8)
        assert find_compared([apart, overlapping, newest]) == [apart, newest]
        assert find_compared([overlapping, newest]) == [overlapping, newest]
        assert find_compared([newest]) == find_compared([]) == []

    def test_other_settings_are_no_drift(self, export: Any) -> None:
        """Suppression changes the distribution."""
        plain, suppressed = export(-20, -10), export(-10, -1, k=2)
        assert not is_comparable(plain, suppressed)
        assert "Drift needs two exports of one folder" in render()
        assert "needs two comparable exports" in render()

    def test_backlog_of_a_series_is_not_compared_with_an_increment(self, sqlite_database: Database) -> None:
        """Nor is a full export with one; increments are compared with each other."""
        sqlite_database.fill(**people(60))
        exports = []
        for hours in (-12, -8, -4):
            exported(sqlite_database, FOLDER, now=NOW + timedelta(hours=hours), incremental=True, lookback="1h")
            exports.append(find_report_exports([FOLDER])[-1])
        exported(sqlite_database, FOLDER, since=NOW - timedelta(hours=4), until=NOW, now=NOW)
        full = find_report_exports([FOLDER])[-1]
        backlog, second, third = exports
        assert not is_comparable(backlog, second)
        assert is_comparable(second, third)
        assert not is_comparable(third, full)

    def test_adopted_file_is_not_compared(self, export: Any) -> None:
        """Its window is unknown."""
        first = export(-20, -10)
        (FOLDER / "old.csv").write_bytes((FOLDER / first.manifest.data).read_bytes())
        adopt(FOLDER / "old.csv", key=Key(KEY), signer=Key(KEY))
        exports = find_report_exports([FOLDER])
        assert len(exports) == 2
        assert not is_comparable(*exports)

    def test_drift_that_chance_can_cause_is_no_headline(self, export: Any) -> None:
        """Exports of ten rows differ."""
        export(-12, -8)
        export(-8, -4)
        page = render()
        assert "<dt>Greatest drift</dt><dd>\N{EN DASH}<small>too few rows to compare</small></dd>" in page

    def test_overlapping_windows_give_a_lower_bound(self, export: Any) -> None:
        """Little drift between equal rows proves nothing."""
        export(None, 0)
        export(None, 0)
        page = render()
        assert "<dt>Greatest drift</dt><dd>≥ 0.000<small>" in page
        assert "windows overlap</small>" in page
        assert '<td class="figure">small</td>' not in page
        assert '<td class="figure">at least small</td>' in page


def test_label_of_two_lines_makes_the_chart_higher() -> None:
    """A line does not."""
    one, two = (draw_stacks("", "", [Stack(label, [1])], ["main"]) for label in ("a", "a\nb"))
    assert [re.findall(r'viewBox="0 0 360 (\d+)"', drawn) for drawn in (one, two)] == [["214"], ["229"]]
