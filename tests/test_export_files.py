"""Files of an export: private from the first byte, published completely or not at all, never overwritten."""

import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from folders import row_files
from processes import feedback_etl, python, tracer

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.demo.sample import create_sample_database
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import write_key
from feedback_etl.records import layout
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.final_names import link_exclusive, unlink_if_ours
from feedback_etl.storage.posix import fsync_directory, make_private_folder

NOW = datetime(2025, 10, 25, 12)
STEM = "feedback_training_20251025_120000"
PAIRS = pl.DataFrame({"number": [1, 2]})
REJECTED = pl.DataFrame({"feedback_id": [3], "reasons": ["formula"]})

# Export the numbers 1 and 2, reject 3, and print the names of the files or the error.
EXPORT = """
import sys
from datetime import datetime
from pathlib import Path
import polars as pl
from feedback_etl.errors import ExportFileError
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.transaction import ExportTransaction

def export(folder):
    try:
        with ExportTransaction(folder, datetime(2025, 10, 25, 12), form=FileFormat()) as files:
            files.write(pl.DataFrame({"number": [1, 2]}))
            files.write_rejected(pl.DataFrame({"feedback_id": [3], "reasons": ["formula"]}))
            published = files.commit()
        print(Path(published.pairs).name, Path(published.rejected).name)
    except ExportFileError as error:
        print(error)
        sys.exit(error.exit_code)
"""
EXPORT_ONCE = f"{EXPORT}\nexport(sys.argv[1])"
BOTH = f"{STEM}.csv {STEM}_rejected.txt\n"


class CommittedFiles(NamedTuple):
    """The paths of the files of an export."""

    pairs: Path | None
    rejected: Path | None
    items: Path | None = None


def commit(export: ExportTransaction) -> CommittedFiles:
    return CommittedFiles(*(Path(path) if path else None for path in export.commit()))


