"""Exports report their lineage as OpenLineage events, if that is configured, and never fail because of them."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database
from folders import NOW, exported, people
from processes import Here
from pseudonym_keys import KEY

from feedback_etl.errors import SourceError, UsageError
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline import lineage
from feedback_etl.pipeline.export import export_feedback
from feedback_etl.results import ExportReport
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.source import ElementTable, Join, SourceTable

pytest.importorskip("openlineage.client")

FOLDER = Path("out")
EVENTS = Path("events.jsonl")
INPUTS = ["recommendation_feedbacks", "recommendation_records", "profiles"]


class Server:
    """An OpenLineage server on the loopback interface; `status` is its answer, and None no answer at all."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status: int | None = 201
        self.is_over = threading.Event()
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Record an event and answer."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.events.append(json.loads(body))
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        if self.status is None:
            self.is_over.wait(30)
        else:
            request.send_response(self.status)
            request.send_header("Content-Length", "0")
            request.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_port}"
        yield state
        state.is_over.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def application(sqlite_database: Database) -> Database:
    """Fill the database: 24 of 32 rows are valid."""
    sqlite_database.fill(**people(8, each=4))
    return sqlite_database


def read_events() -> list[dict[str, Any]]:
    """Read the events of the file."""
    return [json.loads(line) for line in EVENTS.read_text(encoding="utf-8").splitlines()]


def require_published(report: ExportReport) -> None:
    """Require that the export is complete."""
    assert (report.total_feedback_records, report.exported_records) == (32, 24)
    assert Path(report.export_filename).exists()


