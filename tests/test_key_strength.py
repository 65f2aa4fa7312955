"""Keys that can be guessed are refused, and random ones are not."""

import base64
import hashlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import Database
from folders import exported, people
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.errors import KeyUnusableError
from feedback_etl.privacy.keys import Key, generate_key, read_key
from feedback_etl.privacy.retired_keys import read_retired_keys
from feedback_etl.settings.keys import find_retired_folder
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.key_strength import MIN_KEY_BITS, estimate_key_bits

WEAK_KEYS = [
    "a" * 32,
    "0" * 64,
    "!" * 32,
    "\u00e9" * 32,
    "00000000000000000000000000000001",
    "abababababababababababababababab",
    "aaaaaaaabbbbbbbbccccccccdddddddd",
    "112233445566778899112233445566778899",
    "........-------........-------........",
    "12345678901234567890123456789012",
    "0123456789abcdef0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz012345",
    "zyxwvutsrqponmlkjihgfedcba9876543210",
    "qwertyuiopasdfghjklzxcvbnm123456",
    "asdfasdfasdfasdfasdfasdfasdfasdf",
    "1q2w3e4r5t6y7u8i9o0p1q2w3e4r5t6y",
    "1qaz2wsx3edc4rfv1qaz2wsx3edc4rfv",
    "QWERTYUIOPASDFGHJKLZXCVBNMqwertyuiop",
    "2025-11-29 2025-11-29 2025-11-29",
    "1990-01-01,1985-12-24,2001-09-11",
    "19900101198512242001091119770525",
    "deadbeefdeadbeefdeadbeefdeadbeef",
    "deadbeefcafebabefeedfacebadc0ffe",
    "password" * 4,
    "passwordPASSWORDPassword12345678",
    "P@ssw0rd1!P@ssw0rd1!P@ssw0rd1!P@ssw0rd1!",
    "changeme" * 4,
    "changeme-changeme-changeme-changeme!",
    "admin123admin123admin123admin123",
    "letmeinletmeinletmeinletmeinletmein",
    "iloveyouiloveyouiloveyouiloveyou",
    "test-test-test-test-test-test-test",
    "secret secret secret secret secret",
    "correct horse battery staple four",
    "monkeydragonfootballbaseballmaster",
    "monday tuesday wednesday thursday friday",
    "JanuaryFebruaryMarchAprilMayJune",
    "the quick brown fox jumps over the lazy dog",
    "my-very-secret-pseudonym-key-2025",
    "production-database-password-2024",
    "FEEDBACK_ETL_PSEUDONYM_KEY_PRODUCTION",
    "ThisIsMySecretKeyForTheFeedbackETL",
    "replace-this-key-with-a-real-secret",
    "canary-key-of-the-tests-0123456789abcdef",
    "insert your own secret key here please",
]

PUBLISHED_TEXTS = [
    hashlib.md5(b"password").hexdigest(),
    hashlib.md5(b"1").hexdigest().upper(),
    hashlib.sha1(b"test\n").hexdigest(),
    hashlib.sha256(b"").hexdigest(),
    hashlib.sha256(b"Secret").hexdigest(),
    hashlib.sha512(b"admin").hexdigest()[:64],
    base64.b64encode(hashlib.sha256(b"hello").digest()).decode(),
    base64.urlsafe_b64encode(hashlib.sha256(b"feedback_etl\n").digest()).decode(),
    "31415926535897932384626433832795",
    "3.14159265358979323846264338327950288",
    "141592653589793238462643383279502884197",
    "27182818284590452353602874713526",
    "1.4142135623730950488016887242096980785696",
    "243f6a8885a308d313198a2e03707344",
    "2357111317192329313741434753596167",
    "11235813213455891442333776109871597",
    "000102030405060708090a0b0c0d0e0f",
    "101112131415161718191a1b1c1d1e1f2021",
    "0001000200030004000500060007000800090010",
    "1234567891011121314151617181920212223",
    "1-2-3-4-5-6-7-8-9-10-11-12-13-14-15-16",
    "00000001000000020000000300000004",
    "99989796959493929190898786858483",
    "key-1000100110021003100410051006100710081009",
    "0x00,0x01,0x02,0x03,0x04,0x05,0x06,0x07,0x08",
    "102030405060708090100110120130140",
    base64.b64encode(bytes(range(32))).decode(),
    bytes(range(16, 48)).hex(),
    base64.b64encode(bytes(32)).decode(),
    base64.b64encode(b"my secret password of 2025").decode(),
    b"password password".hex(),
]


def random_bytes(size: int, count: int = 1_000) -> list[bytes]:
    """Draw `count` random values from OpenSSL."""
    done = subprocess.run(["openssl", "rand", str(size * count)], capture_output=True, check=True)
    return [done.stdout[start : start + size] for start in range(0, size * count, size)]


def encode_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


