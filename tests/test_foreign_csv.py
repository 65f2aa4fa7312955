"""CSV files of other programs: the same rows wherever they are read. An empty line is not a row."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import exported, people
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Here
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import read_contents
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.compliance.rows import check_duplicates, check_pseudonyms
from feedback_etl.data_files.csv_files import iter_lines, iter_records, without_empty_lines
from feedback_etl.data_files.row_filter import count_rows, read_columns, write_without
from feedback_etl.database.lookups import ApplicationSummary
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests, replace_manifest
from feedback_etl.records.manifest import Manifest
from feedback_etl.report.rows import Rows
from feedback_etl.settings.model import load_settings
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.location import open_storage
from feedback_etl.training.committed_export import CommittedExport

KEYS = [Key(KEY)]
BOM = b"\xef\xbb\xbf"


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run command lines in this process."""
    return Here(capfd, monkeypatch)


class TestRisk:
    """`feedback-etl risk`."""

    def test_empty_lines_are_no_rows(self, here: Here, tmp_path: Path) -> None:
        """Four of them and a row without a value are not a class of five."""
        path = tmp_path / "zips.csv"
        path.write_text("zip,salary\n" + "1067,5\n" * 5 + ",9\n" + "\n" * 4)
        done = here("risk", path, "--quasi-identifier", "zip", "--sensitive", "salary", "--json")
        figures = json.loads(done.out)
        assert (figures["rows"], figures["k"], figures["classes"]) == (6, 1, 2)

    def test_a_line_of_separators_is_a_row(self, here: Here, tmp_path: Path) -> None:
        """Of empty values."""
        path = tmp_path / "zips.csv"
        path.write_bytes(b"zip,salary\r\n,\r\n\r\n,\r\n1067,5\r\n1067,6\r\n")
        done = here("risk", path, "--quasi-identifier", "zip", "--sensitive", "salary", "--json")
        figures = json.loads(done.out)
        assert (figures["rows"], figures["k"], figures["classes"]) == (4, 2, 2)

    def test_an_empty_line_is_no_row_of_one_column_either(self, here: Here, tmp_path: Path) -> None:
        """An empty value is quoted there."""
        path = tmp_path / "zips.csv"
        path.write_text('zip\n1067\n\n1067\n""\n\n')
        done = here("risk", path, "--quasi-identifier", "zip", "--json")
        assert json.loads(done.out)["rows"] == 3


SHAPES = {
    "lines at the end": lambda lines: b"".join([*lines, b"\n\n"]),
    "lines between rows": lambda lines: b"\n".join([*lines, b""]),
    "lines before the header": lambda lines: b"".join([b"\n\r\n", *lines]),
    "CRLF": lambda lines: b"\r\n".join([*(line.replace(b"\n", b"\r\n") for line in lines), b""]),
    "a byte order mark": lambda lines: BOM + b"".join([*lines[:2], b"\n", *lines[2:]]),
    "a byte order mark in a line of its own": lambda lines: BOM + b"\n" + b"".join([*lines[:2], b"\n", *lines[2:]]),
    "no last line end": lambda lines: b"".join([*lines[:2], b"\n", *lines[2:]]).rstrip(b"\n"),
}


@pytest.fixture(params=SHAPES)
def adopted(request: pytest.FixtureRequest, sqlite_database: Database, tmp_path: Path) -> Path:
    """An adopted file of six rows that another program has written anew, with empty lines."""
    sqlite_database.fill(**people(2))
    path = Path(exported(sqlite_database, tmp_path / "ours").export_filename)
    copy = tmp_path / "theirs" / "old.csv"
    copy.parent.mkdir()
    copy.write_bytes(SHAPES[request.param](list(iter_lines(path))))
    fe.exports.adopt(copy, key=KEYS[0], analyses=[101, 102, 103, 201, 202, 203])
    return copy


def the_manifest(folder: Path) -> Manifest:
    """Read the only manifest of a folder."""
    (manifest,) = list_manifests(folder)
    return manifest


