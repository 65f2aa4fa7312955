"""Pseudonym keys: lookup, refusals, files and commands; no key is ever shown."""

import copy
import hashlib
import hmac
import json
import os
import pickle
import resource
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import datetime
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest
from databases import Database
from folders import exported, people
from frames import all_said
from hypothesis import given
from hypothesis import strategies as st
from processes import Here, environment, feedback_etl, feedback_etl_process, python, wait_for, without_privileges
from pseudonym_keys import KEY, OTHER_KEY
from pseudonym_keys import SECRET_KEY as SECRET

from feedback_etl.database import reader_pool
from feedback_etl.errors import ExportFileError, KeyMissingError, KeyUnusableError, UsageError
from feedback_etl.privacy.keys import Key, KeyPermissionWarning, generate_key, read_key, write_key
from feedback_etl.privacy.retired_keys import read_retired_keys, retire_key
from feedback_etl.processor import FeedbackProcessor
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.settings.keys import default_key_path, find_active_key, find_key, find_retired_folder
from feedback_etl.settings.messages import NO_KEY
from feedback_etl.settings.model import load_settings
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.transforms import anonymize


def write_key_file(path: Path, text: str | bytes = SECRET, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestKey:
    """A key can be compared and identified, and is never shown."""

    def test_id_is_stable(self) -> None:
        """Golden values: the id of a key is written into the manifest of every export, and so was the legacy id."""
        assert Key(KEY).id == "s-c52ffeb9e4a9"
        assert Key(SECRET).id == "s-98d09a47ebf0"
        assert (Key(KEY).legacy_id, Key(SECRET).legacy_id) == ("e9bcd2a2c7ee", "c02c8a24eb02")

    def test_legacy_id_is_a_keyed_digest(self) -> None:
        """HMAC-SHA256 of a fixed text, which no id with its domain can equal: it contains no colon."""
        digest = hmac.new(SECRET.encode(), b"feedback_etl pseudonym key id", hashlib.sha256).hexdigest()
        assert Key(SECRET).legacy_id == Key(SECRET).with_legacy_id().id == digest[:12]

    def test_equal_keys_are_equal(self) -> None:
        """By their text without surrounding white space, however they were created."""
        assert Key(SECRET) == Key(f" \t{SECRET}\r\n") == Key.parse(SECRET) == Key.parse(Key(SECRET))
        assert hash(Key(SECRET)) == hash(Key(SECRET + "\n"))
        assert Key(SECRET).text == SECRET
        assert Key(SECRET) != Key(SECRET + "0")
        assert Key(SECRET).id != Key(SECRET + "0").id

    @pytest.mark.parametrize("show", [repr, str, format, ascii, "{0}".format, "%s".__mod__])
    def test_key_is_never_shown(self, show: Any) -> None:
        """Every conversion of a key to text gives its id alone."""
        assert show(Key(SECRET)) == "Key(id='s-98d09a47ebf0')"
        assert SECRET not in show({"a": [Key(SECRET)]})

    def test_python_errors_do_not_show_the_key(self) -> None:
        """Those that Python raises for a wrong use of the class."""
        key: Any = Key(SECRET)
        with pytest.raises(FrozenInstanceError) as frozen:
            key.text = "other"
        with pytest.raises(TypeError) as unexpected:
            Key(SECRET, SECRET)  # type: ignore[call-arg, arg-type]
        with pytest.raises(TypeError) as unordered:
            _ = sorted([key, copy.copy(key)])
        for caught in (frozen, unexpected, unordered):
            assert SECRET not in str(caught.value)

    @given(st.text(max_size=40))
    def test_fewer_than_32_bytes_are_refused(self, text: str) -> None:
        """Bytes count, not characters; the message contains the number and not the text."""
        size = len(text.strip().encode("utf-8", errors="replace"))
        if size >= 32:
            assert Key(text, accept_weak=True).text == text.strip()
        else:
            with pytest.raises(KeyUnusableError, match=rf"^The pseudonym key has {size} bytes; it needs at least 32\."):
                Key(text)

    @pytest.mark.parametrize("text", [SECRET.encode(), SECRET + "\udcff", None, 42])
    def test_values_that_are_no_text_are_refused(self, text: Any) -> None:
        """Bytes, numbers, and text of another encoding; no chained error shows the value either."""
        with pytest.raises(KeyUnusableError, match="not UTF-8 text") as caught:
            Key(text)
        assert SECRET not in all_said(caught.value)

    def test_new_keys_differ(self) -> None:
        """64 hex characters each."""
        keys = {generate_key().text for _ in range(100)}
        assert len(keys) == 100
        assert all(len(key) == 64 and int(key, 16) for key in keys)


class TestKeyFile:
    """Key files are written once, for their owner alone, and checked when they are read."""

    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_key_file_is_private(self, tmp_path: Path, umask: int) -> None:
        """The file is 0600 and created folders are 0700, whatever the umask."""
        code = "import sys; from pathlib import Path; from feedback_etl.privacy.keys import write_key\n"
        code += "print(write_key(Path(sys.argv[1])).id)"
        path = tmp_path / "a" / "b" / "key"
        assert python(code, path, umask=umask).stdout.strip() == read_key(path).id
        assert [get_mode(created) for created in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
        assert [child.name for child in path.parent.iterdir()] == ["key"]
        assert len(path.read_text()) == 65

    def test_existing_key_file_is_never_overwritten(self, tmp_path: Path) -> None:
        """No link is followed either: pseudonyms of earlier exports need their key."""
        path = write_key_file(tmp_path / "key")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for taken in (path, tmp_path / "link"):
            with pytest.raises(ExportFileError, match=f"The key file {taken} exists and is not overwritten"):
                write_key(taken)
        assert path.read_text() == SECRET
        assert sorted(child.name for child in tmp_path.iterdir()) == ["key", "link"]

    def test_write_error_of_a_key_file_is_reported(self, tmp_path: Path) -> None:
        """With the reason, and nothing remains."""
        with pytest.raises(ExportFileError, match=r"could not be written to .*: Not a directory"):
            write_key(write_key_file(tmp_path / "file") / "key")

    @pytest.mark.sample("fsync", "link,linkat")
    @pytest.mark.parametrize("call", ["write", "fsync", "link,linkat"])
    def test_incomplete_key_file_is_removed(self, tmp_path: Path, call: str) -> None:
        """A partly written key could not be distinguished from a complete one."""
        code = """
import sys
from pathlib import Path
from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import write_key
try:
    write_key(Path(sys.argv[1]))
except ExportFileError as error:
    sys.exit(str(error))
"""
        result = python(code, tmp_path / "key", injections=(f"{call}:error=EIO:when=1",))
        assert result.returncode == 1
        assert list(tmp_path.iterdir()) == []

    def test_white_space_around_a_key_is_stripped(self, tmp_path: Path) -> None:
        """An editor adds a line end."""
        assert read_key(write_key_file(tmp_path / "key", f"\n {SECRET}\r\n")) == Key(SECRET)

    @pytest.mark.parametrize("wide", [0o620, 0o602, 0o666, 0o777])
    def test_key_file_writable_by_others_is_refused(self, tmp_path: Path, wide: int) -> None:
        """A user who can change a key can choose one whose pseudonyms they know."""
        path = write_key_file(tmp_path / "key", mode=wide)
        with pytest.raises(KeyUnusableError, match=rf"Other users can write to the key file .*chmod 600 {path}"):
            read_key(path)

    @pytest.mark.parametrize("wide", [0o640, 0o604, 0o444])
    def test_key_file_readable_by_others_gives_a_warning(self, tmp_path: Path, wide: int) -> None:
        """It is used: mounted secrets are often so."""
        path = write_key_file(tmp_path / "key", mode=wide)
        with pytest.warns(KeyPermissionWarning, match=f"Other users can read .*chmod 600 {path}") as caught:
            assert read_key(path) == Key(SECRET)
        assert len(caught) == 1

    @pytest.mark.parametrize("private", [0o600, 0o400])
    def test_private_key_file_gives_no_warning(self, tmp_path: Path, private: int) -> None:
        """A warning would be an error here."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_key(write_key_file(tmp_path / "key", mode=private)).id == Key(SECRET).id

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "has 0 bytes"),
            (b"\n", "has 0 bytes"),
            (b"canary-short", "has 12 bytes; it needs at least 32"),
            (SECRET.encode() + b"\xff", "not UTF-8"),
            (SECRET.encode("utf-16"), "not UTF-8"),
        ],
    )
    def test_invalid_key_file_content_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        """The message names the file and what is wrong; neither it nor a chained error contains the content."""
        path = write_key_file(tmp_path / "key", content)
        with pytest.raises(KeyUnusableError, match=f"^{path}: .*{message}") as caught:
            read_key(path)
        error_text = all_said(caught.value)
        assert "canary" not in error_text
        assert SECRET not in error_text

    def test_missing_key_file_is_reported_with_the_command_that_creates_it(self, tmp_path: Path) -> None:
        """A folder of that name is reported too."""
        path = tmp_path / "key"
        with pytest.raises(KeyUnusableError, match=f"The key file {path} does not exist. .*keys new --file {path}"):
            read_key(path)
        with pytest.raises(KeyUnusableError, match="cannot be read: Is a directory"):
            read_key(tmp_path)


class TestLookup:
    """FEEDBACK_ETL_KEY_FILE, FEEDBACK_ETL_KEY, key_file of the settings, the user's own."""

    def test_sources_are_tried_in_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each source is read only if those before it name no key."""
        texts = [f"{KEY}{number}" for number in range(4)]
        named, configured = (
            write_key_file(tmp_path / "named", texts[0]),
            write_key_file(tmp_path / "configured", texts[2]),
        )
        own = write_key_file(default_key_path(), texts[3])
        monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", str(named))
        monkeypatch.setenv("FEEDBACK_ETL_KEY", texts[1])
        (tmp_path / "feedback-etl.toml").write_text(f'key_file = "{configured}"')
        keys = [find_key()]
        monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", "")
        keys.append(find_key())
        monkeypatch.delenv("FEEDBACK_ETL_KEY")
        keys.append(find_key())
        (tmp_path / "feedback-etl.toml").unlink()
        keys.append(find_key())
        own.unlink()
        with pytest.raises(KeyMissingError, match=r"`feedback-etl keys new`.*FEEDBACK_ETL_KEY_FILE"):
            find_key()
        assert [key.text for key, _ in keys] == texts
        assert [source for _, source in keys] == [
            f"{named} (FEEDBACK_ETL_KEY_FILE)",
            "the environment (FEEDBACK_ETL_KEY)",
            f"{configured} (key_file in the settings)",
            str(own),
        ]

    def test_unusable_key_is_an_error_instead_of_being_skipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another key would silently give other pseudonyms."""
        write_key_file(default_key_path())
        for name, value in (("FEEDBACK_ETL_KEY", "short"), ("FEEDBACK_ETL_KEY_FILE", str(tmp_path / "missing"))):
            monkeypatch.setenv(name, value)
            with pytest.raises(KeyUnusableError):
                find_key()

    def test_dangling_link_to_the_user_key_is_an_error(self, tmp_path: Path) -> None:
        """A key on a disk that is not mounted is not replaced by a new one."""
        default_key_path().parent.mkdir(parents=True)
        default_key_path().symlink_to(tmp_path / "not mounted")
        with pytest.raises(KeyUnusableError, match=r"The key file .* does not exist"):
            find_key()

    def test_user_key_is_in_the_configuration_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """XDG_CONFIG_HOME, or ~/.config if it is not set or empty."""
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert default_key_path() == tmp_path / "feedback-etl" / "key"
        monkeypatch.setenv("XDG_CONFIG_HOME", "")
        assert default_key_path() == Path.home() / ".config" / "feedback-etl" / "key"

    def test_user_without_a_home_has_no_key(self) -> None:
        """Some containers run as a user without an entry in the user database."""
        code = """
import os
from feedback_etl.errors import KeyMissingError
from feedback_etl.processor import FeedbackProcessor
from feedback_etl.settings.keys import find_key
for name in ("HOME", "XDG_CONFIG_HOME"):
    del os.environ[name]
os.chdir("/")
if os.getuid() == 0:
    os.setuid(54321)
import pwd
try:
    pwd.getpwuid(os.getuid())
    print("this user has a home")
except KeyError:
    try:
        find_key()
    except KeyMissingError as error:
        print(error)
"""
        output = python(code).stdout.strip()
        if output == "this user has a home":
            pytest.skip("only root can become a user that has no home")
        assert output == NO_KEY

    def test_inaccessible_home_of_another_user_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As with sudo that keeps HOME: the configured key is used, and without one the message names the folder."""
        key = KEY
        load_settings()  # imports what only this user may read
        monkeypatch.delenv("XDG_CONFIG_HOME")
        with without_privileges() as own:
            monkeypatch.chdir(own)
            home = own / "closed"
            home.mkdir(mode=0o000)
            monkeypatch.setenv("HOME", str(home))
            with pytest.raises(KeyMissingError) as caught:
                find_key()
            monkeypatch.setenv("FEEDBACK_ETL_KEY", key)
            assert (find_active_key().text, find_retired_folder()) == (key, None)
        assert str(caught.value).startswith(NO_KEY)
        assert str(caught.value).endswith(
            f"This user may not access {home}/.config/feedback-etl: check HOME and XDG_CONFIG_HOME."
        )

    @pytest.mark.parametrize("closed", ["feedback-etl", "feedback-etl/retired"])
    def test_unreadable_user_folder_is_an_error(self, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
        """Its content would be ignored: a key that may be retired, or files that only a retired key can erase."""
        load_settings()
        with without_privileges() as own:
            monkeypatch.chdir(own)
            monkeypatch.setenv("XDG_CONFIG_HOME", str(own))
            key = write_key(default_key_path())
            (default_key_path().parent / "retired").mkdir(mode=0o700)
            (own / closed).chmod(0o000)
            monkeypatch.setenv("FEEDBACK_ETL_KEY", key.text)
            message = f"The folder of retired keys {own}/feedback-etl/retired cannot be read: Permission denied. "
            for action in (find_active_key, lambda: read_retired_keys(find_retired_folder())):
                with pytest.raises(KeyUnusableError, match=message):
                    action()
            monkeypatch.delenv("FEEDBACK_ETL_KEY")
            if closed == "feedback-etl":
                with pytest.raises(KeyUnusableError, match="key cannot be read: Permission denied"):
                    find_key()
            (own / closed).chmod(0o700)


class TestCommands:
    """The commands `keys new` and `keys show`."""

    def test_new_creates_the_user_key_and_show_names_it(self) -> None:
        """The id and the path go to stdout; the key goes into its file alone."""
        result = feedback_etl("keys", "new")
        path = default_key_path()
        text = path.read_text().strip()
        assert (result.returncode, result.stdout) == (0, f"key {Key(text).id} written to {path}\n")
        assert "Keep a copy in a safe place" in result.stderr
        shown = feedback_etl("keys", "show")
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"key {Key(text).id} from {path}\n", "")
        assert text not in result.stdout + result.stderr
        assert (get_mode(path), get_mode(path.parent)) == (0o600, 0o700)
        again = feedback_etl("keys", "new")
        assert (again.returncode, again.stdout, path.read_text().strip()) == (5, "", text)
        assert again.stderr.startswith(f"error: The key file {path} exists and is not overwritten")

    def test_new_writes_to_the_given_file(self, tmp_path: Path) -> None:
        """The command reports how to use it; the user's key is not created."""
        path = tmp_path / "my secrets" / "key"
        result = feedback_etl("keys", "new", "--file", path)
        assert result.stdout == f"key {read_key(path).id} written to {path}\n"
        assert result.stderr.splitlines()[-1] == f"To use it: export FEEDBACK_ETL_KEY_FILE='{path}'"
        assert not default_key_path().exists()

    def test_show_without_a_key_reports_how_to_create_one(self) -> None:
        """The exit code is 2, and nothing is created."""
        shown = feedback_etl("keys", "show")
        assert (shown.returncode, shown.stdout, shown.stderr) == (2, "", f"error: {NO_KEY}\n")
        assert not default_key_path().exists()

    def test_permission_warning_is_one_line(self, tmp_path: Path) -> None:
        """It is printed once, on stderr, without a position in the code."""
        path = write_key_file(tmp_path / "key", mode=0o644)
        shown = feedback_etl_process("keys", "show", env={"FEEDBACK_ETL_KEY_FILE": str(path), "PYTHONWARNINGS": ""})
        assert shown.returncode == 0
        assert shown.stderr == (
            f"warning: Other users can read the key file {path}. Unless it is a mounted secret, run: chmod 600 {path}\n"
        )

    def test_key_that_is_not_utf_8_is_refused(self) -> None:
        """A shell can put other bytes into the environment."""
        given_bytes = {os.fsencode(name): os.fsencode(value) for name, value in environment().items()}
        command = [sys.executable, "-m", "feedback_etl", "keys", "show"]
        shown = subprocess.run(
            command,
            env={**given_bytes, b"FEEDBACK_ETL_KEY": SECRET.encode() + b"\xff"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (shown.returncode, shown.stderr) == (2, "error: The pseudonym key is not UTF-8 text.\n")


@pytest.mark.parametrize(
    "serialize",
    [
        pickle.dumps,
        lambda frame: frame.serialize(),
        lambda frame: cloudpickle.dumps(frame),
        lambda frame: frame.select(pl.col("analysis_hash").max()).serialize(format="json"),
    ],
    ids=["pickle", "serialize", "cloudpickle", "json"],
)
@pytest.mark.filterwarnings("ignore:'json' serialization format:UserWarning")
def test_lazy_frame_with_a_key_is_not_serialised(serialize: Callable[[pl.LazyFrame], bytes]) -> None:
    """A stored or sent plan would contain the key; `explain` does not show it."""
    raw = pl.DataFrame({name: [None] for name in CLASSIC_SCHEMA.raw_columns} | {"analysis_id": [42]}).lazy()
    lazy = anonymize(raw, now=datetime(2025, 10, 25), key=SECRET)
    with pytest.raises((pl.exceptions.ComputeError, RuntimeError), match="would store the key"):
        serialize(lazy)
    assert SECRET not in lazy.explain() + repr(lazy) + str(lazy.collect())


def test_keyed_expression_is_not_serialised() -> None:
    """Neither by Polars nor by pickle."""
    expression = hash_id("analysis_id", key=SECRET)
    with pytest.raises(pl.exceptions.ComputeError, match="would store the key"):
        expression.meta.serialize()
    with pytest.raises(RuntimeError, match="would store the key"):
        pickle.dumps(expression)
    assert SECRET not in str(expression)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc to look into")
def test_reader_process_has_neither_key_nor_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is sent through a pipe and contains what the reader needs."""
    for name in ("FEEDBACK_ETL_KEY", "FEEDBACK_ETL_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", SECRET)
    reader_pool.end_idle()
    process = reader_pool.acquire()
    try:
        variables = Path(f"/proc/{process.pid}/environ")
        wait_for(lambda: variables.read_bytes() != b"")  # the system copies them after the process exists
        content = variables.read_bytes()
    finally:
        process.kill()
        process.communicate()
    assert b"RUST_LOG=off" in content
    assert SECRET.encode() not in content


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="core dumps are disabled here by a hard limit"
)
def test_command_line_writes_no_core_dump() -> None:
    """It would contain the key and rows."""
    code = (
        "import os, resource, sys; soft, hard = resource.getrlimit(resource.RLIMIT_CORE);"
        "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard));"
        "os._exit = lambda code: print(resource.getrlimit(resource.RLIMIT_CORE)[0]);"
        "from feedback_etl.__main__ import main; sys.argv = ['feedback-etl', '--version']; main()"
    )
    assert python(code).stdout.split()[-1] == "1"


def test_key_is_not_pickled() -> None:
    """A pickle travels to caches, queues and other machines; a key must not."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Key(KEY))


@pytest.mark.parametrize("name", ["/dev/zero", "fifo", "large"])
def test_other_kinds_of_files_are_not_read(tmp_path: Path, name: str) -> None:
    """A device, a pipe and a file of another purpose are refused at once, without waiting or reading on."""
    path = tmp_path / name  # a path from the root stays itself
    if name == "fifo":
        os.mkfifo(path, 0o600)
    elif name == "large":
        path.write_bytes(b"x" * 70_000)
        path.chmod(0o600)
    with pytest.raises(KeyUnusableError, match="is not a key file"):
        read_key(path)


class TestRetirement:
    """A retired key serves erasure and audit, and no new exports."""

    @pytest.fixture
    def application(self, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
        """Two users with feedback, configured."""
        sqlite_database.fill(**people(2))
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
        return sqlite_database

    @pytest.fixture
    def here(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
        """Runs command lines in this process."""
        return Here(capfd, monkeypatch)

    @pytest.mark.usefixtures("application")
    def test_key_is_created_used_retired_and_replaced(self, here: Here, tmp_path: Path) -> None:
        """The new key needs --allow-new-key once; `erase` and `audit verify` use both."""
        assert here("keys", "new").code == 0
        old = find_key().key
        assert here("export", "--days", "-1").code == 0
        retired = here("keys", "retire")
        path = default_key_path().parent / "retired" / old.id
        assert (retired.code, retired.out) == (0, f"key {old.id} is retired: {path}\n")
        assert (get_mode(path), get_mode(path.parent), default_key_path().exists()) == (0o600, 0o700, False)
        assert here("keys", "new").code == 0
        new = find_key().key
        listed = here("keys", "list").out.splitlines()
        assert listed == [
            "Key             State    Location",
            f"{new.id}  active   {default_key_path()}",
            f"{old.id}  retired  {path}",
        ]
        assert json.loads(here("keys", "list", "--json").out)["keys"] == [
            {"key": new.id, "state": "active", "location": str(default_key_path())},
            {"key": old.id, "state": "retired", "location": str(path)},
        ]
        refused = here("export", "--days", "-1")
        assert refused.code == 2
        assert f"were made with the key {old.id}, and this one would use the key {new.id}" in refused.err
        assert here("export", "--days", "-1", "--allow-new-key").code == 0
        assert here("export", "--days", "-1").code == 0
        (tmp_path / "ids").write_text("101\n")
        assert "3 rows erased from 3 files" in here("erase", "--analysis-ids-file", "ids").err
        assert here("audit", "verify").code == 0
        for text in (old.text, new.text):
            for path in Path("ml").rglob("*"):
                assert path.is_dir() or text not in path.read_bytes().decode(errors="replace")

    @pytest.mark.usefixtures("application")
    def test_retired_key_is_refused_for_exports(
        self, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also if it is still configured, as a mounted secret may be."""
        path = write_key_file(tmp_path / "mounted")
        monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", str(path))
        assert here("keys", "retire", "--file", path).code == 0
        write_key_file(path)
        refused = here("export", "--days", "-1")
        assert (refused.code, "is retired and serves erasure and audit only" in refused.err) == (2, True)
        with pytest.raises(KeyUnusableError, match="is retired"):
            find_active_key()

    def test_invalid_key_is_not_retired(self, tmp_path: Path) -> None:
        """The file stays where it is."""
        path = write_key_file(tmp_path / "short", "short")
        with pytest.raises(KeyUnusableError):
            retire_key(path, tmp_path / "retired")
        assert path.exists()
        assert read_retired_keys(tmp_path / "retired") == read_retired_keys(None) == []


class TestOneKeyPerFolder:
    """Pseudonyms of two keys cannot be linked, so a folder has one key at a time."""

    def test_another_key_needs_allow_new_key(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Once: then the folder has the new key, and the old one is refused."""
        sqlite_database.fill(**people(2))
        folder, new = tmp_path / "exports", OTHER_KEY
        exported(sqlite_database, folder)
        with pytest.raises(UsageError, match="would not match"):
            exported(sqlite_database, folder, key=new)
        exported(sqlite_database, folder, key=new, allow_new_key=True)
        exported(sqlite_database, folder, key=new)
        with pytest.raises(UsageError, match="would not match"):
            exported(sqlite_database, folder)
        assert len(list(folder.glob("*.csv"))) == 3

    def test_unkeyed_exports_need_a_separate_folder(self, sqlite_database: Database, tmp_path: Path) -> None:
        """The log is signed, which needs a key; keyed exports may follow unkeyed ones."""
        sqlite_database.fill(**people(2))
        exported(sqlite_database, tmp_path / "keyed")
        for meant in (False, True):
            with pytest.raises(UsageError, match="export unkeyed ones into another folder"):
                exported(sqlite_database, tmp_path / "keyed", key=None, unkeyed=True, allow_new_key=meant)
        exported(sqlite_database, tmp_path / "unkeyed", key=None, unkeyed=True)
        with pytest.raises(UsageError, match="were made with no key"):
            exported(sqlite_database, tmp_path / "unkeyed")
        exported(sqlite_database, tmp_path / "unkeyed", allow_new_key=True)

    def test_empty_export_fixes_no_key(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Nothing was written, so any key may follow."""
        exported(sqlite_database, tmp_path)
        sqlite_database.fill(**people(2))
        exported(sqlite_database, tmp_path, key=OTHER_KEY)

    def test_classic_api_needs_allow_new_key_too(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Its argument has the same name."""
        sqlite_database.fill(**people(2))
        exported(sqlite_database, tmp_path)
        with pytest.raises(UsageError, match="would not match"):
            FeedbackProcessor(sqlite_database.url, tmp_path, key=OTHER_KEY).process_and_export(days_back=-1)
        classic = FeedbackProcessor(sqlite_database.url, tmp_path, key=OTHER_KEY, allow_new_key=True)
        assert classic.process_and_export(days_back=-1).exported_records == 6
