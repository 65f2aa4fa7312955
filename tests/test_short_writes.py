"""Short, failing and wrong writes: each file is written completely, or nothing changes and the exit code is 5."""

import errno
import hashlib
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl
import pytest
from databases import Database, make_engine, opened
from folders import FORMS, NOW, exported, people, rows_of
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from processes import Here, environment, python
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance.record import write_record
from feedback_etl.data_files.file_formats import FileFormat, HashingWriter, RowWriter
from feedback_etl.demo.sample import create_sample_database
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key, write_key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder, verify_lines
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report.contracts import write_contracts
from feedback_etl.settings.model import load_settings
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.posix import create_private_file, hash_file
from feedback_etl.storage.whole_files import write_whole
from feedback_etl.training.vocabulary import Vocabulary

KEYS = [Key(KEY)]
LATER = NOW + timedelta(minutes=1)
STEM = "feedback_training_20251025_120000"
EXAMPLES = settings(max_examples=settings().max_examples // 20, phases=[Phase.explicit, Phase.reuse, Phase.generate])


class Trouble(NamedTuple):
    """A fault of writing: `at` is the number of the write, or the maximum size of a file in bytes."""

    kind: Literal["parts", "fails", "takes nothing", "lies", "limit"]
    at: int = 0
    seed: int = 0


def troubles(*kinds: str) -> st.SearchStrategy[Trouble]:
    writes = st.sampled_from([kind for kind in kinds if kind != "limit"])
    some = st.builds(Trouble, writes, st.integers(1, 30), st.integers(0, 10**6))
    return some | st.builds(Trouble, st.just("limit"), st.integers(0, 12_000)) if "limit" in kinds else some


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file of this process gets more bytes (`ulimit -f`)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def troubled(trouble: Trouble) -> Iterator[None]:
    """write(2) takes random parts, and its nth call fails, writes nothing, or reports bytes that it did not write."""
    if trouble.kind == "limit":
        with limited(trouble.at):
            yield
        return
    generator, original, calls = random.Random(trouble.seed), os.write, 0

    def write(descriptor: int, content: Any) -> int:
        nonlocal calls
        calls += 1
        part = memoryview(content)[: generator.randint(1, len(content))]
        if calls == trouble.at and trouble.kind == "fails":
            original(descriptor, part[: len(part) // 2])
            raise OSError(generator.choice((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)), "told to fail")
        if calls == trouble.at and trouble.kind == "takes nothing":
            return 0
        if calls == trouble.at and trouble.kind == "lies":
            original(descriptor, bytes(part[:-1]) + bytes([part[-1] ^ 1]) * generator.randint(0, 1))
            return len(part)
        return original(descriptor, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


class Writer(NamedTuple):
    """Something that writes files.

    Attributes:
        act: What it does.
        in_steps: Whether some of its files may be done when it fails; each is whole, and another run does the rest.
        is_repeatable: Whether another run gives the same.
        lies: Whether it reads back what it writes.
    """

    act: Callable[[Database, Path], object]
    in_steps: bool = False
    is_repeatable: bool = True
    lies: bool = True


def _part(_: Database, folder: Path) -> None:
    (folder / STEM).mkdir()
    with PartWriter(LocalStorage(folder), f"{STEM}/part-00001.parquet", FileFormat("parquet"), {}) as part:
        part.append(pl.DataFrame({"number": range(2_000)}))
        part.append(pl.DataFrame({"number": range(500)}))
        part.publish("pairs")


def _parted(database: Database, folder: Path) -> None:
    """An export in parts, during which a person is erased."""
    with ExportTransaction(folder, LATER, TransactionOptions(key=KEYS[0])) as export:
        name = f"{export.stem}/part-00001.csv"
        with PartWriter(LocalStorage(folder), name, FileFormat(), {}) as part:
            part.append(rows_of(folder / f"{STEM}.csv"))
            parts = part.publish("pairs")
        _erase(database, folder)
        export.commit(parts)


def _erase(database: Database, folder: Path) -> None:
    fe.privacy.erase(folder, user_ids=[2], database=database.engine, keys=KEYS)


def _vocabulary(_: Database, folder: Path) -> None:
    fitted = Vocabulary.fit(fe.scan_training(folder / f"{STEM}.csv"))
    fitted.save(folder / "vocabulary.json")


def _adopt(_: Database, folder: Path) -> None:
    fe.exports.adopt(folder / "old.csv", key=KEYS[0])


def _record(_: Database, folder: Path) -> None:
    write_record(load_settings(output_dir=folder))


def _report(_: Database, folder: Path) -> None:
    fe.write_report(folder / "report.html", folder, keys=KEYS, now=LATER)


def _export(form: dict[str, str]) -> Writer:
    return Writer(lambda database, folder: exported(database, folder, now=LATER, **form))


WRITERS = {
    **{f"export {' '.join(form.values())}": _export(form) for form in FORMS},
    "incremental export": Writer(lambda database, folder: exported(database, folder, now=LATER, incremental=True)),
    "export with k": Writer(lambda database, folder: exported(database, folder, now=LATER, k=1), lies=False),
    "part": Writer(_part),
    "export in parts": Writer(_parted, in_steps=True, is_repeatable=False),
    "erase": Writer(_erase, in_steps=True),
    "prune": Writer(
        lambda _, folder: fe.exports.prune(folder, keep_days=1, key=KEYS[0], now=NOW + timedelta(9)), in_steps=True
    ),
    "adopt": Writer(_adopt),
    "key": Writer(lambda _, folder: write_key(folder / "key")),
    "contracts": Writer(lambda _, folder: write_contracts(folder), in_steps=True),
    "croissant": Writer(lambda _, folder: fe.report.write_croissant(folder)),
    "vocabulary": Writer(_vocabulary),
    "record": Writer(_record),
    "report": Writer(_report),
}
"""All that writes files, but for object stores, where what is put is on this machine before."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Three users with feedback, some of it wrong."""
    with opened(f"sqlite:///{tmp_path_factory.mktemp('application') / 'app.db'}") as application:
        application.fill(**people(3, each=4))
        yield application


@pytest.fixture(scope="module")
def template(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an incremental export and a file that has no manifest."""
    folder = tmp_path_factory.mktemp("template") / "exports"
    exported(database, folder, incremental=True)
    shutil.copy(folder / f"{STEM}.csv", folder / "old.csv")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the log, which records failures too, and the lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("audit.jsonl", "lock")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_sound(folder: Path) -> None:
    """Files are as their manifests say, no record is torn, and nothing temporary is left."""
    for manifest in list_manifests(folder):
        for file in manifest.files if not manifest.pruned_at else []:
            assert hash_file(folder / file.path) in (file.sha256, file.becoming.get("sha256"))
            assert sum(1 for _ in rows_of(folder / file.path).rows()) in (file.rows, file.becoming.get("rows"))
    assert verify_lines(AuditLog(folder).lines(), KEYS, {}).problems == []
    assert [path for path in folder.rglob(".*") if path.is_file()] == []


def steady(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files that are equal each time: not manifests, with times and runs, nor random keys and erasure ids."""
    at_random = (".manifest.json", "key", "tombstones.jsonl", ".md", ".html", "croissant.json")
    return {name: b"" if name.endswith(at_random) else content for name, content in files.items()}


@pytest.mark.sample("erase", "export csv", "key", "part", "prune", "record")
@pytest.mark.parametrize("name", WRITERS)
def test_file_is_complete_or_unchanged_after_any_write_error(
    database: Database, template: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """Short writes change nothing; any failure is exit code 5, and the folder is unchanged."""
    writer, top = WRITERS[name], tmp_path_factory.mktemp("short")
    undisturbed = top / "undisturbed"
    shutil.copytree(template, undisturbed)
    writer.act(database, undisturbed)
    before, after = contents(template), steady(contents(undisturbed))
    kinds = ["parts", "fails", "takes nothing", "limit", *(["lies"] if writer.lies else [])]
    seen = set[bool]()

    @EXAMPLES
    @given(troubles(*kinds))
    @example(Trouble("parts"))
    @example(Trouble("fails", 1))
    @example(Trouble("limit", 20))
    def holds(trouble: Trouble) -> None:
        folder = top / "exports"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        try:
            with troubled(trouble):
                writer.act(database, folder)
        except ExportFileError:  # exit code 5
            seen.add(False)
            assert_sound(folder)
            if not writer.in_steps:
                assert contents(folder) == before
                assert verify_folder(folder, KEYS).problems == []
                return
            assert_between(steady(contents(folder)), steady(before), after)
            if not writer.is_repeatable:
                return
            writer.act(database, folder)
        else:
            seen.add(True)
        assert_sound(folder)
        assert verify_folder(folder, KEYS).problems == []
        assert steady(contents(folder)).items() >= after.items()

    holds()
    assert seen == {True, False}


def assert_between(files: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Each file is whole: as it was, or as it was to be."""
    for name, content in files.items():
        assert content in (before.get(name), after.get(name))
    assert {*files} >= {*before} & {*after}


class Pipe:
    """A file that accepts a given number of bytes of each write."""

    def __init__(self, *counts: int | None) -> None:
        self.counts, self.taken = list(counts), bytearray()

    def write(self, content: memoryview) -> int | None:
        """Take a part."""
        count = self.counts.pop(0) if self.counts else len(content)
        self.taken += content[: count or 0]
        return None if count is None else min(count, len(content))


@given(st.binary(), st.lists(st.integers(1, 9)))
def test_short_writes_of_any_sizes_are_completed(content: bytes, counts: list[int]) -> None:
    """In order, each byte once; also by the writer that computes digests."""
    file, digested = Pipe(*counts), Pipe(*counts)
    assert write_whole(file.write, content) == len(content)
    assert file.taken == content
    written = HashingWriter(digested)  # type: ignore[arg-type]
    assert written.write(content) == written.bytes == len(content)
    assert digested.taken == content
    assert written.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("nothing", [0, None])
def test_write_of_zero_bytes_is_an_error(nothing: int | None) -> None:
    """In each file format, instead of an endless loop."""
    with pytest.raises(OSError, match="Input/output error"):
        write_whole(Pipe(2, nothing).write, b"four")
    for form in (
        FileFormat(),
        FileFormat(compression="gzip"),
        FileFormat(compression="zstd"),
        FileFormat("parquet"),
        FileFormat("arrow"),
    ):
        rows = RowWriter(Pipe(2, nothing), form)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="Input/output error"):  # noqa: PT012  compressors write at the end
            rows.append(pl.DataFrame({"number": range(3)}))
            rows.finish()
        rows.abandon()


def test_large_writes_are_split() -> None:
    """3 GiB are written in calls of 1 GiB: Linux accepts 2 GiB less a page at once, and macOS refuses more."""
    sizes = []

    def write(part: memoryview) -> int:
        sizes.append(len(part))
        return len(part)

    with mmap.mmap(-1, 3 * 2**30 + 5) as content, memoryview(content) as view:
        assert write_whole(write, view) == 3 * 2**30 + 5
    assert sizes == [2**30, 2**30, 2**30, 5]


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize("change", [b"", b"y", b"xx"], ids=["shorter", "other", "longer"])
def test_file_that_differs_on_disk_is_not_published(tmp_path: Path, size: int, change: bytes) -> None:
    """With a missing, changed or added byte: by size and digest."""
    with create_private_file(tmp_path / "file") as file:
        file.write(b"x" * size)
        file.sync(size, hashlib.sha256(b"x" * size).hexdigest())
        os.truncate(tmp_path / "file", size - 1)
        file.seek(0, os.SEEK_END)
        file.write(change)
        with pytest.raises(OSError, match="does not contain what was written"):
            file.sync(size, hashlib.sha256(b"x" * size).hexdigest())


def test_failed_append_leaves_the_file_unchanged(tmp_path: Path) -> None:
    """The log and the tombstones contain complete records alone."""
    log = AuditLog(tmp_path)
    with log.lock() as opened_log:
        opened_log.append("first", None)
    before = log.path.read_bytes()
    with log.lock() as opened_log, limited(len(before) + 40), pytest.raises(OSError, match="File too large"):
        opened_log.append("second", None)
    assert log.path.read_bytes() == before
    with limited(40), pytest.raises(OSError, match="File too large"):
        LocalStorage(tmp_path).append_lines("lines", b"line\n" * 10)
    assert (tmp_path / "lines").read_bytes() == b""


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs command lines in this process."""
    return Here(capfd, monkeypatch)


ULIMIT_F_100 = 100 * 1024


def test_export_above_a_file_size_limit_exits_with_5(here: Here, tmp_path: Path) -> None:
    """`ulimit -f 100` and the demo's database: the CSV file was cut inside a row, and the exit code was 0."""
    create_sample_database(tmp_path / "app.db", rows=5_000, now=datetime.now())
    arguments = ("--days", "-1", "--unkeyed", "--database-url", f"sqlite:///{tmp_path}/app.db")
    with limited(ULIMIT_F_100):
        ended = here("export", *arguments, "--output", tmp_path / "exports")
    assert (ended.code, ended.out) == (5, "")
    assert ended.err == (
        f"error: Nothing was written to {tmp_path}/exports: a file would be larger than its file system or this "
        "user's limit (ulimit -f) allows. Choose another folder with --output.\n"
    )
    assert contents(tmp_path / "exports") == {}
    with limited(ULIMIT_F_100):
        assert here("demo", "--output", tmp_path / "demo").code == 5
    assert contents(tmp_path / "demo") == {}


def test_erasure_above_a_file_size_limit_keeps_other_rows(here: Here, tmp_path: Path) -> None:
    """The command reported "1 row erased" but truncated all other rows; run again without the limit, it erases one."""
    create_sample_database(tmp_path / "app.db", rows=1_500, now=datetime.now())
    key, folder = write_key(tmp_path / "key"), tmp_path / "exports"
    with make_engine(f"sqlite:///{tmp_path}/app.db").connect() as connection:
        report = fe.export_feedback(connection, days_back=-1, key=key, output_dir=folder)
        analysis = connection.exec_driver_sql("SELECT min(analysis_id) FROM recommendation_feedbacks").scalar()
    path = Path(report.export_filename)
    before, usual = contents(folder), ("--output", folder, "--key-file", tmp_path / "key")
    assert path.stat().st_size > ULIMIT_F_100
    (tmp_path / "ids").write_text(f"{analysis}\n")
    erase = ("erase", "--analysis-ids-file", tmp_path / "ids", *usual)
    with limited(ULIMIT_F_100):
        ended = here(*erase)
    assert (ended.code, ended.out) == (5, "")
    tombstones = f"{STATE_FOLDER}/tombstones.jsonl"
    assert {name: content for name, content in contents(folder).items() if name != tombstones} == before
    assert here(*erase).code == 0
    assert pl.read_csv(path).height == report.exported_records - 1


FATAL = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


def test_export_killed_by_sigxfsz_publishes_nothing(tmp_path: Path) -> None:
    """CPython ignores SIGXFSZ; a program that embeds it, or asks for it, may not. The next export clears up."""
    code = f"""{FATAL}
from datetime import datetime
import polars as pl
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.transaction import ExportTransaction
with ExportTransaction(sys.argv[1], datetime(2025, 10, 25, 12), form=FileFormat()) as files:
    files.write(pl.DataFrame({{"number": range(20_000)}}))
    files.commit()
"""
    assert python(code, tmp_path / "exports").returncode == -signal.SIGXFSZ
    names = [path.name for path in (tmp_path / "exports").iterdir()]
    assert names
    assert {name[0] for name in names} == {"."}
    assert python(code.replace("20_000)}", "1_000)}"), tmp_path / "exports").returncode == 0
    assert sorted(contents(tmp_path / "exports")) == [f"{STEM}.csv", f"{STEM}.manifest.json"]


def test_command_line_ignores_sigxfsz(tmp_path: Path) -> None:
    """With any earlier content and any output: an unbuffered stream may take a part, too."""
    code = f"""{FATAL}
from feedback_etl.cli.app import main
from feedback_etl.cli.console import write_stdout
main(lambda: write_stdout(b"x" * 30_000))
"""
    for unbuffered in ("", "1"):
        with (tmp_path / "output").open("wb") as output:
            finished = subprocess.run(
                [sys.executable, "-c", code],
                env=environment({"PYTHONUNBUFFERED": unbuffered}),
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        message = "error: Stdout cannot be written: File too large. An export that was published is kept.\n"
        assert (finished.returncode, finished.stderr) == (5, message)
