"""Free text in declared columns: found by its form, and refused unless it is declared."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import exported_from_url, people
from hypothesis import given, settings
from hypothesis import strategies as st
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.privacy import PrivacyOptions
from feedback_etl.privacy.column_inspector import ColumnInspector
from feedback_etl.privacy.contact_details import _LENGTH_BY_COUNTRY, find_contact_details
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import IMAGE_URL, SUBJECT_HASH

DETAILS = {
    "e-mail addresses": [
        "ann@example.org",
        "x ann.b+c@mail.example.co.uk, y",
        "a\uff20b.de",
        "jos\u00e9@ex\u00e4mple.de",
        *("ann(at)example.org", "ann [AT] example [dot] org", "ann {@} example.org", "ann at example dot org"),
        *("\uff41\uff4e\uff4e\uff20example\uff0eorg", "ann\u200b@example.org", "ann\ufe6bexample.org"),
        *("ann @ example.org", "ann @example.org", "ann@example .org"),
        *("ann%40example.org", "ann&#64;example.org", "ann&#x40;example.org", "ann&commat;example.org"),
    ],
    "telephone numbers": [
        *("+49 30 1234567", "call +1 (415) 555-2671", "0049 30 1234567", "030 1234567", "0171/1234567"),
        *("(030) 1234567", "415-555-2671", "(415) 555-2671", "+41791234567", "06 12 34 56 78"),
        *("01701234567", "call 0301234567.", "0049301234567", "call 4155552671", "tel: 14155552671"),
        *("%2B49301234567", "&#43;49 30 1234567"),
        *("\uff0b49 30 1234567", "\uff10170\uff0f1234567", "030\u00a01234567"),
    ],
    "URLs": [
        "see https://x.y/z",
        "HTTP://A.B",
        "www.example.org",
        "example.org",
        "see my-blog.example.de.",
        "instagr.am/ann_b",
    ],
    "IBANs": [
        *("DE89370400440532013000", "iban DE89 3704 0044 0532 0130 00 BIC X", "GB82 WEST 1234 5698 7654 32"),
        *("FR14 2004 1010 0505 0001 3M02 606 thanks", "NO93 8601 1117 947", "MT84MALT011000012345MTLCAST001S"),
        *("DE 89 3704 0044 0532 0130 00", "is 12 DE89 3704 0044 0532 0130 00"),
        *("DE89-3704-0044-0532-0130-00", "de89 3704 0044 0532 0130 00", "\uff24\uff2589 3704.0044.0532.0130.00"),
    ],
}
OTHERS = [
    *("acne", "2025-10-25", "2025-10-25 10:00", "01-02-2025 10:30", "01.02.2025", "10:00:00", "+00:00", "04-12-2025"),
    *(
        "r001",
        "rec_20251025_001",
        "00123456789",
        "000123",
        "12345678",
        "1234-5678-9012",
        "0815",
        "012 345",
        "100 000 000",
    ),
    *("1.2.3.4", "192.168.0.1", "v1.0.0", "0.12345678", "+5", "+10%", "0-100", "5 of 10", "2 weeks 3 days", "10-20-30"),
    *(
        "vitamin.c",
        "acne.no_retinoid",
        "rules.v2",
        "mg/ml",
        "i.e./e.g.",
        "0.5mg/kg",
        "index.default",
        "at home",
        "at dot",
    ),
    *("4155552671", "week 4155", "1234567890", "1700000000", "note.com_edo"),
    *(
        "@handle",
        "a@b",
        "look @ me",
        "2 @ 1.50",
        "he said @ home. Then",
        "www",
        "http",
        "DE89370400440532013001",
        "AB12 3456 7890 1234",
    ),
    *("550e8400-e29b-41d4-a716-446655440000", "f47ac10b-58cc-0372-0567-0e02b2c3d479"),
]
COMMENT = ExtraColumn("comment", "sensitive")
IDS = dict.fromkeys(("feedback_id", "user_id", "analysis_id"), pl.String)
QUERY = """
SELECT f.id AS feedback_id, f.user_id, f.analysis_id, 'rec_1' AS recommendation_id, f.helpful_rating,
       f.product_satisfaction, f.routine_completion_pct, f.would_recommend, '[]' AS conditions_analyzed,
       '[]' AS rules_applied, f.timeframe, CAST(NULL AS INTEGER) AS age, f.created_at, {} AS comment
