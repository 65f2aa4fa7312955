"""Every remedy that the checklist prints is executed, and leads to a state in which that item passes."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import as_earlier_version, exported, people
from processes import Here
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.compliance import application
from feedback_etl.compliance.data_files import hash_by_key
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.data_files.file_formats import FileFormat, RowWriter
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key, generate_key
from feedback_etl.records.catalog import list_manifests, replace_manifest
from feedback_etl.settings.model import Settings, load_settings
from feedback_etl.storage.location import open_storage
from feedback_etl.training.items import scan_items

FOLDER = Path("my exports")
ITEMS = "product_ratings"
CONFIGURED = {
    **dict.fromkeys(("controller", "contact", "purpose", "recipients", "transfers", "data_protection_officer"), "x"),
    **{"legal_basis": "consent", "retention_days": 90, "k": 2, "output_dir": str(FOLDER)},
}
QUERY = """
SELECT f.id AS feedback_id, f.user_id, f.analysis_id, 'rec_1' AS recommendation_id, f.helpful_rating,
       f.product_satisfaction, f.routine_completion_pct, f.would_recommend, '[]' AS conditions_analyzed,
       '[]' AS rules_applied, f.timeframe, 30 AS age, f.created_at, {}
FROM recommendation_feedbacks f
"""


SOURCE = """
[source]
table = "recommendation_feedbacks"
feedback_id = "id"
user_id = "user_id"
analysis_id = "analysis_id"
created_at = "created_at"
[ratings.helpful_rating]
min = 1
max = 5
[columns.timeframe]
role = "quasi_identifier"
[items.product_ratings]
min = 1
max = 5
"""


@dataclass
class Case:
    """A folder with settings, and the manual steps that remedies require of a user."""

    app: Database
    here: Here
    monkeypatch: pytest.MonkeyPatch
    settings: dict[str, Any] = field(default_factory=lambda: dict(CONFIGURED))
    by_hand: Callable[[], object] | None = None
    key_file: str = ""

    def use_strong_key(self) -> Key:
        """Configure a key with which data can be shared."""
        key = generate_key()
        self.monkeypatch.setenv("FEEDBACK_ETL_KEY", key.text)
        return key

    def export(self, **options: Any) -> None:
        """Export everything as of an hour ago, with a k of 2."""
        defaults: dict[str, Any] = {
            "now": datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1),
            "days_back": 60,
            "k": 2,
        }
        exported(self.app, options.pop("output_dir", FOLDER), **defaults | options)

    def set(self, **settings: Any) -> None:
        """Write the settings file."""
        self.settings |= settings
        values = {name: value for name, value in self.settings.items() if value is not None}
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if name != "columns"]
        lines += [f"[columns.{name}]\nrole = '{role}'" for name, role in values.get("columns", {}).items()]
        Path("feedback-etl.toml").write_text("\n".join(lines))

    def sql(self, statement: str) -> None:
        """Change the database."""
        with self.app.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def rewrite(self, **change: Any) -> None:
        """Change the rows of the export, and its manifest as if it had been made so."""
        storage = open_storage(FOLDER)
        manifest = list_manifests(storage)[-1]
        (file,) = manifest.all("pairs")
        frame = pl.read_csv(FOLDER / file.path, infer_schema=False).with_columns(**change)
        with (FOLDER / file.path).open("wb") as target:
            rows = RowWriter(target, FileFormat())
            rows.append(frame)
            rows.finish()
        file.rows, file.bytes, file.sha256 = frame.height, rows.written.bytes, rows.written.sha256
        replace_manifest(storage, manifest, Key(KEY))

    def path(self, kind: str = "pairs") -> Path:
        """Return the path of a file of the newest export."""
        (file,) = list_manifests(FOLDER)[-1].all(kind)
        return FOLDER / file.path

    def items(self) -> dict[str, dict[str, Any]]:
        """Run the checklist and return its items by name."""
        key_file = ["--key-file", self.key_file] if self.key_file else []
        return {item["name"]: item for item in json.loads(self.here("check", "--json", *key_file).out)}

    def follow(self, remedy: str) -> None:
        """Execute the commands of a remedy and its manual steps."""
        for line in remedy.splitlines():
            words = shlex.split(line)
            if words[0] == "feedback-etl" and "FILE" in words:
                Path("old_key").write_text(OTHER_KEY)
                Path("old_key").chmod(0o600)
                self.key_file = "old_key"
                assert self.here(*(self.key_file if word == "FILE" else word for word in words[1:])).code in (0, 1, 7)
            elif words[0] == "feedback-etl":
                done = self.here(*words[1:])
                assert done.code == 0 or words[1] == "check", done.err
            elif words[0] in ("chmod", "rm"):
                subprocess.run(line, shell=True, check=True)
            elif "-samefile" in words:
                found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
                own = Path(words[-1]).resolve()
                assert own in map(Path, found)
                for other in {*map(Path, found)} - {own}:
                    other.unlink()
            elif words[:2] == ["CREATE", "INDEX"]:
                self.sql(line)
            elif self.by_hand:
                self.by_hand()
            else:
                raise AssertionError(f"nothing is done by hand: {line}")


@pytest.fixture
def case(
    sqlite_database: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Case:
    """Create an application with six users who have consented, and settings that are complete."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("feedback_etl.compliance.rows.GUESSED_IDS", 1_000)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    rows = people(6, each=4)
    for row in rows["feedbacks"]:
        row["user_id"] += 1_000_000
        row["analysis_id"] += 1_000_000
        row["created_at"] = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=3, minutes=row["id"])
    sqlite_database.fill(**rows, users=[{"id": 1_000_000 + user} for user in range(1, 7)])
    case = Case(sqlite_database, Here(capfd, monkeypatch), monkeypatch)
    case.sql("ALTER TABLE users ADD COLUMN training_data_opt_in BOOLEAN DEFAULT true")
    case.set(database_url=sqlite_database.url)
    return case


