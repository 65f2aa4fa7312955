"""The command line: output, messages, exit codes, help and the classic script."""

import csv
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from databases import Database, Row, opened
from folders import row_files
from processes import COMMAND, Here, environment, feedback_etl, feedback_etl_process, on_terminal
from pseudonym_keys import KEY, OTHER_KEY

from feedback_etl import __version__
from feedback_etl.cli import classic
from feedback_etl.cli.app import app
from feedback_etl.cli.option_names import RENAMED, name_options
from feedback_etl.errors import SourceError, ValidationError
from feedback_etl.options.keywords import ExportKeywords
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.settings.keys import default_key_path
from feedback_etl.settings.messages import NO_DATABASE, NO_KEY

KEY_ID = Key(KEY).id
SETTINGS_ONLY = {
    "schema",
    "source",
    "lineage",
    "lineage_hosts",
    *("db_schema", "opt_in_column", "opt_out_column", "connect_timeout", "read_timeout", "batch_size", "lock_timeout"),
    *("quasi_identifiers", "hierarchies", "extra_columns", "age_edges", "min_age_range", "idempotency_key"),
}
DOCUMENTED = Path(__file__).parent.parent / "docs" / "commands.md"
YESTERDAY = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1)
QUERY = (
    "SELECT id AS feedback_id, user_id, analysis_id, 'rec' AS recommendation_id, helpful_rating, "
    "product_satisfaction, routine_completion_pct, would_recommend, NULL AS conditions_analyzed, "
    "NULL AS rules_applied, timeframe, 40 AS age, created_at FROM recommendation_feedbacks;"
)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a database: yesterday two valid rows, a duplicate, an unrated and an invalid row."""
    url = f"sqlite:///{tmp_path_factory.mktemp('application') / 'app.db'}"
    row = {"user_id": 1, "analysis_id": 1, "recommendation_id": 1, "helpful_rating": 5, "created_at": YESTERDAY}
    january = [{"created_at": datetime(2025, 1, day, 10), "analysis_id": day} for day in (10, 20)]
    changes: list[Row] = [{}, {"analysis_id": 2}, {}, {"helpful_rating": None}, {"helpful_rating": 9}, *january]
    with opened(url) as database:
        database.fill(
            records=[{"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}],
            profiles=[{"id": 1, "user_id": 1, "age": 30}],
            feedbacks=[{**row, "id": number, **change} for number, change in enumerate(changes, 1)],
        )
    return url


@pytest.fixture
def configured(application: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Configure the database and a key in the environment."""
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", application)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    return application


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Return a runner of command lines in this process."""
    return Here(capfd, monkeypatch)


def everything_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def files_below(folder: Path) -> list[Path]:
    """List the files below a folder, without the audit log and the lock."""
    return [path for path in everything_below(folder) if path.is_file() and ".feedback_etl" not in path.parts]


class TestExport:
    """`feedback-etl export` with its exit codes."""

    @pytest.mark.usefixtures("configured")
    def test_export_writes_file_json_and_summary(self, tmp_path: Path) -> None:
        """In a separate process: statistics as JSON on stdout, the summary on stderr."""
        run = feedback_etl_process("export", "--json")
        assert run.returncode == 0
        figures = json.loads(run.stdout)
        assert run.stdout.count("\n") == 1
        path = Path(figures["export_filename"])
        assert re.fullmatch(r"ml/feedback_training/feedback_training_\d{8}_\d{6}\.csv", str(path))
        with (tmp_path / path).open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header == list(CLASSIC_SCHEMA.training_columns)
        assert len(rows) == 2
        assert run.stderr.splitlines() == [
            f"window     {figures['window'][0][:19].replace('T', ' ')} to "
            f"{figures['window'][1][:19].replace('T', ' ')} UTC",
            "exported   2 of 5 rows",
            "skipped    1 with fewer than 1 rating",
            "duplicates 1 dropped",
            f"rejected   1 listed in {figures['rejected_filename']}",
            "           1 helpful_rating_out_of_range",
            "k          1 (age_range, conditions_detected, timeframe)",
            "           2 rows in classes of fewer than 5 people",
            "assumes    that only these columns of one row are known of a person",
            "           `feedback-etl risk` measures linked rows, and classes of equal answers",
            f"file       {path}",
            f"key        {KEY_ID}",
            f"duration   {figures['execution_time_seconds']:.2f} s",
        ]
        assert figures == {
            "total_feedback_records": 5,
            "exported_records": 2,
            "exported_items": 0,
            "escaped_items": 0,
            "items_filename": "",
            "anonymized_records": 2,
            "deduplicated_records": 1,
            "skipped_records": 1,
            "errors": 1,
            "suppressed_records": 0,
            "excluded_records": 0,
            "erased_records": 0,
            "known_records": 0,
            "pending_records": 0,
            "execution_time_seconds": figures["execution_time_seconds"],
            "export_filename": str(path),
            "rejected_filename": f"ml/feedback_training/rejected/{path.stem}_rejected.txt",
            "rejected_reasons": {"helpful_rating_out_of_range": 1},
            "implausible_ages": 0,
            "withheld_image_urls": 0,
            "escaped_texts": {},
            "unreadable_times": 0,
            "window": figures["window"],
            "key_id": KEY_ID,
            "audit_head": AuditLog(Path("ml/feedback_training")).head(),
            "risk": figures["risk"],
            "mode": "full",
            "late_records": 0,
            "changed_records": 0,
            "advice": "",
        }

    def test_all_options_together(self, configured: str, tmp_path: Path) -> None:
        """Stderr is empty; stdout contains the statistics only."""
        query = tmp_path / "own.sql"
        query.write_text(QUERY)
        run = feedback_etl(
            *("export", "--since", "2025-01-10T10:00:00", "--until", "2025-01-20T10:00:00"),
            *("--output", tmp_path / "out", "--min-fields", "0", "--query", query, "--max-rejected", "0.5"),
            *("--hash-recommendation-id", "--unkeyed", "--json", "--quiet", "--database-url", configured),
        )
        assert (run.returncode, run.stderr) == (0, "")
        figures = json.loads(run.stdout)
        assert figures["window"] == ["2025-01-10T10:00:00", "2025-01-20T10:00:00"]
        assert (figures["total_feedback_records"], figures["exported_records"], figures["key_id"]) == (1, 1, None)
        with (tmp_path / "out" / Path(figures["export_filename"]).name).open(newline="") as file:
            (row,) = csv.DictReader(file)
        digests = [hashlib.sha256(text).hexdigest()[:16] for text in (b"10", b"rec")]
        assert [row["analysis_hash"], row["recommendation_id"], row["age_range"]] == [*digests, "35-50"]

    @pytest.mark.usefixtures("configured")
    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--database-url", "sqlite:///missing.db"], 3, "error: There is no SQLite file at missing.db."),
            (
                ["--strict"],
                4,
                "error: Nothing was exported: 1 of 4 rows (25.0 %) are rejected, and --strict allows none.",
            ),
            (["--output", "file/below"], 5, "error: Nothing was written to file/below: a part of the path is a file"),
        ],
    )
    def test_each_kind_of_error_has_its_exit_code(
        self, tmp_path: Path, arguments: list[str], code: int, message: str
    ) -> None:
        """One sentence on stderr, nothing on stdout, no file."""
        (tmp_path / "file").write_text("mine")
        run = feedback_etl("export", "--json", *arguments)
        assert (run.returncode, run.stdout) == (code, "")
        assert run.stderr.startswith(message)
        assert run.stderr.count("\n") == 1
        assert [path.name for path in files_below(tmp_path)] == ["file"]

    def test_export_without_key_fails_off_terminal(self, application: str, tmp_path: Path) -> None:
        """No key is created without a terminal: it would be lost with its container."""
        run = feedback_etl("export", "--database-url", application)
        assert (run.returncode, run.stdout, run.stderr) == (2, "", f"error: {NO_KEY}\n")
        assert "`feedback-etl keys new`" in run.stderr
        assert everything_below(tmp_path) == []
        assert not default_key_path().exists()

    def test_first_export_on_a_terminal_creates_a_key(self, application: str, here: Here) -> None:
        """The message names its path; the next export uses it."""
        code, screen = on_terminal("export", "--database-url", application)
        key = Key(default_key_path().read_text())
        assert code == 0
        assert f"No pseudonym key existed; created one in {default_key_path()} (id {key.id})." in " ".join(
            screen.split()
        )
        assert f"key        {key.id}" in screen
        assert key.text not in screen
        again = here("export", "--database-url", application, "--json", "--quiet")
        assert json.loads(again.out)["key_id"] == key.id
        assert here("keys", "retire").code == 0
        code, screen = on_terminal("export", "--database-url", application)
        assert (code, default_key_path().exists()) == (2, False)
        assert "The key of earlier exports is retired, and there is no other." in " ".join(screen.split())


@pytest.mark.usefixtures("configured")
class TestExportHere:
    """`export` in this process."""

    def test_empty_window_is_reported(self, here: Here, tmp_path: Path) -> None:
        """One line gives the reason; exit code 0 and no file."""
        ended = here("export", "--since", "2024-01-01", "--until", "2024-02-01")
        assert ended.code == 0
        assert ended.err.splitlines()[1] == (
            "Nothing exported: there is no feedback in the window (--days -1 exports everything)."
        )
        assert files_below(tmp_path) == []

    def test_all_rows_skipped_names_min_fields(self, here: Here) -> None:
        """The message names --min-fields."""
        ended = here("export", "--min-fields", "4")
        assert ended.code == 0
        assert ended.err.splitlines()[1:3] == [
            "Nothing exported: all rows in the window have fewer than 4 ratings (--min-fields).",
            "skipped    5 with fewer than 4 ratings",
        ]

    def test_rows_without_consent_are_reported(self, here: Here, tmp_path: Path) -> None:
        """They are counted as excluded."""
        columns = "analysis_id, recommendation_id, helpful_rating, product_satisfaction, routine_completion_pct, "
        columns += "would_recommend, NULL AS conditions_analyzed, NULL AS rules_applied, timeframe, 1 AS age"
        (tmp_path / "own.sql").write_text(
            f"SELECT id AS feedback_id, user_id, {columns}, created_at, id > 5 AS consent FROM recommendation_feedbacks"
        )
        ended = here("export", "--query", "own.sql", "--json")
        figures = json.loads(ended.out)
        assert (ended.code, figures["total_feedback_records"], figures["excluded_records"]) == (0, 0, 5)
        assert ended.err.splitlines()[1:3] == [
            "excluded   5 without consent",
            "Nothing exported: no user with feedback in the window has given consent.",
        ]

    def test_reasons_for_an_empty_export_have_figures_of_their_own(self, here: Here, configured: str) -> None:
        """People who were erased, people without consent, and a night on which nothing is new."""
        folder = Path("ml/feedback_training")
        options = ["export", "--incremental", "--days", "-1", "--lookback", "1d"]
        assert here(*options).code == 0
        idle = here(*options)
        assert "Nothing exported: there are no new rows since the last incremental export." in idle.err.splitlines()
        erase(folder, user_ids=[1], database=configured, keys=[Key(KEY)])
        ended = here("export", "--days", "-1", "--json")
        figures = json.loads(ended.out)
        counts = [figures[f"{name}_records"] for name in ("total_feedback", "excluded", "erased", "known")]
        assert counts == [0, 0, 7, 0]
        assert ended.err.splitlines()[1:3] == [
            "erased     7 of erased people",
            "Nothing exported: all rows in the window are of erased people.",
        ]

    def test_summary_warns_of_unkeyed_pseudonyms(self, here: Here) -> None:
        """Unkeyed pseudonyms can be inverted."""
        ended = here("export", "--unkeyed", "--days", "-1")
        assert "key        none: unkeyed pseudonyms can be inverted" in ended.err.splitlines()
        assert "exported   4 of 7 rows" in ended.err.splitlines()
        assert "window     the beginning to " in ended.err

    def test_max_rejected_is_a_limit(self, here: Here) -> None:
        """One of four rated rows is invalid: a limit of 25 % passes, 24 % fails."""
        assert here("export", "--max-rejected", "0.25").code == 0
        ended = here("export", "--max-rejected", "0.24")
        assert ended.code == 4
        assert ended.err == (
            "error: Nothing was exported: 1 of 4 rows (25.0 %) are rejected, and --max-rejected allows 0.24. Reasons: "
            "helpful_rating_out_of_range 1. Correct these rows in the database, or raise --max-rejected.\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--days", "7", "--since", "2025-01-01"], "--days and --since exclude each other: give one of them."),
            (["--until", "2025-01-01"], "The end of a window (--until) requires a start (--since), or a --days of -1."),
            (["--since", "yesterday"], "--since must be an ISO 8601 date or time"),
            (["--since", "2025-02-01", "--until", "2025-01-01"], "--since must be before the end of the window."),
            (["--since", "2025-01-01", "--until", "2125-01-01"], "--until is in the future"),
            (["--days", "0"], "--days must be a whole number of days, 1 or more, or -1 for everything."),
            (["--days", "-2"], "--days must be"),
            (["--days", "1000000000000"], "--days must be"),
            (["--days", "1.5"], "Invalid value for '--days': it must be a valid integer. `feedback-etl export"),
            (["--min-fields", "5"], "--min-fields must be a whole number from 0 to 4."),
            (["--max-rejected", "5"], "--max-rejected must be a share from 0 to 1"),
            (["--k", "0"], "--k should be greater than or equal to 1"),
            (["--k", "5", "--max-suppressed", "2"], "--max-suppressed should be less than or equal to 1"),
            (["--incremental", "--lookback", "soon"], "--lookback must be a duration such as 30m, 2h or 1d"),
            (["--bulk", "--workers", "0"], "--workers must be a whole number, 1 or more."),
            (["--max-rejected", "nan"], "--max-rejected must be a share from 0 to 1"),
            (
                ["--timestamp-precision", "year"],
                "Invalid value for '--timestamp-precision': 'year' is not one of 'exact', ",
            ),
            (["--query", "missing.sql"], "There is no query file missing.sql."),
            (["--database-url", ""], "The database URL is not valid"),
            (["--database-url", "oracle://host/app"], "Databases of the kind oracle cannot be read"),
            (["--day", "7"], "No such option: --day"),
            (["surplus"], "unexpected extra argument"),
        ],
    )
    def test_wrong_usage_exits_with_2(self, here: Here, tmp_path: Path, arguments: list[str], message: str) -> None:
        """The message is on stderr, nothing on stdout, no file."""
        ended = here("export", "--json", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert message in ended.err
        assert files_below(tmp_path) == []

    def test_since_overrides_the_default_of_days(self, here: Here) -> None:
        """--since does not conflict with the default of --days."""
        assert json.loads(here("export", "--since", "2025-01-01", "--json").out)["total_feedback_records"] == 7

    def test_library_warnings_are_not_shown(self, here: Here) -> None:
        """The user cannot fix them, and they may contain a value."""

        def warns() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("canary", stacklevel=1)
            sys.exit(0)

        assert here(command=warns) == (0, "", "")


class TestConfiguration:
    """Sources of the database, the folder and the key."""

    def test_missing_database_is_reported(self, here: Here) -> None:
        """One sentence names the variable, the option, and the command that requires no database."""
        ended = here("export")
        assert (ended.code, ended.out, ended.err) == (2, "", f"error: {NO_DATABASE}\n")
        for name in ("FEEDBACK_ETL_DATABASE_URL", "--database-url", "`feedback-etl demo`"):
            assert name in ended.err

    def test_the_settings_file_is_read(self, application: str, here: Here, tmp_path: Path) -> None:
        """It configures the database, the folder and the key."""
        (tmp_path / "secret").write_text(KEY)
        (tmp_path / "secret").chmod(0o600)
        (tmp_path / "feedback-etl.toml").write_text(
            f'database_url = "{application}"\noutput_dir = "out"\nkey_file = "secret"\n'
        )
        figures = json.loads(here("export", "--json", "--quiet").out)
        assert (figures["key_id"], figures["export_filename"][:4]) == (KEY_ID, "out/")


class TestPreview:
    """`feedback-etl preview` prints rows and writes nothing."""

    def test_preview_prints_csv(self, application: str, tmp_path: Path) -> None:
        """The user's key is neither read nor created; nothing is written."""
        run = feedback_etl("preview", "--database-url", application, env={"FEEDBACK_ETL_KEY": "not one"})
        assert run.returncode == 0
        rows = list(csv.DictReader(run.stdout.splitlines()))
        assert [row["recommendation_id"] for row in rows] == ["rec_1", "rec_1"]
        assert run.stderr.splitlines() == [
            "skipped    1 with fewer than 1 rating",
            "duplicates 1 dropped",
            "rejected   1 by reason:",
            "           1 helpful_rating_out_of_range",
            "The first 2 of 2 rows. Nothing was written; the pseudonyms use a temporary key.",
        ]
        assert everything_below(tmp_path) == everything_below(Path.home()) == []

    @pytest.mark.usefixtures("configured")
    def test_preview_options_select_rows(self, here: Here) -> None:
        """The window, the ratings and the number of rows."""
        ended = here("preview", "--days", "-1", "--rows", "3", "--min-fields", "0")
        assert (ended.code, ended.out.count("\n")) == (0, 4)
        assert "\nThe first 3 of 4 rows." in ended.err
        ended = here("preview", "--since", "2025-01-01", "--until", "2025-01-15")
        assert ended.err.startswith("The first 1 of 1 rows.")

    @pytest.mark.usefixtures("configured")
    def test_preview_shows_valid_rows_however_many_are_rejected(self, here: Here, tmp_path: Path) -> None:
        """An export of the same rows publishes nothing."""
        query = tmp_path / "query.sql"
        query.write_text(
            QUERY.replace("helpful_rating,", "CASE WHEN id < 3 THEN 9 ELSE helpful_rating END AS helpful_rating,")
        )
        ended = here("preview", "--query", query)
        assert (ended.code, ended.out.count("\n")) == (0, 2)
        assert "rejected   3 by reason:\n           3 helpful_rating_out_of_range\n" in ended.err
        assert "An export would publish nothing: --max-rejected allows 0.5 of the rows to be rejected.\n" in ended.err
        ended = here("export", "--query", query)
        assert ended.code == 4
        assert "3 of 4 rows (75.0 %) are rejected, and --max-rejected allows 0.5" in ended.err

    @pytest.mark.usefixtures("configured")
    def test_preview_of_an_empty_window(self, here: Here) -> None:
        """The header, and one line with the reason."""
        ended = here("preview", "--since", "2024-01-01", "--until", "2024-02-01")
        assert (ended.code, ended.out) == (0, ",".join(CLASSIC_SCHEMA.training_columns) + "\n")
        assert ended.err == ("Nothing to export: there is no feedback in the window (--days -1 exports everything).\n")

    @pytest.mark.usefixtures("configured")
    def test_preview_counts_rows_without_consent(self, here: Here, tmp_path: Path) -> None:
        """As an export does."""
        (tmp_path / "own.sql").write_text(QUERY.replace("created_at FROM", "created_at, id > 1 AS consent FROM"))
        ended = here("preview", "--query", "own.sql")
        assert (ended.code, ended.out.count("\n")) == (0, 3)
        assert ended.err.startswith("excluded   1 without consent\n")

    @pytest.mark.usefixtures("configured")
    def test_preview_as_a_table(self, here: Here) -> None:
        """A line for each column, with the values of the CSV."""
        names, *rows = csv.reader(here("preview").out.splitlines())
        lines = [line.split() for line in here("preview", "--table").out.splitlines()]
        assert lines[0] == ["Column", "Row", "1", "Row", "2"]
        assert [line[0] for line in lines[1:]] == names
        assert lines[1 + names.index("recommendation_id")] == ["recommendation_id", "rec_1", "rec_1"]
        assert lines[1 + names.index("feedback_timestamp")][1:] == [row[-2] for row in rows]
        assert here("preview", "--since", "2024-01-01", "--table").code == 0


