"""The client of an object store: conditional puts, requests that fail or take long, and messages about failures."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from object_store import CREDENTIALS, Proxy, Trouble

from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.storage.base import ConflictError
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.object_store import ObjectStorage

pytestmark = pytest.mark.served_store

LARGE = bytes(range(256)) * 10_000


def quick(url: str) -> ObjectStorage:
    """One that soon loses patience."""
    return ObjectStorage(url, retries=1, timeout=1)


class TestPlaces:
    """What names a place."""

    def test_a_url_names_a_bucket_and_all_else_a_folder(self) -> None:
        """Also a URL converted to a Path, which has lost a slash."""
        assert isinstance(open_storage("s3/bucket"), LocalStorage)
        assert str(open_storage("s3://bucket/a/b/")) == "s3://bucket/a/b"
        assert str(open_storage(Path("s3://bucket/a/b"))) == "s3://bucket/a/b"

    @pytest.mark.parametrize("scheme", ["gs", "az", "gcs", "abfs", "https"])
    def test_stores_that_do_not_speak_s3_are_refused(self, scheme: str) -> None:
        """No test can show that they keep the promises of the interface; a folder of that name is not created."""
        for where in (f"{scheme}://bucket/a", Path(f"{scheme}://bucket/a")):
            with pytest.raises(UsageError, match=r"speaks S3 \(s3://bucket/prefix\); this is another URL"):
                open_storage(where)

    @pytest.mark.parametrize(
        "url", ["s3://AKIAEXAMPLE:secret@bucket/a", "s3://bucket/a?secret=1", "s3://bucket#secret"]
    )
    def test_credentials_in_a_url_are_refused(self, url: str) -> None:
        """And not repeated."""
        with pytest.raises(UsageError) as error:
            open_storage(url)
        assert "secret" not in str(error.value)
        assert "AKIA" not in str(error.value)

    def test_a_url_without_a_bucket_is_refused(self) -> None:
        """Nothing else is guessed."""
        with pytest.raises(UsageError, match="names no bucket"):
            open_storage("s3:///a")


class TestObjects:
    """What is specific to a server; the promises of every storage are in test_storage."""

    @pytest.mark.slow
    def test_more_than_a_thousand_are_listed_and_removed(self, bucket_url: str) -> None:
        """A store lists and deletes at most a thousand at a time."""
        bucket = ObjectStorage(bucket_url)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: bucket.put_numbered("folder.jsonl", number, b"%d" % number), range(1, 1_105)))
        assert len(bucket.names("folder")) == len(bucket.list_files()) == 1_104
        assert bucket.read_numbered("folder.jsonl") == {number: b"%d" % number for number in range(1, 1_105)}
        bucket.delete(*[*bucket.names("folder"), "was/never/there"])
        assert not bucket.exists()

    def test_a_bucket_that_keeps_versions_is_one_like_others(self, bucket_url: str) -> None:
        """What counts is the newest."""
        name, enabled = bucket_url.split("/")[2], {"Status": "Enabled"}
        boto3.client("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration=enabled)
        bucket = ObjectStorage(bucket_url)
        first = bucket.put_new("name", b"one")
        second = bucket.replace("name", b"two", if_match=first)
        with pytest.raises(ConflictError):
            bucket.replace("name", b"three", if_match=first)
        assert bucket.read_version("name") == (b"two", second)
        bucket.delete("name")
        assert not bucket.exists()
        assert bucket.put_new("name", b"four") != second


class TestTrouble:
    """Requests that fail, are cut off or take too long."""

    @pytest.mark.sample("503", "lost")
    @pytest.mark.parametrize("how", ["500", "503", "cut", "lost", "slow"])
    def test_a_put_comes_through(self, bucket_url: str, proxy: Proxy, how: str) -> None:
        """Once, whether its answer came back or not."""
        proxy.troubles = [Trouble(how)]
        version = quick(bucket_url).put_new("name", LARGE)
        proxy.troubles = [Trouble(how)]
        quick(bucket_url).replace("name", b"new", if_match=version)
        assert quick(bucket_url).read("name") == b"new"
        assert [trouble.times for trouble in proxy.troubles] == [0]

    @pytest.mark.sample("503", "cut", "lost")
    @pytest.mark.parametrize("how", ["500", "503", "cut", "lost", "slow"])
    def test_an_object_is_read_whole(self, bucket_url: str, proxy: Proxy, how: str) -> None:
        """Also where the connection was cut off in its middle."""
        bucket = quick(bucket_url)
        bucket.put_new("name", LARGE)
        for read in (lambda: bucket.read("name"), lambda: bucket.stat_with_digest("name"), lambda: bucket.names()):
            proxy.troubles = [Trouble(how, method="GET")]
            read()
            assert [trouble.times for trouble in proxy.troubles] == [0]
        proxy.troubles = [Trouble(how, method="GET")]
        with bucket.local_copy("name") as path:
            assert path.read_bytes() == LARGE

    def test_a_put_whose_answer_was_lost_is_no_conflict_with_itself(self, bucket_url: str, proxy: Proxy) -> None:
        """With the content of another writer it is."""
        proxy.troubles = [Trouble("lost", times=2)]
        quick(bucket_url).put_new("name", b"mine")
        proxy.troubles = [Trouble("lost", times=2)]
        with pytest.raises(FileExistsError):
            quick(bucket_url).put_new("name", b"another's")

    @pytest.mark.sample("503-failed")
    @pytest.mark.parametrize(("how", "message"), [("503", "failed"), ("slow", "in time")])
    def test_patience_ends(self, bucket_url: str, proxy: Proxy, how: str, message: str) -> None:
        """After a number of requests that is bounded."""
        proxy.troubles = [Trouble(how, times=100, method=method) for method in ("PUT", "GET", "HEAD")]
        with pytest.raises(ExportFileError, match=f"{bucket_url.removesuffix('/exports')}: .* {message}"):
            quick(bucket_url).read("name")
        with pytest.raises(ExportFileError):
            quick(bucket_url).put_new("name", b"content")
        assert len(proxy.requests) <= 20


class TestFailures:
    """What is said of them."""

    @pytest.mark.usefixtures("bucket_url")
    def test_a_bucket_that_is_not_there_is_named(self) -> None:
        """Not an object."""
        bucket = ObjectStorage("s3://no-such-bucket/exports")
        for act in (lambda: bucket.names(), lambda: bucket.read("name"), lambda: bucket.put_new("name", b"")):
            with pytest.raises(ExportFileError, match=r"^There is no bucket s3://no-such-bucket\.$"):
                act()

    def test_missing_store_is_reported(self, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a sentence without its address or a key."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(ExportFileError, match="cannot be reached") as error:
            quick(bucket_url).names()
        assert "127.0.0.1" not in str(error.value)
        assert error.value.__cause__ is None

    def test_denied_access_is_reported(self, bucket_url: str, proxy: Proxy) -> None:
        """Without the key that was used."""
        proxy.denied = True
        bucket = quick(bucket_url)
        for act in (lambda: bucket.names(), lambda: bucket.read("name"), lambda: bucket.put_new("name", b"")):
            with pytest.raises(ExportFileError, match="denies access") as error:
                act()
            assert CREDENTIALS["AWS_ACCESS_KEY_ID"] not in str(error.value)

    def test_without_credentials_it_says_where_they_come_from(
        self, bucket_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The environment, a profile, a role."""
        for name in CREDENTIALS:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(ExportFileError, match="AWS_PROFILE"):
            ObjectStorage(bucket_url).names()

    @pytest.mark.parametrize("missing", ["obstore.store", "obstore.auth.boto3"])
    def test_without_the_library_it_says_what_to_install(
        self, bucket_url: str, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        """Nothing else needs it."""
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(UsageError, match=r"pip install 'feedback-etl\[s3\]'"):
            ObjectStorage(bucket_url).names()

    def test_credentials_of_a_profile_are_found(self, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the files of the user's home."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        path = Path.home() / ".aws" / "credentials"
        path.parent.mkdir()
        path.write_text("[training]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n")
        monkeypatch.setenv("AWS_PROFILE", "training")
        ObjectStorage(bucket_url).put_new("name", b"content")
        assert ObjectStorage(bucket_url).names() == ["name"]
