"""An export in parts by workers: the same rows and figures as in one process, also if workers die."""

import json
import os
import pickle
import runpy
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pyarrow as pa
import pytest
import sqlalchemy as sa
from clusters import (
    BY_TIER,
    EXECUTORS,
    NOW,
    ROWS,
    Watched,
    WorkerKiller,
    dask,
    environment,
    exported,
    fill_with_sample,
    frame_of,
    kill_coordinator,
)
from clusters import rejected_of as rejected_rows_of
from databases import Database
from processes import feedback_etl, feedback_etl_process
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.database.ranges import group_batches
from feedback_etl.errors import (
    ExportFileError,
    FeedbackError,
    KeyUnusableError,
    SourceError,
    UsageError,
    ValidationError,
)
from feedback_etl.pipeline.commit import sort_parts
from feedback_etl.pipeline.task_retries import MAX_ATTEMPTS
from feedback_etl.pipeline.tasks import PartTask, ReleaseTask
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests, read_manifest
from feedback_etl.records.layout import parse_part_number, part_path, rejected_part_path
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.location import open_storage

WHERE = {"export_filename", "rejected_filename", "audit_head", "execution_time_seconds", "advice"}
"""What is allowed to differ."""


@pytest.fixture
def url(shared_url: str) -> str:
    """A PostgreSQL database of sample data that workers know; no test changes it."""
    return shared_url


@pytest.fixture
def own_url(own_sample_url: str) -> str:
    """A database of sample data that the test may change."""
    return own_sample_url


def cut_off(path: Path) -> None:
    """Leave the first batch of a stream, and no mark of its end."""
    with pa.ipc.open_stream(path.read_bytes()) as stream:
        first, *others = stream
        assert others
    with path.open("wb") as file:
        pa.ipc.new_stream(file, stream.schema).write_batch(first)


def visible(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".feedback_etl" not in path.parts]


