"""Tampering with a folder without its key is found, or is of the one kind that docs/privacy.md lists."""

import hashlib
import json
import os
import pwd
import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import NOW, exported, people
from processes import Here
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import ExportFileError, FeedbackError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import CHAIN_START, compute_mac
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import MANIFEST_SUFFIX
from feedback_etl.records.tombstones import TombstoneFile
from feedback_etl.training.dataset import scan_training

KEYS = [Key(KEY)]
LOG = ".feedback_etl/audit.jsonl"
TOMBSTONES = ".feedback_etl/tombstones.jsonl"
ERASED = ("201", "202", "203")
"""The analyses of user 2."""

Json = dict[str, Any]
Tamper = Callable[[Path, random.Random], None]


@pytest.fixture
def folder(tmp_path: Path, sqlite_database: Database) -> Path:
    """Return a folder with three exports, an erasure from the first two, and a pruned export."""
    sqlite_database.fill(**people(4))
    folder = tmp_path / "exports"
    exported(sqlite_database, folder, now=NOW - timedelta(days=9))
    exported(sqlite_database, folder, now=NOW - timedelta(hours=2), incremental=True)
    shutil.copytree(folder, tmp_path / "before the erasure")
    fe.privacy.erase(folder, analysis_ids=ERASED, keys=KEYS)
    fe.exports.prune(folder, keep_days=5, key=KEYS[0], now=NOW)
    exported(sqlite_database, folder, now=NOW)
    assert verify_folder(folder, KEYS, data=True).problems == []
    return folder


def find_manifests(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{MANIFEST_SUFFIX}"))


def find_data(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".csv", ".rows"})


def read_log(folder: Path) -> list[Json]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def rebuild_log(folder: Path, records: list[Json]) -> None:
    """Write a log of these records as a chain without a key."""
    lines, previous = [], CHAIN_START
    for number, record in enumerate(records, 1):
        changed = record | {"number": number, "previous": previous, "key_id": None}
        previous = compute_mac(changed, None)
        lines.append(json.dumps(changed | {"mac": previous}))
    (folder / LOG).write_text("".join(f"{line}\n" for line in lines))


