"""Options that weaken an export are in its manifest, its audit record, the checklist and the record of processing."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandera.polars as pa
import pytest
from databases import Database
from folders import NOW, exported, people
from pseudonym_keys import KEY

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.limits import check_limits
from feedback_etl.compliance.record import list_current_exports, render_record
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.manifest import parse_manifest
from feedback_etl.settings.model import load_settings
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.model_loader import load_model


class Checks(pa.DataFrameModel):
    """Require nothing."""


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create an application with three people."""
    sqlite_database.fill(**people(3))
    return sqlite_database


def run(folder: Path, **settings: Any) -> ChecklistItem:
    """Run the item of the checklist."""
    storage = open_storage(folder)
    remedies = Remedies(load_settings(output_dir=folder, **settings))
    return check_limits(CheckContext(storage=storage, remedies=remedies, exports=list_current_exports(storage)))


WEAK: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"formulas": "allow"}, {}, "with formulas = allow instead of escape"),
    ({"k": 2}, {"k": 2, "max_suppressed": 0.05}, "with max_suppressed = 1 instead of 0.05"),
    ({"k": 2}, {"k": 2, "l": 2}, "without l = 2"),
    ({"k": 2, "t": 0.9}, {"k": 2, "t": 0.0}, "without t = 0"),
    ({}, {"row_model": "checks.py:Checks"}, "without the row model Checks"),
]


@pytest.mark.parametrize(("used", "required", "clause"), WEAK, ids=[clause for *_, clause in WEAK])
def test_export_with_weaker_limits_than_the_settings_fails(
    app: Database, tmp_path: Path, used: dict[str, Any], required: dict[str, Any], clause: str
) -> None:
    """Whatever the command line asked for; made as the settings require, it passes."""
    exported(app, tmp_path, **used)
    item = run(tmp_path, **required)
    assert (item.status, clause in item.detail) == ("failed", True)
    assert run(tmp_path, **{name: used[name] for name in used if name != "row_model"}).status == "ok"


def test_schema_without_a_name_is_known_by_that_of_its_variable(app: Database, tmp_path: Path) -> None:
    """An export with the row model of the settings passes, also where this is no class."""
    (path := tmp_path / "checks.py").write_text("import pandera.polars as pa\n\nchecks = pa.DataFrameSchema({})\n")
    exported(app, tmp_path / "exports", row_model=load_model(f"{path}:checks"))
    assert run(tmp_path / "exports", row_model=f"{path}:checks").status == "ok"


def test_weak_limits_are_in_the_manifest_the_log_and_the_record(app: Database, tmp_path: Path) -> None:
    """Also limits that the settings allow."""
    exported(app, tmp_path, formulas="allow", max_rejected=0.9, k=2, t=0.0, l=1, row_model=Checks, max_suppressed=0.99)
    (manifest,) = list_manifests(tmp_path)
    limits = {"formulas": "allow", "max_rejected": 0.9, "max_suppressed": 0.99, "row_model": "Checks", "strict": False}
    assert manifest.limits == limits
    assert manifest.settings["t"] == 0.0
    assert next(r for r in AuditLog(open_storage(tmp_path)).records() if r["event"] == "committed")["limits"] == limits
    item = run(tmp_path, formulas="allow")
    assert item.status == "ok"
    assert "contains texts that a spreadsheet would run as they are." in item.detail
    assert "could lose 90% of its rows as rejected." in item.detail
    record = render_record(load_settings(), [manifest])
    assert "suppressed, with l = 1 and t = 0: age_range" in record
    assert (
        "- **Limits**: at most 90% rejected rows, at most 99% suppressed rows, row model Checks, formulas = allow"
        in record
    )


def test_limit_cannot_be_changed_in_the_manifest(app: Database, tmp_path: Path) -> None:
    """Neither with a key nor without one, since the log records it as well."""
    for key, folder in ((KEY, tmp_path / "keyed"), (None, tmp_path / "unkeyed")):
        exported(app, folder, formulas="allow", key=key, unkeyed=key is None)
        assert verify_folder(folder, keys=[Key(KEY)]).problems == []
        (path,) = folder.glob("*.manifest.json")
        content = json.loads(path.read_text())
        changes: list[dict[str, object]] = [{"limits": content["limits"] | {"formulas": "escape"}}, {"limits": {}}]
        for change in changes:
            path.write_text(json.dumps(content | change))
            assert any("manifest" in problem for problem in verify_folder(folder, keys=[Key(KEY)]).problems)


def test_export_of_an_earlier_version_is_readable_and_not_called_ok(app: Database, tmp_path: Path) -> None:
    """Its manifest records no limits, and its MAC is that without the field."""
    exported(app, tmp_path)
    (path,) = tmp_path.glob("*.manifest.json")
    content = json.loads(path.read_text())
    del content["limits"]
    manifest = parse_manifest(json.dumps(content).encode(), path.name)
    assert "limits" not in manifest.to_dict()
    manifest.sign(Key(KEY))
    path.write_text(manifest.to_json())
    assert run(tmp_path).status == "skipped"
    assert "- **Limits**: not recorded" in render_record(load_settings(), [manifest])


def test_repeated_export_keeps_its_stricter_limits(app: Database, tmp_path: Path) -> None:
    """A remedy does not make a weaker export than the one that it replaces."""
    exported(app, tmp_path, k=2, max_suppressed=0.05, strict=True)
    exported(app, tmp_path, max_rejected=0.1, now=NOW + timedelta(days=1))
    remedies = Remedies(load_settings(output_dir=tmp_path, formulas="allow"))
    strict, rejecting = (remedies.replace(manifest) for manifest in list_manifests(tmp_path))
    assert "--strict --max-suppressed 0.05 --formulas escape" in strict
    assert "--max-rejected 0.1" in rejecting


def test_l_of_the_settings_is_not_called_ok_for_a_series(app: Database, tmp_path: Path) -> None:
    """A series cannot have it, so no remedy gives it to one."""
    exported(app, tmp_path, incremental=True, k=1)
    item = run(tmp_path, l=2)
    assert (item.status, item.remedy) == ("skipped", "")
    assert "l of feedback_training_" in item.detail
