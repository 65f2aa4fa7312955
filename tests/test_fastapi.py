"""The admin endpoints over HTTP: a real server, a real client, and errors on both sides."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from applications import FOLDER, configure, events, exports, give_feedback, kept_waiting
from databases import Database, opened
from fastapi import Depends, FastAPI, Header, HTTPException
from processes import python, wait_for
from pseudonym_keys import KEY

from feedback_etl.errors import UsageError
from feedback_etl.integrations.fastapi import create_router
from feedback_etl.privacy.keys import Key
from feedback_etl.settings.model import Settings, load_settings

ADMIN = {"Authorization": "Bearer admin"}
EXPORT, LIST = "/admin/export-feedback", "/admin/exports"


def require_admin(authorization: Annotated[str, Header()] = "") -> None:
    if authorization != ADMIN["Authorization"]:
        raise HTTPException(401)


@contextmanager
def serving(settings: Settings | None = None) -> Iterator[httpx.Client]:
    """A client, as an admin, of a server that runs in a thread of this process."""
    app = FastAPI()
    app.include_router(create_router(settings, dependencies=[Depends(require_admin)]))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_for(lambda: server.started)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, headers=ADMIN, timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Good rows of two people, and a wrong one of a third."""
    configure(sqlite_database, monkeypatch)
    give_feedback(sqlite_database, 1, 2)
    give_feedback(sqlite_database, 3, helpful_rating=9)
    return sqlite_database


@pytest.fixture
def client(application: Database) -> Iterator[httpx.Client]:
    """An admin's client of that application."""
    with serving() as client:
        yield client


class TestExport:
    """`POST /admin/export-feedback`."""

    def test_the_answer_has_the_figures_and_no_path(self, client: httpx.Client, tmp_path: Path) -> None:
        """Names are those in the folder."""
        answer = client.post(EXPORT, json={"days_back": 7, "min_feedback_fields": 1, "format": "csv"})
        assert answer.status_code == 200
        body = answer.json()
        (manifest,) = exports()
        seconds, window, head, risk = (body.pop(x) for x in ("execution_time_seconds", "window", "audit_head", "risk"))
        assert body == {
            "status": "exported",
            "filename": f"{manifest.stem}.csv",
            "rejected_filename": f"rejected/{manifest.stem}_rejected.txt",
            "items_filename": None,
            "total_feedback_records": 3,
            "exported_records": 2,
            "anonymized_records": 2,
            "deduplicated_records": 0,
            "skipped_records": 0,
            "errors": 1,
            "suppressed_records": 0,
            "excluded_records": 0,
            "erased_records": 0,
            "known_records": 0,
            "pending_records": 0,
            "rejected_reasons": {"helpful_rating_out_of_range": 1},
            "implausible_ages": 0,
            "withheld_image_urls": 0,
            "escaped_texts": {},
            "exported_items": 0,
            "escaped_items": 0,
            "unreadable_times": 0,
            "key_id": Key(KEY).id,
            "mode": "full",
            "late_records": 0,
            "changed_records": 0,
            "advice": "",
        }
        assert (seconds > 0, window, len(head), risk["k"]) == (True, manifest.window, 64, 2)
        assert (FOLDER / body["filename"]).is_file()
        assert str(tmp_path) not in answer.text
        assert "ml/" not in answer.text

    @pytest.mark.usefixtures("application")
    def test_an_absolute_folder_is_in_no_answer(self, tmp_path: Path) -> None:
        """Not even as a part of a name."""
        with serving(load_settings(output_dir=tmp_path / "secret-place")) as client:
            texts = [client.post(EXPORT, json={}).text, client.get(LIST).text]
        assert all("feedback_training_" in text and "secret-place" not in text for text in texts)

    def test_parquet_and_the_defaults(self, client: httpx.Client) -> None:
        """An empty object asks for the last thirty days as CSV."""
        names = [client.post(EXPORT, json=body).json()["filename"] for body in ({}, {"format": "parquet"})]
        assert [Path(name).suffix for name in names] == [".csv", ".parquet"]

    @pytest.mark.parametrize("headers", [{}, ADMIN], ids=["stranger", "admin"])
    def test_large_body_is_refused(self, client: httpx.Client, headers: dict[str, str]) -> None:
        """FastAPI reads the body before it authenticates: a stranger could fill the memory."""
        url = client.base_url.join(EXPORT)
        answer = httpx.post(url, content=b" " * 10_000_000, headers=headers, trust_env=False)
        assert (answer.status_code, "4,096 bytes" in answer.text) == (413, True)
        assert client.post(EXPORT, json={"days_back": 7}).status_code == 200

    @pytest.mark.usefixtures("application")
    def test_large_body_is_not_read_to_its_end(self) -> None:
        """The answer comes after the first block that is too many, also without a Content-Length."""
        app, blocks, sent = FastAPI(), 0, list[dict[str, Any]]()
        app.include_router(create_router(dependencies=[Depends(require_admin)]))

        async def receive() -> dict[str, Any]:
            nonlocal blocks
            blocks += 1
            return {"type": "http.request", "body": b" " * 3_000, "more_body": blocks < 1_000}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": EXPORT, "headers": [(b"content-type", b"application/json")]}
        asyncio.run(app({**scope, "query_string": b"", "root_path": ""}, receive, send))
        assert (sent[0]["status"], blocks) == (413, 2)

    def test_nothing_to_export_is_no_error(self, client: httpx.Client) -> None:
        """And makes no file."""
        body = client.post(EXPORT, json={"min_feedback_fields": 4}).json()
        assert (body["status"], body["filename"], body["skipped_records"]) == ("nothing_to_export", None, 3)

    def test_settings_decide_what_makes_people_harder_to_find(self, application: Database) -> None:
        """No request can set fewer."""
        give_feedback(application, 4, 5, 6, 7, 8, timeframe="1_week")
        with serving(load_settings(k=5)) as client:
            assert client.post(EXPORT, json={}).json()["suppressed_records"] == 2
            assert client.post(EXPORT, json={"k": 1}).status_code == 422