def flip(path: Path, rng: random.Random) -> None:
    """Change a bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
    path.write_bytes(content)


def repeat_name(line: str, rng: random.Random) -> str:
    """Return a JSON object with a second value of one of its names."""
    name = rng.choice(list(json.loads(line)))
    return line.replace("{", f'{{"{name}": "x", ', 1)


def change_line(path: Path, rng: random.Random) -> None:
    """Change, remove, repeat, move or extend a line of the log or of the tombstones."""
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[number]
        case 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[number])
        case 2:
            lines.append(lines.pop(number))
        case 3:
            lines[number] = repeat_name(lines[number], rng)
        case _:
            record = json.loads(lines[number])
            name = rng.choice(list(record))
            lines[number] = json.dumps(record | {name: rng.choice([None, "x", 7, [], {}])})
    path.write_text("".join(f"{line}\n" for line in lines))


def tamper_with_log(folder: Path, rng: random.Random) -> None:
    rng.choice([flip, change_line])(folder / LOG, rng)


def rebuild_part_of_log(folder: Path, rng: random.Random) -> None:
    """Leave out some records and make a chain of the others."""
    records = read_log(folder)
    rebuild_log(folder, [record for record in records if rng.random() < rng.choice([0.5, 0.9, 1])])


def tamper_with_tombstones(folder: Path, rng: random.Random) -> None:
    path = folder / TOMBSTONES
    if rng.random() < 0.1:
        path.unlink()
    else:
        rng.choice([flip, change_line])(path, rng)


def edit_manifest(path: Path, rng: random.Random) -> None:
    """Change a field of a manifest, without its MAC or with it."""
    content = json.loads(path.read_text())
    name = rng.choice(list(content))
    content[name] = rng.choice([None, "x", "", 7, [], {}, True])
    content |= {"mac": "", "signed_by": None} if rng.random() < 0.5 else {}
    path.write_text(json.dumps(content))


def tamper_with_manifest(folder: Path, rng: random.Random) -> None:
    path = rng.choice(find_manifests(folder))
    content = json.loads(path.read_text())
    match rng.randrange(7):
        case 0:
            flip(path, rng)
        case 1:
            edit_manifest(path, rng)
        case 2:
            path.write_text(repeat_name(path.read_text(), rng))
        case 3:
            path.unlink()
        case 4:
            path.write_text(json.dumps(content | {"key_id": None, "signed_by": None, "mac": ""}))
        case 5:
            stem = "feedback_training_20200101_000000"
            added = content | {"stem": stem, "files": [], "key_id": None, "signed_by": None, "mac": ""}
            (folder / f"{stem}{MANIFEST_SUFFIX}").write_text(json.dumps(added))
        case _:
            shutil.copy(rng.choice(find_manifests(folder.parent / "before the erasure")), folder)


def tamper_with_data(folder: Path, rng: random.Random) -> None:
    path = rng.choice(find_data(folder))
    match rng.randrange(4):
        case 0:
            flip(path, rng)
        case 1:
            path.unlink()
        case 2:
            path.write_bytes(path.read_bytes()[: -rng.randrange(1, 40)])
        case _:
            poison(folder, path, rng)


def poison(folder: Path, path: Path, rng: random.Random) -> None:
    """Change a data file, its manifest and, at times, the log together."""
    flip(path, rng)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = path.relative_to(folder).as_posix()
    for manifest in find_manifests(folder):
        content = json.loads(manifest.read_text())
        for file in content["files"]:
            file |= {"sha256": digest} if file["path"] == name else {}
        content |= {"mac": "", "signed_by": None} if rng.random() < 0.5 else {}
        manifest.write_text(json.dumps(content))
    if rng.random() < 0.5:
        records = read_log(folder)
        for file in (file for record in records if record["event"] == "committed" for file in record["files"]):
            file |= {"sha256": digest} if file["path"] == name else {}
        rebuild_log(folder, records)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the contents of all files; that of JSON without regard to white space."""

    def parse(path: Path) -> Any:
        content = path.read_bytes()
        try:
            if path.suffix == ".json":
                return json.loads(content, object_pairs_hook=list)
            if path.suffix == ".jsonl":
                return [json.loads(line, object_pairs_hook=list) for line in content.splitlines()]
        except ValueError:
            pass
        return content

    return {path.relative_to(folder).as_posix(): parse(path) for path in folder.rglob("*") if path.is_file()}


def is_cut_after_last_anchor(folder: Path, original: list[Json]) -> bool:
    """Return whether only records are missing that no manifest anchors, as docs/privacy.md lists."""
    lines = (folder / LOG).read_text(errors="replace").splitlines()
    anchors = {manifest.audit_head for manifest in list_manifests(folder)}
    last = max(number for number, record in enumerate(original, 1) if record["mac"] in anchors)
    return len(lines) >= last and lines == [json.dumps(record, ensure_ascii=False) for record in original[: len(lines)]]


def is_found(folder: Path) -> bool:
    try:
        return bool(verify_folder(folder, KEYS, data=True).problems)
    except FeedbackError:  # a manifest that cannot be read
        return True


TAMPERINGS: list[Tamper] = [
    tamper_with_log,
    rebuild_part_of_log,
    tamper_with_tombstones,
    tamper_with_manifest,
    tamper_with_data,
]


