"""The Croissant description of a folder, judged and read by the standard's own package."""

import hashlib
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import FORMS, NOW, exported, people
from processes import Here
from pseudonym_keys import KEY

from feedback_etl.errors import ExportFileError
from feedback_etl.exports import prune
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.report import write_croissant
from feedback_etl.report.croissant import build_croissant
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import IMAGE_URL

FOLDER = Path("out")

# In a process of its own: importing it warns of what its libraries will change.
READ = """
import json, sys
import mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = dataset.metadata.ctx.issues
print(json.dumps({
    "errors": sorted(issues.errors),
    "warnings": sorted(issues.warnings),
    "records": {
        record_set.id: [{key: str(value) for key, value in row.items()} for row in dataset.records(record_set.id)]
        for record_set in dataset.metadata.record_sets if len(sys.argv) > 2
    },
}))
"""


def judged(path: Path, *, read: bool = False) -> dict[str, Any]:
    """The errors that mlcroissant reports for a description, and the rows that it reads by it."""
    command = [sys.executable, "-c", READ, str(path), *(["read"] if read else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def filled(sqlite_database: Database) -> Database:
    """Feedback of eight people."""
    sqlite_database.fill(**people(8))
    return sqlite_database


@pytest.mark.parametrize(
    "form", [FORMS[0], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[1:])], ids=str
)
def test_the_standards_package_takes_it(filled: Database, form: dict[str, Any]) -> None:
    """Without an error, and warning of nothing but what only the owner of the data can say."""
    exported(filled, FOLDER, **form)
    found = judged(Path(write_croissant(FOLDER)))
    assert found["errors"] == []
    assert {warning.split("/")[-1].split('"')[0] for warning in found["warnings"]} <= {"citeAs", "license", "version"}


@pytest.mark.parametrize(
    "form", [*(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[:2]), FORMS[3]], ids=str
)
def test_the_standards_package_reads_the_rows_by_it(filled: Database, form: dict[str, Any]) -> None:
    """All of them, as they are typed; zstd it does not know."""
    report = exported(filled, FOLDER, **form)
    (rows,) = judged(Path(write_croissant(FOLDER)), read=True)["records"].values()
    assert len(rows) == report.exported_records
    named = {name.split("/")[1]: value for name, value in rows[0].items()}
    assert tuple(named) == CLASSIC_SCHEMA.training_columns
    assert named["helpful_rating"] in ("5", "5.0")
    assert named["export_date"].startswith("2025-10-25 12:00:00")


def test_files_are_described_with_digests_and_sizes(filled: Database) -> None:
    """As they are on disk; the list of rejected rows is omitted, since it is not for training."""
    for day in range(2):
        exported(filled, FOLDER, now=NOW + timedelta(days=day))
    described = json.loads(Path(write_croissant(FOLDER)).read_text())["distribution"]
    assert len(described) == 2
    for file in described:
        content = (FOLDER / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"


def test_columns_are_described_with_their_types(filled: Database) -> None:
    """The twelve of the contract, and the requested ones."""
    exported(filled, FOLDER)
    (manifest,) = list_manifests(FOLDER)
    extra = [ExtraColumn("points", "insensitive", "number"), ExtraColumn("seen", "insensitive", "time"), IMAGE_URL]
    manifest.settings["extra_columns"] = [list(column) for column in extra]
    manifest.columns += [column.name for column in extra]
    (records,) = build_croissant(FOLDER, [manifest])["recordSet"]
    types = {field["name"]: field["dataType"].removeprefix("sc:") for field in records["field"]}
    assert types == dict.fromkeys(manifest.columns, "Text") | dict.fromkeys(
        ("helpful_rating", "product_satisfaction", "routine_completion_pct"), "Integer"
    ) | {"would_recommend": "Boolean", "points": "Float"} | dict.fromkeys(
        ("feedback_timestamp", "export_date", "seen"), "DateTime"
    )
    assert [field for field in records["field"] if not field["description"].endswith(".")] == []


def test_sensitive_columns_are_listed(filled: Database) -> None:
    """Pseudonyms and declared columns of all exports; insensitive ones are omitted."""
    exported(filled, FOLDER)
    usual = build_croissant(FOLDER, list_manifests(FOLDER))["rai:personalSensitiveInformation"]
    assert usual[-1] == "Pseudonyms of people's analyses"
    exported(filled, FOLDER, include_subject_hash=True, now=NOW + timedelta(days=1))
    first, second = list_manifests(FOLDER)
    declared = [ExtraColumn("zip", "quasi_identifier"), ExtraColumn("income", "sensitive"), ExtraColumn("shop")]
    second.settings["extra_columns"] += [list(column) for column in declared]
    described = build_croissant(FOLDER, [first, second])["rai:personalSensitiveInformation"]
    assert described == [
        *usual,
        "Pseudonyms of people",
        "What others may know of a person: column zip",
        "Declared as sensitive: column income",
    ]


@pytest.mark.parametrize(("edges", "ranges"), [(None, "<18, 18-25, 25-35, 35-50, 50+"), ([40], "<40, 40+")])
def test_age_ranges_are_described(filled: Database, edges: list[int] | None, ranges: str) -> None:
    """The existing columns, even if others are requested."""
    exported(filled, FOLDER, **({"age_edges": edges} if edges else {}))
    (records,) = build_croissant(FOLDER, list_manifests(FOLDER))["recordSet"]
    (ages,) = [field["description"] for field in records["field"] if field["name"] == "age_range"]
    assert ages.endswith(f". One of {ranges}.")


def test_repeated_rows_are_mentioned(filled: Database) -> None:
    """Where windows overlap, and not where a chain goes on or a window begins where another one ends."""
    repeated = "files can repeat rows of others"
    for number in range(2):
        exported(filled, FOLDER, incremental=True, now=NOW + timedelta(hours=number))
        exported(filled, Path("days"), days_back=1, now=NOW + timedelta(days=number))
        assert repeated not in build_croissant(FOLDER, list_manifests(FOLDER))["description"]
        assert repeated not in build_croissant("days", list_manifests(Path("days")))["description"]
    exported(filled, FOLDER, now=NOW + timedelta(hours=2))
    assert repeated in build_croissant(FOLDER, list_manifests(FOLDER))["description"]


def test_pruned_exports_are_left_out(filled: Database) -> None:
    """Where none is left, there is nothing to describe."""
    exported(filled, FOLDER)
    prune(FOLDER, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=9))
    message = r"^out contains no export with its files \(1 pruned\); create one with `feedback-etl export`\.$"
    with pytest.raises(ExportFileError, match=message):
        Path(write_croissant(FOLDER))
    Path("other").mkdir()
    with pytest.raises(ExportFileError, match=r"^other contains no export with its files; create one"):
        Path(write_croissant("other"))


def test_it_is_private_and_replaces_no_link(filled: Database) -> None:
    """As every file of a folder of exports."""
    exported(filled, FOLDER)
    path = Path(write_croissant(FOLDER))
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    path.symlink_to("precious")
    with pytest.raises(ExportFileError, match=r"is a symbolic link"):
        Path(write_croissant(FOLDER))
    assert not Path("precious").exists()


def test_the_command_writes_it(
    filled: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the folder of the settings, or another one."""
    exported(filled, FOLDER)
    here = Here(capfd, monkeypatch)
    assert here("contracts", "--croissant", FOLDER).out == "out/croissant.json\n"
    first = (FOLDER / "croissant.json").read_bytes()
    Path("feedback-etl.toml").write_text("output_dir = 'out'")
    assert here("contracts", "--croissant").out == "out/croissant.json\n"
    assert (FOLDER / "croissant.json").read_bytes() == first
