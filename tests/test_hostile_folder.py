"""A folder that someone else can write to: no command hangs, runs out of memory, crashes or prints what a name says."""

import contextlib
import gzip
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import exported, people
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Here
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.data_files import csv_files
from feedback_etl.data_files.csv_files import iter_lines
from feedback_etl.data_files.row_filter import count_rows
from feedback_etl.data_files.verified_files import open_verified
from feedback_etl.errors import ExportFileError, FeedbackError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.manifest import parse_manifest
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.posix import hash_file

STEM = "feedback_training_20251025_120000"
PATIENCE_SECONDS = 30
SPECIAL_FILES = [
    f"{STEM}.csv",
    f"{STEM}.manifest.json",
    f".{STEM}.csv.tmp",
    f".{STEM}.csv.tmp2",
    f".{STEM}.manifest.json.tmp",
    ".feedback_etl/audit.jsonl",
    ".feedback_etl/lock",
    ".feedback_etl/tombstones.jsonl",
    f".feedback_etl/{STEM}.rows",
    f"rejected/{STEM}_rejected.txt",
    f"{STEM}/part-00000.csv",
    "copy.csv",
    "feedback_training_20240101_000000.manifest.json",
]
COMMANDS = {
    "list": ["list"],
    "erase": ["erase", "--analysis-ids-file", "ids"],
    "verify": ["audit", "verify"],
    "show": ["audit", "show"],
    "check": ["check"],
    "report": ["report", "--output", "page.html"],
    "prune": ["prune", "--keep-days", "9999"],
    "adopt": ["adopt"],
    "risk": ["risk", "--person", "analysis_hash"],
}


