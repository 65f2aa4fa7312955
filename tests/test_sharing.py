"""Shared data: recipients cannot join their files, rows cannot be linked, and people are still erased from it."""

import hashlib
import hmac
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, exported_from_url, rows_of
from hypothesis import given
from hypothesis import strategies as st
from processes import Here
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.data_files import sorting
from feedback_etl.data_files.sorting import sort_by_pseudonym
from feedback_etl.demo.sample import DEMO_KEY, create_sample_database
from feedback_etl.errors import ExportFileError, KeyUnusableError, UsageError, ValidationError
from feedback_etl.exports import rewrite
from feedback_etl.exports.maintenance import prune
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.output import OutputOptions
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.sharing import RowPseudonyms, derive_recipient_key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.settings.model import load_settings
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.overrides import Overrides

KEYS = [Key(OTHER_KEY)]
PEOPLE, ROWS = 8, 3


def feedback(people: int = PEOPLE, *, minutes: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Feedback of people in one class: user 2 has the analysis 20 with three rows, on different recommendations."""
    rows = [
        {
            "id": user * 10 + number,
            "user_id": user,
            "analysis_id": user * 10,
            "recommendation_id": number + 1,
            "helpful_rating": number + 2,
            "timeframe": "2_weeks",
            "created_at": NOW - timedelta(minutes=minutes + user * ROWS + number),
        }
        for user in range(1, people + 1)
        for number in range(ROWS)
    ]
    records = [{"id": n + 1, "recommendation_id": f"rec_{n}", "conditions_analyzed": ["acne"]} for n in range(ROWS)]
    return {"records": records, "feedbacks": rows}


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create eight people with three rows each in one class."""
    sqlite_database.fill(**feedback())
    return sqlite_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the path of a folder for exports."""
    return tmp_path / "exports"


def shared(app: Database, folder: Path, recipient: str = "acme", **options: Any) -> pl.DataFrame:
    """Return the rows of a shared export, in their order."""
    report = exported(app, folder, **{"key": OTHER_KEY, "recipient": recipient} | options)
    return rows_of(Path(report.export_filename))


def values(rows: pl.DataFrame, *names: str) -> set[str]:
    """Return the values of columns."""
    return {value for name in names for value in rows[name]}


class TestPseudonyms:
    """What recipients can join, and which rows they can link."""

    def test_key_of_a_recipient_is_an_hmac_of_the_name(self) -> None:
        """A test vector of the standard library."""
        expected = hmac.new(OTHER_KEY.encode(), b"feedback_etl recipient:acme", hashlib.sha256).hexdigest()
        assert derive_recipient_key(Key(OTHER_KEY), "acme").text == expected
        assert derive_recipient_key(Key(OTHER_KEY), "beta").text != expected

    def test_pseudonym_of_a_row_is_an_hmac_of_its_number(self) -> None:
        pairs = pl.DataFrame({"analysis_hash": ["a", "a"], "recommendation_id": ["r", "r"]})
        (frame,) = RowPseudonyms(Key(OTHER_KEY), "acme", nonce="n").replace([pairs])
        key = derive_recipient_key(Key(OTHER_KEY), "acme").text.encode()
        for column, domain in (("analysis_hash", "row"), ("recommendation_id", "recommendation")):
            messages = [f"{domain}:n:{number}".encode() for number in range(2)]
            digests = [hmac.new(key, message, hashlib.sha256).hexdigest()[:16] for message in messages]
            assert frame[column].to_list() == digests
        assert frame["linked_hash"].to_list() == ["a", "a"]

    def test_two_recipients_and_the_organisation_share_no_value_of_ids(self, app: Database, folder: Path) -> None:
        """So that no two of them can join their files."""
        ids = ("analysis_hash", "recommendation_id")
        own = exported(app, folder / "own", key=OTHER_KEY, hash_recommendation_id=True)
        internal = rows_of(Path(own.export_filename))
        acme, beta = shared(app, folder), shared(app, folder, "beta")
        assert acme.height == beta.height == internal.height == PEOPLE * ROWS
        for first, second in ((acme, beta), (acme, internal), (beta, internal)):
            assert not values(first, *ids) & values(second, *ids)

    @pytest.mark.parametrize("length", [16, 32])
    def test_rows_of_an_analysis_are_not_linkable(self, app: Database, folder: Path, length: int) -> None:
        """The set of rows of an analysis was unique for 12.9 % of them; now each row has a pseudonym of its own."""
        rows, again = (shared(app, folder, pseudonym_length=length) for _ in range(2))
        for column in ("analysis_hash", "recommendation_id"):  # an analysis can have a recommendation of its own
            assert rows[column].n_unique() == rows.height
            assert {*rows[column].str.len_bytes()} == {length}
            assert not values(rows, column) & values(again, column)

    @pytest.mark.parametrize("form", FORMS, ids=lambda form: "+".join(form.values()))
    def test_order_is_that_of_pseudonyms(
        self, app: Database, folder: Path, form: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In bounded memory: over several buckets too. The rank of a row gave its time to ten minutes."""
        monkeypatch.setattr(sorting, "_BUCKET_ROWS", 5)
        report = exported(app, folder, key=OTHER_KEY, recipient="acme", batch_size=4, **form)
        rows = fe.scan_training(folder).collect() if "compression" in form else rows_of(Path(report.export_filename))
        assert rows.height == PEOPLE * ROWS
        assert rows["analysis_hash"].is_sorted()

    def test_metadata_of_parquet_do_not_name_the_key_of_the_organisation(self, app: Database, folder: Path) -> None:
        report = exported(app, folder, key=OTHER_KEY, recipient="acme", format="parquet")
        metadata = pl.read_parquet_metadata(report.export_filename)
        assert metadata["feedback_etl.key_id"] == derive_recipient_key(Key(OTHER_KEY), "acme").id != Key(OTHER_KEY).id

    def test_links_stay_in_the_folder_of_their_owner(self, app: Database, folder: Path) -> None:
        rows = shared(app, folder)
        (links,) = folder.glob(".feedback_etl/*.links")
        assert links.stat().st_mode & 0o777 == 0o600
        table = pl.read_csv(links, infer_schema=False)
        assert {*table["analysis_hash"]} == {*rows["analysis_hash"]}
        assert table["linked_hash"].n_unique() == PEOPLE


@given(st.lists(st.integers(0, 16**8 - 1), max_size=60), st.integers(1, 7), st.integers(1, 9))
def test_buckets_sort_as_one_frame_does(numbers: list[int], size: int, bucket: int) -> None:
    """For all frames and sizes of buckets."""
    frame = pl.DataFrame({"analysis_hash": [f"{n:08x}" for n in numbers]}, schema={"analysis_hash": pl.String})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_BUCKET_ROWS", bucket)
        parts = [*sort_by_pseudonym(frame.iter_slices(size), len(numbers))]
    assert pl.concat([frame.clear(), *parts]).equals(frame.sort("analysis_hash"))


class TestRefusals:
    """Exports that sharing refuses."""

    @pytest.mark.parametrize(
        "key", [DEMO_KEY, Key(KEY), Key("password" * 4, accept_weak=True)], ids=["demo", "documented", "weak"]
    )
    def test_keys_that_others_can_have_are_refused(self, app: Database, folder: Path, key: Key) -> None:
        """Given from Python too, where weak keys are accepted for published data."""
        with pytest.raises(KeyUnusableError, match=r"^`recipient` needs a key that no one else can have"):
            shared(app, folder, key=key)
        assert not folder.exists()

    def test_unkeyed_data_are_refused(self, app: Database, folder: Path) -> None:
        with pytest.raises(UsageError, match=r"^`recipient` needs a key"):
            shared(app, folder, key=None, unkeyed=True)

    @pytest.mark.parametrize("role", ["identifier", "free_text"])
    def test_columns_that_identify_people_are_refused(self, role: Any) -> None:
        with pytest.raises(
            UsageError, match="must not contain columns of the roles identifier and free_text: leave out"
        ):
            ExportOptions.from_keywords(extra_columns=[ExtraColumn("place", role)], recipient="acme")

    @pytest.mark.parametrize("name", ["hash_id", "bucket_age"])
    def test_functions_of_an_application_are_refused(self, app: Database, folder: Path, name: str) -> None:
        """They could return the ids and the ages."""
        function: dict[str, Any] = {name: str}
        with pytest.raises(UsageError, match=r"^Overridden methods could put anything into shared data"):
            shared(app, folder, overrides=Overrides(**function))

    @pytest.mark.parametrize("name", ["", "Acme", "acme ", "a/b", "x" * 65, "é"])
    def test_a_recipient_has_one_spelling(self, name: str) -> None:
        """A second one would be a second recipient, with whom nothing overlaps."""
        with pytest.raises(UsageError, match=r"^`recipient` must be a name of 1 to 64 lower-case letters"):
            ExportOptions.from_keywords(recipient=name)

    def test_options_without_the_preset_are_refused(self) -> None:
        """Where they are not built from keywords, which strengthen them."""
        with pytest.raises(UsageError, match=r"^`recipient` requires k of at least 5"):
            ExportOptions(output=OutputOptions(recipient="acme"))

    def test_series_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"^An incremental export cannot have a `recipient`"):
            OutputOptions(recipient="acme", incremental=True)

    def test_quasi_identifiers_can_only_be_added(self) -> None:
        """Those of the settings replaced the default ones."""
        options = ExportOptions.from_keywords(recipient="acme", quasi_identifiers=["rules_applied"])
        assert options.privacy.quasi_identifiers == (
            "rules_applied",
            *CLASSIC_SCHEMA.quasi_identifiers,
            "feedback_timestamp",
        )

    @pytest.mark.parametrize("precision", ["exact", "minute", "hour"])
    def test_settings_for_finer_times_are_refused(
        self, precision: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEEDBACK_ETL_TIMESTAMP_PRECISION", precision)
        done = Here(capfd, monkeypatch)("export", "--share", "--recipient", "acme")
        assert done.code == 2
        assert "--share allows no times finer than the day: leave the setting timestamp_precision out" in done.err


class TestErasure:
    """People are found in shared exports by their links."""

    @pytest.mark.parametrize("form", FORMS, ids=lambda form: "+".join(form.values()))
    def test_person_is_erased_from_all_exports(self, app: Database, folder: Path, form: dict[str, Any]) -> None:
        """Those of two recipients."""
        for recipient in ("acme", "beta"):
            exported(app, folder, key=OTHER_KEY, recipient=recipient, **form)
        result = erase(folder, user_ids=[2], database=app.url, keys=KEYS)
        assert (result.rows, len(result.files), result.not_found, result.damaged) == (2 * ROWS, 2, [], [])
        assert result.recipients == ["acme", "beta"]
        for manifest in list_manifests(folder):
            assert {file.kind: file.rows for file in manifest.files}["pairs"] == (PEOPLE - 1) * ROWS
        for links in folder.glob(".feedback_etl/*.links"):
            assert pl.read_csv(links, infer_schema=False).height == (PEOPLE - 1) * ROWS
        assert verify_folder(open_storage(folder), KEYS).problems == []
        assert erase(folder, user_ids=[2], database=app.url, keys=KEYS).rows == 0

    def test_person_who_has_left_the_database_is_found(self, app: Database, folder: Path) -> None:
        """By the ids of the analyses, and by a comparison with the database."""
        shared(app, folder)
        with app.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id IN (2, 3)")
        assert erase(folder, analysis_ids=[20], keys=KEYS).rows == ROWS
        assert erase(folder, not_in_database=True, database=app.url, keys=KEYS).rows == ROWS
        assert erase(folder, not_in_database=True, database=app.url, keys=KEYS).rows == 0

    def test_erased_person_is_not_shared_again(self, app: Database, folder: Path) -> None:
        shared(app, folder)
        erase(folder, user_ids=[2], database=app.url, keys=KEYS)
        assert shared(app, folder, "beta").height == (PEOPLE - 1) * ROWS

    @pytest.mark.parametrize("form", FORMS[::3], ids=["csv", "parquet"])
    def test_person_who_is_erased_during_the_export_is_left_out(
        self, app: Database, folder: Path, form: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the reading of the tombstones and the commit, when pseudonyms of rows are written already."""
        shared(app, folder, "beta")
        commit = ExportTransaction.commit

        def erase_first(self: ExportTransaction, *args: Any, **options: Any) -> Any:
            erase(folder, analysis_ids=[20], keys=KEYS)
            return commit(self, *args, **options)

        monkeypatch.setattr(ExportTransaction, "commit", erase_first)
        assert shared(app, folder, **form).height == (PEOPLE - 1) * ROWS
        links = pl.concat([pl.read_csv(path, infer_schema=False) for path in folder.glob(".feedback_etl/*.links")])
        assert links.height == 2 * (PEOPLE - 1) * ROWS

    def test_interrupted_erasure_still_finds_the_rest(
        self, app: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The links come last: a row is removed from them after the data."""
        shared(app, folder)
        rewrite_files: Callable[..., Any] = rewrite._rewrite
        done = list[str]()

        def fail_second(*args: Any, **options: Any) -> Any:
            done.extend(file.kind for file, _ in args[2])
            if len(done) == 2:
                raise OSError("disk full")
            return rewrite_files(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(rewrite, "_rewrite", fail_second)
            with pytest.raises(ExportFileError):
                erase(folder, analysis_ids=[20], keys=KEYS)
        assert done == ["pairs", "links"]
        erase(folder, analysis_ids=[20], keys=KEYS)
        (manifest,) = list_manifests(folder)
        rows = (PEOPLE - 1) * ROWS
        assert {file.kind: file.rows for file in manifest.files} == {"links": rows, "pairs": rows}

    def test_export_without_its_links_is_reported_as_not_searched(self, app: Database, folder: Path) -> None:
        """No key finds a person there."""
        rows = shared(app, folder)
        (links,) = folder.glob(".feedback_etl/*.links")
        links.unlink()
        result = erase(folder, analysis_ids=[20], keys=KEYS)
        (manifest,) = list_manifests(folder)
        assert result.damaged == [manifest.all("pairs")[0].path]
        assert rows_of(folder / result.damaged[0]).equals(rows)

    def test_k_is_kept(self, sqlite_database: Database, folder: Path) -> None:
        """Five people are the minimum: without one of them the rows of the others must be removed."""
        sqlite_database.fill(**feedback(5))
        shared(sqlite_database, folder)
        settings = load_settings(output_dir=folder, database_url=sqlite_database.url)
        erase(folder, user_ids=[2], database=sqlite_database.url, keys=KEYS)
        item = next(item for item in check(settings, keys=KEYS, now=NOW) if item.name == "k")
        assert (item.status, "is 4 for age_range" in item.detail) == ("failed", True)
        assert erase(folder, keep_k=True, database=sqlite_database.url, keys=KEYS).suppressed == 4 * ROWS
        assert all(file.rows == 0 for manifest in list_manifests(folder) for file in manifest.files)

    def test_prune_removes_the_links(self, app: Database, folder: Path) -> None:
        shared(app, folder)
        prune(folder, keep_days=0, key=KEYS[0], now=NOW + timedelta(days=1))
        assert not [*folder.glob(".feedback_etl/*.links")]
        assert erase(folder, analysis_ids=[20], keys=KEYS).damaged == []


class TestFolder:
    """The folder's other guarantees apply to shared exports."""

    def test_checklist_finds_who_has_withdrawn(self, app: Database, folder: Path) -> None:
        """By the links: the pseudonyms in the file do not identify them."""
        with app.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE users ADD COLUMN training_data_opt_out BOOLEAN DEFAULT 0")
            for user in range(1, PEOPLE + 1):
                connection.exec_driver_sql(f"INSERT INTO users (id) VALUES ({user})")
        shared(app, folder)
        settings = load_settings(output_dir=folder, database_url=app.url)
        before = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}
        with app.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE users SET training_data_opt_out = 1 WHERE id = 2")
        after = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}
        for name in ("columns", "pseudonyms", "contents", "audit log", "erasure", "collisions", "consent", "k"):
            assert before[name].status == "ok", before[name]
        assert (after["consent"].status, "contains 1 analyses" in after["consent"].detail) == ("failed", True)

    def test_digits_of_an_id_in_a_pseudonym_are_no_raw_id(self, app: Database, folder: Path) -> None:
        """Pseudonyms contain any six characters by chance, in a file of many rows."""
        starts = shared(app, folder)["recommendation_id"].str.extract(r"^(.{5,}?[a-f])[0-9]").drop_nulls()
        ids = {"user_id": starts[0], "analysis_id": 9, "recommendation_id": 1}
        app.fill(feedbacks=[{"id": 999, "helpful_rating": 5, "created_at": NOW} | ids])
        items = {item.name: item for item in check(load_settings(output_dir=folder, database_url=app.url), keys=KEYS)}
        assert (items["raw ids"].status, items["columns"].status) == ("skipped", "ok"), items["raw ids"]

    def test_manifest_and_log_name_the_recipient(self, app: Database, folder: Path) -> None:
        shared(app, folder)
        (manifest,) = list_manifests(folder)
        started, committed = AuditLog(folder).records()
        assert manifest.recipient == started["recipient"] == committed["settings"]["recipient"] == "acme"
        assert manifest.key_id == Key(OTHER_KEY).id
        assert manifest.pseudonyms == f"{Key(OTHER_KEY).id} for acme"

    def test_shared_and_internal_exports_are_not_mixed(self, app: Database, folder: Path) -> None:
        """In a training set a row would be in it twice, and the second one under another pseudonym."""
        exported(app, folder, key=OTHER_KEY)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(UsageError, match=r"contains ordinary exports such as feedback_training_20251025_120000"):
            shared(app, folder)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        assert fe.scan_training(folder).collect().height == PEOPLE * ROWS
        shared(app, folder / "shared")
        with pytest.raises(UsageError, match=r"contains shared exports such as feedback_training_20251025_120000"):
            exported(app, folder / "shared", key=OTHER_KEY)


class TestParts:
    """Exports in parts: the parts are ranges of pseudonyms."""

    def test_coordinator_orders_the_rows_of_all_parts(
        self, app: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Parts in the order of time would give the time of a row to the range of its part."""
        monkeypatch.setattr(sorting, "_BUCKET_ROWS", 5)
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", app.url)
        monkeypatch.setenv("FEEDBACK_ETL_KEY", OTHER_KEY)
        with ThreadPoolExecutor(2) as executor:
            report = exported_from_url(app, folder, key=OTHER_KEY, recipient="acme", executor=executor, batch_size=4)
        parts = sorted(Path(report.export_filename).glob("*.csv"))
        rows = pl.concat(map(rows_of, parts))
        assert len(parts) > 1
        assert (rows.height, rows["analysis_hash"].is_sorted()) == (PEOPLE * ROWS, True)
        assert erase(folder, analysis_ids=[20], keys=KEYS).rows == ROWS
        (manifest,) = list_manifests(folder)
        assert sum(file.rows for file in manifest.all("links")) == manifest.rows == (PEOPLE - 1) * ROWS

    def test_object_store_behaves_as_a_folder(self, app: Database, bucket_url: str) -> None:
        """Sorted, searched, erased and compared with what was shared before."""
        options = {"key": OTHER_KEY, "output_dir": bucket_url, "days_back": -1, "now": NOW}
        report = fe.export_feedback(app.url, recipient="acme", **options)  # type: ignore[arg-type]
        assert report.exported_records == PEOPLE * ROWS
        with pytest.raises(ValidationError, match="acme got a part of this window before"):
            fe.export_feedback(app.url, recipient="acme", k=6, **options)  # type: ignore[arg-type]
        assert erase(bucket_url, analysis_ids=[20], keys=KEYS).rows == ROWS
        (manifest,) = list_manifests(open_storage(bucket_url))
        assert sum(file.rows for file in manifest.all("links")) == manifest.rows == (PEOPLE - 1) * ROWS
        with pytest.raises(ValidationError, match="its rows have changed since"):
            fe.export_feedback(app.url, recipient="acme", **options)  # type: ignore[arg-type]


class TestRepeatedReleases:
    """A recipient who compares two files can single out the difference."""

    def test_difference_of_one_person_is_refused(self, app: Database, folder: Path) -> None:
        """The attack: a second share of the same window had exactly one person's row more."""
        shared(app, folder)
        rows = feedback(PEOPLE + 1)["feedbacks"][-ROWS:]
        app.fill(feedbacks=rows)
        with pytest.raises(ValidationError, match=r"^acme got this window before, and its rows have changed since"):
            shared(app, folder)
        assert len(list_manifests(folder)) == 1
        assert shared(app, folder, "beta").height == (PEOPLE + 1) * ROWS

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"now": NOW + timedelta(hours=1)}, r"\(until 2025-10-25T12:00:00\)"),
            ({"days_back": 1}, r"\(until 2025-10-25T12:00:00\)"),
            ({"age_edges": (20, 30)}, r"\(with other settings\)"),
            ({"k": 6}, r"\(with other settings\)"),
            ({"quasi_identifiers": ["rules_applied"]}, r"\(with other settings\)"),
        ],
        ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
    )
    def test_overlap_with_another_window_or_other_settings_is_refused(
        self, app: Database, folder: Path, options: dict[str, Any], reason: str
    ) -> None:
        """Three shares with other age ranges could be joined to k = 3."""
        shared(app, folder)
        with pytest.raises(ValidationError, match=f"^acme got a part of this window before {reason}") as error:
            shared(app, folder, **options)
        assert "Share a window from 2025-10-25T12:00:00 on (--since), or confirm with --allow-overlap" in str(
            error.value
        )

    def test_same_rows_can_be_shared_again(self, app: Database, folder: Path) -> None:
        """A file that was lost reveals nothing new."""
        first, second = shared(app, folder), shared(app, folder, format="parquet")
        assert sorted(first["helpful_rating"]) == sorted(second["helpful_rating"])

    def test_windows_that_meet_do_not_overlap(self, app: Database, folder: Path) -> None:
        shared(app, folder)
        app.fill(
            feedbacks=[row | {"id": row["id"] + 1000, "analysis_id": 7} for row in feedback(minutes=-600)["feedbacks"]]
        )
        later = NOW + timedelta(days=1)
        assert shared(app, folder, since=NOW, until=later, now=later).height == PEOPLE * ROWS

    def test_overlap_that_is_meant_is_allowed_and_recorded(self, app: Database, folder: Path) -> None:
        shared(app, folder)
        assert shared(app, folder, k=6, allow_overlap=True).height == PEOPLE * ROWS
        assert [record.get("allow_overlap") for record in AuditLog(folder).records()] == [None, None, True, None]

    def test_failed_share_does_not_count(self, app: Database, folder: Path) -> None:
        """None of its files was published."""
        with pytest.raises(ValidationError):
            shared(app, folder, k=50)
        assert shared(app, folder).height == PEOPLE * ROWS

    def test_pruned_share_counts(self, app: Database, folder: Path) -> None:
        """The recipient still has it."""
        shared(app, folder)
        prune(folder, keep_days=0, key=KEYS[0], now=NOW + timedelta(days=1))
        with pytest.raises(ValidationError, match=r"^acme got a part"):
            shared(app, folder, k=6)

    def test_cut_log_is_refused(self, app: Database, folder: Path) -> None:
        """What was shared cannot be forgotten: the records are signed."""
        shared(app, folder)
        log = folder / ".feedback_etl" / "audit.jsonl"
        lines = log.read_text().splitlines()
        changed = json.loads(lines[0]) | {"recipient": "beta"}
        log.write_text("\n".join([json.dumps(changed), *lines[1:], ""]))
        with pytest.raises(ExportFileError, match="does not verify"):
            shared(app, folder, k=6)


def test_sample_data_are_shared_without_losing_a_row(tmp_path: Path) -> None:
    """The preset makes values coarser; it suppressed all rows before."""
    create_sample_database(tmp_path / "feedback.db", rows=5_000, seed=7, now=NOW)
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    report = fe.export_feedback(url, days_back=90, now=NOW, key=OTHER_KEY, recipient="acme", output_dir=tmp_path)
    assert report.suppressed_records == 0
    assert report.exported_records > 2_500
    assert report.risk["k"] >= 5