def export(folder: str | Path, pairs: pl.DataFrame = PAIRS, rejected: pl.DataFrame = REJECTED) -> CommittedFiles:
    with ExportTransaction(folder, NOW, form=FileFormat()) as files:
        files.write(pairs)
        files.write_rejected(rejected)
        return commit(files)


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files_in(folder: Path) -> list[str]:
    """All files below a folder, temporary ones included, but for complete manifests and what is beside the exports."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    kept = [path for path in paths if STATE_FOLDER not in path.parts]
    return sorted(str(path) for path in kept if path.name[0] == "." or not path.name.endswith(".manifest.json"))


def test_data_and_rejected_rows_are_published(tmp_path: Path) -> None:
    """Both files contain the appended rows and share a stem, and no other file remains."""
    with ExportTransaction(tmp_path, NOW, form=FileFormat()) as files:
        files.write(PAIRS)
        files.write(PAIRS.clear())
        files.write(PAIRS + 2)
        files.write_rejected(REJECTED.clear())
        files.write_rejected(REJECTED)
        published = commit(files)
    assert published == CommittedFiles(tmp_path / f"{STEM}.csv", tmp_path / "rejected" / f"{STEM}_rejected.txt")
    assert files_in(tmp_path) == [f"{STEM}.csv", f"rejected/{STEM}_rejected.txt"]
    assert (tmp_path / f"{STEM}.csv").read_bytes() == b"number\n1\n2\n3\n4\n"
    assert (tmp_path / f"rejected/{STEM}_rejected.txt").read_bytes() == b"feedback_id,reasons\n3,formula\n"


def test_empty_export_creates_no_file(tmp_path: Path) -> None:
    """Without rows there is no data file, and without rejected rows no list and no folder for it."""
    assert export(tmp_path, PAIRS.clear(), REJECTED.clear()) == CommittedFiles(None, None)
    assert files_in(tmp_path) == []


def test_rejected_rows_alone_are_published(tmp_path: Path) -> None:
    """The data file is None."""
    rejected = tmp_path / "rejected" / f"{STEM}_rejected.txt"
    assert export(tmp_path, PAIRS.clear()) == CommittedFiles(None, rejected)
    assert files_in(tmp_path) == [f"rejected/{STEM}_rejected.txt"]


def test_unpublished_files_are_removed(tmp_path: Path) -> None:
    """All temporary files, that of the manifest included."""
    with ExportTransaction(tmp_path, NOW, form=FileFormat()) as files:
        files.write(PAIRS)
        files.write_rejected(REJECTED)
        assert len(files_in(tmp_path)) == 3
    assert files_in(tmp_path) == []


def test_unpublished_file_is_hidden(tmp_path: Path) -> None:
    """Until it is published, no pattern that finds exports finds it, and its mode is 0600."""
    with ExportTransaction(tmp_path, NOW, form=FileFormat()) as files:
        files.write(PAIRS)
        files.write_rejected(REJECTED)
        making = [tmp_path / name for name in files_in(tmp_path)]
        assert [(path.name[0], path.suffix) for path in making] == [(".", ".tmp")] * 3
        assert [get_mode(path) for path in making] == [0o600] * 3


def test_relative_folder_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths of the files begin with the folder as the caller wrote it."""
    monkeypatch.chdir(tmp_path)
    published = export("exports/new")
    assert str(published.pairs) == f"exports/new/{STEM}.csv"
    assert str(published.rejected) == f"exports/new/rejected/{STEM}_rejected.txt"


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """Files are 0600; folders we make, parents included, are 0700."""
    assert python(EXPORT_ONCE, tmp_path / "a" / "b", umask=umask).stdout == BOTH
    made = [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/rejected"]
    assert [oct(get_mode(path)) for path in (*made, tmp_path / "a/b" / STATE_FOLDER)] == ["0o700"] * 4
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {oct(get_mode(path)) for path in files} == {"0o600"}
    assert {path.suffix for path in files} >= {".csv", ".json", ".jsonl"}


def test_files_are_private_from_their_creation(tmp_path: Path) -> None:
    """The system calls that create files and folders already carry the private mode."""
    log = tmp_path / "calls"
    target = tmp_path / "a" / "b"
    traced = [*tracer(), "-o", str(log), "-e", "trace=open,openat,creat,mkdir,mkdirat,chmod,fchmod,fchmodat"]
    subprocess.run([*traced, sys.executable, "-c", EXPORT_ONCE, target], umask=0, check=True, capture_output=True)
    calls = [line for line in log.read_text().splitlines() if str(tmp_path / "a") in line and "O_RDONLY" not in line]
    modes = {re.search(r", (0\d+)\) *=", line)[1] for line in calls if "O_CREAT" in line}  # type: ignore[index]
    assert modes == {"0600"}
    assert all("O_EXCL" in line and "O_NOFOLLOW" in line for line in calls if "O_CREAT" in line)
    assert any("audit.jsonl" in line for line in calls)
    assert {re.search(r", (0\d+)\) *=", line)[1] for line in calls if "mkdir" in line} == {"0700"}  # type: ignore[index]


@pytest.mark.parametrize("given", [0o755, 0o777, 0o750])
def test_existing_folder_keeps_its_mode(tmp_path: Path, given: int) -> None:
    """Also one with more permissions than a created folder."""
    folder = tmp_path / "exports"
    (folder / "rejected").mkdir(parents=True)
    for path in (folder, folder / "rejected"):
        path.chmod(given)
    export(folder)
    assert (get_mode(folder), get_mode(folder / "rejected")) == (given, given)


def test_symbolic_link_to_a_folder_is_accepted(tmp_path: Path) -> None:
    """The folder of the exports, which a user names, may be a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "exports").symlink_to(tmp_path / "disk")
    assert export(tmp_path / "exports").pairs == tmp_path / "exports" / f"{STEM}.csv"
    assert files_in(tmp_path / "disk") == [f"{STEM}.csv", f"rejected/{STEM}_rejected.txt"]


def test_exports_of_the_same_second_get_suffixes(tmp_path: Path) -> None:
    """Nothing is replaced, and the two files of an export share their suffix."""
    for number in range(3):
        export(tmp_path, PAIRS + number)
    stems = [STEM, f"{STEM}_1", f"{STEM}_2"]
    expected = [f"{stem}.csv" for stem in stems] + [f"rejected/{stem}_rejected.txt" for stem in stems]
    assert files_in(tmp_path) == sorted(expected)
    assert [(tmp_path / f"{stem}.csv").read_text() for stem in stems] == [
        "number\n1\n2\n",
        "number\n2\n3\n",
        "number\n3\n4\n",
    ]


@pytest.mark.parametrize("taken", [f"{STEM}.csv", f"rejected/{STEM}_rejected.txt"])
def test_stem_of_any_existing_file_is_not_reused(tmp_path: Path, taken: str) -> None:
    """Rejected rows of one run never share a stem with the data of another."""
    make_private_folder(tmp_path / "rejected")
    (tmp_path / taken).write_text("of another run")
    assert export(tmp_path, rejected=REJECTED.clear()).pairs == tmp_path / f"{STEM}_1.csv"
    assert export(tmp_path).rejected == tmp_path / "rejected" / f"{STEM}_2_rejected.txt"
    assert (tmp_path / taken).read_text() == "of another run"


def test_exhausted_names_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last suffix there is an error and no further file."""
    monkeypatch.setattr(layout, "_MAX_PER_SECOND", 2)
    export(tmp_path)
    export(tmp_path)
    with pytest.raises(ExportFileError, match="too many exports that began in this second: run again"):
        export(tmp_path)
    assert len(files_in(tmp_path)) == 4


def test_concurrent_threads_lose_no_file(tmp_path: Path) -> None:
    """Each thread publishes two files of its own."""
    begin = threading.Barrier(8)
    published: dict[int, CommittedFiles] = {}

    def work(thread: int) -> None:
        begin.wait()
        for number in range(thread * 100, thread * 100 + 5):
            rows = pl.DataFrame({"number": [number]})
            published[number] = export(tmp_path, rows, rows if number % 2 else rows.clear())

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_own_files(tmp_path, published)


def assert_own_files(folder: Path, published: dict[int, CommittedFiles]) -> None:
    """Every export has files of its own with its own number; odd numbers were rejected too."""
    assert len(published) == 40
    paths = [path for files in published.values() for path in files if path]
    assert files_in(folder) == sorted(str(path.relative_to(folder)) for path in paths)
    for number, (pairs, rejected, _) in published.items():
        assert pairs
        assert pairs.read_text() == f"number\n{number}\n"
        assert (rejected is not None) == bool(number % 2)
        if rejected:
            assert rejected.stem == f"{pairs.stem}_rejected"
            assert rejected.read_text() == f"number\n{number}\n"


@pytest.mark.slow
def test_concurrent_processes_lose_no_file(tmp_path: Path) -> None:
    """The same for four processes."""
    code = """
import sys
from datetime import datetime
import polars as pl
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.transaction import ExportTransaction
folder, first = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + 10):
    with ExportTransaction(folder, datetime(2025, 10, 25, 12), form=FileFormat()) as files:
        files.write(pl.DataFrame({"number": [number]}))
        if number % 2:
            files.write_rejected(pl.DataFrame({"number": [number]}))
        print(number, *files.commit())
"""
    commands = [[sys.executable, "-c", code, str(tmp_path), str(first)] for first in (0, 100, 200, 300)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for command in commands]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    published = {}
    for process in processes:
        for line in process.communicate()[0].splitlines():
            number, *paths = line.split()
            published[int(number)] = CommittedFiles(*(None if path == "None" else Path(path) for path in paths))
    assert_own_files(tmp_path, published)


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """So is a folder below a file, and one that a dangling link hides; all is left as it was."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for folder in ("file", "file/below/it", "dangling", "dangling/below"):
        with pytest.raises(ExportFileError, match=r"Nothing was written to .*: a part of the path is a file.*--output"):
            export(tmp_path / folder)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_file_in_place_of_the_rejected_folder_is_refused(tmp_path: Path) -> None:
    """The data file is not published without its list."""
    (tmp_path / "rejected").write_text("mine")
    with pytest.raises(ExportFileError, match=r"rejected: a part of the path is a file"):
        export(tmp_path)
    assert files_in(tmp_path) == ["rejected"]


def test_unwritable_folder_is_refused() -> None:
    """Existing or to be created, or closed to this user. Run as the user nobody, if necessary."""
    code = f"""{EXPORT}
import os, tempfile
with tempfile.TemporaryDirectory() as warm:
    export(warm)  # imports what the user nobody may not read
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
for folder in sys.argv[1:]:
    try:
        export(folder)
    except SystemExit as end:
        print(end.code)
"""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        folders = [top / "readable", top / "readable" / "new", top / "closed", top / "closed" / "new" / "deep"]
        (top / "readable").mkdir(mode=0o555)
        (top / "closed").mkdir(mode=0o000)
        top.chmod(0o755)
        lines = python(code, *folders).stdout.splitlines()
        for folder in folders[::2]:
            folder.chmod(0o700)
        assert lines[1:] == [
            line
            for folder in folders
            for line in (
                f"Nothing was written to {folder}: this user may not write there. Choose another folder with --output.",
                "5",
            )
        ]
        assert [list(folder.iterdir()) for folder in folders[::2]] == [[], []]


@pytest.mark.parametrize("dangling", [True, False])
@pytest.mark.parametrize("planted", [f"{STEM}.csv", f"rejected/{STEM}_rejected.txt", f"{STEM}_1.csv"])
def test_planted_symbolic_link_is_refused(tmp_path: Path, planted: str, dangling: bool) -> None:
    """Nothing is written through it or beside it, and its target is unchanged."""
    folder, victim = tmp_path / "exports", tmp_path / "victim"
    make_private_folder(folder / "rejected")
    if planted == f"{STEM}_1.csv":
        (folder / f"{STEM}.csv").write_text("earlier")
    if not dangling:
        victim.write_text("precious")
    (folder / planted).symlink_to(victim)
    before = files_in(tmp_path)
    with pytest.raises(ExportFileError, match=rf"{planted} is a symbolic link.*Remove it"):
        export(folder)
    assert files_in(tmp_path) == before
    assert dangling or victim.read_text() == "precious"


def test_rejected_rows_are_withdrawn_if_the_data_cannot_be_linked(tmp_path: Path) -> None:
    """Another program removes the temporary file of the data before it is linked."""
    with ExportTransaction(tmp_path, NOW, form=FileFormat()) as files:
        files.write(PAIRS)
        files.write_rejected(REJECTED)
        next(tmp_path.glob(".*.csv.tmp")).unlink()
        with pytest.raises(ExportFileError, match="No such file"):
            files.commit()
        assert row_files(tmp_path / "rejected") == []
    assert files_in(tmp_path) == []


NO_LINKS = ("link,linkat:error=EPERM",)


def test_files_are_renamed_if_links_are_not_supported(tmp_path: Path) -> None:
    """As on FAT and some network drives; nothing is replaced there either."""
    code = f"{EXPORT}\nexport(sys.argv[1])\nPath(sys.argv[1], 'feedback_training_20251025_120000_2.csv').touch()\n"
    code += "export(sys.argv[1])\nexport(sys.argv[1])"
    output = python(code, tmp_path, injections=NO_LINKS).stdout
    stems = [STEM, f"{STEM}_1", f"{STEM}_3"]
    assert output == "".join(f"{stem}.csv {stem}_rejected.txt\n" for stem in stems)
    assert len(files_in(tmp_path)) == 7
    assert [(tmp_path / f"{stem}.csv").read_text() for stem in stems] == ["number\n1\n2\n"] * 3


def test_failure_without_links_withdraws_renamed_files(tmp_path: Path) -> None:
    """A renamed list of rejected rows does not outlive a data file that could not be renamed."""
    finished = python(EXPORT_ONCE, tmp_path, injections=(*NO_LINKS, "renameat2:error=EIO:when=2"))
    assert (finished.returncode, files_in(tmp_path)) == (5, [])
    assert "the disk reports an error" in finished.stdout


def test_without_links_the_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    """Renamed files have no staged link that shows whose they are: the staged manifest names them by their digest."""
    python(EXPORT_ONCE, tmp_path, injections=(*NO_LINKS, "renameat2:signal=SIGKILL:when=3"))
    published = {name for name in files_in(tmp_path) if not Path(name).name.startswith(".")}
    assert published == {f"{STEM}.csv", f"rejected/{STEM}_rejected.txt"}
    with ExportTransaction(tmp_path, NOW, form=FileFormat()):
        pass
    assert files_in(tmp_path) == []


def test_name_taken_concurrently_is_not_replaced(tmp_path: Path) -> None:
    """Both ways of naming keep an existing file, and a file that gets no final name keeps its temporary one."""
    ours, taken = tmp_path / "ours", tmp_path / "taken"
    ours.write_text("ours")
    taken.write_text("another's")
    with pytest.raises(FileExistsError):
        link_exclusive(ours, taken)
    unlink_if_ours(ours, taken)
    code = """
import sys
from pathlib import Path
from feedback_etl.storage.final_names import link_exclusive
try:
    link_exclusive(Path(sys.argv[1]), Path(sys.argv[2]))
except FileExistsError:
    print("taken")
"""
    assert python(code, ours, taken, injections=NO_LINKS).stdout == "taken\n"
    assert (ours.read_text(), taken.read_text()) == ("ours", "another's")


@pytest.mark.sample("1")
@pytest.mark.parametrize("when", ["1", "2"])
def test_run_that_loses_a_name_uses_the_next(tmp_path: Path, when: str) -> None:
    """Here the list of rejected rows, or the data after the list had its name."""
    output = python(EXPORT_ONCE, tmp_path, injections=(f"link,linkat:error=EEXIST:when={when}",)).stdout
    assert output == f"{STEM}_1.csv {STEM}_1_rejected.txt\n"
    assert files_in(tmp_path) == [f"{STEM}_1.csv", f"rejected/{STEM}_1_rejected.txt"]


def test_neither_links_nor_safe_renames_is_an_error(tmp_path: Path) -> None:
    """A plain rename could replace a file, and is never tried."""
    finished = python(EXPORT_ONCE, tmp_path, injections=(*NO_LINKS, "renameat2:error=EINVAL"))
    assert (finished.returncode, files_in(tmp_path)) == (5, [])
    assert "can neither link files nor rename them without replacing others" in finished.stdout


def test_every_file_and_folder_is_synced(tmp_path: Path) -> None:
    """The parent of a new folder; the log; the rejected, the pairs, the manifest; a folder after each name; the log."""
    log = tmp_path / "calls"
    traced = [*tracer(), "-y", "-o", str(log), "-e", "trace=fsync"]
    subprocess.run([*traced, sys.executable, "-c", EXPORT_ONCE, tmp_path / "out"], check=True, capture_output=True)
    synced = [Path(path).name.removeprefix(".") for path in re.findall(r"<(.*?)>", log.read_text())]
    files = [f"{STEM}_rejected.txt.tmp", f"{STEM}.csv.tmp", f"{STEM}.manifest.json.tmp"]
    state, audit = STATE_FOLDER.removeprefix("."), "audit.jsonl"
    made = [tmp_path.name, "out"]
    assert synced == [*made, state, audit, "out", *files, "rejected", "out", "out", audit]


@pytest.mark.sample("1", "11", "6")
@pytest.mark.parametrize("when", range(1, 12))
def test_failing_fsync_is_an_error(tmp_path: Path, when: int) -> None:
    """Of any file or folder: nothing is published, and nothing remains."""
    finished = python(EXPORT_ONCE, tmp_path, injections=(f"fsync:error=EIO:when={when}",))
    assert (finished.returncode, files_in(tmp_path)) == (5, [])
    assert list(tmp_path.glob("*.json")) == []
    assert "the disk reports an error" in finished.stdout


def test_file_system_without_folder_sync_is_accepted(tmp_path: Path) -> None:
    """Some network file systems answer EINVAL when a folder is synced."""
    folders = [word for name in ("", "rejected", STATE_FOLDER) for word in ("-P", str(tmp_path / name))]
    failing = [*tracer(), "-o", "/dev/null", *folders, "-e", "trace=fsync", "-e", "inject=fsync:error=EINVAL"]
    done = subprocess.run(
        [*failing, sys.executable, "-c", EXPORT_ONCE, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == BOTH


def test_file_that_cannot_be_locked_is_removed(tmp_path: Path) -> None:
    """Without a lock it would look like a file of a dead run."""
    finished = python(EXPORT_ONCE, tmp_path, injections=("flock:error=ENOLCK:when=1",))
    assert (finished.returncode, files_in(tmp_path)) == (5, [])
    assert "No locks available" in finished.stdout


def test_unpublished_file_is_locked(tmp_path: Path) -> None:
    """The lock shows that its writer is alive."""
    import fcntl

    with ExportTransaction(tmp_path, NOW, form=FileFormat()):
        (name,) = files_in(tmp_path)  # the manifest's, which is named last
        with (tmp_path / name).open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk (it takes root)")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    """Leave no page of a disk free."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))


def test_full_disk_is_reported_and_leaves_no_file(small_disk: Path) -> None:
    """Too many rows for the disk: in one batch, in the rejected rows, or in the last bytes."""
    many = pl.DataFrame({"number": range(20_000)})
    for pairs, rejected in ((many, REJECTED), (PAIRS, many)):
        with pytest.raises(ExportFileError, match="the disk is full"):
            export(small_disk, pairs, rejected)
        assert files_in(small_disk) == []
    fill(small_disk)
    with pytest.raises(ExportFileError, match="the disk is full"):
        export(small_disk)
    with pytest.raises(ExportFileError, match=r"could not be written .*No space left"):
        write_key(small_disk / "key")
    assert files_in(small_disk) == ["filler"]
    (small_disk / "filler").unlink()
    assert export(small_disk).pairs
    assert files_in(small_disk) == [f"{STEM}.csv", f"rejected/{STEM}_rejected.txt"]


def test_export_to_a_full_disk_exits_with_5(small_disk: Path, tmp_path: Path) -> None:
    """The command reports the cause, and the folder is empty."""
    create_sample_database(tmp_path / "app.db", rows=2_000, now=datetime.now())
    run = feedback_etl(
        "export", "--days", "-1", "--unkeyed", "--database-url", f"sqlite:///{tmp_path}/app.db", "--output", small_disk
    )
    assert run.returncode == 5
    assert run.stderr.startswith(f"error: Nothing was written to {small_disk}")
    assert run.stderr.endswith(": the disk is full. Choose another folder with --output.\n")
    assert (run.stdout, files_in(small_disk)) == ("", [])


def test_concurrently_created_folder_is_no_error(tmp_path: Path) -> None:
    """Many threads create the same nested folders."""
    begin = threading.Barrier(8)
    failures: list[OSError] = []

    def work() -> None:
        begin.wait()
        for number in range(20):
            try:
                make_private_folder(tmp_path / str(number) / "a" / "b")
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {get_mode(path) for path in tmp_path.rglob("*")} == {0o700}


def test_folder_that_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    """Such as one that is not there."""
    with pytest.raises(FileNotFoundError):
        fsync_directory(tmp_path / "missing")


def test_link_in_place_of_the_rejected_folder_is_refused(tmp_path: Path) -> None:
    """A planted link must not lead the list of rejected rows elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rejected").symlink_to(elsewhere)
    with pytest.raises(ExportFileError, match="symbolic link"):
        export(tmp_path / "out")
    assert list(elsewhere.iterdir()) == []
    assert files_in(tmp_path / "out") == []


def test_link_in_place_of_the_log_folder_is_refused(tmp_path: Path) -> None:
    """Nor must one lead the log elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / STATE_FOLDER).symlink_to(elsewhere)
    with pytest.raises(ExportFileError, match="symbolic link"):
        export(tmp_path / "out")
    assert list(elsewhere.iterdir()) == []
