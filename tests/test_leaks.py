"""Leaks: canaries in every column of a database appear only in exported columns, even in failures."""

import logging
import os
import re
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, Row, opened
from processes import Here, feedback_etl
from pseudonym_keys import SECRET_KEY as KEY

import feedback_etl as fe
from feedback_etl.errors import FeedbackError, UsageError

PASSWORD = "canary-of-the-password"
YESTERDAY = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1)

TEXTS = {
    name: f"canary-of-{name}"
    for name in ("feedback_text", "improvement_suggestions", "adverse_reactions", "product_ratings", "s3_key")
}
EXPORTED = {"canary-of-recommendation", "canary-of-condition", "canary-of-rule", "canary-of-timeframe"}
IDS = {"user_id": 918273645, "analysis_id": 564738291, "record": 640152637, "profile": 818283848, "photo": 737475767}
FEEDBACK_IDS = ("777333111", "777333222", "777333333")
AGE = 113

FEEDBACK: Row = {
    "user_id": IDS["user_id"],
    "analysis_id": IDS["analysis_id"],
    "recommendation_id": IDS["record"],
    "helpful_rating": 4,
    "timeframe": "canary-of-timeframe",
    "created_at": YESTERDAY,
    "feedback_text": TEXTS["feedback_text"],
    "improvement_suggestions": TEXTS["improvement_suggestions"],
    "adverse_reactions": [TEXTS["adverse_reactions"]],
    "product_ratings": [TEXTS["product_ratings"]],
}
INVALID = {"id": int(FEEDBACK_IDS[1]), "helpful_rating": 9}
OTHER_INVALID = {"id": int(FEEDBACK_IDS[2]), "recommendation_id": None, "routine_completion_pct": 101}


def fill(database: Database, *changes: Row) -> None:
    """Insert feedback rows with canaries in every column, and the rows that they reference."""
    database.fill(
        photos=[{"id": IDS["photo"], "s3_key": TEXTS["s3_key"]}],
        analyses=[{"id": IDS["analysis_id"], "photo_id": IDS["photo"]}],
        profiles=[{"id": IDS["profile"], "user_id": IDS["user_id"], "age": AGE}],
        records=[
            {
                "id": IDS["record"],
                "recommendation_id": "canary-of-recommendation",
                "conditions_analyzed": ["canary-of-condition"],
                "rules_applied": ["canary-of-rule"],
            }
        ],
        feedbacks=[{**FEEDBACK, "id": int(FEEDBACK_IDS[0])} | dict(change) for change in changes],
    )


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Create a SQLite application with one valid and two invalid rows."""
    url = f"sqlite:///{tmp_path_factory.mktemp('application') / 'app.db'}"
    with opened(url) as database:
        fill(database, {}, INVALID, OTHER_INVALID)
    return url


def find_canaries(text: str) -> set[str]:
    """Return the canaries that a text contains."""
    numbers = rf"(?:{'|'.join(map(str, [*IDS.values(), *FEEDBACK_IDS]))}|(?<![\d:.-]){AGE}(?![\d:.-]))"
    return set(re.findall(rf"canary[-\w]*|{numbers}", text))


def describe_error(error: BaseException | None) -> str:
    """Return an error's text, arguments, attributes and traceback, with those of the errors it is chained to."""
    if error is None:
        return ""
    chained = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    trace = re.sub(r", line \d+", "", "".join(traceback.format_exception(error)))
    return f"{trace} {error!r} {error.args!r} {vars(error)!r} {describe_error(chained)}"


