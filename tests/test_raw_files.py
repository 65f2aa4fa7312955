"""Raw files as a source: the same rows give the same export as a table, whatever the format."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from pseudonym_keys import KEY
from reading import NOW
from typer.testing import CliRunner

import feedback_etl as fe
from feedback_etl.cli.app import app
from feedback_etl.errors import FeedbackError, SourceError, UsageError
from feedback_etl.privacy.erasure import erase
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.settings.model import load_settings

CANARY = "canary-4711"
NAMES = (
    *("feedback_id", "user_id", "analysis_id", "recommendation_id", "helpful_rating", "product_satisfaction"),
    *("routine_completion_pct", "would_recommend", "conditions_analyzed", "rules_applied", "timeframe", "age"),
    *("created_at", "consent"),
)
ROWS: list[tuple[Any, ...]] = [
    ("f01", "7", "007", "r1", 5, 4, 80, 1, '["acne", "dry, skin"]', "[]", "2_weeks", 30, "2025-10-24T10:00:00Z", 1),
    ("f02", "7", "7", "r1", 1, None, None, 0, '["\\"b\\""]', '["é😀"]', 'say "hi"', 17, "2025-10-24 12:00:00+02:00", 1),
    ("f03", "8", "9", "r2", None, 3, 0, None, None, None, None, None, "2025-10-20", 1),
    ("f04", "8", "9", "r2", None, 3, 0, None, None, None, None, None, "2025-10-20", 1),  # the same again
    ("f05", "9", "10", "r3", 6, None, None, 1, None, None, None, 200, "2025-10-21 00:00:00.25", 1),  # out of range
    ("f06", "9", "11", "r3", 4.5, None, None, 1, None, None, "=1+1", 49.5, "2025-10-21 00:00:00", 1),  # not whole
    ("f07", "9", "12", "r3", 4, None, None, 7, None, None, None, 50, "2025-10-21 00:00:00", 1),  # no truth value
    ("f08", "9", "13", "r3", 4, None, None, 1, "oops", None, None, 50, "2025-10-21 00:00:00", 1),  # no list
    ("f09", "9", "14", "r3", 4, None, None, 1, None, None, None, 50, "yesterday", 1),  # no time
    ("f10", "9", "15", "r3", 4, None, None, 1, None, None, None, 50, None, 1),
    ("f11", "10", "16", "r3", 4, None, None, 1, None, None, None, 50, "2025-10-21", 0),  # no consent
    ("f12", "10", "17", "r3", None, None, None, None, None, None, None, 50, "2025-10-21", 1),  # no rating
    ("f13", None, "18", None, 4, None, None, 1, None, None, None, 50, "2025-10-21", 1),  # no recommendation
    ("f14", "11", "19", "r4", 4, None, None, 1, None, None, None, 50, "2030-01-01", 1),  # after the window
    *((f"g{n}", f"{n}", f"{n + 100}", "r5", n % 5 + 1, None, None, n % 2, None, None, None, n, "2025-09-01", 1)
      for n in range(20, 36)),
]  # fmt: skip


def write_csv(path: Path, rows: Sequence[Sequence[Any]], names: Sequence[str] = NAMES) -> None:
    """With CRLF at the ends of lines."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([names, *rows])
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_json(path: Path, rows: Sequence[Sequence[Any]], names: Sequence[str] = NAMES) -> None:
    """With lists as arrays and without nulls; one id is a number."""
    lines = []
    for row in rows:
        values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
        if str(values.get("conditions_analyzed", "")).startswith("["):
            values["conditions_analyzed"] = json.loads(values["conditions_analyzed"])
        if values.get("user_id") == "9":
            values["user_id"] = 9
        lines.append(json.dumps(values))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Sequence[Any]], names: Sequence[str] = NAMES) -> None:
    """With times as text."""
    pl.DataFrame(rows, schema=list(names), orient="row", infer_schema_length=None, strict=False).write_parquet(path)


WINDOW = {"k": 2, "since": "2025-08-30", "until": "2025-10-22"}
WRITERS: dict[str, Callable[[Path, Sequence[Sequence[Any]]], None]] = {
    "csv": write_csv,
    "csv.gz": write_csv,
    "jsonl": write_json,
    "ndjson": write_json,
    "parquet": write_parquet,
}


