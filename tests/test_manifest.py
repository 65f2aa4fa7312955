"""Manifests that this version does not understand: one sentence, whatever is in them."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.manifest import parse_manifest

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
    assert "is no manifest that this version understands" in message
    assert CANARY not in message


@pytest.mark.parametrize("value", [None, 7.5, -1, "3", True, [], {CANARY: 1}], ids=repr)
@pytest.mark.parametrize("name", ["rows", "bytes", "sha256", "path", "kind", "becoming", "etag"])
def test_file_with_a_field_of_another_type_is_refused(name: str, value: object) -> None:
    """A path that is a text may be any other file's, which is refused too."""
    if isinstance(value, str) and name in {"sha256", "kind", "etag"}:
        return
    files = [CONTENT["files"][0] | {name: value}]
    assert "is no manifest" in refuse(json.dumps(CONTENT | {"files": files}).encode())


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
    ],
    ids=["empty", "torn", "list", "null", "number", "text", "bytes", "deep list", "deep object", "nothing else"],
)
def test_content_that_is_no_manifest_is_refused(content: bytes) -> None:
    """A folder may be shared with whoever writes into it."""
    assert "is no manifest that this version understands" in refuse(content)


def test_unknown_field_is_refused() -> None:
    """A newer version may mean something by it."""
    assert "is no manifest" in refuse(json.dumps(CONTENT | {"version": 1}).encode())
    assert "is no manifest" in refuse(json.dumps(CONTENT | {CANARY: 1}).encode())


def test_manifest_of_another_version_is_named() -> None:
    """Whatever the version is."""
    assert "written by another version" in refuse(json.dumps(CONTENT | {"schema_version": 2}).encode())


def test_name_must_be_that_of_the_stem() -> None:
    """A copy under another name would be another export of the same files."""
    assert "is no manifest" in refuse(PATH.read_bytes(), "feedback_training_20200101_000000.manifest.json")