class TestSameAsOnOneMachine:
    """Row for row, figure for figure."""

    @pytest.mark.parametrize("kind", BY_TIER)
    def test_with_every_executor(self, url: str, tmp_path: Path, kind: str) -> None:
        """Threads, processes, loky and a Dask cluster write equal files."""
        alone = exported(url, tmp_path / "alone")
        with EXECUTORS[kind]() as executor:
            shared = exported(url, tmp_path / "shared", executor=executor)
        assert frame_of(shared).equals(frame_of(alone))
        assert rejected_rows_of(shared).equals(rejected_rows_of(alone))
        figures = alone.to_dict()
        assert {name: value for name, value in shared.to_dict().items() if value != figures[name]}.keys() <= WHERE
        assert shared.total_feedback_records == ROWS

    @pytest.mark.slow
    def test_with_ray(self, url: str, tmp_path: Path) -> None:
        """The executor of the example."""
        ray = pytest.importorskip("ray", reason="Ray is not installed: 200 MB for one test")
        executor = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "ray_cluster.py"))["RayExecutor"]()
        ray.init(num_cpus=2, include_dashboard=False)
        try:
            shared = exported(url, tmp_path / "shared", executor=executor)
        finally:
            ray.shutdown()
        assert frame_of(shared).equals(frame_of(exported(url, tmp_path / "alone")))

    @pytest.mark.parametrize("form", ["csv", "parquet"])
    def test_small_classes_are_generalised_over_all_parts(self, url: str, tmp_path: Path, form: str) -> None:
        """The coordinator decides by the digests of people and answers, and the workers write what it decided."""
        limits: dict[str, Any] = {"k": 8, "l": 2, "t": 0.7, "on_small_class": "generalize", "format": form}
        names = ("conditions_detected", "age_range", "timeframe", "feedback_timestamp")
        options = limits | {"quasi_identifiers": names, "timestamp_precision": "month"}
        alone = exported(url, tmp_path / "alone", **options)
        with EXECUTORS["threads"]() as executor:
            shared = exported(url, tmp_path / "shared", executor=executor, **options)
        assert frame_of(shared).equals(frame_of(alone))
        assert shared.risk["generalization"]["columns"] == alone.risk["generalization"]["columns"]
        assert shared.risk["k"] == alone.risk["k"] >= 8
        assert shared.risk["diversity"]["would_recommend"]["l"] >= 2

    @pytest.mark.sample("since*")
    @pytest.mark.parametrize(
        "options",
        [
            {"compression": "gzip", "k": 5},
            pytest.param({"compression": "zstd", "include_subject_hash": True}, marks=pytest.mark.slow),
            {"k": 30, "format": "parquet", "timestamp_precision": "day", "hash_recommendation_id": True},
            pytest.param({"unkeyed": True, "key": None}, marks=pytest.mark.slow),
            pytest.param({"min_feedback_fields": 4, "age_edges": (30, 60), "batch_size": 100}, marks=pytest.mark.slow),
            {"since": "2025-08-01", "until": "2025-09-15T12:00", "days_back": 30},
            pytest.param(
                {"quasi_identifiers": ("feedback_timestamp", "age_range"), "timestamp_precision": "day"},
                marks=pytest.mark.slow,
            ),
        ],
        ids=",".join,
    )
    def test_with_every_option(self, url: str, tmp_path: Path, options: dict[str, Any]) -> None:
        """Forms, k over all parts, unkeyed, windows."""
        alone = exported(url, tmp_path / "alone", **options)
        with EXECUTORS["threads"]() as executor:
            shared = exported(url, tmp_path / "shared", executor=executor, **options)
        assert frame_of(shared).equals(frame_of(alone))
        figures = alone.to_dict()
        assert {name: value for name, value in shared.to_dict().items() if value != figures[name]}.keys() <= WHERE
        if "k" in options:
            assert shared.suppressed_records > 0
            assert not list((tmp_path / "shared" / ".feedback_etl").glob("feedback_training_*"))

    @pytest.mark.sample("mysql", "sqlite")
    def test_a_database_without_a_shared_snapshot_is_read_in_one_piece(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the coordinator: the executor is not used."""
        for name, value in environment(database.url).items():
            monkeypatch.setenv(name, value)
        record = {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}
        row = {"user_id": 1, "recommendation_id": 1, "helpful_rating": 5, "created_at": NOW}
        rows = [row | {"id": number, "analysis_id": number} for number in range(1, 8)]
        database.fill(records=[record], feedbacks=rows)
        watched = Watched()
        for k in (None, 1):
            alone = exported(database.url, tmp_path / "alone", now=NOW.replace(hour=13), k=k)
            shared = exported(database.url, tmp_path / "shared", now=NOW.replace(hour=13), k=k, executor=watched)
            assert frame_of(shared).equals(frame_of(alone))
        assert bool(watched.tasks) == database.url.startswith("postgresql")

    @pytest.mark.sample("2")
    @pytest.mark.parametrize("k", [None, 2])
    def test_what_is_read_in_one_piece_is_cut_into_parts(
        self, sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int | None
    ) -> None:
        """Wherever it is cut: a duplicate is found in the part after its original, and people count over all parts."""
        monkeypatch.setattr("feedback_etl.pipeline.partitioned.group_batches", partial(group_batches, rows=4))
        record = {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}
        row = {"recommendation_id": 1, "created_at": NOW.replace(hour=1)}
        rows = [
            row | {"id": number, "analysis_id": number % 9, "user_id": number % 5, "helpful_rating": 9 - number % 7}
            for number in range(1, 30)
        ]
        sqlite_database.fill(records=[record], feedbacks=rows)
        options: dict[str, Any] = {"batch_size": 2, "k": k, "max_rejected": 1.0, "now": NOW.replace(hour=13)}
        alone = exported(sqlite_database.url, tmp_path / "alone", **options)
        shared = exported(sqlite_database.url, tmp_path / "shared", executor=Watched(), **options)
        assert alone.deduplicated_records > 0
        assert alone.errors > 0
        assert frame_of(shared).equals(frame_of(alone))
        assert rejected_rows_of(shared).equals(rejected_rows_of(alone))
        figures = alone.to_dict()
        assert {name: value for name, value in shared.to_dict().items() if value != figures[name]}.keys() <= WHERE
        (manifest,) = list_manifests(tmp_path / "shared")
        assert len(manifest.all("pairs")) > 1

    def test_nothing_to_export_is_no_export(self, url: str, tmp_path: Path) -> None:
        """No file, no manifest, no error."""
        report = exported(url, tmp_path, executor=Watched(), since="2001-01-01", until="2001-02-01")
        assert (report.exported_records, report.export_filename) == (0, "")
        assert visible(tmp_path) == []

    def test_rows_that_come_meanwhile_are_in_no_part(self, own_url: str, tmp_path: Path) -> None:
        """All workers see the state of the database that the coordinator saw."""
        engine = sa.create_engine(own_url, poolclass=sa.NullPool)

        def change(work: Any, task: Any) -> Any:
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE mod(id, 50) = 0")
                connection.exec_driver_sql("UPDATE recommendation_feedbacks SET helpful_rating = 1")
            return work(task)

        alone = exported(own_url, tmp_path / "alone")
        shared = exported(own_url, tmp_path / "shared", executor=Watched(change))
        assert frame_of(shared).equals(frame_of(alone))

    @pytest.mark.slow
    def test_a_server_that_ends_idle_transactions_does_not_end_the_snapshot(self, own_url: str, tmp_path: Path) -> None:
        """The coordinator's transaction stays open until the slowest worker has finished."""
        engine = sa.create_engine(own_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            name = engine.url.database
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '300ms'")

        def slow(work: Any, task: PartTask) -> Any:
            time.sleep(1)
            return work(task)

        shared = exported(own_url, tmp_path, executor=Watched(slow))
        assert shared.total_feedback_records == ROWS


class TestCommandLine:
    """`--executor`."""

    @pytest.fixture(autouse=True)
    def known(self, url: str) -> None:
        """The command line and the workers know the database and the key."""

    @pytest.mark.slow
    def test_dask_makes_the_export(self, tmp_path: Path) -> None:
        """A cluster by its address, with k and a custom model."""
        lines = ["import pandera.polars as pa", "class Model(pa.DataFrameModel):"]
        Path("checks.py").write_text("\n".join([*lines, "    timeframe: str = pa.Field(nullable=True)"]))
        with dask() as (_, client):
            engine = f"dask={client.scheduler.address}"
            options = ["--days", "-1", "--k", "5", "--workers", "4", "--row-model", "checks.py:Model"]
            done = feedback_etl_process("export", "--executor", engine, "--json", "--output", tmp_path, *options)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert figures["total_feedback_records"] == ROWS
        assert figures["risk"]["k"] >= 5
        (manifest,) = list_manifests(tmp_path)
        assert manifest.rows == figures["exported_records"]
        assert "suppressed" in done.stderr

    @pytest.mark.sample("dask=-*", "ray=*")
    @pytest.mark.parametrize(
        ("engine", "message"),
        [
            ("dask=tcp://127.0.0.1:1", "No Dask scheduler answers at tcp://127.0.0.1:1"),
            ("dask=", "--executor must be dask=ADDRESS"),
            ("ray=tcp://127.0.0.1:1", "--executor must be dask=ADDRESS"),
        ],
    )
    def test_unknown_engine_or_address_is_refused(self, tmp_path: Path, engine: str, message: str) -> None:
        """With exit code 2 and nothing written."""
        done = feedback_etl("export", "--executor", engine, "--output", tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert list(tmp_path.iterdir()) == [] or visible(tmp_path) == []


class TestTasks:
    """Tasks that are sent to workers, and their results."""

    def test_no_task_holds_the_url_the_key_or_an_id(self, url: str, tmp_path: Path) -> None:
        """Neither as they are sent nor in a log; results have no id either."""
        watched = Watched()
        exported(url, tmp_path, executor=watched, k=2)
        assert {type(task).__name__ for task in watched.tasks} == {"PartTask", "ReleaseTask"}
        for value in (*watched.tasks, *watched.made):
            sent = pickle.dumps(value)
            assert pickle.loads(sent) == value
            place = sa.make_url(url)
            for secret in (KEY, url, str(place.database), str(place.username)):
                assert secret.encode() not in sent
                assert secret not in repr(value)
        assert max(len(pickle.dumps(task)) for task in watched.tasks) < 10_000
        classes = pl.read_ipc_stream(watched.made[0].counts.classes)
        people = classes["people"].list.explode().drop_nulls()
        assert people.str.contains("^[0-9a-f]{16}$").all()

    def test_workers_name_the_key_as_the_export_does(self, url: str, tmp_path: Path) -> None:
        """With long pseudonyms, and in a folder of an earlier version; parts have those of a single process."""
        long = exported(url, tmp_path / "long", executor=Watched(), pseudonym_length=32)
        assert set(frame_of(long)["analysis_hash"].str.len_chars()) == {32}
        key = fe.privacy.Key(KEY).with_legacy_id()
        old = exported(url, tmp_path / "old", executor=Watched(), key=key)
        assert (old.key_id, long.key_id) == (key.legacy_id, f"{fe.privacy.Key(KEY).id}-32")
        assert {*frame_of(long)["analysis_hash"].str.slice(0, 16)} == {*frame_of(old)["analysis_hash"]}

    @pytest.mark.slow
    def test_a_task_that_runs_twice_is_one_part(self, url: str, tmp_path: Path) -> None:
        """At once or one after the other, also if rows are pending until the class sizes are known."""
        choices: list[dict[str, Any]] = [{}, {"format": "parquet"}, {"k": 3}]
        for number, options in enumerate(choices):
            alone = exported(url, tmp_path / "alone", **options)

            def twice(work: Any, task: Any) -> Any:
                first, second = work(task), work(task)
                assert first.files == second.files
                return second

            shared = exported(url, tmp_path / f"shared{number}", executor=Watched(twice), **options)
            assert frame_of(shared).equals(frame_of(alone))
            assert shared.total_feedback_records == ROWS

    def test_a_part_that_differs_is_not_taken(self, url: str, tmp_path: Path) -> None:
        """As when workers have different versions of a library: better no export than an unknown one."""

        def spoilt(work: Any, task: PartTask) -> Any:
            made = work(task)
            (tmp_path / made.files[0].path).write_text("something else")
            return work(task)

        with pytest.raises(ExportFileError, match=r"part-\d+.csv exists with other content than this attempt wrote"):
            exported(url, tmp_path, executor=Watched(spoilt))
        assert visible(tmp_path) == []

    @pytest.mark.parametrize(
        ("harm", "message"),
        [
            pytest.param(Path.unlink, "is missing", marks=pytest.mark.slow, id="removed"),
            pytest.param(cut_off, "was changed", id="cut off"),
        ],
    )
    def test_rows_that_wait_are_not_lost(
        self, url: str, tmp_path: Path, harm: Callable[[Path], None], message: str
    ) -> None:
        """They may be lost before their release, or end between two batches: then nothing is published."""

        def harmed(work: Any, task: Any) -> Any:
            if isinstance(task, ReleaseTask) and (task.number, task.attempt) == (2, 1):
                harm(tmp_path / task.spooled.path)
            return work(task)

        with pytest.raises(ExportFileError, match=rf"part-00002.arrow with [\d,]+ spooled rows {message}"):
            exported(url, tmp_path, executor=Watched(harmed), k=2, batch_size=1_000)
        assert visible(tmp_path) == []

    @pytest.mark.parametrize("kind", ["pairs", "rejected"])
    def test_every_row_that_was_counted_is_in_a_part(self, url: str, tmp_path: Path, kind: str) -> None:
        """A file that the coordinator does not see is detected before anything is published."""

        def forgetful(work: Any, task: PartTask) -> Any:
            made = work(task)
            return made._replace(files=[file for file in made.files if task.number != 2 or file.kind != kind])

        with pytest.raises(
            ExportFileError, match=rf"The parts contain [\d,]+ rows \({kind}\), but [\d,]+ were counted"
        ):
            exported(url, tmp_path, executor=Watched(forgetful))
        assert visible(tmp_path) == []

    def test_parts_are_in_the_order_of_their_numbers(self) -> None:
        """Also from the hundred thousandth on, whose name sorts before others."""
        numbers = [100_000, 99_999, 2, 1_000_000]
        files = [DataFile(part_path("stem", number, ".csv"), "pairs", 1, 1, "") for number in numbers]
        files.append(DataFile(rejected_part_path("stem", 1), "rejected", 1, 1, ""))
        in_order = [parse_part_number(file.path) for file in sort_parts(files)]
        assert in_order == [2, 99_999, 100_000, 1_000_000, 1]


class TestFailures:
    """Workers that die, and workers with a wrong configuration."""

    @pytest.mark.slow
    def test_a_worker_that_is_killed_loses_nothing(self, url: str, tmp_path: Path) -> None:
        """SIGKILL while it runs a task: another worker runs the task again."""
        alone = exported(url, tmp_path / "alone")
        with dask() as (executor, client):
            killer = WorkerKiller(client)
            shared = exported(url, tmp_path / "shared", executor=executor, workers=16, on_progress=killer)
        assert killer.killed
        assert frame_of(shared).equals(frame_of(alone))
        assert shared.total_feedback_records == ROWS

    def test_what_was_lost_is_sent_again(self, url: str, tmp_path: Path) -> None:
        """Each task fails twice, as if its worker or its database had died, and succeeds the third time."""
        attempts: Counter[int] = Counter()

        def unlucky(work: Any, task: PartTask) -> Any:
            attempts[task.number] += 1
            assert task.attempt == attempts[task.number]
            if task.attempt == 1:
                raise OSError("the worker is gone")
            if task.attempt == 2:
                work(task)  # it wrote its part, and died before it could say so
                raise SourceError("the database is gone")
            return work(task)

        shared = exported(url, tmp_path / "shared", executor=Watched(unlucky))
        assert set(attempts.values()) == {MAX_ATTEMPTS}
        assert frame_of(shared).equals(frame_of(exported(url, tmp_path / "alone")))

    def test_what_is_lost_again_and_again_fails_the_export(self, url: str, tmp_path: Path) -> None:
        """No file of it remains."""

        def lost(work: Any, task: PartTask) -> Any:
            if task.number == 2:
                raise MemoryError
            return work(task)

        with pytest.raises(ExportFileError, match=r"Part 2 was lost 3 times \(MemoryError\)"):
            exported(url, tmp_path, executor=Watched(lost))
        assert visible(tmp_path) == []
        assert fe.exports.list_exports(tmp_path) == ([], [])

    @pytest.mark.sample("2")
    @pytest.mark.parametrize("k", [None, 2])
    def test_interrupt_starts_no_other_task(self, url: str, tmp_path: Path, k: int | None) -> None:
        """Nor does an error in `on_progress`: pending tasks are cancelled, running ones are awaited."""
        begun: list[int] = []

        def slow(work: Any, task: PartTask) -> Any:
            begun.append(task.number)
            time.sleep(0.2)
            return work(task)

        def stop(rows: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:  # kept: its traceback keeps what is not closed from its end
            exported(url, tmp_path, executor=Watched(slow), workers=16, on_progress=stop, k=k)
        ended = len(begun)
        time.sleep(1)
        assert caught.traceback
        assert len(begun) == ended < 10
        assert visible(tmp_path) == []

    @pytest.mark.slow
    def test_model_that_cannot_be_sent_is_reported(self, url: str, tmp_path: Path) -> None:
        """A pool of processes accepts the task and pickles it later: no worker was lost, so a retry is useless."""
        from pandera.polars import DataFrameModel

        class Model(DataFrameModel):
            timeframe: str

        with (
            EXECUTORS["processes"]() as executor,
            pytest.raises(UsageError, match=r"A task cannot be pickled \((AttributeError|PicklingError)\)"),
        ):
            exported(url, tmp_path, executor=executor, row_model=Model)
        assert visible(tmp_path) == []

    def test_rows_that_break_the_rules_fail_it_at_once(self, url: str, tmp_path: Path) -> None:
        """As on one machine, with the same message."""
        messages = []
        for executor in (None, Watched()):
            with pytest.raises(ValidationError) as caught:
                exported(url, tmp_path / "x", executor=executor, strict=True)
            messages.append((str(caught.value), caught.value.reasons))
        assert messages[0] == messages[1]
        with pytest.raises(ValidationError, match="no row would be left"):
            exported(url, tmp_path / "x", executor=Watched(), k=1000)
        assert visible(tmp_path / "x") == []

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"FEEDBACK_ETL_KEY": OTHER_KEY}, KeyUnusableError, "This worker has the key .*, the export uses the key"),
            ({"FEEDBACK_ETL_DATABASE_URL": ""}, UsageError, "No database is configured"),
            ({"FEEDBACK_ETL_DATABASE_URL": "sqlite:///nothing.db"}, FeedbackError, "no SQLite file|no file"),
        ],
        ids=["another key", "no database", "another database"],
    )
    def test_worker_with_another_environment_is_reported(
        self,
        url: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        change: dict[str, str],
        error: type[Exception],
        message: str,
    ) -> None:
        """In the coordinator's error, and nothing is published."""
        for name, value in change.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(error, match=message):
            exported(url, tmp_path, executor=Watched())
        assert visible(tmp_path) == []

    def test_a_worker_of_another_server_is_noticed(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_database: str
    ) -> None:
        """The snapshot exists only in the coordinator's database."""
        fill_with_sample(postgres_database, 100)
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", postgres_database)
        with pytest.raises(SourceError, match=r"does not know the snapshot .* another server"):
            exported(url, tmp_path, executor=Watched(), workers=1)
        assert visible(tmp_path) == []

    def test_lost_snapshot_is_reported(self, own_url: str, tmp_path: Path) -> None:
        """As when a firewall closes the coordinator's idle connection."""
        engine = sa.create_engine(own_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")

        def cut(work: Any, task: PartTask) -> Any:
            with engine.connect() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND state = 'idle in transaction'"
                )
            return work(task)

        with pytest.raises(SourceError, match="the connection that exported it was lost"):
            exported(own_url, tmp_path, executor=Watched(cut))
        assert visible(tmp_path) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("k", [None, pytest.param(3, marks=pytest.mark.slow)])
    def test_a_killed_coordinator_leaves_no_export(self, url: str, tmp_path: Path, k: int | None) -> None:
        """SIGKILL while parts are written: the next start removes them, pending ones too."""
        kill_coordinator(url, str(tmp_path), f"k={k}, executor=ThreadPoolExecutor(2)")
        assert list(tmp_path.rglob("part-*"))
        assert list_manifests(tmp_path) == []
        alone = exported(url, tmp_path / "alone", k=k)
        shared = exported(url, tmp_path, executor=Watched(), k=k)
        (manifest,) = list_manifests(tmp_path)
        stem = "feedback_training_20251025_120000"
        assert (manifest.stem, shared.export_filename) == (stem, f"{tmp_path}/{stem}")
        assert frame_of(shared).equals(frame_of(alone))
        held = {tmp_path / file.path for file in manifest.files}
        assert {path for path in tmp_path.rglob("part-*") if "alone" not in path.parts} == held
        events = [record["event"] for record in AuditLog(tmp_path).records()]
        assert events == ["started", "recovered", "started", "committed"]

    @pytest.mark.slow
    def test_broken_executor_is_reported(self, url: str, tmp_path: Path) -> None:
        """A ProcessPoolExecutor accepts no task after a worker was killed."""
        with EXECUTORS["processes"]() as executor:
            executor.submit(os.getpid).result()
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it has just ended
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
            with pytest.raises(ExportFileError, match="accepts no more tasks"):
                exported(url, tmp_path, executor=executor)
        assert visible(tmp_path) == []

    def test_a_worker_that_does_not_see_the_folder_says_so(self, url: str, tmp_path: Path) -> None:
        """Its own disk is not shared."""

        def elsewhere(work: Any, task: PartTask) -> Any:
            object.__setattr__(task.export, "destination", str(tmp_path / "elsewhere"))
            return work(task)

        with pytest.raises(UsageError, match="This worker does not see"):
            exported(url, tmp_path / "here", executor=Watched(elsewhere))

    def test_what_is_asked_for_twice_is_made_once(self, url: str, tmp_path: Path) -> None:
        """Under one request id, with the same figures and names."""
        watched = Watched()
        first = exported(url, tmp_path, executor=watched, idempotency_key="one")
        sent = len(watched.tasks)
        again = exported(url, tmp_path, executor=watched, idempotency_key="one")
        assert len(watched.tasks) == sent > 0
        figures = first.to_dict()
        assert {name: value for name, value in again.to_dict().items() if value != figures[name]}.keys() <= {
            "execution_time_seconds"
        }
        assert len(list_manifests(tmp_path)) == 1