class TestStdout:
    """Stdout may be closed or full."""

    COMMAND = (COMMAND, "keys", "show")

    @pytest.mark.usefixtures("configured")
    def test_closed_pipe_is_no_error(self) -> None:
        """As in `feedback-etl preview | head -1`; here the pipe is closed before anything is written."""
        reading, writing = os.pipe()
        os.close(reading)
        run = subprocess.run(self.COMMAND, stdout=writing, stderr=subprocess.PIPE, env=environment(), check=False)
        os.close(writing)
        assert (run.returncode, run.stderr) == (1, b"")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
    @pytest.mark.usefixtures("configured")
    def test_full_stdout_is_reported(self) -> None:
        """As with a file on a full disk."""
        with Path("/dev/full").open("wb") as full:
            run = subprocess.run(self.COMMAND, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
        message = b"error: Stdout cannot be written: No space left on device. An export that was published is kept.\n"
        assert (run.returncode, run.stderr) == (5, message)


class TestDemo:
    """`feedback-etl demo` requires nothing and does not touch the user's files."""

    def test_demo_ignores_configuration(self, tmp_path: Path) -> None:
        """Invalid keys and settings are not read, and none are created."""
        (tmp_path / "feedback-etl.toml").write_text("broken =")
        wrong = {"FEEDBACK_ETL_KEY": "short", "FEEDBACK_ETL_DATABASE_URL": "nonsense"}
        run = feedback_etl("demo", "--rows", "300", "--seed", "3", env=wrong)
        assert run.returncode == 0
        lines = run.stderr.splitlines()
        assert lines[0].startswith(
            "The demo creates feedback_demo/feedback.db, the database of an invented application, "
        )
        assert lines[2] == "sample     300 rows of feedback in feedback_demo/feedback.db"
        assert "The demo key is public and protects no one. First lines of the file:" in lines
        (path,) = (tmp_path / "feedback_demo" / "exports").glob("*.csv")
        assert run.stdout == "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:6])
        assert everything_below(Path.home()) == []

    def test_suggested_commands_run(self, here: Here) -> None:
        """The folder name is quoted for the shell and for the URL."""
        folder = "my demo? 100% #1"
        commands = here("demo", "--rows", "300", "--output", folder).err.partition("Next, for example:\n")[2]
        for command in commands.splitlines():
            name, *arguments = shlex.split(command)
            assert (name, here(*arguments).code) == ("feedback-etl", 0)
        page = Path(folder, "report.html").read_text(encoding="utf-8")
        assert "not verified" not in page
        assert here("demo", "--rows", "300", "--output", folder).code == 0

    def test_suggested_commands_name_the_program_as_it_was_run(self) -> None:
        """As `make demo` runs it, whose folder of programs is not on the path; and as a module."""
        program = os.path.relpath(COMMAND)
        for words in ([program], [sys.executable, "-m", "feedback_etl"]):
            command = [*words, "demo", "--rows", "300"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment({"PATH": ""}))
            listing = done.stderr.splitlines()[-2].strip()
            assert shlex.split(listing)[:-2] == words
            subprocess.run(shlex.split(listing), capture_output=True, check=True, env=environment({"PATH": ""}))

    def test_demo_of_one_row(self, here: Here) -> None:
        """If that row is not exported, there is no file to print."""
        ended = here("demo", "--rows", "1")
        assert (ended.code, ended.out) == (0, "")
        assert "Nothing exported" in ended.err

    def test_demo_does_not_overwrite_foreign_files(self, here: Here, tmp_path: Path) -> None:
        """Exit code 5."""
        (tmp_path / "feedback_demo").mkdir()
        (tmp_path / "feedback_demo" / "feedback.db").write_text("mine")
        assert here("demo").code == 5
        assert (tmp_path / "feedback_demo" / "feedback.db").read_text() == "mine"


class TestErrors:
    """Unexpected errors are reported without their texts."""

    @pytest.mark.parametrize("kind", [RuntimeError, BaseException, KeyboardInterrupt])
    def test_unexpected_error_shows_traceback_without_text(self, here: Here, kind: type[BaseException]) -> None:
        """The text may contain rows; a panic in a Rust library is not an Exception."""
        secret = "canary" * 2

        def fails() -> None:
            raise kind(secret) from ValueError(secret)

        ended = here(command=fails)
        assert (ended.code, ended.out) == (1, "")
        assert f"error: unexpected {kind.__name__}; please report the lines above." in ended.err
        assert f"{Path(__file__).name}" in ended.err
        assert secret not in ended.err

    @pytest.mark.parametrize("error", [SourceError("message"), ValidationError("message", {"formula": 1})])
    def test_feedback_error_is_one_sentence(self, here: Here, error: SourceError | ValidationError) -> None:
        """With its own exit code."""

        def fails() -> None:
            raise error

        assert here(command=fails) == (error.exit_code, "", "error: message\n")


class TestTheClassicScript:
    """`feedback-etl --days 7` without a command, and `python -m feedback_etl.processor --days 7`."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--days", "7"), "Did you mean `feedback-etl export --days ...`? (`preview`, `plan` have it too)"),
            (("--days=7", "--bulk"), "Did you mean `feedback-etl export --days ...`? (`preview`, `plan` have it too)"),
            (("--bulk",), "Did you mean `feedback-etl export --bulk ...`?"),
            (("--keep-days", "7"), "Did you mean `feedback-etl prune --keep-days ...`?"),
            (
                ("--nonsense", "7"),
                "error: No such option: --nonsense. `feedback-etl --help` shows what is accepted.",
            ),
        ],
        ids=str,
    )
    def test_option_without_command_suggests_the_command(
        self, here: Here, arguments: tuple[str, ...], message: str
    ) -> None:
        """Exit code 2; the option's value is not repeated."""
        ended = here(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.endswith(f"{message}\n")

    @pytest.mark.usefixtures("configured")
    def test_classic_script_exports_the_last_days(self) -> None:
        """Into the folder of --output."""
        done = classic_script("--days", "7", "--output", "somewhere")
        assert (done.returncode, done.stdout) == (0, "")
        assert "exported   2 of 5 rows\n" in done.stderr
        (path,) = Path("somewhere").glob("feedback_training_*.csv")
        assert f"file       {path}\n" in done.stderr

    @pytest.mark.usefixtures("configured")
    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            ((), "Nothing exported: there is no feedback in the window (--days -1 exports everything)."),
            (("--bulk",), "exported   4 of 7 rows"),
            (("--bulk", "--days", "7"), "exported   2 of 5 rows"),
            (("--days", "-1"), "exported   4 of 7 rows"),
        ],
        ids=str,
    )
    def test_classic_bulk_exports_everything_without_days(
        self, here: Here, arguments: tuple[str, ...], line: str
    ) -> None:
        """One day of 24 hours is the default, as in the classic API."""
        ended = here(*arguments, command=classic.app)
        assert ended.code == 0
        assert f"{line}\n" in ended.err

    def test_classic_script_exits_with_4_if_all_rows_are_rejected(
        self, here: Here, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The summary is printed, and nothing is published."""
        row = {"id": 1, "user_id": 1, "analysis_id": 1, "recommendation_id": 1, "helpful_rating": 9}
        sqlite_database.fill(
            records=[{"id": 1, "recommendation_id": "rec_1"}], feedbacks=[row | {"created_at": YESTERDAY}]
        )
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        ended = here("--days", "7", command=classic.app)
        assert ended.code == 4
        assert "Nothing exported: every row with enough ratings was rejected.\n" in ended.err
        assert "rejected   1 by reason:\n           1 helpful_rating_out_of_range\n" in ended.err
        assert row_files(Path("ml/feedback_training")) == []

    def test_classic_script_reports_errors_like_the_command(self, here: Here) -> None:
        """One sentence and the exit code."""
        ended = here("--days", "7", command=classic.app)
        assert ended == (2, "", f"error: {NO_DATABASE}\n")


def classic_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "feedback_etl.processor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


class TestTheModule:
    """`python -m feedback_etl` and `--version`."""

    def test_module_and_command_print_the_same_version(self) -> None:
        """`feedback-etl VERSION`."""
        module = [sys.executable, "-m", "feedback_etl", "--version"]
        message = subprocess.run(module, capture_output=True, text=True, check=True, env=environment()).stdout
        assert message == feedback_etl_process("--version").stdout == f"feedback-etl {__version__}\n"

    def test_wrong_usage_names_the_command(self) -> None:
        """However it is run, since the user can type it."""
        module = [sys.executable, "-m", "feedback_etl", "export", "--no-such-option"]
        message = subprocess.run(module, capture_output=True, text=True, check=False, env=environment()).stderr
        assert message == (
            "error: No such option: --no-such-option. `feedback-etl export --help` shows what is accepted.\n"
        )

    def test_no_summary_of_a_command_is_cut(self, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        """At 80 columns."""
        monkeypatch.setenv("COLUMNS", "80")
        assert "..." not in here("--help").out.partition("Commands:")[2]

    def test_help_breaks_no_name_at_a_hyphen(self, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        """At 80 columns; the characters that prevent it are not printed."""
        monkeypatch.setenv("COLUMNS", "80")
        for command, words in (("prune", "than --keep-days."), ("init", "exist. [default: feedback-etl.toml]")):
            shown = here(command, "--help").out
            assert words in " ".join(shown.split())
            assert shown.isascii()

    def test_help_is_printed_without_a_command(self, here: Here) -> None:
        """It lists the commands and suggests the demo."""
        ended = here()
        assert "feedback-etl demo" in ended.out + ended.err
        assert all(name in ended.out + ended.err for name in ("export", "preview", "demo", "keys"))


def list_commands() -> dict[str, Any]:
    """Return every command and group by its full name."""
    commands: dict[str, Any] = {"feedback-etl": typer.main.get_command(app)}
    for name in list(commands):
        collect(name, commands[name], commands)
    return commands


def collect(name: str, group: Any, commands: dict[str, Any]) -> None:
    for word, command in getattr(group, "commands", {}).items():
        commands[f"{name} {word}"] = command
        collect(f"{name} {word}", command, commands)


COMMANDS = list_commands()


@pytest.mark.parametrize("name", [*ExportKeywords.__annotations__, *RENAMED])
def test_options_in_messages_are_named_as_they_are_typed(name: str) -> None:
    """Options that are only settings keep their name."""
    options = {name for command in COMMANDS.values() for parameter in command.params for name in parameter.opts}
    typed = name_options(f"`{name}` must", app)
    assert typed.removesuffix(" must") in options or (typed == f"`{name}` must" and name in SETTINGS_ONLY)


@pytest.mark.parametrize("command", ["demo", "preview"])
def test_rows_must_be_positive(here: Here, tmp_path: Path, command: str) -> None:
    """Nothing is created."""
    ended = here(command, "--rows", "0")
    assert (ended.code, ended.out, ended.err) == (2, "", "error: --rows must be 1 or more.\n")
    assert files_below(tmp_path) == []


class TestHelp:
    """Help with examples that parse, and complete documentation."""

    def test_list_of_commands(self) -> None:
        """A new command must be added here."""
        names = {"export", "preview", "demo", "keys", "keys new", "keys show", "keys list", "keys retire"}
        names |= {"list", "adopt", "erase", "prune", "audit", "audit show", "audit verify", "risk", "check", "config"}
        names |= {"report", "contracts", "help", "init", "notebooks", "plan", "status"}
        assert set(COMMANDS) == {"feedback-etl", *(f"feedback-etl {name}" for name in names)}

    @pytest.mark.parametrize("name", COMMANDS)
    def test_help_ends_with_an_example_that_parses(self, here: Here, name: str) -> None:
        """It fits into 80 columns and describes each option."""
        ended = here(*shlex.split(name)[1:], "--help")
        examples = [
            line.strip() for line in ended.out.splitlines() if line.strip().startswith("Example: feedback-etl ")
        ]
        assert ended.code == 0
        assert examples[-1] == ended.out.rstrip().splitlines()[-1].strip()
        assert len(examples) == (5 if name == "feedback-etl" else 1)
        assert max(map(len, ended.out.splitlines())) <= 80
        assert "..." not in re.sub(r"[\]}]\.\.\.", "", ended.out)
        assert not re.search(r"<list|Path>|\(off\)|default: \(", ended.out)
        for parameter in COMMANDS[name].params:
            assert parameter.help, f"{parameter.name} has no help"
        for example in examples:
            assert_parses(shlex.split(example)[1:])

    def test_help_is_a_command_and_a_short_option(self, here: Here) -> None:
        shown = here("keys", "new", "--help")
        assert here("keys", "new", "-h") == here("help", "keys", "new") == shown

    def test_options_of_an_export_are_grouped(self, here: Here) -> None:
        """Only the option that every command has is under no heading."""
        lines = here("export", "--help").out.splitlines()
        headings = [line for line in lines if re.fullmatch(r"\w.*:", line)]
        assert headings == ["Rows:", "Incremental exports:", "Privacy:", "Output:", "Speed:", "Options:"]
        options = [line.split()[0] for line in lines[lines.index("Options:") :] if line.strip().startswith("-")]
        assert options == ["-h,"]

    def test_help_uses_the_width_of_a_wide_terminal(self) -> None:
        lines = feedback_etl_process("export", "--help", env={"COLUMNS": "120"}).stdout.splitlines()
        assert 100 < max(map(len, lines)) <= 120

    @pytest.mark.parametrize("name", COMMANDS)
    def test_docs_name_every_command_and_option(self, name: str) -> None:
        """docs/commands.md is complete."""
        text = DOCUMENTED.read_text(encoding="utf-8")
        assert name in text
        options = [option for parameter in COMMANDS[name].params for option in parameter.opts]
        assert [option for option in options if f"`{option}" not in text and f" {option}" not in text] == []


def assert_parses(words: list[str]) -> None:
    """Parse a command line without running it."""
    name, *rest = words
    while rest and f"{name} {rest[0]}" in COMMANDS:
        name = f"{name} {rest.pop(0)}"
    with COMMANDS[name].make_context(name, rest) as context:
        assert context.params is not None


def test_empty_output_is_refused() -> None:
    """An unset shell variable must not select the working directory."""
    done = feedback_etl("export", "--output", "")
    assert done.returncode == 2
    assert "The name of the folder is empty" in done.stderr


@pytest.mark.sample(">&- 2>&- <&-")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_export_runs_with_closed_standard_streams(configured: str, tmp_path: Path, closed: str) -> None:
    """A daemon may have closed them."""
    command = f"exec {shlex.quote(COMMAND)} export --days -1 --output exports {closed}"
    done = subprocess.run(["sh", "-c", command], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert len(list((tmp_path / "exports").glob("*.csv"))) == 1


def test_shared_export_without_a_key_is_refused(here: Here) -> None:
    """Anyone who can list the ids could invert its pseudonyms."""
    refused = here("export", "--share", "--unkeyed")
    assert refused.code == 2
    assert "--share needs a key" in refused.err


def test_shared_export_without_rows_names_quasi_identifiers_and_remedy(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the sample data every class of a day is small; settings cannot remove a quasi-identifier."""
    assert here("demo", "--rows", "3000").code == 0
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "sqlite:///feedback_demo/feedback.db")
    monkeypatch.setenv("FEEDBACK_ETL_KEY", OTHER_KEY)
    share = ("--share", "--recipient", "acme", "--output", "shared")
    by_day = (*share, "--timestamp-precision", "day", "--on-small-class", "suppress")
    ended = here("export", *by_day)
    assert ended.code == 4
    assert re.fullmatch(
        r"error: Nothing was exported: (\d+) of \1 rows belong to equivalence classes of fewer than 5 people with "
        r"equal age_range, conditions_detected, timeframe, feedback_timestamp, and no row would be left\. Set fewer "
        r"quasi_identifiers or age_edges or a coarser --timestamp-precision to make classes larger, or give "
        r"--on-small-class the value generalize\.\n",
        ended.err,
    )
    monkeypatch.setenv("FEEDBACK_ETL_QUASI_IDENTIFIERS", '["timeframe"]')
    ended = here("export", *by_day)
    assert (ended.code, "timeframe, age_range, conditions_detected, feedback_timestamp" in ended.err) == (4, True)