def unknown_column(case: Case) -> None:
    case.export()
    case.rewrite(comment=pl.lit("private"))


def free_text(case: Case) -> None:
    text = "'It was ' || f.id || ' times better than what my neighbour Ms Example recommended to me'"
    declare_column(case, f"{text} AS comment", "comment")


def date_of_birth(case: Case) -> None:
    declare_column(case, "'1970-02-03' AS born", "born")


def declare_column(case: Case, expression: str, name: str) -> None:
    """Export a declared column; by hand it is left out of the query and of the settings."""
    Path("feedback.sql").write_text(QUERY.format(expression))
    case.set(query="feedback.sql", columns={name: "insensitive"}, legal_basis="a contract")
    with as_earlier_version():
        assert case.here("export", "--days", "60").code == 0

    def leave_out() -> None:
        Path("feedback.sql").write_text(QUERY.format("").replace("f.created_at, ", "f.created_at"))
        case.set(columns={})

    case.by_hand = leave_out


def plain_hash(case: Case) -> None:
    case.export()
    case.rewrite(analysis_hash=pl.lit("73475cb40a568e8d"))


def age(case: Case) -> None:
    case.export()
    case.rewrite(age_range=pl.lit("25"))


def image_in_text(case: Case) -> None:
    case.export()
    case.rewrite(timeframe=pl.lit("https://example.com/a.jpg"))


def withdrawn_image(case: Case) -> None:
    case.app.fill(photos=[{"id": 1, "s3_key": "a.jpg"}], analyses=[{"id": 1_000_101, "photo_id": 1}])
    case.sql("ALTER TABLE users ADD COLUMN image_opt_in BOOLEAN DEFAULT true")
    case.export(include_image_urls=True)
    case.sql("UPDATE users SET image_opt_in = false")


def changed_file(case: Case) -> None:
    case.export()
    case.path().write_bytes(case.path().read_bytes().replace(b"rec_1", b"rec_2", 1))


def missing_file(case: Case) -> None:
    case.export()
    case.path().unlink()


def missing_list_of_rejected_rows(case: Case) -> None:
    case.export()
    case.path("rejected").unlink()


def unkeyed(case: Case) -> None:
    case.monkeypatch.delenv("FEEDBACK_ETL_KEY")
    case.export(key=None, unkeyed=True)
    case.by_hand = lambda: case.monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)


def published_key(case: Case) -> None:
    case.export(key=DEMO_KEY)
    case.by_hand = lambda: None  # a key is configured


