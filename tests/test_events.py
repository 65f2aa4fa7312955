"""The event hook: few exports for many events, none forgotten, and an event loop that never waits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from applications import FOLDER, configure, exported_rows, exports, give_feedback, kept_waiting
from databases import Database, opened

from feedback_etl.errors import FolderLockedError, SourceError, UsageError
from feedback_etl.integrations.events import ExportOnFeedback
from feedback_etl.results import ExportReport
from feedback_etl.storage.locks import lock_folder
from feedback_etl.storage.posix import make_private_folder

AT_ONCE = timedelta(0)


@pytest.fixture
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """No feedback yet."""
    configure(sqlite_database, monkeypatch)
    return sqlite_database


class News:
    """The reports and errors of a hook, in their order."""

    def __init__(self) -> None:
        self.all: list[ExportReport | Exception] = []
        self._more = asyncio.Event()

    def __call__(self, news: ExportReport | Exception) -> None:
        """Hear it."""
        self.all.append(news)
        self._more.set()

    async def more(self) -> ExportReport | Exception:
        """The next one."""
        await self._more.wait()
        self._more.clear()
        return self.all[-1]

    @property
    def exported(self) -> list[int]:
        """Rows of each export."""
        return [item.exported_records for item in self.all if isinstance(item, ExportReport)]


def run(what: Callable[[], Awaitable[None]]) -> None:
    """A test in an event loop, which has to end."""

    async def limited() -> None:
        async with asyncio.timeout(120):
            await what()

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    """Wait without keeping the event loop from anything."""
    while not condition():
        await asyncio.sleep(0.01)


class TestBurst:
    """Many events."""

    def test_a_thousand_give_one_or_two_exports_that_have_all(self, application: Database) -> None:
        """At the default interval; the end exports what is pending."""

        async def burst() -> None:
            news = News()
            async with ExportOnFeedback(on_export=news) as hook:
                for first in range(1, 1_000, 50):
                    give_feedback(application, *range(first, first + 50))
                    await asyncio.gather(*(hook(number) for number in range(first, first + 50)))
                    await asyncio.sleep(0.01)
            assert 1 <= len(news.all) <= 2
            assert sum(news.exported) == 1_000

        run(burst)
        assert len(exports()) <= 2
        assert {export.mode for export in exports()} == {"incremental"}
        assert exported_rows() == 1_000

    @pytest.mark.usefixtures("application")
    def test_without_an_event_nothing_happens(self) -> None:
        """Also at the end."""

        async def nothing() -> None:
            async with ExportOnFeedback():
                pass

        run(nothing)
        assert not FOLDER.exists()

    def test_the_interval_is_kept_between_exports(self, application: Database) -> None:
        """The second export waits for its time, and an end does not wait for it."""

        async def two() -> None:
            news = News()
            hook = ExportOnFeedback(on_export=news, min_interval=timedelta(hours=1))
            give_feedback(application, 1)
            await hook(1)
            await news.more()
            give_feedback(application, 2)
            await hook(2)
            await asyncio.sleep(0.2)
            assert news.exported == [1]
            await hook.aclose()
            assert news.exported == [1, 1]

        run(two)


class TestDuring:
    """Events while an export is under way."""

    def test_one_leads_to_another_export(self, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The loop goes on meanwhile: it is the one that lets the database answer."""

        async def during(database: Database) -> None:
            news = News()
            hook = ExportOnFeedback(on_export=news, min_interval=AT_ONCE)
            give_feedback(database, 1)
            with kept_waiting(database) as is_waiting:
                await hook(1)
                await until(is_waiting)
                await hook(2)
                assert news.all == []
            give_feedback(database, 2)  # committed too late for some statement of the first, perhaps
            await news.more()
            await hook.aclose()
            assert len(news.all) == 2
            assert sum(news.exported) == 2

        with opened(postgres_database) as database:
            configure(database, monkeypatch)
            run(lambda: during(database))
        assert exported_rows() == 2

    def test_two_hooks_of_one_folder_do_not_lose_or_double_anything(self, application: Database) -> None:
        """As several workers of a server have."""

        async def both() -> None:
            async with ExportOnFeedback(min_interval=AT_ONCE) as one, ExportOnFeedback(min_interval=AT_ONCE) as other:
                for number in range(1, 21):
                    give_feedback(application, number)
                    await (one if number % 2 else other)(number)
                    await asyncio.sleep(0.02)

        run(both)
        assert exported_rows() == 20


class TestErrors:
    """An export that fails."""

    def test_it_is_tried_again_until_it_succeeds(self, application: Database, caplog: pytest.LogCaptureFixture) -> None:
        """Without another event; callback and log are notified each time."""

        async def fails_first() -> None:
            news = News()
            give_feedback(application, 1)
            make_private_folder(FOLDER)
            hook = ExportOnFeedback(min_interval=AT_ONCE, on_export=news, on_error=news, lock_timeout=0)
            with lock_folder(FOLDER, 1):
                await hook(1)
                assert isinstance(await news.more(), FolderLockedError)
                assert isinstance(await news.more(), FolderLockedError)
            await until(lambda: news.exported == [1])
            await hook.aclose()

        with caplog.at_level(logging.ERROR, "feedback_etl"):
            run(fails_first)
        assert caplog.text.count("an export after feedback failed") >= 2
        assert exported_rows() == 1

    @pytest.mark.usefixtures("application")
    def test_an_end_does_not_wait_for_success(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One last attempt; no secret in messages."""
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "postgresql://someone:p4ssword@127.0.0.1:9/application")

        async def fails() -> None:
            news = News()
            async with ExportOnFeedback(on_error=news) as hook:
                await hook(1)
                assert isinstance(await news.more(), SourceError)
            assert len(news.all) == 2

        run(fails)
        assert "p4ssword" not in caplog.text

    @pytest.mark.usefixtures("application")
    def test_closed_hook_reports_and_does_not_raise(self) -> None:
        """A request that comes at the very end must not fail for it."""

        async def late() -> None:
            news = News()
            hook = ExportOnFeedback(on_error=news)
            await hook.aclose()
            await hook(1)
            assert isinstance(await news.more(), UsageError)

        run(late)
        assert not FOLDER.exists()

    @pytest.mark.parametrize("callback", ["on_export", "on_error"])
    def test_callback_that_raises_is_ignored(
        self,
        application: Database,
        callback: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is in the log, without its text."""

        def raises(_: object) -> None:
            raise ValueError("canary")

        async def calls() -> None:
            callbacks: dict[str, Any] = {callback: raises}
            if callback == "on_error":
                monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "sqlite:///missing.db")
            async with ExportOnFeedback(**callbacks) as hook:
                give_feedback(application, 1)
                await hook(1)

        run(calls)
        assert "a callback of ExportOnFeedback raised ValueError" in caplog.text
        assert "canary" not in caplog.text

    @pytest.mark.usefixtures("application")
    def test_unexpected_error_is_reported_without_its_text(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its place is in the log; its text, which may hold values, is nowhere."""

        def breaks(*_: object) -> None:
            raise LookupError("-".join(("canary", "4711")))

        monkeypatch.setattr("feedback_etl.pipeline.export.select", breaks)

        async def unexpected() -> None:
            news = News()
            async with ExportOnFeedback(on_error=news) as hook:
                await hook(1)
                error = await news.more()
            assert isinstance(error, RuntimeError)
            assert (error.__cause__, error.__context__) == (None, None)
            assert "unexpected LookupError" in str(error)

        run(unexpected)
        assert Path(__file__).name in caplog.text
        assert "canary-4711" not in caplog.text
