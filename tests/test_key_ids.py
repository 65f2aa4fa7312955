"""Ids of keys: a guess at the key of an id costs a key derivation, and folders of earlier versions stay usable."""

import hashlib
import hmac
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import NOW, exported, people
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.errors import UsageError
from feedback_etl.privacy import keys
from feedback_etl.privacy.keys import Key, write_key
from feedback_etl.privacy.retired_keys import is_retired, read_retired_keys, retire_key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.legacy_key_ids import bind_key, bind_keys
from feedback_etl.settings.model import load_settings

WORDS = ("secret", "winter", "summer")
GUESSES = [f"{word}{year}-{word}{year}-{word}{year}" for word, year in product(WORDS, range(2000, 2026))]
WEAK = "summer2019-summer2019-summer2019"


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Yield the inputs of all key derivations; none is cached from before."""
    inputs, scrypt = list[bytes](), hashlib.scrypt

    def derive(password: bytes, **options: Any) -> bytes:
        inputs.append(password)
        return scrypt(password, **options)

    monkeypatch.setattr(hashlib, "scrypt", derive)
    keys._derive_id.cache_clear()
    yield inputs
    keys._derive_id.cache_clear()


class TestGuessing:
    """An attacker has the id of a key, and a list of possible keys."""

    def guess(self, wanted: str, derive: Callable[[str], str]) -> str | None:
        return next((text for text in GUESSES if derive(text) == wanted), None)

    def test_key_of_a_legacy_id_is_found_without_a_derivation(self, derivations: list[bytes]) -> None:
        """One HMAC a guess, of which a computer does millions in a second."""

        def derive(text: str) -> str:
            return hmac.new(text.encode(), b"feedback_etl pseudonym key id", hashlib.sha256).hexdigest()[:12]

        assert self.guess(Key(WEAK, accept_weak=True).legacy_id, derive) == WEAK
        assert derivations == []

    def test_each_guess_at_a_new_id_is_a_derivation(self, derivations: list[bytes]) -> None:
        """The same list, and the cost of scrypt for each of its lines."""
        wanted = Key(WEAK, accept_weak=True).id
        keys._derive_id.cache_clear()
        derivations.clear()
        assert self.guess(wanted, lambda text: Key(text, accept_weak=True).id) == WEAK
        assert [text.decode() for text in derivations] == GUESSES[: GUESSES.index(WEAK) + 1]

    def test_id_is_scrypt_with_documented_parameters(self) -> None:
        """RFC 7914: N 16,384, r 8, p 1, a fixed salt, six bytes; no legacy id has its form."""
        digest = hashlib.scrypt(KEY.encode(), salt=b"feedback_etl pseudonym key id", n=16_384, r=8, p=1, dklen=6)
        assert Key(KEY).id == f"s-{digest.hex()}"

    def test_derivation_is_done_once_and_only_if_needed(
        self, sqlite_database: Database, derivations: list[bytes]
    ) -> None:
        """Not for a key that is only created; once for any number of exports and keys of the same text."""
        sqlite_database.fill(**people(3))
        assert Key(KEY) == Key(KEY)
        assert derivations == []
        for _ in range(3):
            exported(sqlite_database, Path("exports"))
        assert derivations == [KEY.encode()]


@pytest.fixture
def legacy(sqlite_database: Database, tmp_path: Path) -> Path:
    """Return a folder with two exports of an earlier version, with an erasure between them."""
    sqlite_database.fill(**people(4))
    folder = tmp_path / "exports"
    key = Key(KEY).with_legacy_id()
    exported(sqlite_database, folder, key=key)
    fe.privacy.erase(folder, user_ids=[4], database=sqlite_database.url, keys=[key])
    exported(sqlite_database, folder, key=key, incremental=True)
    return folder


def key_ids(folder: Path) -> set[str | None]:
    """Return the key ids of manifests and log records."""
    records = AuditLog(folder).records()
    return {export.key_id for export in list_manifests(folder)} | {record["key_id"] for record in records}


class TestFoldersOfEarlierVersions:
    """They name a key by its legacy id, and go on to do so."""

    def test_exports_go_on(self, legacy: Path, sqlite_database: Database) -> None:
        """Full and incremental ones, without the person who was erased; readers without the key see one key."""
        assert exported(sqlite_database, legacy).exported_records == 9
        assert exported(sqlite_database, legacy, incremental=True).total_feedback_records == 0
        assert key_ids(legacy) == {Key(KEY).legacy_id}
        assert fe.scan_training(legacy).collect().height == 9
        assert verify_folder(legacy, [Key(KEY)]).problems == []

    def test_people_are_erased(self, legacy: Path, sqlite_database: Database) -> None:
        """From old exports and new ones; the next export omits them."""
        exported(sqlite_database, legacy)
        result = fe.privacy.erase(legacy, user_ids=[2], database=sqlite_database.url, keys=[KEY])
        assert (result.rows, result.without_key) == (9, [])
        assert exported(sqlite_database, legacy).erased_records == 6
        assert key_ids(legacy) == {Key(KEY).legacy_id}

    def test_another_key_is_refused(self, legacy: Path, sqlite_database: Database) -> None:
        """By the id that the folder knows."""
        with pytest.raises(UsageError, match=f"were made with the key {Key(KEY).legacy_id}, .*{Key(OTHER_KEY).id}"):
            exported(sqlite_database, legacy, key=OTHER_KEY)

    def test_check_report_and_prune_know_the_key(self, legacy: Path, sqlite_database: Database) -> None:
        """Nothing is said to be of an unavailable key."""
        settings = load_settings(database_url=sqlite_database.url, output_dir=legacy)
        items = {item.name: item.passed for item in check(settings, keys=[Key(KEY)], now=NOW)}
        assert (items["keys"], items["audit log"], items["erasure"]) == (True, True, True)
        fe.write_report("report.html", legacy, keys=KEY)
        assert "unavailable key" not in Path("report.html").read_text()
        fe.exports.prune(legacy, keep_days=0, key=Key(KEY), now=NOW)
        assert key_ids(legacy) == {Key(KEY).legacy_id}

    def test_only_folders_that_contain_the_legacy_id_use_it(self, legacy: Path, tmp_path: Path) -> None:
        """Other keys, and the same key elsewhere, have new ids; no key stays none."""
        assert bind_key(legacy, Key(KEY)).id == Key(KEY).legacy_id
        assert [key.id for key in bind_keys(legacy, [Key(OTHER_KEY)])] == [Key(OTHER_KEY).id]
        assert bind_key(legacy, None) is None
        assert bind_key(tmp_path / "new", Key(KEY)).id == Key(KEY).id

    def test_key_that_an_earlier_version_retired_is_retired(self, tmp_path: Path) -> None:
        """Its file is named by the legacy id."""
        key = write_key(tmp_path / "key")
        retired = tmp_path / "retired"
        retired.mkdir(mode=0o700)
        (tmp_path / "key").rename(retired / key.legacy_id)
        assert is_retired(key, retired)
        (tmp_path / "again").write_text(key.text)
        (tmp_path / "again").chmod(0o600)
        assert retire_key(tmp_path / "again", retired).path == retired / key.legacy_id
        assert [found for found, _ in read_retired_keys(retired)] == [key]
