"""What every place of exports does alike: a folder, an object store in memory, and a server that speaks S3."""

import hashlib
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from object_store import in_memory

from feedback_etl.errors import FeedbackError
from feedback_etl.storage.base import ConflictError
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage

LARGE = bytes(range(256)) * 10_000


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """An empty prefix of a store in memory."""
    monkeypatch.setattr("feedback_etl.storage.object_store.open_client", in_memory())
    return ObjectStorage("s3://memory/exports")


@pytest.fixture
def served(served_bucket: Callable[[str], None]) -> ObjectStorage:
    """An empty prefix of a bucket that a server has."""
    name = f"test-{uuid.uuid4().hex}"
    served_bucket(name)
    return ObjectStorage(f"s3://{name}/exports")


@pytest.fixture
def folder(tmp_path: Path) -> LocalStorage:
    """An empty folder."""
    return LocalStorage(tmp_path / "exports")


@pytest.fixture(params=["folder", "memory", "served"])
def place(request: pytest.FixtureRequest) -> LocalStorage | ObjectStorage:
    """An empty place of each kind."""
    place: LocalStorage | ObjectStorage = request.getfixturevalue(request.param)
    return place


@pytest.fixture(params=["memory", "served"])
def bucket(request: pytest.FixtureRequest) -> ObjectStorage:
    """An empty prefix of each kind of store."""
    bucket: ObjectStorage = request.getfixturevalue(request.param)
    return bucket


def create(place: LocalStorage | ObjectStorage, name: str, content: bytes) -> None:
    """Make a file in a draft, and give it its name."""
    with place.staging_path(name) as draft:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        place.put_new(name, draft)


class TestPlaces:
    """Files of any place."""

    def test_files_are_listed_a_folder_at_a_time_and_hidden_ones_aside(
        self, place: LocalStorage | ObjectStorage
    ) -> None:
        """By their names in the place, sorted."""
        for name in ("b", "a", ".hidden", "folder/c", ".state/d"):
            create(place, name, b"content")
        assert place.exists()
        assert (place.names(), place.names("folder"), place.names("nowhere")) == (["a", "b"], ["folder/c"], [])
        assert place.folders() == ["folder"]
        assert place.stat_files(["a", "c", ".hidden", "folder/c"]).keys() == {"a", ".hidden", "folder/c"}

    def test_a_file_is_read_as_it_was_written(self, place: LocalStorage | ObjectStorage) -> None:
        """Whole, as a file of this machine, and described by size and digest; large and empty ones."""
        for name, content in (("large", LARGE), ("folder/empty", b"")):
            create(place, name, content)
            assert place.read(name) == content
            assert place.stat_with_digest(name) == (len(content), hashlib.sha256(content).hexdigest())
            with place.local_copy(name) as path:
                assert path.read_bytes() == content

    def test_a_draft_is_no_file_and_nothing_stays_of_it(self, place: LocalStorage | ObjectStorage) -> None:
        """Whether it got a name or was given up."""
        create(place, "kept", b"content")
        with suppress(KeyboardInterrupt), place.staging_path("given-up") as draft:
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(b"half")
            assert place.names() == ["kept"]
            raise KeyboardInterrupt
        assert not draft.exists()
        assert place.names() == ["kept"]
        if isinstance(place, LocalStorage):
            assert [path.name for path in place.path.iterdir()] == ["kept"]

    def test_a_name_that_is_taken_is_not_replaced(self, place: LocalStorage | ObjectStorage) -> None:
        """By another content."""
        create(place, "name", b"one")
        with pytest.raises((FileExistsError, FeedbackError)):
            create(place, "name", b"two")
        assert place.read("name") == b"one"

    def test_of_many_who_create_a_name_one_does(self, place: LocalStorage | ObjectStorage) -> None:
        """Side by side; what is there is what the one wrote."""

        def attempt(number: int) -> bool:
            try:
                create(place, "name", b"%d" % number)
            except (FileExistsError, FeedbackError):
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = [number for number, did in enumerate(pool.map(attempt, range(8))) if did]
        assert [b"%d" % number for number in won] == [place.read("name")]

    def test_a_file_that_is_removed_is_gone(self, place: LocalStorage | ObjectStorage) -> None:
        """Twice is as good as once; nothing is read of what is not there."""
        create(place, "name", b"one")
        create(place, "other", b"two")
        for _ in range(2):
            place.delete("name")
        assert place.names() == ["other"]
        for act in (place.read, place.stat_with_digest):
            with pytest.raises(FileNotFoundError):
                act("name")

    def test_a_file_that_only_grows_keeps_every_line(self, place: LocalStorage | ObjectStorage) -> None:
        """In their order; there are none where there is no such file."""
        assert place.read_lines(".state/lines.jsonl") == b""
        for number in range(5):
            place.append_lines(".state/lines.jsonl", b"%d\n" % number)
        assert place.read_lines(".state/lines.jsonl") == b"0\n1\n2\n3\n4\n"


class TestStores:
    """Versions, which only stores have."""

    def test_what_was_read_is_replaced_and_nothing_else(self, bucket: ObjectStorage) -> None:
        """By its version; the very same content is no conflict."""
        first = bucket.put_new("name", b"one")
        assert bucket.put_new("name", b"one") == first
        second = bucket.replace("name", b"two", if_match=first)
        with pytest.raises(ConflictError):
            bucket.replace("name", b"three", if_match=first)
        assert bucket.read_version("name") == (b"two", second)
        bucket.delete("name")
        with pytest.raises(ConflictError):
            bucket.replace("name", b"three", if_match=second)
        assert not bucket.exists()

    def test_numbers_are_taken_once(self, bucket: ObjectStorage) -> None:
        """As those of records in a log."""
        bucket.put_numbered("log.jsonl", 1, b"one")
        with pytest.raises(FileExistsError):
            bucket.put_numbered("log.jsonl", 1, b"another")
        bucket.put_numbered("log.jsonl", 2, b"two")
        assert bucket.read_numbered("log.jsonl") == {1: b"one", 2: b"two"}

    def test_many_are_removed_at_once(self, bucket: ObjectStorage) -> None:
        """Also some that never were."""
        for name in ("a", "b", "folder/c"):
            bucket.put_new(name, b"content")
        bucket.delete(*["a", "folder/c", "was/never/there"])
        assert list(bucket.list_files()) == ["b"]