class TestInput:
    """What is not allowed gets 422, and nothing happens."""

    @pytest.mark.parametrize(
        "body",
        [
            {"days_back": 0},
            {"days_back": -2},
            {"days_back": 36_501},
            {"days_back": 10**30},
            {"days_back": True},
            {"days_back": 1.0},
            {"days_back": "7"},
            {"days_back": "1; DROP TABLE users"},
            {"days_back": None},
            {"min_feedback_fields": 5},
            {"min_feedback_fields": -1},
            {"min_feedback_fields": "1 OR 1=1"},
            {"format": "xlsx"},
            {"format": "csv'; --"},
            {"query": "SELECT * FROM users"},
            {"output_dir": "/tmp"},
            {"database_url": "sqlite:///other.db"},
            [],
            "days_back",
        ],
        ids=str,
    )
    def test_it_is_refused(self, client: httpx.Client, body: Any) -> None:
        """Wrong values, wrong types, and what only settings may say."""
        assert client.post(EXPORT, json=body).status_code == 422
        assert not FOLDER.exists()

    def test_what_is_no_json_is_refused(self, client: httpx.Client) -> None:
        """As is nothing at all."""
        headers = {"Content-Type": "application/json"}
        bodies = [b"{", b"", b'{"days_back": NaN}', b'{"days_back": 1e400}']
        answers = [client.post(EXPORT, content=body, headers=headers) for body in bodies]
        assert [answer.status_code for answer in answers] == [422] * 4
        assert answers[2].json()["detail"][0].keys() == {"loc", "msg", "type"}
        assert client.get(LIST, params={"limit": 0}).status_code == 422

    def test_everything_is_minus_one(self, client: httpx.Client) -> None:
        """As everywhere."""
        assert client.post(EXPORT, json={"days_back": -1}).json()["window"][0] is None


