"""The report's page as a real browser shows it: on a desk and on a phone, light and dark, and its network requests."""

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import Scheme, measured, printed
from databases import Database
from folders import NOW, exported, people
from pseudonym_keys import KEY

from feedback_etl import write_report

pytestmark = pytest.mark.slow

AA = 4.5
"""The least contrast of text by the Web Content Accessibility Guidelines 2.2, level AA."""
AA_DRAWN = 3
"""The same of what is drawn (1.4.11)."""
APART = 1.7
"""The least contrast of series that are drawn next to each other, with a gap between them."""

SCHEMES: list[Scheme] = ["light", "dark"]


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """What is asked of a server of this machine; the first is its address."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        paths.append(f"http://127.0.0.1:{server.server_port}")
        yield paths
        server.shutdown()


def page_of(database: Database, timeframe: str) -> str:
    """The report of two exports of an application, in which everybody has given this timeframe; its log was changed."""
    data = people(12)
    for row in data["feedbacks"]:
        row |= {
            "timeframe": timeframe,
            "would_recommend": row["id"] % 3 == 0,
            "routine_completion_pct": row["id"] % 101,
        }
    database.fill(**data)
    for day in range(2):
        exported(database, Path("out"), now=NOW + timedelta(days=day))
    log = Path("out", ".feedback_etl", "audit.jsonl")
    log.write_text(log.read_text().replace('"event": "started"', '"event": "stopped"', 1))
    return write_report("report.html", "out", keys=[KEY], now=NOW).read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_and_can_be_read(sqlite_database: Database, width: int, scheme: Scheme) -> None:
    """No text, however long, leaves the page or its drawing, and each has enough contrast."""
    found = measured(page_of(sqlite_database, f"a_word_without_end_{'x' * 200}"), width=width, scheme=scheme)
    assert found["texts"] > 200
    assert found["needed"] <= width
    assert found["cut"] == []
    assert not {"Risk of each export", "Drift by column"} & {*found["hidden"]}
    assert found["faintest"][0] >= AA, found["faintest"]


def test_no_column_is_hidden_on_a_desk(sqlite_database: Database) -> None:
    """Not even where an export has millions of rows of each kind, and the mode and the name take several words."""
    page = page_of(sqlite_database, "1_week")
    millions = re.sub(r'<td class="figure">[\d,]+<', '<td class="figure">1,234,567<', page)
    millions = millions.replace("<td>full<", "<td>incremental 1234, pruned<").replace(":00:00</th>", ":00:00 (2)</th>")
    assert millions.count("1,234,567") > 50
    assert millions.count("(2)</th>") == millions.count("incremental 1234") + 2 == 4
    on_a_desk = measured(millions, width=1280, scheme="light")
    assert on_a_desk["hidden"] == []
    assert on_a_desk["lines"] == [2, 2]  # of the windows, one for each end
    assert "Rows by export" in measured(millions, width=700, scheme="light")["hidden"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_series_can_be_distinguished(sqlite_database: Database, scheme: Scheme) -> None:
    """By their lightness too, for those who see no colours."""
    found = measured(page_of(sqlite_database, "1_week"), width=375, scheme=scheme)
    assert (len(found["series"]), len(found["neighbours"])) == (5, 4)
    assert min(found["series"]) >= AA_DRAWN
    assert min(found["neighbours"]) >= APART


def test_what_is_folded_is_printed(sqlite_database: Database) -> None:
    """Printed, it cannot be opened or scrolled; and a table that is too wide would make all of it small."""
    page = page_of(sqlite_database, "1_week")
    opened, without = page.replace("<details>", "<details open>"), page.replace("<details>", "<details hidden>")
    assert printed(page) == printed(opened) > printed(without)


def test_it_follows_the_colours_of_the_system(sqlite_database: Database) -> None:
    """Light on dark where the user prefers it."""
    page = page_of(sqlite_database, "1_week")
    light, dark = (measured(page, width=375, scheme=scheme)["page"] for scheme in SCHEMES)
    assert light != dark


def test_hostile_texts_make_it_ask_for_nothing(sqlite_database: Database, asked: list[str]) -> None:
    """Images, scripts and styles in the data stay text; and were one to get through, the page's policy forbids it."""
    address = asked[0]
    hostile = f"<img src={address}/image><script src={address}/script></script><style>@import '{address}/style'</style>"
    page = page_of(sqlite_database, hostile)
    found = measured(page, width=375, scheme="light")
    assert (found["elements"], found["requests"]) == (0, [])
    got_through = page.replace("<footer>", f"{hostile}<footer>")
    assert measured(got_through, width=375, scheme="light")["elements"] == 2
    assert asked == [address]


def test_the_measure_sees_what_is_wrong(asked: list[str]) -> None:
    """A page that is too wide, faint, cut and asks for something."""
    drawing = '<svg width="50" height="20" viewBox="0 0 50 20"><text y="15">much too long for it</text></svg>'
    wrong = f'<p style="width:600px;color:#999;background:#fff">faint</p>{drawing}<img src="{asked[0]}/image">'
    found = measured(wrong, width=375, scheme="light")
    assert found["needed"] >= 600
    assert found["faintest"][0] < AA
    assert found["cut"] == ["much too long for it"]
    assert asked[1:] == ["/image"]