def duplicates(case: Case) -> None:
    case.export()
    names = ("analysis_hash", "recommendation_id", "feedback_timestamp")
    case.rewrite(**{name: pl.col(name).first() for name in names})


def readable_file(case: Case) -> None:
    case.export()
    case.path().chmod(0o644)


def no_retention(case: Case) -> None:
    case.export()
    case.set(retention_days=None)
    case.by_hand = lambda: case.set(retention_days=90)


def old_export(case: Case) -> None:
    case.export(now=datetime.now(UTC).replace(tzinfo=None) - timedelta(days=2))
    case.set(retention_days=1)
    case.sql("UPDATE recommendation_feedbacks SET created_at = datetime('now', '-1 hours', '-' || id || ' seconds')")
    case.export(days_back=1)


def long_window(case: Case) -> None:
    case.export(days_back=-1)


def changed_log(case: Case) -> None:
    case.export()
    shutil.copytree(FOLDER / ".feedback_etl", "backup")
    log = FOLDER / ".feedback_etl" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"started"', b'"startet"'))
    case.by_hand = lambda: shutil.copytree("backup", FOLDER / ".feedback_etl", dirs_exist_ok=True)


def log_of_another_key(case: Case) -> None:
    case.export(key=OTHER_KEY)


def k_of_the_settings(case: Case) -> None:
    case.export()
    case.sql("UPDATE recommendation_feedbacks SET timeframe = 'rare' WHERE user_id < 1000003")
    case.export(now=datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=30))
    case.set(k=3)


def k_after_an_erasure(case: Case) -> None:
    case.sql("UPDATE recommendation_feedbacks SET timeframe = 'rare' WHERE user_id < 1000003")
    case.export()
    erase(FOLDER, user_ids=[1_000_001], database=case.app.url, keys=KEY)


def other_quasi_identifiers(case: Case) -> None:
    case.export()
    case.set(quasi_identifiers=["age_range", "recommendation_id"])


def id_in_recommendation(case: Case) -> None:
    case.sql("UPDATE recommendation_records SET recommendation_id = 'rec1000002'")
    case.export()


def id_in_text(case: Case) -> None:
    case.sql("UPDATE recommendation_feedbacks SET timeframe = 'of 1000002'")
    case.export()
    case.by_hand = lambda: case.sql("UPDATE recommendation_feedbacks SET timeframe = '2_weeks'")


def rate(case: Case, item: str = "a") -> None:
    """Let each feedback rate an item."""
    case.sql(f"""UPDATE recommendation_feedbacks SET product_ratings = '{{"{item}": 4}}'""")


def rated_item(case: Case, item: str) -> None:
    """Export a rated item that must not be; by hand it would be corrected to keep it."""
    rate(case, item)
    case.export(items=ITEMS)
    case.by_hand = lambda: None


def id_in_rated_item(case: Case) -> None:
    rated_item(case, "of 1000002")


def contact_in_rated_item(case: Case) -> None:
    rated_item(case, "ann@example.org")


def image_in_rated_item(case: Case) -> None:
    rated_item(case, "https://example.com/a.jpg")


def id_in_recommendation_beside_rated_items(case: Case) -> None:
    """They exclude the pseudonymised item."""
    rate(case)
    case.sql("UPDATE recommendation_records SET recommendation_id = 'rec1000002'")
    case.export(items=ITEMS)
    case.by_hand = lambda: case.sql("UPDATE recommendation_records SET recommendation_id = 'rec_1'")


def unavailable_key(case: Case) -> None:
    case.export(key=OTHER_KEY)


def nobody_known(case: Case) -> None:
    case.export()
    case.sql("UPDATE recommendation_feedbacks SET analysis_id = analysis_id + 5000")
    case.by_hand = lambda: None  # the key and the database are the right ones


def unmanaged_file(case: Case) -> None:
    case.export()
    shutil.copy(case.path(), FOLDER / "a copy.csv")


def unmanaged_list_of_rejected_rows(case: Case) -> None:
    case.export()
    shutil.copy(case.path("rejected"), FOLDER / "rejected" / "copy.csv")
    case.by_hand = lambda: None  # there is no backup


def damaged_list_of_rejected_rows(case: Case) -> None:
    case.export()
    case.path("rejected").write_bytes(b"damaged\n")