@pytest.fixture
def folder(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the default folder with one incremental export, after an erasure; configure the key and the database."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
    monkeypatch.setattr("feedback_etl.compliance.rows.GUESSED_IDS", 1_000)
    sqlite_database.fill(**people(3, each=4))
    folder = Path("ml/feedback_training")
    exported(sqlite_database, folder, incremental=True)
    fe.privacy.erase(folder, analysis_ids=[101], keys=[Key(KEY)])
    Path("ids").write_text("102\n")
    return folder


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Return a runner of command lines in this process."""
    return Here(capfd, monkeypatch)


@contextlib.contextmanager
def limited_wait(pipe: Path) -> Iterator[None]:
    """Fail if the block still runs after a while, and first release readers that wait for a writer of the pipe."""
    done, is_late = threading.Event(), threading.Event()

    def release() -> None:
        while not done.wait(0.05 if is_late.is_set() else PATIENCE_SECONDS):
            is_late.set()
            with contextlib.suppress(OSError):
                os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not is_late.is_set()


def put_special_file(folder: Path, name: str, make: Callable[[Path], Any] = os.mkfifo) -> Path:
    """Put a pipe in the place of a file, and let the manifest describe it as empty, so that its size matches."""
    path = folder / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    make(path)
    manifest = folder / f"{STEM}.manifest.json"
    if manifest.is_file():
        content = json.loads(manifest.read_text())
        for file in content["files"]:
            file["bytes"] = 0 if file["path"] == name else file["bytes"]
        manifest.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", SPECIAL_FILES)
def test_no_command_waits_for_a_pipe(here: Here, folder: Path, name: str) -> None:
    """It ignores the pipe, or refuses it in a sentence."""
    pipe = put_special_file(folder, name)
    with limited_wait(pipe):
        for command, arguments in COMMANDS.items():
            files = [pipe] if command in ("adopt", "risk") else []
            ended = here(*arguments, *files)
            assert "unexpected" not in ended.err, command
            assert ended.code == 0 or "error: " in ended.err, command
        with contextlib.suppress(FeedbackError):
            fe.scan_training(folder).collect()


def test_export_does_not_wait_for_a_pipe(sqlite_database: Database, folder: Path) -> None:
    """The audit log, the tombstones, the lock and the staged manifest of a run are read by each export."""
    for name in (".feedback_etl/tombstones.jsonl", ".feedback_etl/audit.jsonl", f".{STEM}.manifest.json.tmp"):
        with limited_wait(put_special_file(folder, name)), contextlib.suppress(FeedbackError):
            exported(sqlite_database, folder)


def test_link_to_itself_is_refused_in_a_sentence(folder: Path) -> None:
    """Like any other file of an export that cannot be opened, such as the links of a shared one."""
    (rows,) = list_manifests(folder)[-1].all("rows")
    path = folder / rows.path
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(ExportFileError, match=r"cannot be read: .*; restore it"):
        open_verified(open_storage(folder), rows, "restore it").__enter__()  # it does not open


def test_sockets_and_devices_are_refused(here: Here, folder: Path) -> None:
    """As the audit log."""
    with socket.socket(socket.AF_UNIX) as listener:
        put_special_file(folder, ".feedback_etl/audit.jsonl", lambda path: listener.bind(str(path)))
        ended = here("audit", "verify")
    assert ended.code == 5
    assert "audit.jsonl is not a regular file" in ended.err


def test_pipe_without_a_manifest_is_not_offered_for_adoption(here: Here, folder: Path) -> None:
    """It cannot be adopted."""
    os.mkfifo(folder / "copy.csv")
    assert here("list").out.splitlines()[-2:] == [
        "copy.csv  unmanaged: no manifest",
        "    it is not a regular file: remove it",
    ]


def test_data_file_that_is_a_pipe_is_reported_by_erase(here: Here, folder: Path) -> None:
    """Other files are erased from."""
    path = folder / f"{STEM}.csv"
    path.unlink()
    os.mkfifo(path)
    with limited_wait(path):
        ended = here("erase", "--analysis-ids-file", "ids")
    assert ended.code == 5
    assert f"not inspected, damaged: {STEM}.csv" in ended.err


def bomb(path: Path, size: int) -> None:
    """Write a gzip file of one record of zeros."""
    with gzip.open(path, "wb") as file:
        file.write(b"analysis_hash,recommendation_id\n")
        for _ in range(size >> 20):
            file.write(b"0" * (1 << 20))


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of 8 MiB is enough."""
    monkeypatch.setattr(csv_files, "MIN_DECOMPRESSED_BYTES", 1 << 20)


@pytest.mark.usefixtures("small_limits")
def test_compressed_file_with_far_too_much_content_is_refused(here: Here, tmp_path: Path) -> None:
    """By all that read it, in a sentence."""
    path = tmp_path / "feedback_training_20240101_000000.csv.gz"
    bomb(path, 8 << 20)
    for arguments in (["adopt", "--unkeyed"], ["risk", "--quasi-identifier", "analysis_hash"]):
        ended = here(*arguments, path)
        assert ended.code == 5
        assert "cannot be read" in ended.err


@pytest.mark.usefixtures("small_limits")
def test_scan_refuses_a_bomb_that_its_manifest_describes(sqlite_database: Database, tmp_path: Path) -> None:
    """Polars would decompress all of it in memory."""
    sqlite_database.fill(**people(3))
    path = Path(exported(sqlite_database, tmp_path, compression="gzip").export_filename)
    header = next(iter_lines(path))
    with gzip.open(path, "wb") as file:
        file.write(header + b"0" * (8 << 20))
    manifest = next(tmp_path.glob("*.manifest.json"))
    content = json.loads(manifest.read_text())
    (pairs,) = [file for file in content["files"] if file["kind"] == "pairs"]
    pairs["bytes"], pairs["sha256"] = path.stat().st_size, hash_file(path)
    manifest.write_text(json.dumps(content))
    os.utime(path, (1, 1))
    with pytest.raises(ExportFileError, match="cannot be read"):
        fe.scan_training(tmp_path).collect()


@pytest.mark.parametrize("start", [b"", b'"'], ids=["no line end", "no closing quote"])
def test_record_without_end_is_refused(tmp_path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of being collected in memory."""
    monkeypatch.setattr(csv_files, "MAX_RECORD_BYTES", 1 << 16)
    path = tmp_path / "old.csv"
    path.write_bytes(b"analysis_hash\n" + start + (b"0" * (1 << 10) + b"\n" * bool(start)) * 100)
    with pytest.raises(ExportFileError, match="damaged"):
        count_rows(path)


ODD_VALUES = [None, True, -1, 1e308, 2**70, "", "x", [], [None], ["x"], [["x"]], {}, {"x": 1}, [1, "a"]]
_PATHS = [
    ("chain", "known_since"),
    ("chain", "counted"),
    ("chain", "counted", 0),
    ("chain", "counted", 0, 0),
    ("chain", "counted", 0, 1),
    ("chain", "counted", 0, 2),
    *(("risk", name) for name in ("k", "average_risk", "required_k", "rows_in_classes_under_5", "quasi_identifiers")),
    *(("settings", name) for name in ("extra_columns", "age_edges", "overridden", "timestamp_precision", "k")),
    *(("files", 0, name) for name in ("path", "kind", "rows", "becoming", "sha256")),
    ("statistics",),
    ("window",),
    ("consent",),
    ("columns",),
    ("tools",),
]


@pytest.mark.parametrize("path", _PATHS, ids=str)
def test_odd_manifest_is_read_or_refused_in_a_sentence(
    sqlite_database: Database, folder: Path, path: tuple[Any, ...]
) -> None:
    """Never by a TypeError."""
    manifest = folder / f"{STEM}.manifest.json"
    original = manifest.read_text()
    for value in ODD_VALUES:
        content = json.loads(original)
        place = content
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        manifest.write_text(json.dumps(content))
        with contextlib.suppress(FeedbackError):
            fe.exports.list_exports(folder)
            fe.report.write_report("page.html", folder)
        with contextlib.suppress(FeedbackError):
            fe.scan_training(folder)
        with contextlib.suppress(FeedbackError):
            fe.privacy.erase(folder, analysis_ids=[1], keys=[Key(KEY)], dry_run=True)
        if path[0] == "chain":
            with contextlib.suppress(FeedbackError):
                exported(sqlite_database, folder, incremental=True)
                manifest.with_name(f"{STEM}_1.manifest.json").unlink(missing_ok=True)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
@settings(max_examples=50)
def test_json_that_is_no_manifest(value: Any) -> None:
    """Any kind of file."""
    with pytest.raises(ExportFileError, match="is not a manifest"):
        parse_manifest(json.dumps(value).encode(), f"{STEM}.manifest.json")


HOSTILE_NAMES = ["\x1b[2J\x1b]0;owned\x07.csv", "x\nfeedback_training_20251025_120000.csv  9 rows.csv", "\u202egro.csv"]


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, os.fsdecode(b"\xff\x9b31m.csv")], ids=ascii)
def test_control_characters_of_names_do_not_reach_the_terminal(here: Here, folder: Path, name: str) -> None:
    """They are escaped on stdout and on stderr, by all commands."""
    path = folder / name
    path.write_text("analysis_hash\n73475cb40a568e8d\n")
    for arguments in (["list"], ["erase", "--analysis-ids-file", "ids"], ["check"], ["adopt", "--unkeyed", path]):
        ended = here(*arguments)
        assert all(line.isprintable() for line in (ended.out + ended.err).splitlines()), arguments
        assert "unexpected" not in ended.err
    listed = here("list", "--json")
    assert listed.out.isascii()
    # A heading, a header and an export of each key with a blank line between, or an unmanaged file with its remedy.
    assert len(here("list").out.splitlines()) == (7 if ended.code == 0 else 5)