class TestWeakKeys:
    """Keys that can be guessed."""

    def test_there_are_at_least_40(self) -> None:
        """Each is long enough, so that nothing but its form is a reason to refuse it."""
        assert len({*WEAK_KEYS}) >= 40
        assert min(len(key.encode()) for key in WEAK_KEYS) >= 32

    @pytest.mark.parametrize("text", [*WEAK_KEYS, *PUBLISHED_TEXTS])
    def test_weak_key_is_refused(self, text: str) -> None:
        """As a key and as the argument of `hash_id`; the message names the remedy and not the key."""
        for use in (Key, lambda key: hash_id("id", key=key)):
            with pytest.raises(
                KeyUnusableError, match=r"can be guessed.*`feedback-etl keys new --file FILE`"
            ) as caught:
                use(text)
            assert text not in str(caught.value)

    @pytest.mark.parametrize("source", ["variable", "file", "argument", "demo"])
    def test_weak_key_is_not_used_for_an_export(self, sqlite_database: Database, source: str) -> None:
        """Wherever it is from; nothing is written. The key of the demo is as weak for others as any published key."""
        weak = DEMO_KEY.text if source == "demo" else "password" * 4
        if source == "argument":
            with pytest.raises(KeyUnusableError, match="can be guessed"):
                exported(sqlite_database, Path("exports"), key=weak)
        else:
            Path("key").write_text(weak)
            Path("key").chmod(0o600)
            env = {"FEEDBACK_ETL_KEY_FILE": "key"} if source == "file" else {"FEEDBACK_ETL_KEY": weak}
            env["FEEDBACK_ETL_DATABASE_URL"] = sqlite_database.url
            done = feedback_etl("export", "--output", "exports", env=env)
            assert (done.returncode, done.stdout) == (2, "")
            assert (
                "The pseudonym key can be guessed. Create one with `feedback-etl keys new --file FILE`" in done.stderr
            )
        assert not Path("exports").exists()

    def test_exports_of_a_weak_key_are_read_and_erased(self, sqlite_database: Database) -> None:
        """The key is retired, and a new one serves new exports."""
        weak, folder = "password" * 4, Path("exports")
        sqlite_database.fill(**people(3))
        exported(sqlite_database, folder, key=Key(weak, accept_weak=True))
        Path("weak").write_text(weak)
        Path("weak").chmod(0o600)
        with pytest.raises(KeyUnusableError, match=r"retire it \(`feedback-etl keys retire --file FILE`\)"):
            read_key(Path("weak"))
        Path("ids").write_text("201\n")
        database = {"FEEDBACK_ETL_DATABASE_URL": sqlite_database.url}
        command = ["erase", "--output", str(folder), "--analysis-ids-file", "ids"]
        done = feedback_etl(*command, "--key-file", "weak", env=database)
        assert (done.returncode, done.stderr) == (0, "1 row erased from 1 file\n")
        assert feedback_etl("keys", "retire", "--file", "weak").returncode == 0
        assert [key.text for key, _ in read_retired_keys(find_retired_folder())] == [weak]
        assert fe.privacy.erase(folder, analysis_ids=[202], keys=weak).rows == 1
        assert exported(sqlite_database, folder, key=KEY, allow_new_key=True).exported_records > 0


class TestStrongKeys:
    """Random keys."""

    def test_generated_keys_are_accepted(self) -> None:
        """A thousand as `keys new` makes them."""
        for _ in range(1_000):
            assert len(generate_key().text) == 64

    @pytest.mark.parametrize(
        ("size", "encode"),
        [(16, bytes.hex), (32, bytes.hex), (24, encode_base64), (32, encode_base64)],
        ids=["-hex 16", "-hex 32", "-base64 24", "-base64 32"],
    )
    def test_keys_of_openssl_are_accepted(self, size: int, encode: Callable[[bytes], str]) -> None:
        """A thousand of each form."""
        estimates = [estimate_key_bits(encode(value)) for value in random_bytes(size)]
        assert min(estimates) >= MIN_KEY_BITS

    def test_letters_that_look_like_words_by_chance_are_accepted(self) -> None:
        """Half of the few pairs of letters in the runs of this random key are common ones."""
        assert estimate_key_bits("ED5XITE2/ABSSApvwap/M9fXn/wTYuan") >= MIN_KEY_BITS

    def test_estimate_is_at_most_the_length_of_random_hex(self) -> None:
        """Four bits a character; the average loses little of them."""
        generator = random.Random(7)
        estimates = [estimate_key_bits(f"{generator.getrandbits(128):032x}") for _ in range(500)]
        assert max(estimates) <= 128
        assert sum(estimates) / len(estimates) > 120

    def test_more_characters_are_never_weaker(self) -> None:
        """A random key with words before and after it is as good."""
        assert estimate_key_bits(f"the key of production {KEY} of 2025") >= estimate_key_bits(KEY) - 10
        assert estimate_key_bits(KEY * 100) < estimate_key_bits(KEY) + 20