def hard_link(case: Case) -> None:
    case.export()
    Path("elsewhere").mkdir()
    Path("elsewhere/linked.csv").hardlink_to(case.path())
    case.by_hand = lambda: None  # "find it, and remove it", by the command that follows


def no_index(case: Case) -> None:
    case.export()
    case.sql("DROP INDEX ix_recommendation_feedbacks_created_at")


def edited_rows(case: Case) -> None:
    case.export(incremental=True, items=ITEMS)
    case.sql("UPDATE recommendation_feedbacks SET updated_at = datetime(created_at, '+1 hour')")
    case.by_hand = lambda: None


def collision(case: Case) -> None:
    """Make pseudonyms of 16 digits equal if their first digits are, since no real collision is known."""

    def hash_coarsely(analyses: Sequence[str], keys: Sequence[Key]) -> dict[str | None, pl.Series]:
        hashes = hash_by_key(analyses, keys).items()
        return {key: all_.str.replace("^(.).{15}$", "$1") for key, all_ in hashes}

    case.monkeypatch.setattr(application, "hash_by_key", hash_coarsely)
    case.export()
    case.by_hand = lambda: case.set(pseudonym_length=32)


def no_consent(case: Case) -> None:
    case.export()
    case.sql("ALTER TABLE users DROP COLUMN training_data_opt_in")
    case.by_hand = lambda: case.set(legal_basis="a contract")


def withdrawn_consent(case: Case) -> None:
    case.export()
    case.sql("UPDATE users SET training_data_opt_in = false WHERE id = 1000002")


def incomplete_record(case: Case) -> None:
    case.export()
    case.set(transfers=None)
    case.by_hand = lambda: case.set(transfers="none")


def no_record(case: Case) -> None:
    case.export()


def outdated_record(case: Case) -> None:
    case.export()
    case.here("check", "--write-record")
    case.export(now=datetime.now(UTC).replace(tzinfo=None), k=3)


def weak_limits(case: Case) -> None:
    case.export(formulas="allow")
    case.set(max_suppressed=0.9, l=1)


def unnamed_recipient(case: Case) -> None:
    key = case.use_strong_key()
    case.export(recipient="acme", k=5, key=key)
    case.by_hand = lambda: case.set(recipients="acme")


CASES: list[tuple[str, Callable[[Case], None]]] = [
    ("columns", unknown_column),
    ("columns", free_text),
    ("columns", contact_in_rated_item),
    ("pseudonyms", plain_hash),
    ("ages", age),
    ("ages", date_of_birth),
    ("images", image_in_text),
    ("images", image_in_rated_item),
    ("images", withdrawn_image),
    ("contents", changed_file),
    ("contents", missing_file),
    ("contents", missing_list_of_rejected_rows),
    ("keys", unkeyed),
    ("keys", published_key),
    ("duplicates", duplicates),
    ("modes", readable_file),
    ("retention", no_retention),
    ("retention", old_export),
    ("retention", long_window),
    ("audit log", changed_log),
    ("audit log", log_of_another_key),
    ("k", k_of_the_settings),
    ("k", k_after_an_erasure),
    ("k", other_quasi_identifiers),
    ("limits", weak_limits),
    ("raw ids", id_in_recommendation),
    ("raw ids", id_in_text),
    ("raw ids", id_in_rated_item),
    ("raw ids", id_in_recommendation_beside_rated_items),
    ("erasure", unavailable_key),
    ("erasure", nobody_known),
    ("erasure", unmanaged_file),
    ("erasure", unmanaged_list_of_rejected_rows),
    ("erasure", damaged_list_of_rejected_rows),
    ("erasure", hard_link),
    ("index", no_index),
    ("edits", edited_rows),
    ("collisions", collision),
    ("consent", no_consent),
    ("consent", withdrawn_consent),
    ("record", incomplete_record),
    ("record", unnamed_recipient),
    ("record", no_record),
    ("record", outdated_record),
]


@pytest.mark.parametrize(("name", "fault"), CASES, ids=[fault.__name__ for _, fault in CASES])
def test_remedy_leads_to_a_state_that_passes(case: Case, name: str, fault: Callable[[Case], None]) -> None:
    """Other commands then work, too: the folder has no export without its files."""
    fault(case)
    item = case.items()[name]
    assert item["status"] == "failed", item
    case.follow(item["remedy"])
    after = case.items()[name]
    assert after["status"] == "ok", after
    assert "missing" not in case.here("list").out
    assert case.here("report", "-o", "page.html").code == 0
    assert fe.scan_training(FOLDER).collect().height > 0


