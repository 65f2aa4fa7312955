"""The promises of `storage.base.Storage`, kept by a folder, an object store in memory and a server that speaks S3."""

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from typing import Any, cast

import obstore
import polars as pl
import pytest
from object_store import MemoryStorage

from feedback_etl.errors import ExportFileError, FolderLockedError
from feedback_etl.storage.base import LOCK_TIMEOUT, ConflictError, Storage
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage

LARGE = bytes(range(256)) * 10_000
WRITERS = 8


@pytest.fixture
def served(served_bucket: Callable[[str], None]) -> ObjectStorage:
    """An empty prefix of a bucket of a server."""
    name = f"test-{uuid.uuid4().hex}"
    served_bucket(name)
    return ObjectStorage(f"s3://{name}/exports")


@pytest.fixture
def memory() -> MemoryStorage:
    """An empty object store in memory."""
    return MemoryStorage()


@pytest.fixture
def folder(tmp_path: Path) -> LocalStorage:
    """A folder that does not exist yet."""
    return LocalStorage(tmp_path / "exports")


@pytest.fixture(params=["folder", "memory", "served"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """An empty storage of each kind."""
    storage: Storage = request.getfixturevalue(request.param)
    return storage


@pytest.fixture(params=["memory", "served"])
def objects(request: pytest.FixtureRequest) -> ObjectStorage:
    """An empty object store of each kind."""
    objects: ObjectStorage = request.getfixturevalue(request.param)
    return objects


def put(storage: Storage, name: str, content: bytes) -> str:
    """Put a new file; a folder must exist before."""
    if path := storage.local_path(name):
        path.parent.mkdir(parents=True, exist_ok=True)
    return storage.put_new(name, content)


def put_staged(storage: Storage, name: str, content: bytes) -> None:
    """Write a file at a staging path and put it."""
    with storage.staging_path(name) as staged:
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        storage.put_new(name, staged)


def replace(storage: Storage, name: str, content: bytes | Path, version: str) -> str:
    """Replace a file as the interface demands it: under the lock."""
    with storage.lock(LOCK_TIMEOUT):
        return storage.replace(name, content, version)


def run_concurrently(task: Callable[[int], Any]) -> list[Any]:
    """Return the results of one task for each writer."""
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(task, range(WRITERS)))


class TestListing:
    """exists, names, folders, list_files, stat_files."""

    def test_files_are_listed_by_folder_without_hidden_ones(self, storage: Storage) -> None:
        """Sorted by name; a folder that does not exist is empty."""
        assert not storage.exists()
        assert (storage.names(), storage.folders(), storage.list_files()) == ([], [], {})
        for name in ("b", "a", ".hidden", "folder/c", ".state/d"):
            put(storage, name, b"content")
        assert storage.exists()
        assert (storage.names(), storage.names("folder"), storage.names("nowhere")) == (["a", "b"], ["folder/c"], [])
        assert storage.folders() == ["folder"]

    def test_all_files_below_a_folder_are_listed_with_size_and_version(self, storage: Storage) -> None:
        """Hidden ones and those of other folders too."""
        versions = {name: put(storage, name, name.encode()) for name in ("a", ".hidden", "folder/c", ".state/x/d")}
        listed = storage.list_files()
        assert {name: (info.bytes, info.version) for name, info in listed.items()} == {
            name: (len(name), version) for name, version in versions.items()
        }
        assert storage.list_entries() == sorted(listed)
        assert storage.list_files("folder") == {"folder/c": listed["folder/c"]}
        assert storage.list_files(".state").keys() == {".state/x/d"}
        assert storage.list_files("nowhere") == {}

    def test_named_files_are_described_if_they_exist(self, storage: Storage) -> None:
        """In the root, in one folder, in several."""
        for name in ("a", ".hidden", "folder/c", "folder/d"):
            put(storage, name, b"content")
        listed = storage.list_files()
        for names in (["a", "c", ".hidden", "folder/c"], ["folder/d", "folder/e"], []):
            assert storage.stat_files(names) == {name: listed[name] for name in names if name in listed}

    def test_modification_times_do_not_decrease(self, storage: Storage) -> None:
        """In nanoseconds, of whole seconds in an object store."""
        for name in ("first", "second"):
            put(storage, name, b"content")
        infos = storage.stat_files(["first", "second"])
        assert infos["first"].modified_ns <= infos["second"].modified_ns
        assert infos["first"].modified_ns > 1_700_000_000 * 10**9


class TestReading:
    """read, read_version, local_copy, local_copy_version, stat_with_digest, uri."""

    @pytest.mark.parametrize("content", [b"", b"content", LARGE], ids=["empty", "small", "large"])
    def test_a_file_is_read_as_it_was_written(self, storage: Storage, content: bytes) -> None:
        """By every way of reading, with the same version."""
        version = put(storage, "folder/name", content)
        assert storage.read("folder/name") == content
        assert storage.read_version("folder/name") == (content, version)
        assert storage.stat_with_digest("folder/name") == (len(content), hashlib.sha256(content).hexdigest())
        with storage.local_copy("folder/name") as path:
            assert path.read_bytes() == content
            assert path.name == "name"
        with storage.local_copy_version("folder/name") as (path, copied):
            assert (path.read_bytes(), copied) == (content, version)

    def test_a_missing_file_is_reported(self, storage: Storage) -> None:
        """By every way of reading."""
        put(storage, "other", b"content")
        for read in (storage.read, storage.read_version, storage.stat_with_digest):
            with pytest.raises(FileNotFoundError):
                read("name")
        for copy in (storage.local_copy, storage.local_copy_version):
            with pytest.raises(FileNotFoundError), copy("name"):
                pass

    def test_copies_of_objects_are_private_and_removed(self, objects: ObjectStorage) -> None:
        """They contain rows of people."""
        put(objects, "name", b"content")
        with objects.local_copy("name") as path:
            assert (path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077) == (0, 0)
        assert not path.parent.exists()

    @pytest.mark.parametrize("storage", ["folder", "served"], indirect=True)
    def test_polars_reads_the_uri(self, storage: Storage) -> None:
        """With the options of the storage."""
        put(storage, "rows.csv", b"number\n1\n2\n")
        rows = pl.scan_csv(storage.uri("rows.csv"), glob=False, storage_options=storage.polars_options)
        assert rows.collect()["number"].to_list() == [1, 2]

    def test_locations_are_a_path_or_a_url(self, folder: LocalStorage, memory: MemoryStorage) -> None:
        """Absolute ones can be opened elsewhere."""
        assert folder.local_path("a/b") == folder.path / "a/b" == Path(folder.uri("a/b"))
        assert folder.local_path() == folder.path
        assert LocalStorage(Path("exports")).absolute_uri() == str(Path.cwd() / "exports")
        assert cast(Storage, memory).local_path() is None
        assert (memory.uri("a/b"), memory.absolute_uri()) == (f"{memory}/a/b", "s3://memory/exports")


class TestNewFiles:
    """staging_path and put_new."""

    def test_a_staged_file_is_not_visible_and_is_removed(self, storage: Storage) -> None:
        """Whether it was put or not."""
        put(storage, "kept", b"content")
        with suppress(KeyboardInterrupt), storage.staging_path("interrupted") as staged:
            staged.write_bytes(b"half")
            assert storage.names() == ["kept"]
            raise KeyboardInterrupt
        assert not staged.exists()
        put_staged(storage, "staged", b"content")
        assert storage.list_files().keys() == {"kept", "staged"}
        assert storage.read("staged") == b"content"

    def test_an_existing_file_is_not_replaced(self, storage: Storage) -> None:
        """Neither by bytes nor by a staged file."""
        put(storage, "name", b"one")
        for write in (put, put_staged):
            with pytest.raises(FileExistsError):
                write(storage, "name", b"two")
        assert storage.read("name") == b"one"
        assert storage.list_files().keys() == {"name"}

    def test_one_of_many_concurrent_writers_creates_a_file(self, storage: Storage) -> None:
        """The file contains what that one wrote."""

        def attempt(number: int) -> bool:
            with suppress(FileExistsError):
                put_staged(storage, "name", b"%d" % number)
                return True
            return False

        won = [number for number, did in enumerate(run_concurrently(attempt)) if did]
        assert [b"%d" % number for number in won] == [storage.read("name")]


class TestReplacement:
    """replace and overwrite."""

    def test_the_version_that_was_read_is_replaced(self, storage: Storage) -> None:
        """By bytes or by a staged file; each time by a new version."""
        first = put(storage, "name", b"one")
        second = replace(storage, "name", b"two", first)
        assert storage.read_version("name") == (b"two", second)
        with storage.staging_path("name") as staged:
            staged.write_bytes(b"three")
            third = replace(storage, "name", staged, second)
        assert storage.read_version("name") == (b"three", third)
        assert len({first, second, third}) == 3
        assert {*storage.list_files()} - {".feedback_etl/lock"} == {"name"}

    def test_another_version_is_not_replaced(self, storage: Storage) -> None:
        """Nor a file that was removed, nor one that was removed and written again."""
        first = put(storage, "name", b"one")
        second = replace(storage, "name", b"two", first)
        with pytest.raises(ConflictError):
            replace(storage, "name", b"three", first)
        assert storage.read_version("name") == (b"two", second)
        storage.delete("name")
        with pytest.raises(ConflictError):
            replace(storage, "name", b"three", second)
        put(storage, "name", b"another")
        with pytest.raises(ConflictError):
            replace(storage, "name", b"three", second)
        assert storage.read("name") == b"another"

    def test_no_concurrent_replacement_is_lost(self, storage: Storage) -> None:
        """Each writer appends its number, and reads the file again after a conflict."""
        put(storage, "numbers", b"")

        def add_number(writer: int) -> None:
            while True:
                content, version = storage.read_version("numbers")
                with suppress(ConflictError):
                    replace(storage, "numbers", content + b"%d" % writer, version)
                    return

        run_concurrently(add_number)
        assert sorted(storage.read("numbers")) == sorted(b"01234567")

    def test_equal_contents_of_two_writers_are_one_put(self, objects: ObjectStorage) -> None:
        """After a lost answer they cannot be distinguished: where the writer matters, the content contains a nonce."""
        first = put(objects, "name", b"one")
        assert put(objects, "name", b"one") == first
        second = objects.replace("name", b"two", first)
        assert objects.replace("name", b"two", first) == second

    def test_a_derived_file_is_overwritten(self, storage: Storage) -> None:
        """Whether it exists or not."""
        put(storage, "other", b"content")
        for content in (b"one", b"two"):
            storage.overwrite("name", content)
            assert storage.read("name") == content
        assert storage.list_files().keys() == {"name", "other"}


class TestRemoval:
    """delete."""

    def test_deleted_files_are_gone(self, storage: Storage) -> None:
        """One or many; missing ones are ignored, also in missing folders."""
        for name in ("a", "b", "folder/c", "folder/d"):
            put(storage, name, b"content")
        for _ in range(2):
            storage.delete("a")
        assert storage.list_files().keys() == {"b", "folder/c", "folder/d"}
        storage.delete("folder/c", "missing", "missing/too", "b")
        assert storage.list_files().keys() == {"folder/d"}
        storage.delete()
        assert storage.names("folder") == ["folder/d"]


class TestAppendOnlyFiles:
    """append_lines, read_lines, open_lines, read_numbered."""

    def test_lines_are_kept_in_order(self, storage: Storage) -> None:
        """A missing file has none."""
        assert storage.read_lines(".state/lines.jsonl") == b""
        assert storage.read_numbered(".state/lines.jsonl") == {}
        for number in range(5):
            storage.append_lines(".state/lines.jsonl", b"%d\n" % number)
        assert storage.read_lines(".state/lines.jsonl") == b"0\n1\n2\n3\n4\n"
        numbered = {number: b"%d\n" % (number - 1) for number in range(1, 6)}
        assert storage.read_numbered(".state/lines.jsonl") == numbered
        assert storage.read_numbered(".state/lines.jsonl", after=3) == {4: b"3\n", 5: b"4\n"}

    def test_number_is_reserved_once(self, storage: Storage) -> None:
        """As that of a record in a log."""
        put_numbered(storage, "log.jsonl", 1, b"one\n")
        with pytest.raises(FileExistsError):
            put_numbered(storage, "log.jsonl", 1, b"another\n")
        put_numbered(storage, "log.jsonl", 2, b"two\n")
        assert storage.read_numbered("log.jsonl") == {1: b"one\n", 2: b"two\n"}
        assert storage.read_lines("log.jsonl") == b"one\ntwo\n"

    def test_one_of_many_concurrent_writers_takes_a_number(self, storage: Storage) -> None:
        """The line is the one of that writer."""

        def attempt(writer: int) -> bool:
            with suppress(FileExistsError):
                put_numbered(storage, "log.jsonl", 1, b"%d\n" % writer)
                return True
            return False

        won = [writer for writer, did in enumerate(run_concurrently(attempt)) if did]
        assert [b"%d\n" % writer for writer in won] == [storage.read_lines("log.jsonl")]

    def test_concurrent_appends_are_all_kept(self, storage: Storage) -> None:
        """Whole, each writer's in order."""

        def append(writer: int) -> None:
            for number in range(3):
                storage.append_lines("log.jsonl", b"%d %d\n" % (writer, number))

        run_concurrently(append)
        lines = [tuple(map(int, line.split())) for line in storage.read_lines("log.jsonl").splitlines()]
        assert sorted(lines) == [(writer, number) for writer in range(WRITERS) for number in range(3)]
        for writer in range(WRITERS):
            assert [number for name, number in lines if name == writer] == [0, 1, 2]

    def test_a_torn_line_is_terminated_before_the_next(self, folder: LocalStorage) -> None:
        """A crash tears one in a local file only; it keeps its number."""
        folder.append_lines("log.jsonl", b"one\n")
        with (folder.path / "log.jsonl").open("ab") as file:
            file.write(b"tor")
        assert folder.read_numbered("log.jsonl") == {1: b"one\n", 2: b"tor"}
        put_numbered(folder, "log.jsonl", 3, b"three\n")
        assert folder.read_lines("log.jsonl") == b"one\ntor\nthree\n"


class TestCreate:
    """create and explain_write_errors."""

    def test_created_storage_is_empty_and_can_be_created_again(self, storage: Storage) -> None:
        """A folder is private; an object store gets no object."""
        storage.create()
        storage.create()
        assert storage.list_files() == {}
        if path := storage.local_path():
            assert path.stat().st_mode & 0o777 == 0o700
        put(storage, "file", b"content")

    def test_message_names_the_place_that_is_full(self, storage: Storage) -> None:
        """The folder; for an object store the temporary folder in which files are staged."""
        path = storage.local_path("rejected")
        place = path or gettempdir()
        with (
            pytest.raises(ExportFileError, match=f"^Nothing was written to {place}: the disk is full"),
            storage.explain_write_errors("rejected"),
        ):
            raise OSError(errno.ENOSPC, "no space")


class TestLocks:
    """lock and has_locks."""

    def test_a_folder_is_locked_once(self, folder: LocalStorage) -> None:
        """Others wait, and give up after the timeout."""
        assert folder.has_locks
        with folder.lock(1), pytest.raises(FolderLockedError, match="is in use"), LocalStorage(folder.path).lock(0.05):
            pass
        with folder.lock(0):
            pass

    def test_an_object_store_has_no_lock(self, objects: ObjectStorage) -> None:
        """`lock` excludes no one and writes nothing."""
        assert not objects.has_locks
        with objects.lock(0), objects.lock(0):
            assert not objects.exists()


def append(storage: Storage) -> None:
    storage.append_lines("lines.jsonl", b"two\n" * 10)


def put_numbered(storage: Storage, name: str, number: int, content: bytes) -> None:
    with storage.open_lines(name) as lines:
        lines.put(number, content)


def append_numbered(storage: Storage) -> None:
    put_numbered(storage, "lines.jsonl", 2, b"two\n" * 10)


def create(storage: Storage) -> None:
    storage.put_new("new", b"new content")


def change(storage: Storage) -> None:
    storage.replace("name", b"new content", storage.read_version("name")[1])


def overwrite(storage: Storage) -> None:
    storage.overwrite("name", b"new content")


WRITES = [append, append_numbered, create, change, overwrite]


class TestFaults:
    """Writes that fail, and answers that are lost."""

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize(("function", "number"), [("write", errno.ENOSPC), ("fsync", errno.EIO)])
    def test_a_failed_write_to_a_folder_changes_nothing(
        self, folder: LocalStorage, monkeypatch: pytest.MonkeyPatch, write: Any, function: str, number: int
    ) -> None:
        """On a full or failing disk: no new name, no half content, no temporary file."""
        put(folder, "name", b"content")
        folder.append_lines("lines.jsonl", b"one\n")
        before = {name: folder.read(name) for name in folder.list_files()}

        def fail(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(OSError, match=os.strerror(number)):
                write(folder)
        assert {name: folder.read(name) for name in folder.list_files()} == before
        write(folder)
        assert {name: folder.read(name) for name in folder.list_files()} != before

    def test_a_folder_that_cannot_be_synced_gets_no_new_name(
        self, folder: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name would not outlast a power cut."""
        folder.path.mkdir()

        def fail(_: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr("feedback_etl.storage.local.fsync_directory", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            folder.put_new("name", b"content")
        assert folder.list_files() == {}

    @pytest.mark.parametrize("write", WRITES)
    def test_a_failed_put_changes_nothing(
        self, objects: ObjectStorage, monkeypatch: pytest.MonkeyPatch, write: Any
    ) -> None:
        """The store answers with errors only; it is reported in one sentence."""
        put(objects, "name", b"content")
        objects.append_lines("lines.jsonl", b"one\n")
        before = objects.list_files()

        def fail(*_: Any, **__: Any) -> None:
            raise obstore.exceptions.GenericError("Server returned non-2xx status code: 503")

        with monkeypatch.context() as patch:
            patch.setattr(obstore, "put", fail)
            with pytest.raises(ExportFileError, match="the store failed"):
                write(objects)
        assert objects.list_files() == before
        write(objects)
        assert objects.list_files() != before

    @pytest.mark.parametrize("write", WRITES)
    def test_a_put_whose_answer_is_lost_is_done_once(
        self, objects: ObjectStorage, monkeypatch: pytest.MonkeyPatch, write: Any
    ) -> None:
        """It does not conflict with itself."""
        expected = MemoryStorage()
        for storage in (objects, expected):
            put(storage, "name", b"content")
            storage.append_lines("lines.jsonl", b"one\n")
        write(expected)
        lose_answer(monkeypatch)
        write(objects)
        names = {*objects.list_files()}
        assert names == {*expected.list_files()}
        assert {name: objects.read(name) for name in names} == {name: expected.read(name) for name in names}

    def test_a_lost_answer_does_not_hide_a_conflict(
        self, objects: ObjectStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another writer was first, or came after the put whose answer was lost."""
        version = put(objects, "name", b"one")
        lose_answer(monkeypatch)
        with pytest.raises(FileExistsError):
            objects.put_new("name", b"two")
        lose_answer(monkeypatch, then=lambda: objects.overwrite("name", b"three"))
        with pytest.raises(ConflictError):
            objects.replace("name", b"two", version)
        assert objects.read("name") == b"three"


def lose_answer(monkeypatch: pytest.MonkeyPatch, then: Callable[[], Any] = lambda: None) -> None:
    """Have the next put done, and the answer to it lost; then something else happens."""
    real = obstore.put

    def lose(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(obstore, "put", real)
        try:
            real(*arguments, **options)
        finally:
            then()
        raise obstore.exceptions.GenericError("error sending request, kind: Timeout")

    monkeypatch.setattr(obstore, "put", lose)


class TestDurability:
    """The order of system calls, which a power cut makes visible."""

    @pytest.mark.parametrize(("write", "publish"), [(create, "link"), (change, "rename"), (overwrite, "rename")])
    def test_content_is_synced_before_its_name_and_the_folder_after(
        self, folder: LocalStorage, monkeypatch: pytest.MonkeyPatch, write: Any, publish: str
    ) -> None:
        """A name never shows half a file, and outlasts a power cut when the write returns."""
        put(folder, "name", b"content")
        calls = []

        def record(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def recording(*arguments: Any, **options: Any) -> Any:
                is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
                calls.append("fsync of the folder" if is_folder else name)
                return call(*arguments, **options)

            return recording

        with monkeypatch.context() as patch:
            for name, function in (("fsync", "fsync"), ("link", "link"), ("rename", "replace"), ("write", "write")):
                patch.setattr(os, function, record(name, getattr(os, function)))
            write(folder)
        assert calls == ["write", "fsync", publish, "fsync of the folder"]


class TestFolders:
    """Modes and links, which only a folder has."""

    def test_files_and_folders_are_private(self, folder: LocalStorage) -> None:
        """With any umask."""
        folder.append_lines(".state/lines.jsonl", b"one\n")
        folder.put_new("new", b"content")
        folder.overwrite("derived", b"content")
        folder.overwrite("derived", b"other")
        replace(folder, "new", b"other", folder.read_version("new")[1])
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.path.rglob("*")}
        assert modes == {
            **dict.fromkeys((".state", ".feedback_etl"), 0o700),
            **dict.fromkeys(("lines.jsonl", "new", "derived", "lock"), 0o600),
        }

    @pytest.mark.parametrize(
        "write", [lambda storage: storage.put_new("link", b"new"), lambda storage: storage.overwrite("link", b"new")]
    )
    def test_links_are_not_written_through(self, folder: LocalStorage, tmp_path: Path, write: Any) -> None:
        """They could lead anywhere."""
        target = tmp_path / "target"
        target.write_bytes(b"content")
        folder.path.mkdir()
        (folder.path / "link").symlink_to(target)
        with pytest.raises(ExportFileError, match="symbolic link"):
            write(folder)
        assert target.read_bytes() == b"content"

    def test_linked_folders_are_refused(self, folder: LocalStorage, tmp_path: Path) -> None:
        """For new files, append-only files and the lock."""
        (tmp_path / "target").mkdir()
        folder.path.mkdir()
        for name in ("linked", ".feedback_etl"):
            (folder.path / name).symlink_to(tmp_path / "target")
        with pytest.raises(ExportFileError, match="symbolic link"):
            folder.put_new("linked/name", b"content")
        with pytest.raises(ExportFileError, match="symbolic link"):
            folder.append_lines("linked/lines", b"one\n")
        with pytest.raises(ExportFileError, match="symbolic link"), folder.lock(0):
            pass
        assert list((tmp_path / "target").iterdir()) == []
