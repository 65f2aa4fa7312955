"""The commands for a folder of exports: list, erase, adopt, prune and audit."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from databases import Database
from folders import exported, people, visible
from processes import Here, feedback_etl
from pseudonym_keys import KEY, OTHER_KEY

from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.storage.locks import lock_folder

STEM = "feedback_training_20251025_120000"


@pytest.fixture
def folder(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the default folder with one export of three users; configure the key and the database."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
    sqlite_database.fill(**people(3, each=4))
    folder = Path("ml/feedback_training")
    exported(sqlite_database, folder)
    return folder


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Return a runner of command lines in this process."""
    return Here(capfd, monkeypatch)


class TestList:
    """`feedback-etl list`."""

    def test_list_prints_a_table(self, here: Here, folder: Path) -> None:
        """Rows, mode and window below the key; unmanaged files with the remedy."""
        (folder / "copy.csv").write_text("")
        ended = here("list")
        assert ended.code == 0
        assert ended.out.splitlines() == [
            f"Key: {Key(KEY).id}",
            "Export                                 Rows  Mode  Window (UTC)",
            f"{STEM}.csv     9  full  the beginning to 2025-10-25 12:00:00",
            "copy.csv  unmanaged: no manifest",
            f"    feedback-etl adopt {folder}/copy.csv",
        ]

    def test_exports_of_each_key_have_a_table(self, here: Here, folder: Path, sqlite_database: Database) -> None:
        """They cannot be combined."""
        exported(sqlite_database, folder, key=Key(OTHER_KEY), allow_new_key=True)
        lines = here("list").out.splitlines()
        assert [line for line in lines if line.startswith("Key: ")] == [
            f"Key: {Key(KEY).id}",
            f"Key: {Key(OTHER_KEY).id}",
        ]
        assert len(lines) == 7

    @pytest.mark.usefixtures("folder")
    def test_list_as_json(self, here: Here) -> None:
        """The manifests, unchanged."""
        listing = json.loads(here("list", "--json").out)
        assert [manifest["stem"] for manifest in listing["exports"]] == [STEM]
        assert listing["unmanaged"] == []

    def test_list_of_an_empty_folder(self, here: Here, tmp_path: Path) -> None:
        """One line on stderr, exit code 0."""
        ended = here("list", "--output", tmp_path)
        assert (ended.code, ended.out, ended.err) == (0, "", "There are no exports in this folder.\n")


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("status",),
        ("check",),
        ("report",),
        ("audit", "show"),
        ("audit", "verify"),
        ("prune", "--keep-days", "1"),
        ("erase", "--analysis-ids-file", "ids.txt"),
    ],
    ids=" ".join,
)
def test_missing_folder_is_wrong_usage(here: Here, tmp_path: Path, command: Sequence[str]) -> None:
    """Every command has the same message and exit code; nothing is created."""
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n")
    ended = here(*command, "nowhere")
    message = "error: There is no folder nowhere: name the folder of the exports, or create it by an export.\n"
    assert (ended.code, ended.out, ended.err) == (2, "", message)
    assert list(tmp_path.iterdir()) == [ids]