@pytest.mark.parametrize("tamper", TAMPERINGS)
@pytest.mark.parametrize("times", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_random_tampering_is_found(folder: Path, tmp_path: Path, tamper: Tamper, times: int) -> None:
    """All five kinds together: 200 times, and 2,000 times in the slow tier."""
    rng, original, log = random.Random(f"{tamper.__name__} {times}"), read_state(folder), read_log(folder)
    copy, done, missed = tmp_path / "copy", 0, []
    shutil.copytree(tmp_path / "before the erasure", tmp_path / "copies" / "before the erasure")
    copy = tmp_path / "copies" / "exports"
    while done < times:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        tamper(copy, rng)
        changed = read_state(copy)
        if changed == original:
            continue
        done += 1
        if not is_found(copy) and not is_cut_after_last_anchor(copy, log):
            names = [name for name in {*changed, *original} if changed.get(name) != original.get(name)]
            missed.append((done, [(name, original.get(name), changed.get(name)) for name in names]))
    assert missed == []


@pytest.fixture
def rebuilt(folder: Path) -> Path:
    """Return a folder whose log was rebuilt without its erasure, whose tombstones are gone and one key is removed."""
    rebuild_log(folder, [record for record in read_log(folder) if record["event"] != "erased"])
    (folder / TOMBSTONES).unlink()
    path = find_manifests(folder)[-1]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key_id": None, "signed_by": None, "mac": ""}))
    return folder


class TestRebuiltLog:
    """Rebuilding the log without a key brings no erased person back."""

    def test_verification_finds_it(self, rebuilt: Path) -> None:
        problems = verify_folder(rebuilt, KEYS).problems
        assert "line 1: it is not signed by a key, as it has to be" in problems
        assert any("rows were erased" in problem for problem in problems)
        assert any("names another key" in problem or "is not signed" in problem for problem in problems)

    @pytest.mark.parametrize("keeps_commits", [True, False])
    def test_export_is_refused(self, rebuilt: Path, sqlite_database: Database, keeps_commits: bool) -> None:
        """Also if the forged log records no commit, so that it names no key."""
        before = {path.name for path in find_data(rebuilt)}
        if not keeps_commits:
            rebuild_log(rebuilt, [record for record in read_log(rebuilt) if record["event"] != "committed"])
        with pytest.raises(FeedbackError):
            exported(sqlite_database, rebuilt, now=NOW + timedelta(hours=1))
        assert {path.name for path in find_data(rebuilt)} == before

    @pytest.mark.parametrize("event", ["started", "adopted"])
    def test_a_pruning_does_not_make_it_credible(self, rebuilt: Path, sqlite_database: Database, event: str) -> None:
        """It signs a record after the forged ones."""
        records = [record for record in read_log(rebuilt) if record["event"] != "committed"]
        rebuild_log(rebuilt, [record | ({"event": event} if "stem" in record else {}) for record in records])
        stem = next(json.loads(path.read_text())["stem"] for path in find_manifests(rebuilt)[::-1])
        with pytest.raises(ExportFileError, match="nothing was removed"):
            fe.exports.prune(rebuilt, exports=[stem], key=KEYS[0])
        with AuditLog(rebuilt).lock() as log:  # as earlier versions did
            log.append("pruned", KEYS[0], exports=[stem], keep_days=None)
        assert AuditLog(rebuilt).records()[-1]["key_id"] == KEYS[0].id
        with pytest.raises(FeedbackError):
            exported(sqlite_database, rebuilt, now=NOW + timedelta(hours=1))
        assert verify_folder(rebuilt, KEYS).problems

    def test_export_after_removal_of_the_log_is_refused(self, folder: Path, sqlite_database: Database) -> None:
        """The manifests show that there was one."""
        shutil.rmtree(folder / ".feedback_etl")
        with pytest.raises(ExportFileError, match=r"does not record feedback_training_\w+ with a signature"):
            exported(sqlite_database, folder, now=NOW + timedelta(hours=1))

    def test_erasure_is_refused(self, rebuilt: Path) -> None:
        """It would sign what was forged."""
        with pytest.raises(ExportFileError, match="nothing was erased"):
            fe.privacy.erase(rebuilt, analysis_ids=["301"], keys=KEYS)

    @pytest.mark.parametrize("key", [(), KEY])
    def test_verified_scan_is_refused(self, rebuilt: Path, key: str) -> None:
        with pytest.raises(ExportFileError, match="does not verify"):
            scan_training(rebuilt, verify=True, key=key, mixed=True)


def test_poisoned_rows_are_not_scanned(folder: Path) -> None:
    """Data and manifest that were changed together."""
    path = next(path for path in find_data(folder) if path.parent == folder)
    path.write_text(path.read_text().replace(",5,", ",1,"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = folder / f"{path.stem}{MANIFEST_SUFFIX}"
    content = json.loads(manifest.read_text())
    content["files"] = [file | ({"sha256": digest} if file["path"] == path.name else {}) for file in content["files"]]
    manifest.write_text(json.dumps(content))
    with pytest.raises(ExportFileError, match="does not verify"):
        scan_training(folder, verify=True, key=KEY)
    with pytest.raises(ExportFileError, match="nothing was erased"):
        fe.privacy.erase(folder, analysis_ids=["301"], keys=KEYS)


def test_incremental_series_is_not_continued_from_a_changed_state(folder: Path, sqlite_database: Database) -> None:
    """A later watermark would leave rows out."""
    path = next(path for path in find_manifests(folder) if json.loads(path.read_text())["mode"] == "incremental")
    content = json.loads(path.read_text())
    later = (NOW - timedelta(minutes=1)).isoformat()
    path.write_text(json.dumps(content | {"chain": content["chain"] | {"known_since": later}}))
    with pytest.raises(ExportFileError, match=r"manifest\.json was changed\. Restore it"):
        exported(sqlite_database, folder, now=NOW + timedelta(hours=1), incremental=True)


def test_changed_file_is_not_signed_by_an_erasure(folder: Path) -> None:
    """It is left as it is, and reported."""
    path = next(path for path in find_data(folder) if path.parent == folder)
    path.write_text(path.read_text().replace(",5,", ",1,"))
    result = fe.privacy.erase(folder, analysis_ids=["301"], keys=KEYS)
    assert result.damaged == [path.name]
    assert verify_folder(folder, KEYS, data=True).problems == [f"{path.name} was changed"]


@pytest.mark.parametrize("command", ["prune", "adopt"])
def test_changed_manifest_is_not_signed_by_other_commands(folder: Path, command: str) -> None:
    """Nothing is changed, as in an erasure."""
    path = find_manifests(folder)[0]
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"columns": [*content["columns"], "name"]}))
    (folder / "old.csv").write_text("analysis_hash\n")
    before = {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    run: Callable[[], object] = partial(fe.exports.prune, folder, keep_days=0, key=KEYS[0])
    if command == "adopt":
        run = partial(fe.exports.adopt, folder / "old.csv", key=KEYS[0])
    with pytest.raises(ExportFileError, match=r"does not verify \(.*so nothing was (removed|adopted)\. Restore"):
        run()
    assert {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()} == before


def test_older_state_of_the_whole_folder_is_found_by_a_stored_head(folder: Path, tmp_path: Path) -> None:
    """The folder alone does not show it; docs/privacy.md lists it."""
    head = AuditLog(folder).head()
    before = tmp_path / "before the erasure"
    assert verify_folder(before, KEYS, data=True).problems == []
    assert verify_folder(before, KEYS, head=head).problems == [
        f"the head {head} is missing: the log was cut or replaced"
    ]
    assert verify_folder(folder, KEYS, head=head).problems == []


def test_repeated_names_are_refused(folder: Path) -> None:
    """In the log, in manifests and in tombstones."""
    path, rng = folder / LOG, random.Random(1)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], repeat_name(lines[-1], rng)]) + "\n")
    assert verify_folder(folder, KEYS).problems
    tombstones = folder / TOMBSTONES
    tombstones.write_text(tombstones.read_text().replace("{", '{"kind": "user", ', 1))
    with pytest.raises(ExportFileError, match="not a tombstone"):
        _ = TombstoneFile(folder).erasures
    manifest = find_manifests(folder)[0]
    manifest.write_text(repeat_name(manifest.read_text(), rng))
    with pytest.raises(ExportFileError, match="not a manifest"):
        list_manifests(folder)


