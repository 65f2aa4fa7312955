"""A report describes exports and contains no row."""

import os
import re
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, people, rows_of
from processes import Here
from pseudonym_keys import KEY

from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports import adopt
from feedback_etl.exports.maintenance import prune
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report import write_report
from feedback_etl.report.charts import Bar, Stack, draw_bars, draw_stacks
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import IMAGE_URL, SUBJECT_HASH

CANARY = "canary-4711"
HOSTILE = "<script>alert('x')</script><img src=http://127.0.0.1:9/x>\"&"
FOLDER = Path("out")


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs command lines in this process."""
    return Here(capfd, monkeypatch)


def render(*, exports: Any = FOLDER, keys: Any = (KEY,)) -> str:
    """Write a report and return its HTML."""
    return write_report("report.html", exports, keys=keys, now=NOW).read_text(encoding="utf-8")


def with_timeframes(*timeframes: str | None) -> dict[str, list[dict[str, Any]]]:
    """One analysis of one user for each timeframe."""
    data = people(len(timeframes), each=1)
    for row, timeframe in zip(data["feedbacks"], timeframes, strict=True):
        row["timeframe"] = timeframe
    return data


def get_section(column: str, page: str) -> str:
    """Return the section of a column in the data dictionary."""
    (section,) = [part for part in page.split("<section")[1:] if f">{column}</h3>" in part]
    return section


class Structure(HTMLParser):
    """The heading levels, tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record a tag."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))


class TestDisclosure:
    """A page contains nothing that identifies a person."""

    def test_page_contains_no_pseudonym_recommendation_or_time(self, sqlite_database: Database) -> None:
        """The other values occur often enough to be shown."""
        sqlite_database.fill(**people(8))
        file = exported(sqlite_database, FOLDER).export_filename
        rows, page = rows_of(Path(file)), render()
        values = {*rows["analysis_hash"], *rows["recommendation_id"], *rows["feedback_timestamp"]}
        assert len(values) > 20
        assert [value for value in values if value in page] == []

    def test_rare_value_is_grouped(self, sqlite_database: Database) -> None:
        """A single rare value is grouped with the next rarest, since it could be inferred from the total."""
        sqlite_database.fill(**with_timeframes(*["1_week"] * 6, *["2_weeks"] * 5, CANARY))
        exported(sqlite_database, FOLDER)
        page = render()
        assert CANARY not in page
        assert "1_week" in page
        assert '<th scope="row" class="long">2_weeks</th>' not in page
        assert '<th scope="row" class="long">other (2 values)</th><td class="figure">6</td>' in page

    def test_value_of_many_rows_of_few_people_is_rare(self, sqlite_database: Database) -> None:
        """People are counted, not rows: one analysis has twenty rows."""
        data = with_timeframes(*["1_week"] * 10, *["2_weeks"] * 10)
        last = data["feedbacks"][-1]
        again = {"analysis_id": 9, "timeframe": CANARY}
        data["feedbacks"] += [
            last | again | {"id": 9_000 + number, "created_at": NOW - timedelta(minutes=number + 1)}
            for number in range(20)
        ]
        sqlite_database.fill(**data)
        exported(sqlite_database, FOLDER)
        assert CANARY not in render()

    def test_rare_element_of_a_list_is_grouped(self, sqlite_database: Database) -> None:
        """Each element of a list is a value."""
        data = people(12, each=1)
        data["records"].append({"id": 2, "recommendation_id": "rec_2", "conditions_analyzed": ["acne", CANARY]})
        data["feedbacks"][0]["recommendation_id"] = 2
        sqlite_database.fill(**data)
        exported(sqlite_database, FOLDER)
        page = render()
        assert "acne" in page
        assert CANARY not in page

    def test_few_empty_values_are_grouped(self, sqlite_database: Database) -> None:
        """Rare empty values have no bar of their own."""
        sqlite_database.fill(**with_timeframes(*["1_week"] * 7, *["2_weeks"] * 5, None))
        exported(sqlite_database, FOLDER)
        section = get_section("timeframe", render())
        assert "Few are empty. 2 distinct values." in section
        assert '<th scope="row" class="long">other or empty</th><td class="figure">6</td>' in section
        assert ">2_weeks<" not in section
        assert ">empty<" not in section

    def test_values_of_undeclared_column_are_hidden(self, sqlite_database: Database) -> None:
        """An adopted file can contain anything, such as user ids."""
        sqlite_database.fill(**people(8))
        old = pl.read_csv(exported(sqlite_database, Path("old")).export_filename).with_columns(user=pl.lit(CANARY))
        FOLDER.mkdir()
        old.write_csv(FOLDER / "old.csv")
        adopt(FOLDER / "old.csv", key=Key(KEY), signer=Key(KEY))
        page = render()
        assert CANARY not in page
        assert "Not a column of the contract." in page
        assert "acne" in page


