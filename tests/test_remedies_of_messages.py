"""Every command and option that a message names is executed, and leads to a state in which the command succeeds.

The remedies of the checklist and of `list` are in `test_remedies`.
"""

import ast
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import typer
from databases import Database
from folders import exported, people
from processes import Ended, Here
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.cli.app import app
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.errors import ExportFileError, KeyUnusableError
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import MANIFEST_SUFFIX
from feedback_etl.training.items import scan_items
from feedback_etl.transform.expressions import hash_id

ROOT = Path(__file__).parents[1]
FOLDER = Path("my exports")
OTHER_FOLDER = "another folder"
GUESSABLE_KEY = "password" * 5
EXPORT = "export --days -1"

_COMMAND = re.compile(
    r"`(feedback-etl [^`]+)`|\((feedback-etl [^)]+)\)|(?:^|: )\s*(feedback-etl [a-z].*)$", re.MULTILINE
)
_OPTION = re.compile(r"--[a-z][a-z-]*[a-z](?: -?\d+)?")


@dataclass
class Case:
    """An application, a folder, and what FILE and NAME mean in a remedy."""

    app: Database
    here: Here
    monkeypatch: pytest.MonkeyPatch
    file: Path = Path("old key")
    name: str = ""

    def export(self, **options: Any) -> None:
        """Export everything as of two hours ago."""
        now = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=2)
        exported(self.app, FOLDER, **{"now": now} | options)

    def sql(self, statement: str) -> None:
        """Change the database."""
        with self.app.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def write_key(self, text: str) -> None:
        """Write the key file that FILE means."""
        self.file.write_text(text)
        self.file.chmod(0o600)

    def path(self) -> Path:
        """Return the path of the data file of the newest export."""
        (file,) = list_manifests(FOLDER)[-1].all("pairs")
        return FOLDER / file.path

    def run(self, command: str) -> Ended:
        """Run a command as it is typed, without `feedback-etl`."""
        return self.here(*shlex.split(command))

    def follow(self, remedy: str) -> str:
        """Run the command of a remedy, configure the key as its output says, and return the output."""
        file = Path("new key") if remedy.startswith("feedback-etl keys new") else self.file
        names = {"FILE": str(file), "NAME": self.name, "FOLDER": str(FOLDER), "PATTERN": "raw.csv"}
        words = [names.get(word, word) for word in shlex.split(remedy)[1:]]
        words += ["--yes"] if words[0] == "init" else []  # which asks for it on a terminal
        done = self.here(*words)
        assert done.code == 0 or (words[:2], done.code) == (["audit", "verify"], 1), done.err
        if exports := re.search(r"^To use it: export (\w+)=(.*)$", done.err, re.MULTILINE):
            self.monkeypatch.setenv(exports[1], *shlex.split(exports[2]))
        return f"{done.out}\n{done.err}"

    def option(self, remedy: str) -> str:
        """Return an option with the value that a user would give."""
        values = {
            "--output": OTHER_FOLDER,
            "--key-file": str(self.file),
            "--database-url": self.app.url,
            "--keep-days": "0",
            "--min-fields": "1",
            "--person": "analysis_hash",
        }
        return f" {remedy} {shlex.quote(values[remedy])}" if remedy in values else f" {remedy}"


def remedies_of(text: str) -> Iterator[str]:
    """Yield the commands that a message names, then the options that it names beside them."""
    for match in _COMMAND.finditer(text):
        yield next(filter(None, match.groups())).removesuffix(".")
    yield from _OPTION.findall(_COMMAND.sub(" ", text))