@pytest.mark.parametrize("days_back", [60, -1])
def test_shared_file_is_not_exported_again_after_an_erasure(case: Case, days_back: int) -> None:
    """Its difference from the file that the recipient has would be the person; a lost file is exported again."""
    key = case.use_strong_key()
    case.export(recipient="acme", days_back=days_back, k=5, key=key)
    case.path().unlink()
    remedy = case.items()["contents"]["remedy"]
    assert "--allow-overlap" not in remedy
    case.follow(remedy)
    assert case.items()["contents"]["status"] == "ok"
    erase(FOLDER, user_ids=[1_000_001], database=case.app.url, keys=key)
    case.path().unlink()
    export = shlex.split(case.items()["contents"]["remedy"].splitlines()[0])
    refused = case.here(*export[1:])
    assert refused.code == 4
    assert "acme got this window before, and its rows have changed since" in refused.err.replace("\n", " ")


def test_shared_file_with_weak_limits_is_removed(case: Case) -> None:
    """The recipient has its rows: another file of them would be refused."""
    case.export(recipient="acme", k=5, formulas="allow", key=case.use_strong_key())
    item = case.items()["limits"]
    assert (item["status"], item["remedy"].splitlines()) == ("failed", [item["remedy"]])
    case.follow(item["remedy"])
    assert case.items()["limits"]["status"] == "skipped"
    assert list_manifests(FOLDER)[-1].pruned_at


OPTION_OF_SETTING = {
    **{"allow_row_security": "--allow-row-security", "formulas": "--formulas", "k": "--k", "l": "--l", "t": "--t"},
    **{"min_feedback_fields": "--min-fields", "recommendation_id": "--hash-recommendation-id"},
    **{"timestamp_precision": "--timestamp-precision", "on_small_class": "--on-small-class"},
    **{"extra_columns": "--include-subject-hash", "recipient": "--recipient", "key_id": "--pseudonym-length"},
    **{"items": "--items"},
}
OF_THE_SETTINGS_FILE = {"quasi_identifiers", "query_sha256", "db_schema"}
FORMS: list[dict[str, Any]] = [
    {"pseudonym_length": 32, "compression": "gzip", "formulas": "reject", "l": 1, "t": 1.0},
    {"compression": "zstd", "on_small_class": "generalize", "hash_recommendation_id": True},
    {"format": "parquet", "min_feedback_fields": 0, "timestamp_precision": "day", "include_subject_hash": True},
    {"pseudonym_length": 32, "recipient": "acme", "k": 5},
]


@pytest.mark.parametrize("options", FORMS, ids=lambda options: next(iter(options)))
def test_export_is_repeated_with_its_options(case: Case, options: dict[str, Any]) -> None:
    """With any settings: the manifests of both record the same, and the files have one format."""
    case.export(**options, key=case.use_strong_key())
    before = list_manifests(FOLDER)[-1]
    case.path().unlink()
    case.follow(case.items()["contents"]["remedy"])
    after = list_manifests(FOLDER)[-1]
    assert before.stem != after.stem
    assert (after.settings, after.window, after.scheme) == (before.settings, before.window, before.scheme)
    assert case.path().suffixes == Path(before.data).suffixes


def test_every_recorded_option_is_in_the_remedy(case: Case) -> None:
    """Or is one of the settings file."""
    recorded, words, key = set[str](), set[str](), case.use_strong_key()
    rate(case)
    for number, options in enumerate([*FORMS, {"allow_row_security": True, "items": ITEMS}]):
        case.export(**options, output_dir=f"export {number}", key=key)
        (manifest,) = list_manifests(f"export {number}")
        recorded |= {*manifest.settings}
        words |= {*Remedies(load_settings()).replace(manifest).split()}
    assert recorded == {*OPTION_OF_SETTING} | OF_THE_SETTINGS_FILE
    assert {*OPTION_OF_SETTING.values(), "--format", "--compression", "--until"} <= words
    rejecting = load_settings().model_copy(update={"formulas": "reject"})
    assert "--formulas escape" in Remedies(rejecting).replace(list_manifests("export 1")[0])