class LeakDetector:
    """Run commands and functions, and search all that they print, log and write for canaries."""

    def __init__(self, here: Here, caplog: pytest.LogCaptureFixture, capture: pytest.CaptureFixture[str]) -> None:
        self._here, self._caplog, self._capture = here, caplog, capture

    def run(self, *arguments: str | Path, code: int | None, shown: frozenset[str] | None = frozenset()) -> str:
        """Run a command line and return its stderr.

        The canaries on stdout are those in `shown`, or with None at most those of exports; there are none elsewhere.
        The exit code is `code`, or with None any but that of an unexpected error.
        """
        result = self._here(*arguments)
        assert result.code == code or (code is None and result.code != 1), result.err
        out = find_canaries(result.out)
        assert out <= EXPORTED if shown is None else out == set(shown), result.err
        self._assert_no_leak(result.err)
        return result.err

    def raises(self, function: Any, *arguments: Any, **options: Any) -> str:
        """Call a function of the library that fails, and return the error's text; no chained error has a canary."""
        with pytest.raises(FeedbackError) as caught:
            function(*arguments, **options)
        self._assert_no_leak(describe_error(caught.value))
        return str(caught.value)

    def calls(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Call a function of the library."""
        result = function(*arguments, **options)
        self._assert_no_leak()
        return result

    def _assert_no_leak(self, *texts: str) -> None:
        out, err = self._capture.readouterr()
        logged = [self._caplog.handler.format(record) for record in self._caplog.get_records("call")]
        for text in (out, err, self._caplog.text, *logged, *texts):
            assert find_canaries(text) == set()
        for path in (path for top in (Path.cwd(), Path.home()) for path in top.rglob("*")):
            assert find_canaries(path.name) == set()
            is_rejected = path.is_file() and path.parent.name == "rejected"
            if is_rejected or path.suffix == ".csv":
                allowed = set(FEEDBACK_IDS) if is_rejected else EXPORTED
                assert find_canaries(path.read_text()) <= allowed
            elif path.is_file() and path.suffix not in (".db", ".sql"):  # what the tests themselves made
                text = path.read_bytes().decode(errors="replace")
                chance = rf'"process": {os.getpid()},|\b[0-9a-f]{{12,}}\b'  # a process id and digests may hold 113
                assert find_canaries(re.sub(chance, "", text)) == set()


@pytest.fixture
def detector(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LeakDetector]:
    """Log everything, and capture what Rust prints too."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    yield LeakDetector(Here(capfd, monkeypatch), caplog, capfd)
    assert find_canaries(caplog.text) == set()


RAW = {
    "feedback_id": "f.id",
    "user_id": "f.user_id",
    "analysis_id": "f.analysis_id",
    "recommendation_id": "r.recommendation_id",
    "helpful_rating": "f.helpful_rating",
    "product_satisfaction": "f.product_satisfaction",
    "routine_completion_pct": "f.routine_completion_pct",
    "would_recommend": "f.would_recommend",
    "conditions_analyzed": "r.conditions_analyzed",
    "rules_applied": "r.rules_applied",
    "timeframe": "f.timeframe",
    "age": "p.age",
    "created_at": "f.created_at",
}
ROWS = (
    "FROM recommendation_feedbacks f JOIN recommendation_records r ON r.id = f.recommendation_id "
    "JOIN profiles p ON p.user_id = f.user_id"
)


def query(**changes: str) -> str:
    """Return a custom query of the default tables, with some columns replaced."""
    return f"SELECT {', '.join(f'{value} AS {name}' for name, value in (RAW | changes).items())} {ROWS}"


def test_canaries_are_found_in_raw_data(application: str, detector: LeakDetector) -> None:
    """The raw frame contains them, so the searches of the other tests could find some."""
    raw = detector.calls(fe.load_feedback, application)
    assert find_canaries(raw.write_csv()) == {
        *EXPORTED,
        *FEEDBACK_IDS,
        *(str(IDS[name]) for name in ("user_id", "analysis_id")),
        str(AGE),
    }
    assert find_canaries(f"{KEY} {PASSWORD}") == {KEY, PASSWORD}


@pytest.mark.fresh_reader
def test_successful_commands_show_exported_columns_alone(application: str, detector: LeakDetector) -> None:
    """`export` in all its forms, and `preview`, which shows the exported columns."""
    detector.run("export", "--database-url", application, "--max-rejected", "1", "--json", code=0)
    for options in (("--days", "-1", "--unkeyed", "--output", "unkeyed"), ("--hash-recommendation-id", "--quiet")):
        detector.run("export", "--database-url", application, "--max-rejected", "1", *options, code=0)
    detector.run("preview", "--database-url", application, code=0, shown=frozenset(EXPORTED))
    detector.run("keys", "show", code=0)
    detector.run("demo", "--rows", "10", code=0)
    exports = [*Path("ml/feedback_training").glob("*.csv"), *Path("unkeyed").glob("*.csv")]
    assert [find_canaries(path.read_text()) for path in exports].count(EXPORTED) == 2
    (rejected, *_) = Path("ml/feedback_training/rejected").glob("*_rejected.txt")
    assert find_canaries(rejected.read_text()) == set(FEEDBACK_IDS[1:])


def test_library_logs_counts_alone(application: str, detector: LeakDetector, caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG, and there is something to read."""
    report = detector.calls(fe.export_feedback, application, max_rejected=1.0)
    detector.calls(fe.load_training, application, max_rejected=1.0, key=KEY)
    processor = fe.FeedbackProcessor(sa.create_engine(application))
    detector.calls(processor.process_and_export, days_back=7)
    assert find_canaries(f"{report} {report!r} {report.to_dict()} {processor!r} {vars(processor)}") == set()
    assert "exported 1 of 3 rows" in caplog.text


@pytest.mark.fresh_reader
def test_rejection_errors_contain_no_values(application: str, detector: LeakDetector) -> None:
    """With --strict, with --max-rejected, and where no row remains."""
    detector.run("export", "--database-url", application, "--strict", code=4)
    detector.run("export", "--database-url", application, "--max-rejected", "0.1", code=4)
    Path("bad.sql").write_text(query(helpful_rating="9"))
    detector.run("export", "--database-url", application, "--query", "bad.sql", code=4)
    detector.run("preview", "--database-url", application, "--query", "bad.sql", code=4)
    message = detector.raises(fe.load_training, application, strict=True, key=KEY)
    assert "2 of 3 rows (66.7 %) are rejected" in message


@pytest.mark.sample(
    "SELECT 1; DELETE FROM recommendation_feedbacks",
    "SELECT feedback_text FROM recommendation_feedbacks",
    "SELECT nonsense FROM nowhere",
    "SELEKT",
    "sql10",
    "sql5",
    "sql6",
    "sql7",
    "sql8",
)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nonsense FROM nowhere",
        "SELECT feedback_text FROM recommendation_feedbacks",
        "SELECT 1; DELETE FROM recommendation_feedbacks",
        "SELEKT",
        query(timeframe="json_extract('{}', f.feedback_text)"),  # SQLite's error quotes the path
        query(helpful_rating="json_extract(f.feedback_text, '$')"),
        query() + " WHERE json_extract('{}', f.feedback_text) = 1",
        query(consent="json_extract('{}', f.feedback_text)"),
        query(created_at="json_extract('{}', f.feedback_text)"),
        query(age="(SELECT json_extract('{}', max(feedback_text)) FROM recommendation_feedbacks)"),
        f"{query(age='count(*)')} GROUP BY json_extract('{{}}', f.feedback_text)",
    ],
)
def test_sql_errors_contain_no_values(application: str, detector: LeakDetector, sql: str) -> None:
    """The database may quote the query, but no rows."""
    detector.raises(fe.load_training, application, query=sql, key=KEY)
    detector.raises(fe.export_feedback, application, query=sql, key=KEY)


WRONG_TYPES = {
    "f.feedback_text": ("helpful_rating", "would_recommend", "conditions_analyzed", "age"),
    "CAST(f.feedback_text AS BLOB)": (*RAW,),
    "f.user_id * 1.5": ("analysis_id", "helpful_rating", "would_recommend", "rules_applied", "age", "created_at"),
}


@pytest.mark.sample(
    "CAST(f.feedback_text AS BLOB)-created_at",
    "CAST(f.feedback_text AS BLOB)-recommendation_id",
    "CAST(f.feedback_text AS BLOB)-timeframe",
    "f.feedback_text-age",
    "f.feedback_text-would_recommend",
    "f.user_id * 1.5-created_at",
    "f.user_id * 1.5-helpful_rating",
)
@pytest.mark.parametrize(
    ("value", "column"), [(value, column) for value, columns in WRONG_TYPES.items() for column in columns]
)
def test_column_type_errors_contain_no_values(
    application: str, detector: LeakDetector, value: str, column: str
) -> None:
    """Text, bytes and fractions where they do not belong: the query is refused, or its rows are rejected.

    Only a number that no person is old does not cost a row: its age_range is null.
    """
    Path("own.sql").write_text(query(**{column: value}))
    is_age = (value, column) == ("f.user_id * 1.5", "age")
    message = detector.run("export", "--database-url", application, "--query", "own.sql", code=0 if is_age else None)
    refusal = "error: (Columns of a wrong type|Nothing was exported|created_at)"
    assert re.match(r"(?s)window .*\nages +1 below" if is_age else refusal, message)


MIXED: dict[str, Row] = {
    "text": {"helpful_rating": TEXTS["feedback_text"], "would_recommend": TEXTS["feedback_text"]},
    "bytes": {"timeframe": b"canary-of-bytes"},
    "times": {"created_at": f"{YESTERDAY:%Y-%m-%d} {TEXTS['feedback_text']}"},
    "numbers as times": {"created_at": IDS["user_id"]},
    "lists": {"recommendation_id": -1, "timeframe": f"={TEXTS['feedback_text']}"},
    "ids": {"analysis_id": TEXTS["feedback_text"]},
}


@pytest.mark.sample("ids", "numbers as times")
@pytest.mark.fresh_reader
@pytest.mark.parametrize("kind", MIXED)
def test_mixed_types_of_sqlite_are_reported_without_values(
    sqlite_database: Database, detector: LeakDetector, kind: str
) -> None:
    """SQLite stores anything anywhere: one row in three has a value of another type than its column."""
    fill(sqlite_database, {}, INVALID, {**OTHER_INVALID, **MIXED[kind]})
    exported = detector.run("export", "--database-url", sqlite_database.url, "--max-rejected", "1", code=None)
    shown = detector.run("preview", "--database-url", sqlite_database.url, code=None, shown=None)
    assert [bool(re.match("error: ", message)) for message in (exported, shown)] in ([True, True], [False, False])


URLS = {
    f"postgresql://canary:{PASSWORD}@127.0.0.1:1/app": 3,
    f"postgresql://canary:{PASSWORD}@127.0.0.1:1/app?sslmode={PASSWORD}": 2,
    f"postgresql+asyncpg://canary:{PASSWORD}@localhost:1/app": 3,
    f"postgresql://canary:{PASSWORD}@host:not-a-port/app": 2,
    f"postgresql//canary:{PASSWORD}@host/app": 2,
    f"mysql://canary:{PASSWORD}@127.0.0.1:1/app": 3,
    f"mysql://canary:{PASSWORD}@127.0.0.1:1/app?ssl-mode={PASSWORD}": 2,
    f"mariadb://canary:{PASSWORD}@127.0.0.1:1/app?{PASSWORD}=1": 2,
    f"canary-of-dialect://canary:{PASSWORD}@127.0.0.1:1/app": 2,
    PASSWORD: 2,
    f"sqlite:///missing.db?password={PASSWORD}": 2,
    f"duckdb:///missing.db?password={PASSWORD}": 3,
}


@pytest.mark.parametrize("url", URLS)
def test_connection_errors_contain_no_password(
    detector: LeakDetector, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Whether the URL, the server or the driver is at fault."""
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    for command in ("export", "preview"):
        detector.run(command, code=URLS[url])
    for function in (fe.export_feedback, fe.load_feedback):
        detector.raises(function, url)


class TestPostgresql:
    """The same for a server, whose errors quote values."""

    @pytest.fixture
    def server(self, postgres_database: str) -> Iterator[str]:
        """Create a PostgreSQL application with one valid and two invalid rows."""
        with opened(postgres_database) as database:
            fill(database, {}, INVALID, OTHER_INVALID)
            yield postgres_database

    @pytest.mark.slow
    def test_commands_and_errors_contain_no_values(self, server: str, detector: LeakDetector) -> None:
        """When an export succeeds, rejects rows, and fails while rows are read."""
        detector.run("export", "--database-url", server, "--json", "--max-rejected", "1", code=0)
        detector.run("preview", "--database-url", server, code=0, shown=frozenset(EXPORTED))
        detector.run("export", "--database-url", server, "--strict", code=4)
        detector.raises(fe.load_training, server, strict=True)
        for sql in (
            query(age="CAST(f.feedback_text AS integer)"),
            query(created_at="CAST(f.feedback_text AS timestamp)"),
            query(timeframe="CAST(1 / (f.user_id - f.user_id) AS text)"),
            query(conditions_analyzed="CAST(f.feedback_text AS json)"),
            query() + " WHERE CAST(f.feedback_text AS integer) = 1",
            query(consent="CAST(f.feedback_text AS boolean)"),
            query(age="f.feedback_text"),
            query(nonsense="f.feedback_text"),
            "SELECT nonsense FROM nowhere",
        ):
            detector.raises(fe.load_training, server, query=sql)
            Path("own.sql").write_text(sql)
            assert detector.run("export", "--database-url", server, "--query", "own.sql", code=3)

    def test_authentication_errors_contain_neither_user_nor_password(
        self, postgres_tcp_url: str, detector: LeakDetector
    ) -> None:
        """Host and database are named; the password and the user are not."""
        url = sa.make_url(postgres_tcp_url).set(password=PASSWORD)
        text = url.render_as_string(hide_password=False)
        message = detector.run("export", "--database-url", text, code=3)
        assert message == detector.run("preview", "--database-url", text, code=3)
        assert "user or password is wrong" in message
        assert str(url.username) not in message
        detector.raises(fe.load_feedback, url)
        detector.raises(fe.load_feedback, sa.create_engine(url))


def test_errors_of_keys_and_settings_contain_no_values(
    application: str, detector: LeakDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, from files, and from a caller in Python."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", "canary-short")
    for command in (("export", "--database-url", application), ("keys", "show")):
        detector.run(*command, code=2)
    for options in ({}, {"key": "canary-short"}, {"key": KEY.encode()}, {"key": KEY, "unkeyed": True}):
        detector.raises(fe.export_feedback, application, **options)
    key_file = Path.cwd().parent / f"{Path.cwd().name}-key"  # not among the files that are searched
    key_file.write_bytes(KEY.encode("utf-16"))
    key_file.chmod(0o600)
    monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", str(key_file))
    detector.run("keys", "show", code=2)
    monkeypatch.setenv("FEEDBACK_ETL_CONNECT_TIMEOUT", PASSWORD)
    detector.run("export", "--database-url", f"sqlite:///{PASSWORD}", code=2)


def test_errors_of_library_arguments_contain_no_values(application: str, detector: LeakDetector) -> None:
    """An id or a text in the wrong place is a value too."""
    value: Any = TEXTS["feedback_text"]
    for options in (
        {"days_back": value},
        {"since": value},
        {"since": "2025-01-01", "until": value},
        {"min_feedback_fields": value},
        {"recommendation_id": value},
        {"max_rejected": 2},
    ):
        detector.raises(fe.export_feedback, application, key=KEY, **options)
    for database in (value, [value], {"url": value}):
        detector.raises(fe.export_feedback, database, key=KEY)


@pytest.mark.parametrize(
    "use",
    [
        lambda url: fe.scan_training(url),
        lambda url: fe.training.latest_export(url),
        lambda url: fe.exports.list_exports(url),
        lambda url: fe.report.write_croissant(url),
        lambda url: fe.write_report("report.html", url),
        lambda url: fe.exports.prune(url, keep_days=1, key=None),
        lambda url: fe.privacy.erase(url, analysis_ids=[1], keys=[KEY]),
        lambda url: fe.export_feedback("sqlite:///nothing.db", output_dir=url, key=KEY),
        lambda url: fe.FeedbackProcessor("sqlite:///nothing.db", output_dir=url, key=KEY).process_and_export(),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_database_url_given_as_a_folder_is_not_repeated(
    use: Callable[[Any], object], kind: Callable[[str], Any], tmp_path: Path
) -> None:
    """No folder of that name is created either: its name would show the password."""
    with pytest.raises(UsageError, match="this is another URL") as caught:
        use(kind("postgresql://u:sekret@h/db"))
    assert "sekret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_command_line_does_not_repeat_a_database_url() -> None:
    """Wherever a folder or a file is named."""
    url = "postgresql://u:sekret@h/db"
    for command in (["list", "--output", url], ["report", url], ["risk", url], ["export", "--output", url]):
        done = feedback_etl(*command, env={"FEEDBACK_ETL_DATABASE_URL": "sqlite:///x.db", "FEEDBACK_ETL_KEY": KEY})
        assert done.returncode == 2, done.stderr
        assert "another URL" in done.stderr
        assert "sekret" not in done.stderr + done.stdout