@pytest.fixture
def table(tmp_path: Path) -> str:
    """The rows as a table of an SQLite file, whose query is in query.sql."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/rows.db", poolclass=sa.NullPool)
    pl.DataFrame(ROWS, schema=list(NAMES), orient="row", infer_schema_length=None, strict=False)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE raw ({', '.join(NAMES)})")
        connection.exec_driver_sql(f"INSERT INTO raw VALUES ({', '.join('?' * len(NAMES))})", ROWS)
    return str(engine.url)


def export(database: str, folder: Path, **options: Any) -> tuple[bytes, dict[str, Any]]:
    """Return the content of the exported file, and the report without what differs between two runs."""
    options = {"days_back": -1, "max_rejected": 1.0, **options}
    report = fe.export_feedback(database, now=NOW, key=KEY, output_dir=folder, **options)
    details = report.to_dict()
    kept = ("total_feedback_records", "exported_records", "errors", "rejections", "skipped_records", "excluded_records")
    return Path(report.export_filename).read_bytes(), {
        name: details[name] for name in (*kept, "deduplicated_records", "suppressed_records") if name in details
    }


@pytest.mark.parametrize("extension", WRITERS)
@pytest.mark.parametrize(
    "options", [{}, {"k": 2, "since": "2025-08-30", "until": "2025-10-22"}], ids=["all", "k and a window"]
)
def test_files_give_the_export_of_a_table(extension: str, options: dict[str, Any], table: str, tmp_path: Path) -> None:
    """Byte by byte, with the same rejections; the rows are in two files that are not in the order of the rows."""
    WRITERS[extension](tmp_path / f"b.{extension}", ROWS[:9])
    WRITERS[extension](tmp_path / f"a.{extension}", ROWS[9:])
    expected = export(
        table, tmp_path / "table", query="SELECT * FROM raw", **options, **({"days_back": 30} if 0 else {})
    )
    assert export(f"files:{tmp_path}/?.{extension}", tmp_path / "files", **options) == expected
    assert expected[1]["errors"] > 0


def test_types_of_parquet_are_read(tmp_path: Path) -> None:
    """Integers, booleans, lists, days, and times of every precision and zone."""
    frame = pl.DataFrame([dict(zip(NAMES, ROWS[0], strict=True))]).with_columns(
        pl.col("user_id").cast(pl.UInt64), pl.col("would_recommend").cast(pl.Boolean), rules_applied=pl.Series([["x"]])
    )
    times = {
        "ns": pl.lit(datetime(2025, 10, 24, 10)).cast(pl.Datetime("ns")),
        "ms": pl.lit(datetime(2025, 10, 24, 10)).cast(pl.Datetime("ms")),
        "zone": pl.lit(datetime(2025, 10, 24, 10)).dt.replace_time_zone("UTC"),
    }
    for name, time in times.items():
        frame.with_columns(created_at=time).write_parquet(tmp_path / f"{name}.parquet")
        row = fe.load_feedback(f"files:{tmp_path}/{name}.parquet", days_back=-1, now=NOW).row(0, named=True)
        assert (row["created_at"], row["user_id"], row["rules_applied"]) == (datetime(2025, 10, 24, 10), 7, '["x"]')


def test_incremental_series_of_a_growing_folder_exports_every_row_once(tmp_path: Path) -> None:
    """New files are continued from the watermark."""
    raw, folder = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    stems = []
    for day in range(1, 4):
        row = [*ROWS[2][:12], f"2025-10-0{day} 10:00:00", 1]
        write_csv(raw / f"{day}.csv", [[f"f{day}", f"{day}", f"a{day}", *row[3:]]])
        report = fe.export_feedback(
            f"files:{raw}/*.csv",
            incremental=True,
            days_back=-1,
            lookback="0m",
            now=datetime(2025, 10, day, 12),
            key=KEY,
            output_dir=folder,
        )
        stems.append(report.exported_records)
    rows = pl.concat([pl.read_csv(path) for path in sorted(folder.glob("*.csv"))])
    assert rows["feedback_timestamp"].n_unique() == rows.height == sum(stems)
    assert sum(stems) >= 2  # the last instant waits for the next run


def test_commands_read_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`export`, `preview`, `plan` and `check` take --from; nothing is left in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_csv(Path("it's [1].csv"), ROWS)
    before = {*Path().iterdir()}

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--from", "it's [[]1].csv"])

    assert run("preview", "--days", "-1", "--rows", "1").stdout.count("\n") == 2
    assert run("plan", "--days", "-1").exit_code == 0
    assert {*Path().iterdir()} == before
    result = run("export", "--days", "-1", "--unkeyed", "--output", "out", "--max-rejected", "1")
    assert result.exit_code == 0, result.output
    assert "consent" in run("check", "--output", "out").stdout
    Path("ids").write_text("7\n")
    erased = run("erase", "--user-ids-file", "ids", "out", "--json")
    assert json.loads(erased.stdout)["rows"] == 2, erased.output
    refused = run("preview", "--database-url", "sqlite:///x.db")
    assert "--from and --database-url exclude each other" in str(refused.exception)


def test_setting_names_files(tmp_path: Path) -> None:
    """As the URL of the database; `config` prints the pattern."""
    Path("feedback-etl.toml").write_text(f'database_url = "files:{tmp_path}/*.csv"', encoding="utf-8")
    assert f"the files {tmp_path}/*.csv" in CliRunner().invoke(app, ["config"]).stdout


def test_query_reads_the_view_of_the_files(tmp_path: Path) -> None:
    """Which has the names of the files' columns, as text for CSV."""
    write_csv(tmp_path / "shop.csv", [("1", "5", "2025-10-24", "007", "red")], ("no", "stars", "sent", "who", "color"))
    columns = ["no AS feedback_id, who AS user_id, no AS analysis_id, 'r' AS recommendation_id"]
    columns += ["stars AS helpful_rating, sent AS created_at, color"]
    absent = ("product_satisfaction", "routine_completion_pct", "would_recommend", "conditions_analyzed")
    columns += [f"NULL AS {name}" for name in (*absent, "rules_applied", "timeframe", "age")]
    loaded = fe.load_training(
        f"files:{tmp_path}/*.csv", query=f"SELECT {', '.join(columns)} FROM files", days_back=-1, now=NOW, key=KEY,
        extra_columns=[ExtraColumn("color")],
    )  # fmt: skip
    assert loaded.select("helpful_rating", "color").rows() == [(5, "red")]


