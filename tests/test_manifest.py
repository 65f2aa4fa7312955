"""Persisted records that this version does not understand: one sentence, whatever they contain."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from feedback_etl.errors import ExportFileError
from feedback_etl.records.audit_records import Line
from feedback_etl.records.canonical_json import hash_settings
from feedback_etl.records.manifest import parse_manifest
from feedback_etl.records.tombstones import TombstoneFile

FOLDER = Path(__file__).parent / "data" / "exports_of_0_1_0"
PATH = sorted(FOLDER.glob("*.manifest.json"))[0]
CONTENT: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
CANARY = "canary-4711"


def refuse(content: bytes, name: str = PATH.name) -> str:
    with pytest.raises(ExportFileError) as caught:
        parse_manifest(content, name)
    return str(caught.value)


def test_the_unchanged_manifest_is_read() -> None:
    """So that each change below is what is refused."""
    assert parse_manifest(PATH.read_bytes(), PATH.name).stem == CONTENT["stem"]


@pytest.mark.parametrize("value", [None, 7, 7.5, True, "text", [], [CANARY], {}, {CANARY: CANARY}], ids=repr)
@pytest.mark.parametrize("name", sorted(CONTENT))
def test_field_of_another_type_is_refused(name: str, value: object) -> None:
    """Or has no effect; it never raises another error."""
    content = json.dumps(CONTENT | {name: value}).encode()
    if type(value) is type(CONTENT[name]) or value is None or name == "settings_digest":
        with suppress(ExportFileError):
            parse_manifest(content, PATH.name)
        return
    message = refuse(content)
    assert "is not a manifest that this version understands" in message
    assert CANARY not in message


@pytest.mark.parametrize("value", [None, 7.5, -1, "3", True, [], {CANARY: 1}], ids=repr)
@pytest.mark.parametrize("name", ["rows", "bytes", "sha256", "path", "kind", "becoming", "etag"])
def test_file_with_a_field_of_another_type_is_refused(name: str, value: object) -> None:
    """A path that is a text may be any other file's, which is refused too."""
    if isinstance(value, str) and name in {"sha256", "kind", "etag"}:
        return
    files = [CONTENT["files"][0] | {name: value}]
    assert "is not a manifest" in refuse(json.dumps(CONTENT | {"files": files}).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"becoming": {"rows": 1, "bytes": 2}},
        {"becoming": {"rows": "1", "bytes": 2, "sha256": "0"}},
        {"more": CANARY},
    ],
    ids=["incomplete", "text", "unknown"],
)
def test_announced_replacement_is_checked(change: dict[str, Any]) -> None:
    """An erasure would act upon it."""
    files = [CONTENT["files"][0] | change]
    assert CANARY not in refuse(json.dumps(CONTENT | {"files": files}).encode())


@pytest.mark.parametrize("value", [7, True, "text", [7], [None], [[CANARY]], [[CANARY, 7]], {CANARY: 7}], ids=repr)
@pytest.mark.parametrize("name", ["overridden", "extra_columns", "age_edges"])
def test_setting_that_readers_use_is_checked(name: str, value: object) -> None:
    """A reader would raise another error, which may contain values."""
    if (name, value) in [("age_edges", [7]), ("extra_columns", [[CANARY]])]:
        return
    content = json.dumps(CONTENT | {"settings": CONTENT["settings"] | {name: value}}).encode()
    assert CANARY not in refuse(content)


@pytest.mark.parametrize("value", [None, 7.5, "text", [7], {CANARY: 7}], ids=repr)
@pytest.mark.parametrize("name", ["k", "at_least", "quasi_identifiers", "stale"])
def test_measure_of_risk_that_the_checklist_reads_is_checked(name: str, value: object) -> None:
    """It is missing, or of another type."""
    risk = {"k": 2, "at_least": False, "quasi_identifiers": ["age_range"], "stale": False}
    assert parse_manifest(json.dumps(CONTENT | {"risk": risk}).encode(), PATH.name).risk == risk
    if (name, value) != ("k", None):  # no row is published
        assert CANARY not in refuse(json.dumps(CONTENT | {"risk": risk | {name: value}}).encode())
    del risk[name]
    assert "is not a manifest" in refuse(json.dumps(CONTENT | {"risk": risk}).encode())