class TestEvents:
    """Contents of the events."""

    def test_an_export_starts_and_completes(self, application: Database, server: Server) -> None:
        """Both events are of one run; the latter has the numbers of rows."""
        require_published(exported(application, FOLDER, lineage=server.url))
        start, complete = server.events
        assert server.paths == ["/api/v1/lineage"] * 2
        assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
        assert start["run"]["runId"] == complete["run"]["runId"]
        assert start["job"] == complete["job"]
        assert start["job"]["name"] == f"export to {FOLDER.absolute()}"
        assert start["outputs"][0]["outputFacets"] == start["inputs"][0]["inputFacets"] == {}
        assert complete["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 32
        assert complete["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 24

    def test_datasets_are_tables_and_the_folder(self, application: Database) -> None:
        """With the columns of the export and their types; the path of the database is one of this machine."""
        exported(application, FOLDER, lineage=str(EVENTS))
        start, complete = read_events()
        database = Path(str(application.engine.url.database)).name
        for event in (start, complete):
            assert [(item["namespace"], item["name"]) for item in event["inputs"]] == [
                ("sqlite", f"{database}.{table}") for table in INPUTS
            ]
            (output,) = event["outputs"]
            assert (output["namespace"], output["name"]) == ("file", str(FOLDER.absolute()))
            columns = {field["name"]: field["type"] for field in output["facets"]["schema"]["fields"]}
            assert list(columns) == list(CLASSIC_SCHEMA.training_columns)
            assert (columns["helpful_rating"], columns["age_range"]) == ("integer", "string")
            assert columns["would_recommend"] == "boolean"

    def test_a_failed_export_names_the_type_of_the_error_alone(self, application: Database) -> None:
        """Its message could contain anything."""
        with application.engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE recommendation_records"))
        with pytest.raises(SourceError):
            exported(application, FOLDER, lineage=str(EVENTS))
        start, fail = read_events()
        assert [start["eventType"], fail["eventType"]] == ["START", "FAIL"]
        assert fail["run"]["facets"]["errorMessage"]["message"] == "SourceError"
        assert fail["inputs"][0]["inputFacets"] == {}
        assert "recommendation_records table" not in EVENTS.read_text(encoding="utf-8")

    def test_a_query_has_no_known_tables(self, application: Database) -> None:
        """The input is the database."""
        query = (
            "SELECT id AS feedback_id, user_id, analysis_id, 'rec' AS recommendation_id, helpful_rating, "
            "product_satisfaction, routine_completion_pct, would_recommend, '[]' AS conditions_analyzed, "
            "'[]' AS rules_applied, timeframe, 30 AS age, created_at FROM recommendation_feedbacks"
        )
        exported(application, FOLDER, lineage=str(EVENTS), query=query)
        names = [item["name"] for event in read_events() for item in event["inputs"]]
        assert names == [Path(str(application.engine.url.database)).name] * 2

    def test_tables_of_a_declared_source_are_named(self) -> None:
        """The table, the joined one and those of elements, each once."""
        columns = (("feedback_id", "id"), ("created_at", "at"))
        labels = tuple((name, ElementTable(Join("labels", (("id", "review"),)), name)) for name in ("tags", "rules"))
        source = SourceTable(table="shop.reviews", columns=columns, join=Join("people", ()), elements=labels)
        assert lineage._list_tables(ReadOptions(source=source)) == ["shop.reviews", "people", "labels"]
        assert lineage._list_tables(ReadOptions(source=SourceTable(query="SELECT 1", columns=columns))) == []

    def test_exports_of_a_series_append_to_the_file(self, application: Database) -> None:
        """An export without new rows completes too."""
        for _ in range(2):
            exported(application, FOLDER, lineage=str(EVENTS), incremental=True)
        events = read_events()
        assert [event["eventType"] for event in events] == ["START", "COMPLETE"] * 2
        assert events[3]["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 0


class TestHosts:
    """Hosts are named only on request, and passwords never."""

    URL = "postgresql://reader:s3cret@db.internal:5433/app"

    def start(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
        """Return the START event of an export from a server that cannot be reached."""
        monkeypatch.setattr("feedback_etl.pipeline.export._run", lambda _: ExportReport())
        export_feedback(self.URL, key=KEY, output_dir=FOLDER, now=NOW, lineage=str(EVENTS), **options)
        return EVENTS.read_text(encoding="utf-8").splitlines()[0]

    def test_no_host_is_named_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The database and its schema are."""
        monkeypatch.setattr("socket.gethostname", lambda: "machine-17")
        text = self.start(monkeypatch, db_schema="shop")
        assert not [word for word in ("s3cret", "reader", "internal", "5433", "machine-17") if word in text]
        assert json.loads(text)["inputs"][0]["name"] == "app.shop.recommendation_feedbacks"
        assert json.loads(text)["inputs"][0]["namespace"] == "postgres"

    def test_hosts_are_named_on_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Namespaces are then those of other producers of events."""
        monkeypatch.setattr("socket.gethostname", lambda: "machine-17")
        text = self.start(monkeypatch, lineage_hosts=True)
        assert "s3cret" not in text
        event = json.loads(text)
        assert event["inputs"][0]["namespace"] == "postgres://db.internal:5433"
        assert event["outputs"][0]["namespace"] == "file://machine-17"

    @pytest.mark.parametrize("place", ["me:s3cret@host", "host/api?api_key=s3cret", "host#s3cret"])
    def test_secret_in_the_address_is_refused(self, place: str) -> None:
        """The message does not contain it."""
        with pytest.raises(UsageError, match=r"^`lineage` must not contain a password") as error:
            ExportOptions.from_keywords(lineage=f"https://{place}")
        assert "s3cret" not in str(error.value)

    def test_hosts_without_lineage_are_refused(self) -> None:
        """They would have no effect."""
        with pytest.raises(UsageError, match="has no effect without `lineage`"):
            ExportOptions.from_keywords(lineage_hosts=True)


class TestFailures:
    """An export succeeds even if its events are lost."""

    def test_server_error_is_reported(
        self, application: Database, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By the log and by the report, without the address of the server."""
        server.status = 500
        report = exported(application, FOLDER, lineage=server.url)
        require_published(report)
        assert [event["eventType"] for event in server.events] == ["START", "COMPLETE"]
        assert report.advice == "the lineage was not reported: sending COMPLETE failed (status 500)"
        messages = [record.getMessage() for record in caplog.records if record.name == lineage.__name__]
        assert len(messages) == 2
        assert "127.0.0.1" not in "".join(messages)

    def test_hanging_server_delays_an_export_once(
        self, application: Database, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No further event is sent."""
        server.status = None
        monkeypatch.setattr(lineage, "MAX_SECONDS", 0.5)
        started = time.monotonic()
        report = exported(application, FOLDER, lineage=server.url)
        assert time.monotonic() - started < 5
        require_published(report)
        assert [event["eventType"] for event in server.events] == ["START"]
        assert report.advice.startswith("the lineage was not reported: sending START")

    def test_unreachable_server_is_reported(self, application: Database) -> None:
        """The folder of a file may be missing, too."""
        for target in ("http://127.0.0.1:9", "missing/folder/events.jsonl"):
            report = exported(application, FOLDER, lineage=target)
            require_published(report)
            assert report.advice.startswith("the lineage was not reported: sending COMPLETE failed (")

    def test_missing_library_is_reported_with_its_remedy(
        self, application: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An image that was built without the extra exports as before."""
        for name in [name for name in sys.modules if name.startswith("openlineage")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "openlineage.client", None)
        report = exported(application, FOLDER, lineage=str(EVENTS))
        require_published(report)
        assert report.advice.endswith('it needs a library that is missing: pip install "feedback-etl[lineage]"')

    def test_failed_export_keeps_its_error(self, application: Database, server: Server) -> None:
        """Even if the event of its failure cannot be sent."""
        server.status = 500
        with application.engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE recommendation_records"))
        with pytest.raises(SourceError):
            exported(application, FOLDER, lineage=server.url)


class TestConfiguration:
    """Events are sent where the settings say."""

    def test_no_event_is_sent_unless_configured(
        self, application: Database, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A variable of other programs enables nothing; the library is not even imported."""
        monkeypatch.setenv("OPENLINEAGE_URL", server.url)
        monkeypatch.setitem(sys.modules, "openlineage.client", None)
        report = exported(application, FOLDER)
        require_published(report)
        assert (server.events, report.advice) == ([], "")

    def test_configuration_of_the_library_is_used_on_request(
        self, application: Database, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With its key for the server."""
        monkeypatch.setenv("OPENLINEAGE_URL", server.url)
        monkeypatch.setenv("OPENLINEAGE_API_KEY", "token-of-the-server")
        require_published(exported(application, FOLDER, lineage="openlineage"))
        assert [event["eventType"] for event in server.events] == ["START", "COMPLETE"]
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer token-of-the-server"}

    def test_settings_file_configures_the_command(
        self, application: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A failure is shown after the summary."""
        here = Here(capfd, monkeypatch)
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", application.url)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
        Path("feedback-etl.toml").write_text(f'lineage = "{EVENTS}"', encoding="utf-8")
        assert here("export", "--days", "-1").code == 0
        assert [event["eventType"] for event in read_events()] == ["START", "COMPLETE"]
        monkeypatch.setenv("FEEDBACK_ETL_LINEAGE", "missing/events.jsonl")
        result = here("export", "--days", "-1")
        assert result.code == 0
        assert "the lineage was not reported: sending COMPLETE failed" in result.err
