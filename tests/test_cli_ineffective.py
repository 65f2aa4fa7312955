"""Options that would be ignored or overridden are usage errors, which name them as they were typed."""

import pytest
from databases import Database
from folders import people
from processes import Here
from pseudonym_keys import KEY

K = ("--k", "5")
SHARE = ("--share", "--recipient", "acme", "--output", "shared")


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs commands without settings."""
    return Here(capfd, monkeypatch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lookback", "2h"], "--lookback has no effect without --incremental."),
        (["--max-pending", "9d"], "--max-pending has no effect without --incremental and --k."),
        (["--workers", "2"], "--workers has no effect without --bulk or --executor."),
        (["--on-small-class", "fail"], "--on-small-class has no effect without --k."),
        (["--max-suppressed", "0.1"], "--max-suppressed has no effect without --k."),
        ([*K, "--on-small-class", "fail", "--max-suppressed", "0.1"], "--on-small-class fail allows no suppressed row"),
        (["--strict", "--max-rejected", "0.1"], "--strict allows no rejected row: leave --max-rejected out."),
        (["--share", "--timestamp-precision", "exact"], "--share allows no times finer than the day"),
        (["--share", "--timestamp-precision", "hour"], "--share allows no times finer than the day"),
        (["--share", "--k", "3"], "--share requires k of at least 5"),
        (["--share"], "--share requires --recipient NAME"),
        ([*SHARE[:3]], "--share requires --output FOLDER, a folder of shared files only"),
        (["--recipient", "acme"], "--recipient has no effect without --share."),
        (["--allow-overlap"], "--allow-overlap has no effect without --share."),
        (
            ["--database-url", "sqlite:///app.db", "--allow-row-security"],
            "--allow-row-security has no effect without PostgreSQL, which alone has row-level security.",
        ),
        ([*SHARE, "--incremental"], "An incremental export cannot have a --recipient"),
        (
            ["--share", "--recipient", "Acme", "--output", "shared"],
            "--recipient must be a name of 1 to 64 lower-case letters",
        ),
        (["--days", "7", "--since", "2025-01-01"], "--days and --since exclude each other"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_option_without_effect_is_refused(here: Here, options: list[str], message: str) -> None:
    """Before the database is opened: none is configured."""
    done = here("export", *options)
    assert (done.code, message in done.err) == (2, True)


def test_days_of_a_continued_series_are_reported(
    here: Here, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nightly command names them for its first run; a later one cannot look further back with them."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
    sqlite_database.fill(**people(2))
    message = "--days had no effect: only the first export of a series uses it"
    for is_continued in (False, True):
        done = here("export", "--incremental", "--days", "9000")
        assert (done.code, message in done.err) == (0, is_continued)


@pytest.mark.parametrize(("name", "value"), [("on_small_class", "fail"), ("max_suppressed", "0.1")])
def test_setting_without_effect_is_refused(here: Here, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A limit that never applies would be a false assurance; with k it applies."""
    monkeypatch.setenv(f"FEEDBACK_ETL_{name.upper()}", value)
    done = here("export")
    message = f"error: The setting {name} has no effect without k: set k, or pass --k.\n"
    assert (done.code, done.err) == (2, message)
    for options in (K, SHARE):
        assert "No database is configured" in here("export", *options).err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["report", "--output", "exports", "-o", "report.html"], "--output names the HTML file to write"),
        (["contracts", "--croissant", "--include-image-urls"], "--croissant describes the exports as they are"),
        (["contracts", "--croissant", "--output", "schemas"], "--croissant writes into the folder of the exports"),
        (["contracts", "schemas"], "name the folder to write to with --output"),
        (["contracts", "--croissant", "--include-subject-hash"], "--croissant describes the exports as they are"),
        (["prune", "--keep-days", "0", "--output"], "--output needs a value: name the folder of the exports."),
        (["list", "--output", "--json"], "--output needs a value: name the folder of the exports."),
        (["list", "--output", "exports", "--output"], "No such option: --output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_option_without_effect_on_other_commands_is_refused(here: Here, command: list[str], message: str) -> None:
    """Before a file is read."""
    done = here(*command)
    assert (done.code, message in done.err) == (2, True)


@pytest.mark.parametrize(
    "options",
    [
        ["--lookback", "2h", "--incremental"],
        ["--workers", "2", "--bulk"],
        ["--workers", "2", "--output", "s3://bucket/prefix"],
        ["--on-small-class", "fail", *K],
        ["--max-suppressed", "0.1", *SHARE],
        [*SHARE, "--timestamp-precision", "day", "--k", "7"],
        [*SHARE, "--allow-overlap"],
        ["--strict"],
    ],
    ids=" ".join,
)
def test_option_with_its_condition_is_accepted(here: Here, options: list[str]) -> None:
    """The next thing that is missing is the database."""
    done = here("export", *options)
    assert (done.code, "No database is configured" in done.err) == (2, True)