def test_settings_stay_as_they_were_written() -> None:
    """Their digest identifies the series of an export."""
    settings = CONTENT["settings"] | {"extra_columns": [["channel", "insensitive", "text"]], "age_edges": [0, 18]}
    content = CONTENT | {"settings": settings, "settings_digest": hash_settings(settings)}
    manifest = parse_manifest(json.dumps(content).encode(), PATH.name)
    assert json.dumps(manifest.settings) == json.dumps(settings)


def test_wrong_digest_of_the_settings_is_refused() -> None:
    """No MAC covers it, since it is computed from the settings."""
    content = CONTENT | {"settings_digest": "0" * 16}
    with pytest.raises(ExportFileError, match="not a manifest"):
        parse_manifest(json.dumps(content).encode(), PATH.name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"settings_digest": 1}',
        b'{"settings_digest": NaN}',
        b'{"settings_digest": ' + b"9" * 5_000 + b"}",
        b'{"settings_digest": "\\ud800"}',
        b"\xef\xbb\xbf{}",
    ],
    ids=[
        "empty",
        "torn",
        "list",
        "null",
        "number",
        "text",
        "bytes",
        "deep list",
        "deep object",
        "nothing else",
        "not a number",
        "5,000 digits",
        "lone surrogate",
        "byte order mark",
    ],
)
def test_content_that_is_no_manifest_is_refused(content: bytes) -> None:
    """A folder may be shared with its writers."""
    assert "is not a manifest that this version understands" in refuse(content)


def test_unknown_field_is_refused() -> None:
    """A newer version may mean something by it."""
    assert "is not a manifest" in refuse(json.dumps(CONTENT | {"version": 1}).encode())
    assert "is not a manifest" in refuse(json.dumps(CONTENT | {CANARY: 1}).encode())


def test_manifest_of_another_version_is_named() -> None:
    """Whatever the version is."""
    assert "written by another version" in refuse(json.dumps(CONTENT | {"schema_version": 2}).encode())


def test_name_must_be_that_of_the_stem() -> None:
    """A copy under another name would be another export of the same files."""
    assert "is not a manifest" in refuse(PATH.read_bytes(), "feedback_training_20200101_000000.manifest.json")


@pytest.mark.parametrize("value", [None, 7.5, "7", True, [], {CANARY: 7}], ids=repr)
@pytest.mark.parametrize("name", ["number", "at", "event", "user", "host", "key_id", "previous", "mac"])
def test_audit_line_with_a_field_of_another_type_is_no_record(name: str, value: object) -> None:
    """It counts as torn, and the verification reports it."""
    record = json.loads((FOLDER / ".feedback_etl" / "audit.jsonl").read_bytes().splitlines()[0])
    assert Line.of(json.dumps(record).encode()).record == record
    assert Line.of(json.dumps(record | {"more": value}).encode()).record is not None
    is_text = name != "number" and isinstance(value, str)
    if not (is_text or (name == "key_id" and value is None)):
        assert Line.of(json.dumps(record | {name: value}).encode()).record is None


@pytest.mark.parametrize("value", [None, 7, True, [], {CANARY: 7}], ids=repr)
@pytest.mark.parametrize("name", ["erasure", "kind", "digest", "key_id", "more"])
def test_tombstone_with_a_field_of_another_type_is_refused(tmp_path: Path, name: str, value: object) -> None:
    """So that no erased person comes back unnoticed."""
    if name == "key_id" and value is None:
        return
    line = {"erasure": "1", "kind": "user", "digest": "0", "key_id": None}
    path = tmp_path / ".feedback_etl" / "tombstones.jsonl"
    path.parent.mkdir(mode=0o700)
    path.write_text(json.dumps(line) + "\n")
    assert TombstoneFile(tmp_path).erasures == {"1"}
    path.write_text(json.dumps(line | {name: value}) + "\n")
    with pytest.raises(ExportFileError, match="contains a line that is not a tombstone") as caught:
        _ = TombstoneFile(tmp_path).erasures
    assert CANARY not in str(caught.value)