class TestOneAtATime:
    """A repeated request gets a conflict, and one export runs."""

    def test_concurrent_request_gets_a_conflict(self, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the database keeps the first one waiting, the second gets 409 and the list is still served."""
        with opened(postgres_database) as database:
            configure(database, monkeypatch)
            give_feedback(database, 1, 2)
            with serving() as client, ThreadPoolExecutor(1) as clicker:
                with kept_waiting(database) as is_waiting:
                    first: Future[httpx.Response] = clicker.submit(client.post, EXPORT, json={})
                    wait_for(is_waiting)
                    second = client.post(EXPORT, json={})
                    assert (second.status_code, client.get(LIST).json()["exports"]) == (409, [])
                    assert not first.done()
                assert first.result().json()["exported_records"] == 2
                assert len(exports()) == 1
                assert client.post(EXPORT, json={}).status_code == 200

    def test_another_process_that_uses_the_folder_counts_as_well(self, client: httpx.Client) -> None:
        """An erasure by the command line, say; nothing is read meanwhile."""
        program = """
import sys
from pathlib import Path
from feedback_etl.storage.locks import lock_folder
from feedback_etl.storage.posix import make_private_folder
make_private_folder(Path(sys.argv[1]))
with lock_folder(Path(sys.argv[1])):
    import time
    Path("held").touch()
    while not Path("enough").exists():
        time.sleep(0.01)
"""
        with ThreadPoolExecutor(1) as other:
            done = other.submit(python, program, FOLDER)
            wait_for(Path("held").exists)
            answer = client.post(EXPORT, json={})
            Path("enough").touch()
            assert done.result().returncode == 0
        assert answer.status_code == 409
        assert answer.json() == {
            "detail": "Another export, erasure or prune uses the folder. Try again when it is done."
        }
        assert events() == []


class TestErrors:
    """Each has its code, and a sentence without paths, URLs and keys."""

    def refused(self, log: pytest.LogCaptureFixture, secrets: list[str]) -> tuple[int, str]:
        """Return code and sentence of a refused export; neither they nor the log may contain a secret."""
        with serving() as client:
            answer = client.post(EXPORT, json={})
        assert not [secret for secret in secrets if secret in answer.text]
        assert not [secret for secret in (KEY, "p4ssword") if secret in log.text]
        return answer.status_code, answer.json()["detail"]

    @pytest.mark.usefixtures("application")
    def test_a_database_that_is_away(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """503."""
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "postgresql://someone:p4ssword@127.0.0.1:9/application")
        code, message = self.refused(caplog, ["p4ssword", "someone", "127.0.0.1", "application"])
        assert (code, message) == (503, "The database cannot be read now. Nothing was exported.")

    @pytest.mark.usefixtures("application")
    @pytest.mark.parametrize("key", [None, "short", "file"])
    def test_a_key_that_is_missing_or_cannot_be_used(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        key: str | None,
    ) -> None:
        """500: the operator has to fix it."""
        monkeypatch.delenv("FEEDBACK_ETL_KEY")
        if key == "short":
            monkeypatch.setenv("FEEDBACK_ETL_KEY", "short-key")
        if key == "file":
            monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", "/nowhere/secret-place")
        code, message = self.refused(caplog, ["short-key", "secret-place", "nowhere"])
        assert (code, message) == (500, "Exports are not configured correctly. Nothing was exported.")

    @pytest.mark.usefixtures("application")
    def test_a_folder_that_is_none(self, caplog: pytest.LogCaptureFixture) -> None:
        """500; the server's log says which."""
        Path("ml").write_text("")
        code, message = self.refused(caplog, ["ml/"])
        assert (code, message) == (500, "The output folder cannot be used. Nothing was exported.")
        assert "ml/feedback_training" in caplog.text

    def test_rows_that_break_the_rules(self, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """500, with the reasons and how many rows each concerns."""
        configure(sqlite_database, monkeypatch)
        give_feedback(sqlite_database, 1, 2, helpful_rating=9)
        with serving() as client:
            answer = client.post(EXPORT, json={})
        assert answer.status_code == 500
        assert answer.json()["detail"].endswith("Nothing was exported. helpful_rating_out_of_range: 2.")

    @pytest.mark.usefixtures("application")
    def test_unexpected_error_reveals_nothing(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """500; its place is in the log, its text, which may hold values, nowhere."""

        def breaks(*_: object) -> None:
            raise LookupError("-".join(("canary", "4711")))

        monkeypatch.setattr("feedback_etl.pipeline.export.select", breaks)
        with serving() as client:
            answer = client.post(EXPORT, json={})
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
        assert Path(__file__).name in caplog.text
        assert "canary-4711" not in caplog.text

    def test_a_manifest_that_is_none(self, client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
        """Also where exports are listed."""
        FOLDER.mkdir(parents=True)
        (FOLDER / "secret.manifest.json").write_text("{}")
        answer = client.get(LIST)
        assert (answer.status_code, "secret" in answer.text, "secret" in caplog.text) == (500, False, True)
        assert answer.json()["detail"] == "The output folder cannot be read."


class TestList:
    """`GET /admin/exports`."""

    def test_the_newest_comes_first(self, client: httpx.Client) -> None:
        """With what a list needs, and the names of files that are not ours."""
        first, second = (client.post(EXPORT, json={"format": form}).json() for form in ("csv", "parquet"))
        (FOLDER / "copy.csv").write_text("")
        body = client.get(LIST).json()
        assert [entry["filename"] for entry in body["exports"]] == [second["filename"], first["filename"]]
        newest = body["exports"][0]
        assert newest == {
            "filename": second["filename"],
            "rows": 2,
            "created_at": newest["created_at"],
            "window": second["window"],
            "mode": "full",
            "key_id": Key(KEY).id,
            "erased_rows": 0,
            "pruned_at": "",
        }
        assert body["unmanaged"] == ["copy.csv"]
        assert len(client.get(LIST, params={"limit": 1}).json()["exports"]) == 1

    def test_before_the_first_export_it_is_empty(self, client: httpx.Client) -> None:
        """And makes no folder."""
        assert client.get(LIST).json() == {"exports": [], "unmanaged": []}
        assert not FOLDER.exists()


class TestAuthentication:
    """Every request needs the application's permission."""

    def test_without_it_nothing_is_done(self, client: httpx.Client) -> None:
        """The application's own answer, for both endpoints."""
        nobody = {"Authorization": ""}
        answers = client.post(EXPORT, json={}, headers=nobody), client.get(LIST, headers=nobody)
        assert [answer.status_code for answer in answers] == [401, 401]
        assert not FOLDER.exists()

    @pytest.mark.parametrize("dependencies", [[], (), None])
    def test_a_router_without_it_cannot_be_made(self, dependencies: Any) -> None:
        """The error shows what to pass."""
        with pytest.raises(UsageError, match=r"Pass dependencies=\[Depends\(\.\.\.\)\]"):
            create_router(load_settings(), dependencies=dependencies)
        with pytest.raises(UsageError, match="everyone who can reach the endpoint can start an export"):
            create_router(load_settings())

    @pytest.mark.parametrize("dependency", [None, require_admin, Depends(), "admin"])
    def test_what_protects_nothing_is_refused(self, dependency: Any) -> None:
        """A function without Depends would never be called."""
        with pytest.raises(UsageError, match="must be Depends"):
            create_router(load_settings(), dependencies=[dependency])


def test_minimum_of_ratings_is_that_of_the_schema(application: Database) -> None:
    """A declared schema can have another number than four; more is the client's mistake."""
    assert application.url
    with serving(load_settings(ratings={"stars": {"min": 1, "max": 5}})) as client:
        answer = client.post(EXPORT, json={"min_feedback_fields": 2})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "min_feedback_fields must be at most 1, the number of ratings.",
    )


def test_api_schema_lists_every_response(client: httpx.Client) -> None:
    """For those who write clients."""
    schema = json.loads(client.get("/openapi.json").text)
    assert {"200", "409", "422", "500", "503"} <= {*schema["paths"][EXPORT]["post"]["responses"]}