def test_erasure_whose_tombstones_were_torn_is_run_again(folder: Path, sqlite_database: Database) -> None:
    """A crash in the middle of writing them looks like lines that were added: verification reports it."""
    path = folder / TOMBSTONES
    lines = path.read_text()
    path.write_text(lines + lines.splitlines()[0].replace('"erasure": "', '"erasure": "f') + '\n{"erasure": "f')
    assert any("has not sealed" in problem for problem in verify_folder(folder, KEYS).problems)
    assert fe.privacy.erase(folder, analysis_ids=["301"], keys=KEYS).rows > 0
    assert verify_folder(folder, KEYS, data=True).problems == []
    exported(sqlite_database, folder, now=NOW + timedelta(hours=1))


@pytest.mark.parametrize("is_first", [True, False], ids=["of a new folder", "of a folder with exports"])
def test_tombstones_of_another_folder_are_refused(
    folder: Path, sqlite_database: Database, tmp_path: Path, is_first: bool
) -> None:
    """They are of the same key, and would leave people out of later exports."""
    other = tmp_path / "other"
    other.mkdir()
    if not is_first:
        exported(sqlite_database, other)
    fe.privacy.erase(other, analysis_ids=["301", "302"], keys=KEYS)
    path = folder / TOMBSTONES
    own = path.read_bytes()
    path.write_bytes(own + (other / TOMBSTONES).read_bytes())
    result = verify_folder(folder, KEYS)
    assert ["they are of another folder, or were changed" in problem for problem in result.tampering] == [True]
    with pytest.raises(ExportFileError, match=r"of another folder, or were changed\. Restore the file from a backup"):
        exported(sqlite_database, folder, now=NOW + timedelta(hours=1))
    with pytest.raises(ExportFileError, match="nothing was erased"):
        fe.privacy.erase(folder, analysis_ids=["101"], keys=KEYS)
    path.write_bytes(own)
    exported(sqlite_database, folder, now=NOW + timedelta(hours=1))