@pytest.fixture
def case(
    sqlite_database: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Case:
    """Create an application with feedback of today, and configure its database, a key and a folder with a blank."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", sqlite_database.url)
    monkeypatch.setenv("FEEDBACK_ETL_OUTPUT_DIR", str(FOLDER))
    rows = people(4)
    for row in rows["feedbacks"]:
        row["created_at"] = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=4, seconds=row["id"])
    sqlite_database.fill(**rows, users=[{"id": user} for user in range(1, 5)])
    Path("ids").write_text("101\n")
    return Case(sqlite_database, Here(capfd, monkeypatch), monkeypatch)


def exported_with_key(case: Case) -> None:
    case.export()


def exported_with_another_key(case: Case) -> None:
    case.export(key=OTHER_KEY)
    case.write_key(OTHER_KEY)


def exported_without_key(case: Case) -> None:
    case.export(key=None, unkeyed=True)
    case.monkeypatch.delenv("FEEDBACK_ETL_KEY")


def consent_column_is_gone(case: Case) -> None:
    case.sql("ALTER TABLE users ADD COLUMN training_data_opt_in BOOLEAN DEFAULT true")
    case.export()
    case.sql("ALTER TABLE users DROP COLUMN training_data_opt_in")


def log_is_changed(case: Case) -> None:
    case.export()
    log = FOLDER / ".feedback_etl" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"started"', b'"startet"'))


def log_is_gone(case: Case) -> None:
    case.export()
    shutil.rmtree(FOLDER / ".feedback_etl")


def list_of_erased_people_is_gone(case: Case) -> None:
    case.export()
    erase(FOLDER, analysis_ids=["101"], keys=KEY)
    (FOLDER / ".feedback_etl" / "tombstones.jsonl").unlink()


def last_record_is_of_another_key(case: Case) -> None:
    case.export()
    case.export(now=datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1))
    fe.exports.prune(FOLDER, exports=[list_manifests(FOLDER)[0].stem], key=Key(OTHER_KEY))
    case.write_key(OTHER_KEY)


def erasure_is_of_another_key(case: Case) -> None:
    exported_with_another_key(case)
    erase(FOLDER, analysis_ids=["101"], keys=OTHER_KEY)


def state_of_the_series_is_changed(case: Case) -> None:
    assert case.run("export --incremental").code == 0
    (path,) = FOLDER.glob(f"*{MANIFEST_SUFFIX}")
    path.write_text(path.read_text().replace('"rows": 12', '"rows": 13'))


def seen_rows_are_gone(case: Case) -> None:
    assert case.run("export --incremental").code == 0
    (file,) = list_manifests(FOLDER)[-1].all("rows")
    (FOLDER / file.path).unlink()


def signed_and_no_key(case: Case) -> None:
    case.export()
    case.write_key(KEY)
    case.monkeypatch.delenv("FEEDBACK_ETL_KEY")


def folder_is_empty(case: Case) -> None:
    FOLDER.mkdir()


def series_has_begun(case: Case) -> None:
    assert case.run("export --incremental").code == 0


def folder_is_a_file(case: Case) -> None:
    FOLDER.write_text("mine")


def file_is_unmanaged(case: Case) -> None:
    case.export()
    case.file = FOLDER / "a copy.csv"
    shutil.copy(case.path(), case.file)


def file_is_unmanaged_since_an_erasure(case: Case) -> None:
    """A copy with the people who were erased would be refused by adopt."""
    case.export()
    assert case.here(*ERASE.split()).code == 0
    case.file = FOLDER / "a copy.csv"
    shutil.copy(case.path(), case.file)


def scheme_is_unknown(case: Case) -> None:
    case.export()
    pl.read_csv(case.path(), infer_schema=False).with_columns(
        analysis_hash=pl.int_range(pl.len()).cast(pl.String).str.zfill(16)
    ).write_csv(FOLDER / "old.csv")
    assert case.here("adopt", FOLDER / "old.csv").code == 0
    case.name = "old"


def no_database(case: Case) -> None:
    case.monkeypatch.delenv("FEEDBACK_ETL_DATABASE_URL")


def no_key(case: Case) -> None:
    case.monkeypatch.delenv("FEEDBACK_ETL_KEY")


def key_is_retired(case: Case) -> None:
    case.write_key(KEY)
    assert case.here("keys", "retire", "--file", case.file).code == 0


def key_of_the_user(case: Case) -> None:
    case.monkeypatch.delenv("FEEDBACK_ETL_KEY")
    assert case.run("keys new").code == 0


def key_is_short(case: Case) -> None:
    case.monkeypatch.setenv("FEEDBACK_ETL_KEY", "daa0871acd4ebc9e")


def key_can_be_guessed(case: Case) -> None:
    case.export(key=Key(GUESSABLE_KEY, accept_weak=True))
    case.write_key(GUESSABLE_KEY)
    case.monkeypatch.setenv("FEEDBACK_ETL_KEY", GUESSABLE_KEY)


def key_file_is_missing(case: Case) -> None:
    case.monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", "a key")


def database_is_empty(case: Case) -> None:
    case.export()
    case.sql("DELETE FROM recommendation_feedbacks")


def feedback_is_old(case: Case) -> None:
    case.sql("UPDATE recommendation_feedbacks SET created_at = datetime('now', '-99 days')")


def file_is_damaged(case: Case) -> None:
    case.export()
    case.name = list_manifests(FOLDER)[-1].stem
    case.path().write_text("damaged")
    case.export(now=datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1))


def some_pseudonyms_are_unknown(case: Case) -> None:
    case.export()
    rows = pl.read_csv(case.path(), infer_schema=False)
    pl.concat([rows, rows.head(1).with_columns(analysis_hash=pl.lit("0" * 16))]).write_csv(FOLDER / "old.csv")
    assert case.here("adopt", FOLDER / "old.csv").code == 0


def tables_have_other_names(case: Case) -> None:
    case.sql("ALTER TABLE recommendation_feedbacks RENAME TO reviews")


def raw_file_has_other_columns(case: Case) -> None:
    rows = pl.DataFrame(people(4)["feedbacks"])
    rows.select("id", customer="user_id", stars="helpful_rating", sent_at="created_at").write_csv("raw.csv")


def key_is_not_for_others(case: Case) -> None:
    """There are enough people to share a month of them."""
    case.monkeypatch.setenv("FEEDBACK_ETL_KEY", DEMO_KEY.text)
    case.app.fill(feedbacks=people(12)["feedbacks"][12:])


def parts_of_a_series_are_gone(case: Case, kind: str) -> None:
    case.sql("UPDATE recommendation_feedbacks SET helpful_rating = 9 WHERE id = 101")
    assert case.run("export --incremental").code == 0
    (file,) = list_manifests(FOLDER)[-1].all(kind)
    (FOLDER / file.path).unlink()


def data_of_a_series_are_gone(case: Case) -> None:
    parts_of_a_series_are_gone(case, "pairs")


def rejected_rows_of_a_series_are_gone(case: Case) -> None:
    parts_of_a_series_are_gone(case, "rejected")


def nothing(case: Case) -> None:
    """Change nothing."""


class Message(NamedTuple):
    """A message that a command prints, and remedies in it, in the order in which they are followed.

    Attributes:
        fault: What leads to the message.
        command: The command that prints it.
        remedies: The beginnings of the commands, or options of the same command.
        is_repeated: Whether the command succeeds then, and no longer names the remedies; other remedies replace it.
    """

    fault: Callable[[Case], None]
    command: str
    remedies: tuple[str, ...]
    is_repeated: bool = True


NEW_KEY = "feedback-etl keys new --file FILE"
RETIRE = "feedback-etl keys retire --file FILE"
VERIFY = "feedback-etl audit verify"
ERASE = "erase --analysis-ids-file ids"
MESSAGES = [
    Message(exported_with_key, f"{EXPORT} --unkeyed", ("--output",)),
    Message(exported_with_another_key, EXPORT, ("--output",)),
    Message(exported_with_another_key, EXPORT, ("--allow-new-key",)),
    Message(consent_column_is_gone, EXPORT, ("--output",)),
    Message(log_is_changed, EXPORT, ("--output",)),
    Message(log_is_changed, EXPORT, (VERIFY,), is_repeated=False),
    Message(log_is_changed, ERASE, (VERIFY,), is_repeated=False),
    Message(log_is_gone, EXPORT, ("--output",)),
    Message(log_is_gone, EXPORT, (VERIFY,), is_repeated=False),
    Message(list_of_erased_people_is_gone, EXPORT, ("--output",)),
    Message(last_record_is_of_another_key, EXPORT, (RETIRE,)),
    Message(last_record_is_of_another_key, EXPORT, ("--allow-new-key",)),
    Message(erasure_is_of_another_key, f"{EXPORT} --allow-new-key", (RETIRE,)),
    Message(erasure_is_of_another_key, f"{EXPORT} --allow-new-key", ("--output",)),
    Message(state_of_the_series_is_changed, "export --incremental", ("--output",)),
    Message(seen_rows_are_gone, "export --incremental", ("--output",)),
    Message(series_has_begun, "export --incremental --include-subject-hash", ("--new-series",)),
    Message(series_has_begun, "export --incremental --include-subject-hash", ("--output",)),
    Message(folder_is_a_file, EXPORT, ("--output",)),
    Message(folder_is_empty, "contracts --croissant", ("feedback-etl export",)),
    Message(folder_is_empty, "report", ("feedback-etl export",)),
    Message(file_is_unmanaged, "report 'my exports/a copy.csv'", ("feedback-etl adopt FILE",)),
    Message(file_is_unmanaged_since_an_erasure, ERASE, ("feedback-etl list", "feedback-etl adopt")),
    Message(file_is_unmanaged, "prune --keep-days 9", ("feedback-etl list", "feedback-etl adopt")),
    Message(scheme_is_unknown, ERASE, ("feedback-etl prune --export NAME",)),
    Message(exported_with_another_key, ERASE, ("--key-file",)),
    Message(exported_with_another_key, "audit verify", ("--key-file",)),
    Message(database_is_empty, "erase --not-in-database", ("feedback-etl prune",), is_repeated=False),
    Message(exported_with_key, "prune", ("--keep-days",)),
    Message(exported_with_key, "prune --export unknown", ("feedback-etl list",), is_repeated=False),
    Message(no_database, EXPORT, ("--database-url",)),
    Message(no_database, EXPORT, ("feedback-etl demo",), is_repeated=False),
    Message(no_key, EXPORT, ("feedback-etl keys new",)),
    Message(no_key, EXPORT, ("--unkeyed",)),
    Message(key_is_retired, EXPORT, (NEW_KEY,)),
    Message(key_is_short, EXPORT, (NEW_KEY,)),
    Message(key_can_be_guessed, "audit verify", (NEW_KEY, RETIRE)),
    Message(key_file_is_missing, EXPORT, ("feedback-etl keys new",)),
    Message(key_of_the_user, "keys retire", ("feedback-etl keys new",), is_repeated=False),
    Message(exported_with_key, "risk 'my exports'", ("feedback-etl report",), is_repeated=False),
    Message(nothing, "demo --rows 200", ("feedback-etl preview",), is_repeated=False),
    Message(feedback_is_old, "export", ("--days -1",)),
    Message(feedback_is_old, "preview", ("--days -1",)),
    Message(file_is_damaged, ERASE, ("feedback-etl prune --export NAME",)),
    Message(some_pseudonyms_are_unknown, ERASE, ("feedback-etl erase --not-in-database",)),
    Message(key_is_not_for_others, f"{EXPORT} --share --recipient acme --output shared", (NEW_KEY,)),
    Message(no_key, "keys list", ("feedback-etl keys new",)),
    Message(tables_have_other_names, EXPORT, ("feedback-etl init",)),
    Message(raw_file_has_other_columns, f"{EXPORT} --from raw.csv", ("feedback-etl init --from PATTERN",)),
    Message(exported_with_key, "report --output 'my exports'", ("feedback-etl report FOLDER",), is_repeated=False),
    Message(data_of_a_series_are_gone, "export --incremental --backfill", ("feedback-etl prune --export",)),
    Message(rejected_rows_of_a_series_are_gone, "export --incremental --backfill", ("feedback-etl prune --export",)),
    Message(nothing, f"{EXPORT} --min-fields 4", ("--min-fields",)),
]


@pytest.mark.parametrize(
    "message",
    MESSAGES,
    ids=lambda message: f"{message.command.split()[0]}-{message.fault.__name__}-{message.remedies[-1].split()[-1]}",
)
def test_remedy_of_a_message_works(case: Case, message: Message) -> None:
    """The message is printed, its remedies are followed as they are printed, and the command succeeds."""
    message.fault(case)
    done, command = case.run(message.command), message.command
    printed = f"{done.out}\n{done.err}"
    for beginning in message.remedies:
        remedy = next((remedy for remedy in remedies_of(printed) if remedy.startswith(beginning)), None)
        assert remedy, printed
        if remedy.startswith("--"):
            command += case.option(remedy)
        else:
            printed += case.follow(remedy)
    if message.is_repeated:
        after = case.run(command)
        assert after.code == 0, after.err
        assert not any(remedy.startswith(message.remedies[0]) for remedy in remedies_of(after.err)), after.err


def test_key_for_a_signed_log_is_configured_as_the_message_says(case: Case) -> None:
    """A change of a folder whose log is signed requires the key."""
    signed_and_no_key(case)
    refused = case.run("prune --keep-days 0")
    assert (refused.code, "Set FEEDBACK_ETL_KEY_FILE to the key file" in refused.err) == (2, True)
    case.monkeypatch.setenv("FEEDBACK_ETL_KEY_FILE", str(case.file))
    assert case.run("prune --keep-days 0").code == 0


def test_folder_without_a_key_leads_to_a_protected_one(case: Case) -> None:
    """A new key and another folder, as the message of `audit verify` says."""
    exported_without_key(case)
    refused = case.run("audit verify")
    assert list(remedies_of(refused.err)) == ["feedback-etl keys new", "--output"]
    case.follow("feedback-etl keys new")
    assert case.run(EXPORT + case.option("--output")).code == 0
    assert case.run("audit verify" + case.option("--output")).code == 0


def test_person_column_is_named_as_the_message_says(case: Case) -> None:
    """Without one each row counts as a person."""
    case.export()
    assert list(remedies_of(case.here("risk", case.path()).err)) == ["--person"]
    after = case.here("risk", case.path(), *case.option("--person").split())
    assert (after.code, after.err) == (0, "")


@pytest.mark.parametrize(
    ("fault", "location", "remedy"),
    [
        (file_is_unmanaged, FOLDER / "a copy.csv", "feedback-etl adopt FILE"),
        (folder_is_empty, FOLDER, "feedback-etl export"),
    ],
    ids=["unmanaged", "empty"],
)
def test_remedy_of_a_scan_works(case: Case, fault: Callable[[Case], None], location: Path, remedy: str) -> None:
    fault(case)
    with pytest.raises(ExportFileError) as caught:
        fe.scan_training(location)
    assert remedy in remedies_of(str(caught.value))
    case.follow(remedy)
    assert fe.scan_training(location).collect().height == 12


def test_items_are_exported_as_the_message_says(case: Case) -> None:
    case.sql("""UPDATE recommendation_feedbacks SET product_ratings = '{"a": 4}'""")
    case.export()
    case.name = "product_ratings"
    with pytest.raises(ExportFileError, match="no item rows") as caught:
        scan_items(FOLDER)
    (remedy,) = remedies_of(str(caught.value))
    case.follow(remedy)
    assert scan_items(FOLDER).collect().height == 12


def test_problems_of_a_folder_are_shown_as_the_message_says(case: Case) -> None:
    """Their files can only be restored."""
    log_is_changed(case)
    with pytest.raises(ExportFileError, match="does not verify") as caught:
        fe.scan_training(FOLDER, key=KEY)
    (remedy,) = remedies_of(str(caught.value))
    assert "problem" in case.follow(f"{remedy} '{FOLDER}'")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"changed")], ids=["missing", "changed"])
def test_damaged_export_is_pruned_as_the_message_says(case: Case, damage: Callable[[Path], object]) -> None:
    """Then its window is exported again."""
    case.export()
    damage(case.path())
    with pytest.raises(ExportFileError, match="does not match its manifest") as caught:
        fe.scan_training(FOLDER)
    (prune,) = remedies_of(str(caught.value))
    case.follow(prune)
    assert case.run(EXPORT).code == 0
    assert fe.scan_training(FOLDER).collect().height == 12


@pytest.mark.parametrize("text", ["short", GUESSABLE_KEY, "\udcff" * 40], ids=["short", "guessable", "not text"])
def test_created_key_replaces_one_that_an_expression_refuses(case: Case, text: str) -> None:
    """The remedy works with a key of the user's own, too."""
    key_of_the_user(case)
    with pytest.raises(KeyUnusableError) as caught:
        hash_id("id", key=text)
    (remedy,) = remedies_of(str(caught.value))
    case.follow(remedy)
    assert pl.DataFrame({"id": ["1"]}).select(hash_id("id", key=Path("new key").read_text())).height == 1


def texts() -> Iterator[tuple[str, str]]:
    """Yield all texts of the package and of the documentation with their files."""
    for path in sorted((ROOT / "feedback_etl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
                yield path.name, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        yield path.name, path.read_text().replace("\\\n", " ")


def test_commands_and_options_in_messages_and_documentation_exist() -> None:
    """Each command is one of the application, and each option beside it one of the command."""
    root: Any = typer.main.get_command(app)
    checked, wrong = 0, []
    for name, text in texts():
        for line in re.findall(r"(?<!named)(?:^|[`(: ])feedback-etl ((?:[a-z]+)[^`\n|;&)]*)", text, re.MULTILINE):
            command = root
            words = line.split()
            while words and words[0].strip(".,:") in getattr(command, "commands", {}):
                command = command.commands[words.pop(0).strip(".,:")]
            options = {option for parameter in command.params for option in parameter.opts}
            unknown = {word.strip(".,:") for word in words if re.match(r"--[a-z]", word)} - options - {"--help"}
            checked += 1
            if (hasattr(command, "commands") and words) or unknown:
                wrong.append((name, line))
    assert checked > 80
    assert wrong == []