def test_declared_source_reads_the_view_of_the_files(tmp_path: Path) -> None:
    """Under the name `files`, with the ratings of the declaration."""
    names = ("no", "stars", "sent", "who")
    write_csv(tmp_path / "shop.csv", [("1", "7.5", "2025-10-24T10:00:00+02:00", "007")], names)
    declaration = """
        [source]
        table = "files"
        feedback_id = "no"
        created_at = "sent"
        user_id = "who"
        [ratings.stars]
        min = 1
        max = 10
        step = 0.5
    """
    Path("feedback-etl.toml").write_text(f'database_url = "files:{tmp_path}/*.csv"\n{declaration}', encoding="utf-8")
    settings = load_settings()
    options = settings.to_options(days_back=-1)
    loaded = fe.load_training(settings.require_database_url(), options=options, now=NOW, key=KEY)
    assert loaded.columns == ["analysis_hash", "stars", "feedback_timestamp", "export_date"]
    assert loaded["stars"].to_list() == [7.5]
    assert loaded["feedback_timestamp"].dt.replace_time_zone(None).to_list() == [datetime(2025, 10, 24, 8)]


def test_extra_columns_need_no_query(tmp_path: Path) -> None:
    """Every type of a text file."""
    names = (*NAMES, "visits", "member", "since")
    write_csv(tmp_path / "a.csv", [(*ROWS[2], "3", "True", "2025-01-01")], names)
    extra = [
        ExtraColumn("visits", type="integer"),
        ExtraColumn("member", type="boolean"),
        ExtraColumn("since", type="time"),
    ]
    loaded = fe.load_training(f"files:{tmp_path}/a.csv", days_back=-1, now=NOW, key=KEY, extra_columns=extra)
    assert loaded.select("visits", "member").rows() == [(3, True)]
    assert loaded["since"].dt.date().to_list() == [datetime(2025, 1, 1).date()]