@pytest.mark.parametrize("command", ["risk", "report", "adopt"])
def test_missing_file_is_wrong_usage(here: Here, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Every command has the same message and exit code."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    ended = here(command, "nowhere.csv")
    assert (ended.code, ended.out, ended.err) == (2, "", "error: There is no file nowhere.csv.\n")


class TestErase:
    """`feedback-etl erase`."""

    @pytest.mark.usefixtures("folder")
    def test_erase_users_from_a_file(self, here: Here) -> None:
        """A dry run changes nothing."""
        Path("ids.txt").write_text("2\n\n 2\n")
        dry = here("erase", "--user-ids-file", "ids.txt", "--dry-run")
        assert (dry.code, dry.err) == (0, "4 rows would be erased from 2 files\n")
        assert f"{STEM}.csv     9  full  " in here("list").out
        done = here("erase", "--user-ids-file", "ids.txt")
        assert (done.code, done.out, done.err) == (0, "", "4 rows erased from 2 files\n")
        assert f"{STEM}.csv     6       4  full  " in here("list").out

    @pytest.mark.usefixtures("folder")
    def test_ids_without_rows_are_listed(self, here: Here) -> None:
        """Exit code 1."""
        Path("ids.txt").write_text("101\n999\n")
        ended = here("erase", "--analysis-ids-file", "ids.txt")
        assert (ended.code, ended.out) == (1, "999\n")
        assert ended.err.endswith("error: No rows were found for 1 id, listed on stdout.\n")

    @pytest.mark.usefixtures("folder")
    def test_erase_reads_ids_from_stdin(self) -> None:
        """Here there are none, which is wrong usage."""
        run = feedback_etl("erase", "--user-ids-file", "-", "--json")
        assert (run.returncode, run.stdout) == (2, "")
        assert (
            "error: There is no one to erase: pass --user-ids-file, --analysis-ids-file, --not-in-database or --keep-k."
            in run.stderr
        )

    def test_exports_of_unavailable_keys_are_reported(
        self, here: Here, folder: Path, sqlite_database: Database
    ) -> None:
        """Exit code 1; with --key-file it succeeds."""
        other = Key(OTHER_KEY)
        exported(sqlite_database, folder, key=other, allow_new_key=True)
        Path("ids.txt").write_text("101\n")
        ended = here("erase", "--analysis-ids-file", "ids.txt")
        assert ended.code == 1
        assert (
            f"not inspected, made with other keys (pass --key-file) or by the application itself: {STEM}_1\n"
            in ended.err
        )
        Path("other").write_text(other.text)
        Path("other").chmod(0o600)
        ended = here("erase", "--analysis-ids-file", "ids.txt", "--key-file", "other", "--json")
        assert (ended.code, json.loads(ended.out)["rows"]) == (0, 1)

    @pytest.mark.usefixtures("folder")
    def test_missing_id_file_is_reported(self, here: Here) -> None:
        """By its name."""
        ended = here("erase", "--user-ids-file", "missing.txt")
        assert (ended.code, ended.err) == (
            2,
            "error: There is no id file missing.txt.\n",
        )


class TestAdoptAndPrune:
    """`feedback-etl adopt` and `feedback-etl prune`."""

    def test_adopted_file_is_pruned(self, here: Here, folder: Path) -> None:
        """Its age comes from its name."""
        old = folder / "feedback_training_20200101_000000.csv"
        old.write_text("analysis_hash\n0123456789abcdef\n")
        assert here("adopt", old).out.endswith(f"{old.name}     1  adopted  unknown\n")
        dry = here("prune", "--keep-days", "90", "--dry-run")
        assert f"would remove {old.stem}\n" in dry.out
        done = here("prune", "--keep-days", "90", "--keep-last", "1")
        assert (done.code, done.out, done.err) == (0, f"removed {old.stem}\n", "1 export pruned, 1 kept\n")
        assert not old.exists()
        assert f"{old.stem}.manifest.json" in visible(folder)

    def test_locked_folder_exits_with_6(self, here: Here, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is removed."""
        monkeypatch.setenv("FEEDBACK_ETL_LOCK_TIMEOUT", "0")
        with lock_folder(folder):
            ended = here("prune", "--keep-days", "0")
        assert ended.code == 6
        assert "is in use" in ended.err
        assert f"{STEM}.csv" in visible(folder)


class TestAudit:
    """`feedback-etl audit`."""

    def test_audit_show_prints_records(self, here: Here, folder: Path) -> None:
        """One line per record, or the record as JSON."""
        ended = here("audit", "show")
        assert [line.split("  ")[1] for line in ended.out.splitlines()[1:]] == ["started", "committed"]
        records = [json.loads(line) for line in here("audit", "show", "--json").out.splitlines()]
        assert records == AuditLog(folder).records()

    def test_audit_verify_prints_the_head_and_the_verdict(self, here: Here, folder: Path) -> None:
        """The head can be stored elsewhere."""
        ended = here("audit", "verify")
        assert (ended.code, ended.out) == (0, f"2 records, head {AuditLog(folder).head()}\n")
        assert ended.err == (
            "No change was found: audit log, manifests, data files and the list of erased people verify.\n"
        )

    def test_audit_verify_finds_a_change(self, here: Here, folder: Path) -> None:
        """Exit code 1, with the line number."""
        log = folder / ".feedback_etl" / "audit.jsonl"
        log.write_text(log.read_text().replace('"started"', '"stopped"'))
        ended = here("audit", "verify")
        assert ended.code == 1
        assert ended.out.startswith("line 1: it was changed\n")
        assert json.loads(here("audit", "verify", "--json").out)["problems"] == ["line 1: it was changed"]


def test_incremental_export_reports_no_new_rows(here: Here, folder: Path) -> None:
    """The first export has rows, the second none."""
    assert "exported   9 of 12 rows" in here("export", "--incremental", "--days", "-1").err
    ended = here("export", "--incremental")
    assert ended.code == 0
    assert "Nothing exported: there are no new rows since the last incremental export.\n" in ended.err


def test_list_reports_a_missing_file(here: Here, folder: Path) -> None:
    """It was not removed by prune."""
    (folder / f"{STEM}.csv").unlink()
    assert f"{STEM}.csv  missing  full  " in here("list").out
    assert (
        "which records it and removes the other files of the export:\n    feedback-etl prune --export "
        in here("list").out
    )


@pytest.mark.parametrize("name", ["audit.jsonl", "lock"])
def test_symbolic_link_as_log_or_lock_is_refused(here: Here, folder: Path, tmp_path: Path, name: str) -> None:
    """Exit code 5; the target is not created."""
    (folder / ".feedback_etl" / name).unlink()
    (folder / ".feedback_etl" / name).symlink_to(tmp_path / "elsewhere")
    ended = here("prune", "--keep-days", "1")
    assert (ended.code, f"{name} is a symbolic link, which no export creates" in ended.err) == (5, True)
    assert not (tmp_path / "elsewhere").exists()