class TestContent:
    """Contents of the page."""

    def test_figures_of_each_export_equal_its_manifest(self, sqlite_database: Database) -> None:
        """In the table below the chart."""
        sqlite_database.fill(**people(8, each=4))
        for day in range(2):
            exported(sqlite_database, FOLDER, now=NOW + timedelta(days=day))
        page = render()
        for manifest in list_manifests(FOLDER):
            figures = [manifest.statistics[name] for name in ("total_feedback_records", "exported_records", "errors")]
            assert figures == [32, 24, 8]
            begin = f'<tr><th scope="row">{manifest.created_at[:10]} '
            (row,) = [line for line in page.splitlines() if line.startswith(begin) and ">full<" in line]
            assert re.findall(r'figure">([\d,]+)<', row) == ["32", "24", "0", "0", "8", "0", "0", "0", "0", "0"]

    def test_rows_in_several_exports_count_once(self, sqlite_database: Database) -> None:
        """The dictionary covers all exports."""
        sqlite_database.fill(**people(8))
        for day in range(3):
            exported(sqlite_database, FOLDER, now=NOW + timedelta(days=day))
        assert "all exports together, 24 rows." in render()

    @pytest.mark.sample("csv", "parquet")
    @pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
    def test_all_file_formats_have_the_same_contents(self, sqlite_database: Database, form: dict[str, Any]) -> None:
        """Dictionary and risk are equal."""
        data = people(8)
        for row in data["feedbacks"]:
            row["would_recommend"] = row["id"] % 2 == 0
        sqlite_database.fill(**data)
        exported(sqlite_database, Path("plain"))
        exported(sqlite_database, FOLDER, **form)
        plain, page = (render(exports=folder) for folder in (Path("plain"), FOLDER))
        section = re.compile(r'<h2 id="dictionary">.*?<h2 id="drift">', re.DOTALL)
        assert section.findall(plain) == section.findall(page) != []

    def test_small_classes_are_counted(self, sqlite_database: Database) -> None:
        """Two classes have one analysis, and one has six."""
        sqlite_database.fill(**with_timeframes(*["1_week"] * 6, "2_weeks", "3_weeks"))
        exported(sqlite_database, FOLDER)
        page = render()
        assert "2 equivalence classes of fewer than five people." in page
        assert '<th scope="row" class="long">1</th><td class="figure">2</td><td class="figure">2</td>' in page
        assert '<th scope="row" class="long">5 to 9</th><td class="figure">1</td><td class="figure">6</td>' in page

    def test_frequent_empty_values_have_a_bar(self, sqlite_database: Database) -> None:
        """A column without empty values has no such bar."""
        sqlite_database.fill(**with_timeframes(*["1_week"] * 6, *[None] * 5))
        exported(sqlite_database, FOLDER)
        page = render()
        assert "45.5 % empty. 1 distinct value." in get_section("timeframe", page)
        assert '<th scope="row" class="long">empty</th><td class="figure">5</td>' in get_section("timeframe", page)
        assert "None is empty." in get_section("conditions_detected", page)
        assert ">empty<" not in get_section("conditions_detected", page)

    def test_distinct_elements_of_lists_are_counted(self, sqlite_database: Database) -> None:
        """Three lists of two conditions."""
        data = people(18, each=1)
        lists = [["acne"], ["dry"], ["acne", "dry"]]
        data["records"] = [
            {"id": number, "recommendation_id": f"rec_{number}", "conditions_analyzed": conditions}
            for number, conditions in enumerate(lists)
        ]
        for row in data["feedbacks"]:
            row["recommendation_id"] = row["id"] % 3
        sqlite_database.fill(**data)
        exported(sqlite_database, FOLDER)
        assert "2 distinct elements." in get_section("conditions_detected", render())

    def test_k_is_shown_as_a_minimum_above_the_counting_limit(self, sqlite_database: Database) -> None:
        """Up to fifty people of a class are counted."""
        sqlite_database.fill(**with_timeframes(*["1_week"] * 55))
        exported(sqlite_database, FOLDER)
        assert "<dt>k of the last export</dt><dd>≥ 50<small>" in render()

    def test_drift_needs_two_exports(self, sqlite_database: Database) -> None:
        """The second export has drift."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        assert "Drift needs two exports" in render()
        exported(sqlite_database, FOLDER, now=NOW + timedelta(days=1))
        assert "Drift by column" in render()

    def test_overlap_of_windows_is_shown(self, sqlite_database: Database) -> None:
        """The page gives the share of the newer window; for open windows it is unknown."""
        sqlite_database.fill(**people(8))
        pages = []
        for since, until in [(-8, -4), (-4, 0), (-6, 2)]:
            start, end = (NOW + timedelta(hours=hours) for hours in (since, until))
            exported(sqlite_database, FOLDER, since=start, until=end, now=NOW + timedelta(hours=10 + until))
            pages.append(render())
        for day in (1, 2):
            exported(sqlite_database, FOLDER, now=NOW + timedelta(days=day))
        pages.append(render())
        assert ["Drift by column" in page for page in pages] == [False, True, True, True]
        assert ["windows overlap" in page for page in pages] == [False, False, True, True]
        assert "Their windows overlap: 50 % of the newer window is in the older one too. Rows in both" in pages[2]
        assert "Their windows overlap. Rows in both are equal, so" in pages[3]

    def test_pruned_exports_keep_their_figures(self, sqlite_database: Database) -> None:
        """Without files there is no dictionary."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        prune(FOLDER, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=9))
        page = render()
        assert "<td>full, pruned</td>" in page
        assert "The files of all exports were removed." in page

    def test_window_of_adopted_file_is_unknown(self, sqlite_database: Database) -> None:
        """A window without a start still shows its end."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        Path(FOLDER, "old.csv").write_bytes(Path(FOLDER, list_manifests(FOLDER)[0].data).read_bytes())
        adopt(FOLDER / "old.csv", key=Key(KEY), signer=Key(KEY))
        page = render()
        assert page.count("<td>unknown</td><td>adopted</td>") == 1
        assert page.count("<td>the beginning to 2025-10-25 12:00:00 UTC</td><td>full</td>") == 1

    def test_extra_columns_and_age_ranges_are_shown_as_declared(self, sqlite_database: Database) -> None:
        """A pseudonymised column is hidden; numbers are binned."""
        data = people(40, each=1)
        data["profiles"] = [{"id": user, "user_id": user, "age": 20 + user} for user in range(1, 41)]
        sqlite_database.fill(**data)
        query = (
            "SELECT f.id AS feedback_id, f.user_id, f.analysis_id, 'rec' AS recommendation_id, helpful_rating, "
            "product_satisfaction, routine_completion_pct, would_recommend, '[]' AS conditions_analyzed, "
            "'[]' AS rules_applied, timeframe, p.age, f.created_at, 'shop' AS shop, f.user_id * 10 AS points "
            "FROM recommendation_feedbacks f JOIN profiles p ON p.user_id = f.user_id"
        )
        extra = [ExtraColumn("shop", "identifier"), ExtraColumn("points", "insensitive", "integer")]
        file = exported(sqlite_database, FOLDER, query=query, extra_columns=extra, age_edges=[40]).export_filename
        page = render()
        assert rows_of(Path(file))["shop"][0] not in page
        assert "&lt;40" in page
        assert "50 to under 100" in page


class TestAudit:
    """Verification of the audit log."""

    def test_unchanged_log_is_reported(self, sqlite_database: Database) -> None:
        """The page shows the head of the log and no problem."""
        sqlite_database.fill(**people(8))
        head = exported(sqlite_database, FOLDER).audit_head
        page = render()
        assert "The audit log is unchanged." in page
        assert head in page

    def test_changed_log_is_reported(self, sqlite_database: Database) -> None:
        """The page names the record."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        log = FOLDER / ".feedback_etl" / "audit.jsonl"
        log.write_text(log.read_text().replace('"event": "started"', '"event": "stopped"'))
        assert "line 1: it was changed" in render()

    def test_unkeyed_log_is_not_called_unchanged(self, sqlite_database: Database) -> None:
        """Anyone could have written it."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER, key=None, unkeyed=True)
        page = render()
        assert "No key protects the audit log" in page
        assert "The audit log is unchanged." not in page
        assert "verified" not in page

    def test_missing_key_is_reported(self, sqlite_database: Database) -> None:
        """Records under an unavailable key cannot be verified."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        page = render(keys=())
        assert "<dt>Audit log</dt><dd>not verified<small>no key</small></dd>" in page
        assert "Not verified: no key. 3 signatures cannot be checked without the key: pass it with --key-file." in page
        assert 'class="fault"' not in page

    def test_problem_without_the_key_is_still_a_problem(self, sqlite_database: Database) -> None:
        """A lost record needs no key to be noticed."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        log = FOLDER / ".feedback_etl" / "audit.jsonl"
        log.write_text("".join(log.read_text().splitlines(keepends=True)[1:]))
        page = render(keys=())
        assert re.search(r'<dt>Audit log</dt><dd><span class="fault">\d</span><small>problem', page)
        assert "is in the position of record 1" in page
        assert "1 signature cannot be checked without the key" in page

    @pytest.mark.parametrize("keys", [KEY, Key(KEY), [KEY], [Key(KEY)]], ids=["text", "key", "texts", "keys"])
    def test_single_key_needs_no_list(self, sqlite_database: Database, keys: Any) -> None:
        """`erase` accepts the same."""
        sqlite_database.fill(**people(8))
        exported(sqlite_database, FOLDER)
        assert "The audit log is unchanged." in render(keys=keys)


class TestPage:
    """Structure of the HTML; `test_report_in_a_browser` tests how it looks."""

    @pytest.fixture
    def page(self, sqlite_database: Database) -> str:
        """Render two exports whose texts are hostile."""
        sqlite_database.fill(**with_timeframes(*[HOSTILE] * 8))
        for day in range(2):
            exported(sqlite_database, FOLDER, now=NOW + timedelta(days=day))
        return render()

    def test_texts_of_the_data_are_escaped(self, page: str) -> None:
        """They contain no tag."""
        assert "&lt;script&gt;alert(" in page
        assert {"script", "img", "iframe", "link", "object", "form"} & {*Structure(page).tags} == set()

    def test_page_requests_nothing_from_the_network(self, page: str) -> None:
        """Every link points into the page, and its policy forbids everything else."""
        structure = Structure(page)
        links = [
            value for _, name, value in structure.attributes if name in ("href", "src", "action", "srcset", "data")
        ]
        assert links
        assert [link for link in links if not link.startswith("#")] == []
        assert "url(" not in page
        assert "@import" not in page
        assert any(value.startswith("default-src 'none'") for _, _, value in structure.attributes)

    def test_headings_skip_no_level(self, page: str) -> None:
        """There is one heading of the first level, and no heading is more than one level below the previous one."""
        levels = Structure(page).headings
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))

    def test_every_chart_has_a_text_alternative(self, page: str) -> None:
        """Each chart has a title and a description, and the page has a language."""
        drawings = re.findall(r"<svg role=\"img\".*?</svg>", page, re.DOTALL)
        assert len(drawings) == len(re.findall("<svg", page)) >= 8
        assert [svg for svg in drawings if not re.search(r"<title>[^<]+</title><desc>[^<]+</desc>", svg)] == []
        assert '<html lang="en">' in page

    def test_every_chart_has_a_table(self, page: str) -> None:
        """The table is in the same card."""
        cards = re.findall(r'<(?:section|div) class="card.*?(?=<(?:section|div) class="card|<footer)', page, re.DOTALL)
        assert len([card for card in cards if "<svg" in card]) >= 8
        assert [card for card in cards if "<svg" in card and "<table" not in card] == []

    def test_every_table_row_has_a_header_cell(self, page: str) -> None:
        """Its first cell is the header, so that screen readers announce it with the others."""
        rows = [row for body in re.findall("<tbody>.*?</tbody>", page, re.DOTALL) for row in re.findall("<tr>.*", body)]
        assert len(rows) > 20
        assert [row for row in rows if not re.match('<tr><th scope="row"[^>]*>(?:(?!<th).)*$', row)] == []

    def test_names_of_standard_columns_are_not_truncated(self, page: str) -> None:
        """Extra columns may have any length."""
        drawings = "".join(re.findall("<svg.*?</svg>", page, re.DOTALL))
        assert [name for name in CLASSIC_SCHEMA.rating_names[:3] if f">{name}</text>" not in drawings] == []
        names = [*CLASSIC_SCHEMA.training_columns, SUBJECT_HASH.name, IMAGE_URL.name]
        assert [
            name for name in names if f">{name}</text>" not in draw_bars("", "", [Bar(name, 1, "") for name in names])
        ] == []

    def test_values_of_a_stacked_column_have_gaps(self) -> None:
        """Small values have gaps too, and the gaps do not change the height of the column."""
        drawn = draw_stacks("", "", [Stack("", [600, 1, 0, 300, 99]), Stack("", [1000, 0, 0, 0, 0])], list("abcde"))
        rectangles = re.findall(r'<rect class="(.)" x="(.*?)" y="(.*?)" width=".*?" height="(.*?)"/>', drawn)
        spans = [(tone, float(top), float(top) + float(height)) for tone, _, top, height in rectangles]
        *column, alone = spans
        assert [tone for tone, _, _ in column] == ["a", "b", "d", "e"]
        gaps = [lower[1] - upper[2] for lower, upper in pairwise(column)]
        assert gaps == pytest.approx([1.5] * 3, abs=0.11)
        assert min(bottom - top for _, top, bottom in column) >= 1.4
        assert (column[-1][1], column[0][2]) == pytest.approx(alone[1:], abs=0.11)

    def test_equal_exports_result_in_equal_pages(self, page: str) -> None:
        """The time of the report is the same."""
        assert render() == page

    def test_bidirectional_control_characters_are_escaped(self, sqlite_database: Database) -> None:
        """Letters of any script are unchanged."""
        sqlite_database.fill(**with_timeframes(*["2_\u202eskeew\u2066\u200f שבוע"] * 8))
        exported(sqlite_database, FOLDER)
        page = render()
        assert r"2_\u202eskeew\u2066\u200f שבוע" in page
        assert not {*page} & {*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}


class TestFile:
    """The file of the page."""

    @pytest.fixture(autouse=True)
    def exports(self, sqlite_database: Database) -> list[str]:
        """Two exports."""
        sqlite_database.fill(**people(8))
        return [exported(sqlite_database, FOLDER, now=NOW + timedelta(days=day)).export_filename for day in range(2)]

    def test_page_is_private_under_any_umask(self) -> None:
        """Only those who may read the exports may read the page."""
        before = os.umask(0)
        try:
            Path("pages").mkdir()
            path = write_report("pages/report.html", FOLDER, keys=[KEY])
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o600
        assert [file.name for file in path.parent.iterdir()] == ["report.html"]

    def test_missing_folder_is_not_created(self, here: Here) -> None:
        """It may be a typing mistake."""
        result = here("report", FOLDER, "-o", "pages/new/all.html")
        assert result.code == 5
        assert result.err == "error: The folder pages/new does not exist: create it, or name another file with -o.\n"
        assert not Path("pages").exists()

    def test_existing_page_is_replaced_but_not_a_link(self) -> None:
        """A link could point anywhere."""
        Path("report.html").write_text("old")
        assert render().startswith("<!doctype html>")
        Path("precious").write_text("precious")
        Path("link.html").symlink_to("precious")
        with pytest.raises(ExportFileError, match=r"^link\.html is a symbolic link"):
            write_report("link.html", FOLDER)
        assert Path("precious").read_text() == "precious"

    def test_folder_is_refused_as_page(self) -> None:
        """So is a path below a file."""
        with pytest.raises(UsageError, match=r"^out is a folder: name a file for the report\.$"):
            write_report(FOLDER, FOLDER)
        with pytest.raises(ExportFileError, match="a part of the path is a file"):
            write_report(Path(FOLDER, list_manifests(FOLDER)[0].files[0].path, "report.html"), FOLDER)

    def test_named_files_select_exports(self, exports: list[str]) -> None:
        """Each file needs a manifest."""
        first = list_manifests(FOLDER)[0].stem
        page = render(exports=[exports[1]])
        assert "<dt>Exports</dt><dd>1<small>" in page
        assert first not in page
        assert "<dt>Exports</dt><dd>2<small>" in render(exports=[FOLDER, exports[0]])
        Path(FOLDER, "copy.csv").write_bytes(Path(exports[0]).read_bytes())
        with pytest.raises(ExportFileError, match=r"^out/copy\.csv is not a data file with a manifest\. "):
            render(exports=[FOLDER / "copy.csv"])

    def test_error_of_damaged_file_contains_no_row(self, exports: list[str]) -> None:
        """The file differs from its manifest, or the manifest names a column that the file lacks."""
        with Path(exports[0]).open("a") as file:
            file.write(f"{CANARY},1,2,3\n")
        with pytest.raises(ExportFileError, match=r"does not match its manifest") as changed:
            render()
        Path(exports[1].replace(".csv", ".manifest.json")).write_text(
            replace(list_manifests(FOLDER)[1], columns=["analysis_hash", CANARY]).to_json()
        )
        with pytest.raises(ExportFileError, match=r"cannot be read: it is missing, or damaged\.$") as missing_column:
            render(exports=[exports[1]])
        assert CANARY not in f"{changed.value}{missing_column.value}"

    def test_folder_without_exports_is_an_error(self) -> None:
        """The message names the command that creates one."""
        Path("empty").mkdir()
        with pytest.raises(
            ExportFileError, match=r"^empty contains no exports; create one with `feedback-etl export`\.$"
        ):
            render(exports=Path("empty"))

    def test_command_writes_the_page(self, here: Here, exports: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """It accepts a folder or files, uses the available keys and prints the path."""
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        result = here("report", FOLDER, "-o", "all.html")
        assert (result.code, result.out, result.err) == (0, "all.html\n", "")
        assert "The audit log is unchanged." in Path("all.html").read_text()
        result = here("report", exports[0])
        assert (result.code, result.out, result.err) == (0, "report.html\n", "")
        assert "<dt>Exports</dt><dd>1<small>" in Path("report.html").read_text()


def test_times_of_a_year_are_binned_by_month(sqlite_database: Database) -> None:
    """Times of a few days are binned by day."""
    data = people(60, each=1)
    for number, row in enumerate(data["feedbacks"]):
        row["created_at"] = datetime(2025, 1 + number % 10, 3, number % 24)
    sqlite_database.fill(**data)
    exported(sqlite_database, FOLDER)
    page = render()
    assert '<th scope="row" class="long">2025-01</th><td class="figure">6</td>' in page
    assert '<th scope="row" class="long">2025-10-25</th><td class="figure">60</td>' in page  # export_date