def refusal(pattern: Path | str, **options: Any) -> str:
    """Return the message of the refusal; it is one sentence or two and contains no value of the files."""
    with pytest.raises(FeedbackError) as caught:
        fe.load_feedback(f"files:{pattern}", **{"days_back": -1, "now": NOW, **options})
    assert isinstance(caught.value, SourceError | UsageError)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def test_unusable_patterns_are_refused(tmp_path: Path) -> None:
    """Nothing matches, the format is unknown, or there are several."""
    assert refusal(tmp_path / "*.csv").startswith(f"No file matches {tmp_path}/*.csv (--from)")
    write_csv(tmp_path / "a.csv", ROWS)
    (tmp_path / "b.xlsx").touch()
    assert f"The format of {tmp_path}/b.xlsx is unknown (--from): names end with .csv, .parquet" in refusal(
        tmp_path / "*"
    )
    write_json(tmp_path / "c.jsonl", ROWS)
    assert refusal(tmp_path / "[ac].*").startswith("The files of --from have several formats: CSV (")


@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
def test_unreadable_file_is_named(extension: str, tmp_path: Path) -> None:
    """Not what it contains."""
    (tmp_path / f"a.{extension}").write_text(f'feedback_id,x\n1,"{CANARY}\n{CANARY},2,3', encoding="utf-8")
    format_ = {"csv": "CSV", "jsonl": "JSON lines", "parquet": "Parquet"}[extension]
    assert refusal(tmp_path / "*") == f"The file {tmp_path}/a.{extension} cannot be read as {format_}."


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_files_with_different_columns_are_refused(extension: str, tmp_path: Path) -> None:
    """A column that one of them lacks would be null in its rows."""
    write = {"csv": write_csv, "parquet": write_parquet}[extension]
    write(tmp_path / f"a.{extension}", ROWS[:1])
    write(tmp_path / f"b.{extension}", [row[:-1] for row in ROWS[:1]], NAMES[:-1])
    assert "differ in 1 column. Export them one after the other" in refusal(tmp_path / "*")


@pytest.mark.parametrize("name", ["helpful_rating", "would_recommend", "age", "consent"])
def test_value_of_a_wrong_type_names_the_column(name: str, tmp_path: Path) -> None:
    """It is not silently null."""
    row = dict(zip(NAMES, ROWS[0], strict=True)) | {name: CANARY}
    write_csv(tmp_path / "a.csv", [ROWS[0], list(row.values())])
    assert f"{name} has a value that cannot be converted in some row" in refusal(tmp_path / "a.csv")


def test_broken_line_is_numbered(tmp_path: Path) -> None:
    """It is far behind the part of the file that was looked at first."""
    write_csv(tmp_path / "a.csv", [ROWS[0]] * 30_000)
    with (tmp_path / "a.csv").open("a", newline="") as file:
        file.write(f"{CANARY},2,3\r\n")
    assert "line 30002 of a CSV file has more or fewer fields than the first" in refusal(tmp_path / "a.csv")


def test_columns_of_files_are_required(tmp_path: Path) -> None:
    """The message is about the files, names a few columns, and the command that declares them."""
    write_csv(tmp_path / "a.csv", [tuple(range(40))], [f"c{n}" for n in range(40)])
    assert refusal(tmp_path / "a.csv") == (
        "The content of the files lacks feedback_id, user_id, analysis_id, recommendation_id, helpful_rating and 8 "
        "more. Declare the columns that it has: `feedback-etl init --from PATTERN` writes a [source] of them to "
        "feedback-etl.toml."
    )
    write_csv(tmp_path / "b.csv", [(*ROWS[0], "x")], (*NAMES, "country"))
    assert refusal(tmp_path / "b.csv").endswith("[columns.country].")


def test_erasure_of_all_others_is_refused_for_files(tmp_path: Path) -> None:
    """Files may contain only a part of the people."""
    write_csv(tmp_path / "a.csv", ROWS)
    export(f"files:{tmp_path}/a.csv", tmp_path / "out")
    with pytest.raises(UsageError, match="files may contain a part of it, and all others would be erased"):
        erase(tmp_path / "out", keys=KEY, not_in_database=True, database=f"files:{tmp_path}/a.csv")


@pytest.mark.parametrize("scheme", ["mssql+pyodbc", "oracle", "bigquery", "trino", "clickhouse", "redshift"])
def test_databases_that_are_not_tested_are_refused(scheme: str) -> None:
    """ConnectorX could read some of them, but it was never tested that it reads their times and ids exactly."""
    with pytest.raises(UsageError, match=r"Databases of the kind .* cannot be read; PostgreSQL, MySQL"):
        fe.load_feedback(f"{scheme}://host/name")
