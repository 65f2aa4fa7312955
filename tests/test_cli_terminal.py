"""What the command line shows on a terminal, and does not write elsewhere: progress, colours, wrapped lines."""

import re

import pytest
from databases import Database
from folders import people
from processes import on_terminal, python
from pseudonym_keys import KEY

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
IMPORTS = """
import sys
from feedback_etl.cli.app import main
sys.argv = ["feedback-etl", *sys.argv[1:]]
try:
    main()
finally:
    print("rich" in sys.modules, file=sys.stderr)
"""


@pytest.fixture
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Return a database of three users; configure it and a key."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


@pytest.mark.usefixtures("application")
class TestProgress:
    """Progress of an export."""

    def test_phases_and_rows_are_shown_on_a_terminal(self) -> None:
        """From the start on, in their order; the summary is what remains."""
        code, screen = on_terminal("export", "--days", "-1")
        assert code == 0
        shown = re.findall(r"starting|connecting|counting rows|reading rows|publishing|window  ", screen)
        assert list(dict.fromkeys(shown)) == [
            *("starting", "connecting", "counting rows", "reading rows", "publishing", "window  ")
        ]
        assert screen.rindex("\x1b[2K") < screen.index("window  ")

    def test_quiet_shows_no_progress(self) -> None:
        assert on_terminal("export", "--days", "-1", "--quiet") == (0, "")

    @pytest.mark.parametrize("command", [("export", "--days", "-1"), ("export", "--help")], ids=" ".join)
    def test_rich_is_not_imported_off_terminal(self, command: tuple[str, ...]) -> None:
        """It takes a twentieth of a second."""
        done = python(IMPORTS, *command)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "False")
        assert not ESCAPE.search(done.stdout + done.stderr)