def test_moved_folder_keeps_its_tombstones(folder: Path, sqlite_database: Database, tmp_path: Path) -> None:
    """Also after an erasure that was interrupted before it was recorded: its set is sealed and effective."""
    log = folder / LOG
    recorded = log.read_bytes()
    assert fe.privacy.erase(folder, analysis_ids=["301"], keys=KEYS).rows > 0
    moved = folder.rename(tmp_path / "moved")
    assert verify_folder(moved, KEYS, data=True).problems == []
    (moved / LOG).write_bytes(recorded)
    assert not any("sealed" in problem for problem in verify_folder(moved, KEYS).problems)
    report = exported(sqlite_database, moved, now=NOW + timedelta(hours=1))
    assert report.erased_records > 0


def test_user_of_a_record_is_the_real_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is a separate source."""
    monkeypatch.setenv("LOGNAME", "somebody.else")
    with AuditLog(tmp_path).lock() as log:
        log.append("started", KEYS[0])
    (record,) = AuditLog(tmp_path).records()
    assert record["user"] == pwd.getpwuid(os.getuid()).pw_name
    assert record["login"] == "somebody.else"


def test_unkeyed_folder_is_not_protected(tmp_path: Path, sqlite_database: Database) -> None:
    """Its log verifies, but that proves nothing."""
    sqlite_database.fill(**people(2))
    exported(sqlite_database, tmp_path, key=None, unkeyed=True)
    result = verify_folder(tmp_path, KEYS, data=True)
    assert (result.problems, result.is_protected) == ([], False)


def test_superseded_seen_rows_of_a_series_are_not_missing(
    tmp_path: Path, sqlite_database: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those of the last export are needed."""
    sqlite_database.fill(**people(2))
    folder, here = tmp_path / "series", Here(capfd, monkeypatch)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    exported(sqlite_database, folder, now=NOW, incremental=True)
    sqlite_database.clear()
    sqlite_database.fill(**people(3, days_ago=-2))
    exported(sqlite_database, folder, now=NOW + timedelta(days=3), incremental=True)
    assert len(find_manifests(folder)) == 2
    assert here("audit", "verify", "--output", folder).code == 0
    assert here("audit", "verify", "--output", folder, "--head", "").code == 2
    for path in (folder / ".feedback_etl").glob("*.rows"):
        path.unlink()
    verified = here("audit", "verify", "--output", folder)
    assert verified.code == 1
    assert ".rows is missing" in verified.out