FROM recommendation_feedbacks f
"""
SECRET = "secret-4711"
DISTINCT, LABELS = f"'{SECRET} no. ' || f.id", "CASE WHEN f.id > 5 THEN 'a' ELSE 'b' END"
ADDRESS = f"CASE WHEN f.user_id = 2 THEN '{SECRET}@example.org' ELSE 'a' END"


def kinds(text: str) -> set[str]:
    frame = pl.DataFrame({"x": [text]})
    found = frame.select(expression.alias(kind) for kind, expression in find_contact_details("x").items())
    return {kind for kind, is_found in found.row(0, named=True).items() if is_found}


class TestContactDetails:
    """Patterns, and the checksum of IBANs."""

    @pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in DETAILS.items() for text in texts])
    def test_details_are_found(self, kind: str, text: str) -> None:
        assert kinds(text) == {kind}

    @pytest.mark.parametrize("text", OTHERS)
    def test_dates_numbers_and_ids_are_none(self, text: str) -> None:
        assert kinds(text) == set()

    @given(st.sampled_from(sorted(_LENGTH_BY_COUNTRY)), st.integers(0, 2**200), st.booleans(), st.booleans())
    def test_checksum_is_that_of_the_standard(self, country: str, seed: int, is_wrong: bool, has_blanks: bool) -> None:
        """Any IBAN is found, and none with another checksum."""
        letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        account = "".join(letters[seed // 36**place % 36] for place in range(_LENGTH_BY_COUNTRY[country] - 4))
        number = int("".join(str(letters.index(letter)) for letter in f"{account}{country}00"))
        check = 98 - number % 97 + (7 if is_wrong else 0)
        iban = f"{country}{check % 97:02}{account}"
        text = " ".join(re.findall(".{1,4}", iban)) if has_blanks else iban
        assert ("IBANs" in kinds(text)) is not is_wrong


def inspector(*columns: ExtraColumn) -> ColumnInspector:
    return ColumnInspector(
        CLASSIC_SCHEMA.with_extra_columns(columns), None, 2026, hashes_item=False, has_own_query=True
    )


def texts(*values: str | None) -> pl.DataFrame:
    """Return training pairs with these texts and no other value."""
    columns = pl.DataFrame(schema=dict.fromkeys(CLASSIC_SCHEMA.training_columns, pl.String))
    return pl.concat([columns, pl.DataFrame({"comment": pl.Series(values, dtype=pl.String)})], how="diagonal")


def add(counter: ColumnInspector, pairs: pl.DataFrame) -> None:
    counter.add(pairs, pl.DataFrame(schema=IDS).clear(pairs.height))


class TestCounter:
    """Counts in bounded memory."""

    def test_only_declared_texts_are_counted(self) -> None:
        """Not those of other types, of identifiers, of declared free text or of images."""
        columns = [
            *(ExtraColumn("a", "identifier"), ExtraColumn("b", "free_text"), ExtraColumn("c", "sensitive", "integer")),
            *(IMAGE_URL, SUBJECT_HASH, COMMENT),
        ]
        counter = inspector(*columns)
        add(counter, texts("secret").with_columns(a=pl.lit("a"), b=pl.lit("b"), c=1, image_url=pl.lit("i")))
        assert [name for name, counts in counter.take_counts().items() if counts.digests] == ["comment"]

    @pytest.mark.parametrize(("rows", "distinct"), [(99, 99), (100, 50), (100, 51), (30_000, 14_000), (30_000, 16_500)])
    def test_more_than_half_distinct_of_a_hundred_is_free_text(self, rows: int, distinct: int) -> None:
        """Counted exactly for few distinct texts, and estimated for many."""
        counter = inspector(COMMENT)
        for batch in texts(*(f"text {number % distinct}" for number in range(rows))).iter_slices(7_000):
            add(counter, batch)
        if rows < 100 or distinct <= rows / 2:
            counter.require_none()
            return
        with pytest.raises(ValidationError, match=r"of the texts in comment, (about )?[\d,]+ of [\d,]+ are distinct"):
            counter.require_none()

    def test_distinct_texts_are_estimated_within_5_percent(self) -> None:
        """With a fixed number of digests."""
        counter = inspector(COMMENT)
        for start in range(0, 200_000, 50_000):
            add(counter, texts(*(f"text {number}" for number in range(start, start + 50_000))))
        counts = counter.take_counts()["comment"]
        assert (counts.values, len(counts.digests)) == (200_000, 4_096)
        assert 190_000 < counts.distinct < 210_000

    @settings(max_examples=20)
    @given(st.lists(st.lists(st.none() | st.sampled_from(["a", "b", "a@b.cd", "www.x.yz"]), max_size=5), max_size=4))
    def test_counts_of_parts_add_up(self, parts: list[list[str | None]]) -> None:
        """In any division, with nulls and without rows."""
        whole, merged = inspector(COMMENT), inspector(COMMENT)
        frames = [texts(*part) for part in parts]
        add(whole, pl.concat([texts(), *frames]))
        for frame in frames:
            part = inspector(COMMENT)
            add(part, frame)
            merged.merge(part.take_counts())
        expected, found = whole.take_counts()["comment"], merged.take_counts()["comment"]
        assert (expected.values, sorted(expected.digests)) == (found.values, sorted(found.digests))
        assert +Counter(expected.contacts) == +Counter(found.contacts)


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """40 users with three rows each."""
    sqlite_database.fill(**people(40))
    return sqlite_database


def own(app: Database, folder: Path, text: str, column: ExtraColumn = COMMENT, **options: Any) -> fe.ExportReport:
    return exported_from_url(app, folder, query=QUERY.format(text), extra_columns=[column], **options)


class TestExport:
    """Columns that are refused, and the way to export them."""

    @pytest.mark.parametrize("role", ["sensitive", "insensitive", "quasi_identifier"])
    @pytest.mark.parametrize(
        ("text", "problem"), [(DISTINCT, "120 of 120 are distinct"), (ADDRESS, "e-mail addresses are in 3")]
    )
    def test_free_text_is_refused_before_a_file_exists(
        self, app: Database, tmp_path: Path, role: Any, text: str, problem: str
    ) -> None:
        """The message names the column, the numbers and the declaration, and no text."""
        with pytest.raises(ValidationError) as caught:
            own(app, tmp_path, text, ExtraColumn("comment", role))
        message = str(caught.value)
        assert f"(of the texts in comment, {problem})" in message
        assert 'role = "free_text"' in message
        assert SECRET not in message
        assert not list(tmp_path.glob("feedback_training_*"))

    def test_it_is_refused_as_a_frame_too(self, app: Database) -> None:
        options: Any = {"query": QUERY.format(DISTINCT), "extra_columns": [COMMENT], "days_back": -1, "key": KEY}
        with pytest.raises(ValidationError, match="are distinct"):
            fe.load_training(app.url, **options)

    def test_it_is_refused_in_parts_too(self, app: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no worker sees all texts."""
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", app.url)
        with ThreadPoolExecutor(2) as executor, pytest.raises(ValidationError, match="120 of 120 are distinct"):
            own(app, tmp_path, DISTINCT, executor=executor, batch_size=7)
        assert not list(tmp_path.glob("feedback_training_*"))

    def test_labels_are_no_free_text(self, app: Database, tmp_path: Path) -> None:
        assert own(app, tmp_path, LABELS).exported_records == 120

    @pytest.mark.parametrize("role", ["free_text", "identifier"])
    def test_declared_free_text_is_exported(self, app: Database, tmp_path: Path, role: Any) -> None:
        """As it is, or as pseudonyms."""
        report = own(app, tmp_path, DISTINCT, ExtraColumn("comment", role))
        texts = pl.read_csv(report.export_filename)["comment"]
        assert texts.str.starts_with(SECRET).all() == (role == "free_text")
        assert fe.scan_training(tmp_path).collect()["comment"].n_unique() == 120

    def test_shared_data_contain_none(self) -> None:
        with pytest.raises(UsageError, match=r"^Shared data must not contain columns .* free_text: leave out comment"):
            ExportOptions.from_keywords(extra_columns=[ExtraColumn("comment", "free_text")], recipient="acme")

    def test_only_text_can_be_free_text(self) -> None:
        with pytest.raises(UsageError, match='for columns of the type "text", not for comment'):
            PrivacyOptions(extra_columns=[ExtraColumn("comment", "free_text", "integer")])