class TestFolder:
    """Files and records after an export."""

    def test_parts_are_named_by_their_ranges_and_come_with_a_manifest(self, url: str, tmp_path: Path) -> None:
        """Private, with digests, and in the order of time."""
        report = exported(url, tmp_path, executor=Watched(), format="parquet")
        (manifest,) = list_manifests(tmp_path)
        parts = manifest.all("pairs")
        stem = "feedback_training_20251025_120000"
        assert [part.path for part in parts] == [f"{stem}/part-{number:05}.parquet" for number in range(len(parts))]
        assert len(parts) >= 3
        assert report.export_filename == f"{tmp_path}/{stem}"
        assert manifest.rows == report.exported_records == frame_of(report).height
        for part in parts:
            path = tmp_path / part.path
            assert (path.stat().st_size, path.stat().st_mode & 0o777) == (part.bytes, 0o600)
        assert (tmp_path / stem).stat().st_mode & 0o777 == 0o700
        times = frame_of(report)["feedback_timestamp"]
        assert times.is_sorted()

    def test_who_is_erased_meanwhile_is_in_no_part(self, own_url: str, tmp_path: Path) -> None:
        """An erasure during an export also removes rows from the parts that workers have written."""
        exported(own_url, tmp_path, now=NOW.replace(day=24))

        @contextmanager
        def erased_once() -> Iterator[Any]:
            done: list[int] = []

            def change(work: Any, task: PartTask) -> Any:
                made = work(task)
                if not done:
                    done.append(1)
                    fe.privacy.erase(tmp_path, user_ids=[1, 2, 3, 4, 5], database=own_url, keys=[KEY])
                return made

            yield change

        before = exported(own_url, tmp_path / "other")
        with erased_once() as change:
            shared = exported(own_url, tmp_path, executor=Watched(change))
        manifest = read_manifest(open_storage(tmp_path), Path(shared.export_filename).name)
        assert manifest
        with sa.create_engine(own_url, poolclass=sa.NullPool).connect() as connection:
            theirs = connection.exec_driver_sql(
                "SELECT analysis_id FROM recommendation_feedbacks WHERE user_id IN (1, 2, 3, 4, 5)"
            ).scalars()
            hashes = [fe.FeedbackProcessor(own_url, key=KEY)._hash_id(id_) for id_ in theirs]
        rows = frame_of(before).filter(~pl.col("analysis_hash").is_in(hashes))
        assert rows.height < frame_of(before).height
        assert frame_of(shared).equals(rows)
        assert manifest.rows == rows.height
        assert manifest.risk["stale"]
        later = exported(own_url, tmp_path, executor=Watched(), now=NOW.replace(day=26))
        assert not set(frame_of(later)["analysis_hash"]) & set(hashes)