def test_all_rows_of_the_sample_data_are_shared(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small classes generalised and months; dropped, and by day, nothing of 5,000 rows was left."""
    assert here("demo").code == 0
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "sqlite:///feedback_demo/feedback.db")
    monkeypatch.setenv("FEEDBACK_ETL_KEY", OTHER_KEY)
    share = ("export", "--days", "90", "--share", "--recipient", "acme", "--output", "shared", "--json")
    report = json.loads(here(*share).out)
    assert report["exported_records"] > 2_500
    assert (report["suppressed_records"], report["risk"]["k"] >= 5) == (0, True)


def test_risk_reports_whether_rows_or_people_are_counted(here: Here) -> None:
    """Without a column of people each row is one; the summary of an export counts people."""
    Path("rows.csv").write_text("age_range,subject_hash\n18-25,a\n18-25,a\n")
    people = here("risk", "rows.csv", "--quasi-identifier", "age_range")
    assert people.out.startswith("counted   people, by subject_hash\nknown     age_range (quasi-identifiers)\n")
    assert "k                    1  people in the smallest class (k-anonymity)\n" in people.out
    assert "prosecutor risk      1  highest, 1 / k, if a person is known to be in it\n" in people.out
    assert "small rows           2  rows in classes of fewer than 5 people\n" in people.out
    assert people.err == ""
    Path("rows.csv").write_text("age_range\n18-25\n18-25\n")
    rows = here("risk", "rows.csv", "--quasi-identifier", "age_range")
    assert rows.out.startswith("counted   rows: no column identifies people (--person)\n")
    assert "k                    2  rows in the smallest class (k-anonymity)\n" in rows.out
    assert all(len(line) <= 80 for line in [*people.out.splitlines(), *rows.out.splitlines()])
    assert rows.err == (
        "Each row counts as a person, because no column identifies people (--person).\n"
        "k of linked rows was not measured: no column links the rows of a person (--person).\n"
    )