class TestAdopted:
    """What is read of an adopted file."""

    def test_all_count_the_same_rows(self, adopted: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        """`adopt`, `scan_training`, `report`, `check`, `risk`."""
        monkeypatch.setattr("feedback_etl.compliance.rows.GUESSED_IDS", 1_000)
        folder, manifest = LocalStorage(adopted.parent), the_manifest(adopted.parent)
        assert manifest.rows == 6
        frame = fe.scan_training(adopted.parent).collect()
        assert (frame.height, frame["analysis_hash"].null_count()) == (6, 0)
        assert fe.scan_training(adopted.parent).select(pl.len()).collect().item() == 6
        assert Rows([CommittedExport.from_manifest(folder, manifest)]).read("analysis_hash", "timeframe").height == 6
        facts = read_contents(folder, manifest)
        assert facts is not None
        assert (facts.repeated, facts.without_analysis, facts.rows.collect().height) == (0, 0, 6)
        remedies = Remedies(load_settings(output_dir=folder.path))
        database = ApplicationSummary([], [], [], [], (), None)
        context = CheckContext(storage=folder, remedies=remedies, files=[facts], database=database)
        items = (check_duplicates(context), check_pseudonyms(context))
        assert [item.passed for item in items] == [True, True]
        assert json.loads(here("risk", adopted, "--json").out)["rows"] == 6

    def test_erasure_keeps_all_other_bytes(self, adopted: Path, sqlite_database: Database) -> None:
        """Also the empty lines; the row that goes is counted alone."""
        before = list(iter_lines(adopted))
        done = fe.privacy.erase(adopted.parent, analysis_ids=[101], database=sqlite_database.url, keys=KEYS)
        assert (done.rows, done.damaged) == (1, [])
        after = list(iter_lines(adopted))
        (gone,) = [line for line in before if line not in after]
        assert after == [line for line in before if line != gone]
        manifest = the_manifest(adopted.parent)
        assert (manifest.rows, manifest.erased_rows) == (5, 1)
        assert fe.scan_training(adopted.parent).collect().height == 5

    def test_an_earlier_count_does_not_become_erased_rows(self, adopted: Path, sqlite_database: Database) -> None:
        """Manifests of versions that counted empty lines have too many rows."""
        manifest = the_manifest(adopted.parent)
        manifest.files[0].rows += 4
        replace_manifest(open_storage(adopted.parent), manifest, Key(KEY))
        done = fe.privacy.erase(adopted.parent, analysis_ids=[101], database=sqlite_database.url, keys=KEYS)
        manifest = the_manifest(adopted.parent)
        assert (done.rows, manifest.rows, manifest.erased_rows) == (1, 5, 1)


def test_our_own_files_are_not_read_before_they_are_collected(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no empty lines, and may be large."""
    sqlite_database.fill(**people(2))
    exported(sqlite_database, tmp_path)
    monkeypatch.setattr("feedback_etl.data_files.csv_files.without_empty_lines", None)
    assert fe.scan_training(tmp_path).collect().height == 6


def test_compression_is_recognised_by_the_content(tmp_path: Path) -> None:
    """As Polars does it: names can be wrong."""
    path = tmp_path / "packed.csv"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n\n3,4\n"))
    assert (read_columns(path), count_rows(path)) == (["a", "b"], 2)
    assert pl.scan_csv(without_empty_lines(path)).collect().rows() == [(1, 2), (3, 4)]


def test_an_empty_line_between_blocks_is_seen(tmp_path: Path) -> None:
    """Files are read in pieces of a mebibyte."""
    for line_end in (b"\n", b"\r\n"):
        for shift in range(4):
            path = tmp_path / "long.csv"
            text = b"a,b\n" + b"x" * ((1 << 20) - 9 + shift) + b",1" + line_end + line_end + b"2,3" + line_end
            path.write_bytes(text)
            assert pl.read_csv(without_empty_lines(path)).height == count_rows(path) == 2


def test_fields_that_a_record_lacks_are_empty(tmp_path: Path) -> None:
    """Such a row has no person; it stays."""
    path = tmp_path / "short.csv"
    path.write_bytes(b"x,analysis_hash\n1\n2,00000000000000aa\n")
    with (tmp_path / "new").open("wb") as file:
        _, rows = write_without(path, path.name, {"00000000000000aa"}, file)
    assert (rows, (tmp_path / "new").read_bytes()) == (1, b"x,analysis_hash\n1\n")
    assert pl.read_csv(without_empty_lines(path), infer_schema=False).rows()[0] == ("1", None)


FIELDS = st.sampled_from(
    ["", "x", " ", "'", '""', '"q"', '"a ""b"" c"', '"a\n\nb"', '"a\r\n\r\nb"', '"\n"', '","', "é"]
)
LINE_ENDS = st.sampled_from(["\n", "\r\n"])


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, int]:
    """Draw the content of a file of two or three columns, and how many rows it has."""
    width = draw(st.integers(2, 3))
    rows = draw(st.lists(st.lists(FIELDS, min_size=width, max_size=width), max_size=6))
    text = ""
    for row in [["a", "b", "c"][:width], *rows]:
        text += "".join(draw(st.lists(LINE_ENDS, max_size=2)))
        text += ",".join(row) + draw(LINE_ENDS)
    text += "".join(draw(st.lists(LINE_ENDS, max_size=3)))
    if draw(st.booleans()):
        text = text.removesuffix("\n").removesuffix("\r")
    return draw(st.sampled_from([b"", BOM])) + text.encode(), len(rows)


@settings(deadline=None)
@given(file=files())
def test_two_readers_find_the_same_rows(file: tuple[bytes, int], tmp_path_factory: Any) -> None:
    """Our reader and Polars, with any field content and empty lines anywhere."""
    content, rows = file
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    assert b"".join(iter_lines(path)) == content
    assert count_rows(path) == len(list(iter_records(path))) - 1 == rows
    frame = pl.scan_csv(without_empty_lines(path), infer_schema=False, glob=False).collect()
    assert (frame.height, frame.columns) == (rows, read_columns(path))
