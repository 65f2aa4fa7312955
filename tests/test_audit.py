"""The audit log records who did what, and verification reports every way of tampering with it."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pseudonym_keys
import pytest

from feedback_etl.privacy.keys import Key, generate_key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import VerificationResult, verify_lines

KEY = Key(pseudonym_keys.KEY)
OTHER = Key(pseudonym_keys.OTHER_KEY)
RECORDS = 12

Lines = list[bytes]
Tamper = Callable[[Lines, random.Random], None]


def write_log(folder: Path, key: Key | None = KEY, records: int = RECORDS) -> AuditLog:
    """A log with some records."""
    log = AuditLog(folder)
    for number in range(records):
        with log.lock() as opened:
            opened.append("started", key, run=f"run {number}", rows=number)
    return log


def verify_log(
    log: AuditLog, anchors: dict[str, str] | None = None, keys: tuple[Key, ...] = (KEY,)
) -> VerificationResult:
    return verify_lines(log.lines(), keys, anchors or {})


def test_unchanged_log_verifies(tmp_path: Path) -> None:
    """Also one of several keys; without one of them, its records cannot be distinguished from forged ones."""
    log = write_log(tmp_path)
    with log.lock() as opened:
        head = opened.append("pruned", OTHER, exports=[])
    assert verify_log(log, {"a manifest": head}, (KEY, OTHER)) == VerificationResult(RECORDS + 1, [], 0, 0, head)
    assert log.head() == head
    assert (verify_log(log).unknown, len(verify_log(log).problems)) == (1, 1)


def test_missing_log_has_no_problems(tmp_path: Path) -> None:
    """A folder in which nothing happened has none."""
    assert verify_log(AuditLog(tmp_path)).problems == []
    assert list(tmp_path.iterdir()) == []


def test_records_contain_user_time_and_event(tmp_path: Path) -> None:
    """And are private."""
    log = write_log(tmp_path, records=1)
    (record,) = log.records()
    assert {"number", "at", "event", "user", "host", "process", "key_id", "previous", "mac"} <= {*record}
    assert (record["event"], record["key_id"], record["run"]) == ("started", KEY.id, "run 0")
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700


def flip(lines: Lines, rng: random.Random) -> None:
    """A bit changes somewhere."""
    number = rng.randrange(len(lines))
    line = bytearray(lines[number])
    line[rng.randrange(len(line))] ^= 1 << rng.randrange(7)
    lines[number] = bytes(line)


def delete(lines: Lines, rng: random.Random) -> None:
    """A record goes, but not the last, which is `cut`."""
    del lines[rng.randrange(len(lines) - 1)]


def swap(lines: Lines, rng: random.Random) -> None:
    """Two neighbours change places."""
    number = rng.randrange(len(lines) - 1)
    lines[number : number + 2] = lines[number + 1], lines[number]


def insert(lines: Lines, rng: random.Random) -> None:
    """A record is there twice."""
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))


def exchange(lines: Lines, rng: random.Random) -> None:
    """A record is replaced by one of the same number that the same key signed for another folder."""
    number = rng.randrange(len(lines))
    other = write_log(Path(f"other {rng.random()}"))
    lines[number] = other.path.read_bytes().splitlines()[number]


def rewrite(lines: Lines, rng: random.Random) -> None:
    """A user with another key rewrites a record and all later ones."""
    start = rng.randrange(len(lines))
    forged = AuditLog(Path("forged"))
    forged.path.parent.mkdir(parents=True, exist_ok=True)
    forged.path.write_bytes(b"".join(line + b"\n" for line in lines[:start]))
    key = rng.choice([None, generate_key()])
    for _ in lines[start:]:
        with forged.lock() as opened:
            opened.append("started", key, run="another", rows=0)
    lines[:] = forged.path.read_bytes().splitlines()
    if key is not None:  # its name is known, it itself is not
        lines[start:] = [json.dumps(json.loads(line) | {"key_id": KEY.id}).encode() for line in lines[start:]]


def cut(lines: Lines, rng: random.Random) -> None:
    """The end is gone."""
    del lines[rng.randrange(len(lines)) :]


@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.torture)])
@pytest.mark.parametrize("tamper", [flip, delete, swap, insert, exchange, rewrite, cut])
def test_tampering_is_detected(tmp_path: Path, tamper: Tamper, times: int) -> None:
    """Wherever it is done."""
    log = write_log(tmp_path)
    anchors = {"a manifest": log.head()}
    content = log.path.read_bytes()
    rng = random.Random(times)
    for _ in range(times):
        lines = content.splitlines()
        tamper(lines, rng)
        if lines == content.splitlines():  # a flip of a bit that JSON does not mind is none
            continue
        log.path.write_bytes(b"".join(line + b"\n" for line in lines))
        assert verify_log(log, anchors).problems


def test_every_field_of_a_record_is_signed(tmp_path: Path) -> None:
    """Whichever is changed or left out, the record is not the one that was signed."""
    log = write_log(tmp_path, records=2)
    first, second = log.records()
    for name, value in second.items():
        changed = 7 if isinstance(value, int) else f"not {value}"
        without = {other: kept for other, kept in second.items() if other != name}
        for record in (second | {name: changed}, without):
            log.path.write_text(f"{json.dumps(first)}\n{json.dumps(record)}\n")
            assert verify_log(log).problems, name


def test_torn_line_is_kept_and_the_chain_continues(tmp_path: Path) -> None:
    """A crash in mid-record is evidence, not tampering; changed afterwards, it is."""
    log = write_log(tmp_path)
    content = log.path.read_bytes()
    torn = content.splitlines()[-1][:40]
    log.path.write_bytes(content + torn)
    assert verify_log(log).problems == ["the last line is torn; the next record will say so"]
    with log.lock() as opened:
        opened.append("recovered", KEY, run="run 1")
    assert verify_log(log) == VerificationResult(RECORDS + 1, [], 0, 0, log.head())
    assert torn in log.path.read_bytes()
    log.path.write_bytes(log.path.read_bytes().replace(torn + b"\n", torn[:-1] + b"\n"))
    assert len(verify_log(log).problems) == 1


def test_log_torn_in_its_first_line_continues(tmp_path: Path) -> None:
    """There is no record to continue from yet."""
    log = AuditLog(tmp_path)
    log.path.parent.mkdir()
    log.path.write_bytes(b'{"number": 1, "at"')
    with log.lock() as opened:
        opened.append("started", KEY, run="a")
    assert verify_log(log).problems == []


def test_unsigned_records_are_counted(tmp_path: Path) -> None:
    """Anyone could have written them; after signed ones they are a problem."""
    log = write_log(tmp_path, key=None)
    assert verify_log(log) == VerificationResult(RECORDS, [], RECORDS, 0, log.head())
    with log.lock() as opened:
        opened.append("started", KEY, run="signed")
    assert verify_log(log).problems == []
    with log.lock() as opened:
        opened.append("started", None, run="unsigned")
    assert verify_log(log).problems == [f"line {RECORDS + 2}: it is not signed by a key, as it has to be"]


def test_log_continues_after_long_records(tmp_path: Path) -> None:
    """The end of the log is found also where a record is longer than one block."""
    log = write_log(tmp_path)
    for _ in range(3):
        with log.lock() as opened:
            opened.append("erased", KEY, files=["x" * 100_000])
    assert verify_log(log) == VerificationResult(RECORDS + 3, [], 0, 0, log.head())


def test_concurrent_writers_lose_no_record(tmp_path: Path) -> None:
    """The chain verifies afterwards."""

    def write() -> None:
        for _ in range(20):
            with AuditLog(tmp_path).lock() as opened:
                opened.append("started", KEY, run="one of many")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = verify_log(AuditLog(tmp_path))
    assert (result.records, result.problems) == (160, [])
