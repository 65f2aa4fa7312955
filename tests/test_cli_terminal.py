"""What the command line shows on a terminal, and does not write elsewhere: progress, colours, wrapped lines."""

import re
from pathlib import Path

import pytest
from databases import Database
from folders import people
from processes import Here, on_terminal, python
from pseudonym_keys import KEY

from feedback_etl.storage.locks import lock_folder

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
IMPORTS = """
import sys
from feedback_etl.cli.app import main
sys.argv = ["feedback-etl", *sys.argv[1:]]
try:
    main()
finally:
    print(*sorted({"pydantic", "rich"} & {*sys.modules}), file=sys.stderr)
"""


@pytest.fixture
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Return a database of three users; configure it and a key."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Return a runner of command lines in this process."""
    return Here(capfd, monkeypatch)


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

    @pytest.mark.parametrize(
        ("command", "imported"), [(("export", "--days", "-1"), "pydantic"), (("export", "--help"), "")]
    )
    def test_slow_libraries_are_imported_where_needed(self, command: tuple[str, ...], imported: str) -> None:
        """Each takes a twentieth of a second: pydantic reads the settings, rich shows progress on a terminal."""
        done = python(IMPORTS, *command)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, imported)
        assert not ESCAPE.search(done.stdout + done.stderr)


@pytest.mark.usefixtures("application")
class TestTables:
    """Tables and messages at the width of a terminal."""

    def test_tables_fit_and_words_stay_whole(self, here: Here) -> None:
        """The words are those of the table that is piped, which has a line for each row and no escape sequences."""
        assert here("export", "--incremental", "--days", "-1", "--output", "exports").code == 0
        for command in (["list", "exports"], ["audit", "show", "exports"], ["keys", "list"]):
            piped = here(*command).out
            _, screen = on_terminal(*command)
            lines = ESCAPE.sub("", screen).splitlines()
            assert max(map(len, lines)) <= 80, command
            assert sorted(" ".join(lines).split()) == sorted(piped.split()), command
            assert ("\x1b[1m" in screen, ESCAPE.search(piped)) == (True, None)

    def test_longest_words_are_broken(self, here: Here) -> None:
        """As is a path that is longer than its column."""
        piped, screen = here("config").out, ESCAPE.sub("", on_terminal("config", columns=60)[1])
        assert max(map(len, screen.splitlines())) <= 60 < max(map(len, piped.splitlines()))
        assert sorted("".join(screen.split())) == sorted("".join(piped.split()))

    def test_names_above_a_table_are_wrapped_between_words(self, here: Here) -> None:
        assert here("export", "--days", "-1", "--output", "exports").code == 0
        _, screen = on_terminal("risk", *map(str, Path("exports").glob("*.csv")), columns=60)
        lines = ESCAPE.sub("", screen).splitlines()
        assert max(map(len, lines)) <= 60
        assert lines[1:3] == ["known     age_range, conditions_detected, timeframe", "          (quasi-identifiers)"]

    def test_no_color_is_obeyed(self) -> None:
        """Progress and tables have no colour; they may still be bold."""
        code, screen = on_terminal("export", "--days", "-1", env={"NO_COLOR": "1"})
        assert code == 0
        assert not re.search(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d)", screen)

    def test_errors_are_wrapped_between_words(self, here: Here) -> None:
        message = here("list", "nowhere").err
        code, screen = on_terminal("list", "nowhere", columns=40)
        assert (code, screen.split()) == (2, message.split())
        assert message.count("\n") == 1
        assert max(map(len, screen.splitlines())) <= 40


@pytest.mark.usefixtures("application")
def test_ctrl_c_ends_an_export_with_one_sentence(tmp_path: Path) -> None:
    """While it waits for the folder: the progress is cleared, and nothing is published."""
    with lock_folder(tmp_path / "exports"):
        code, screen = on_terminal("export", "--output", "exports", interrupt_at="reading rows")
    assert (code, ESCAPE.split(screen)[-1].strip()) == (130, "Interrupted; unfinished files were removed.")
    assert list((tmp_path / "exports").glob("*")) == [tmp_path / "exports" / ".feedback_etl"]