def test_remedy_keeps_rated_items(case: Case) -> None:
    """Of an export that is repeated with its options."""
    rate(case)
    case.export(items=ITEMS)
    rows = scan_items(FOLDER).collect()
    case.path().unlink()
    case.follow(case.items()["contents"]["remedy"])
    assert scan_items(FOLDER).collect().equals(rows)
    assert rows.height == fe.scan_training(FOLDER).collect().height > 0


def test_ids_of_a_declared_source_are_removed(case: Case) -> None:
    """The files that contain them are named, and the declared source instead of a query."""
    case.set(legal_basis="a contract")
    with Path("feedback-etl.toml").open("a") as file:
        file.write(SOURCE)
    rate(case, "of 1000002")
    case.sql("UPDATE recommendation_feedbacks SET timeframe = 'of 1000002'")
    with as_earlier_version():
        assert case.here("export", "--days", "60", "--items", ITEMS).code == 0
    item = case.items()["raw ids"]
    pairs, items = case.path().name, case.path("items").name
    assert f"{pairs} contains ids of users or analyses in timeframe; {items} contains" in item["detail"]
    assert "remove ids from timeframe in the database, or declare another column of [source]\n" in item["remedy"]
    assert "--query" not in item["remedy"]
    case.by_hand = lambda: case.sql("UPDATE recommendation_feedbacks SET timeframe = '2_weeks'")
    case.follow(item["remedy"])
    assert case.items()["raw ids"]["status"] == "ok"
    rate(case)
    assert case.here("export", "--days", "60", "--items", ITEMS, "--output", str(FOLDER)).code == 0
    assert scan_items(FOLDER).collect()["item"].unique().to_list() == ["a"]


@pytest.mark.parametrize(
    ("settings", "clause"),
    [
        ({}, "the database, or select other values with --query"),
        ({"database_url": "files:*.csv"}, "the files, or select other values with --query"),
        ({"source": {"table": "reviews"}}, "the database, or declare another column of [source]"),
        ({"source": {"query": "feedback.sql"}}, "the database, or select other values in the query of [source]"),
    ],
)
def test_other_values_are_selected_as_the_settings_read_them(settings: dict[str, Any], clause: str) -> None:
    """From the default tables, raw files, a declared table, or the query of a declaration."""
    if "source" in settings:
        own = settings["source"] | {"feedback_id": "id", "created_at": "at"}
        settings = {"source": own, "ratings": {"stars": {"min": 1, "max": 5}}}
    remedies = Remedies(Settings(**settings))
    assert f"{remedies.data}, or {remedies.select_others}" == clause


def test_printed_commands_can_be_pasted(case: Case) -> None:
    """Also those that are wrapped to 80 columns, with the blank in the name of the folder."""
    case.export(since=datetime(2025, 1, 1), days_back=30, hash_recommendation_id=True, timestamp_precision="hour")
    case.path().unlink()
    lines = case.here("check").out.splitlines()
    assert max(map(len, lines)) <= 80
    start = next(number for number, line in enumerate(lines) if line.startswith("FAIL  contents"))
    block = "\n".join(line[18:] for line in lines[start : start + 12])
    commands = [
        shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if line.startswith("feedback-etl")
    ]
    assert [words[:2] for words in commands[:2]] == [["feedback-etl", "export"], ["feedback-etl", "prune"]]
    assert all(words[-1] == str(FOLDER) for words in commands)
    assert [case.here(*words[1:]).code for words in commands[:2]] == [0, 0]
    assert case.items()["contents"]["status"] == "ok"


def test_commands_of_list_lead_to_a_folder_without_faults(case: Case) -> None:
    """Also with a blank in the names of the folder and of the file."""
    case.export()
    case.export(now=datetime.now(UTC).replace(tzinfo=None))
    shutil.copy(case.path(), FOLDER / "a copy.csv")
    case.path().unlink()
    lines = [line.strip() for line in case.here("list").out.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("feedback-etl ")]
    assert sorted(words[1] for words in commands) == ["adopt", "prune"]
    assert [case.here(*words[1:]).code for words in commands] == [0, 0]
    after = case.here("list").out
    assert "missing" not in after
    assert "unmanaged" not in after
