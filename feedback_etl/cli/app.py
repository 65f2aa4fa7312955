"""The command line: parse, one call of the library, print. Data goes to files or stdout, talk to stderr."""

import io
import json
import shlex
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feedback_etl import __version__
from feedback_etl.cli import audit, config, folder, keys, plan, privacy, report
from feedback_etl.cli.command_group import CommandGroup
from feedback_etl.cli.console import print_data, progress_line, run_politely, tell, tell_summary
from feedback_etl.cli.options import (
    AllowRowSecurity,
    DatabaseUrl,
    Days,
    MinFields,
    Query,
    Since,
    Until,
    require_one_start,
)
from feedback_etl.database.reader_pool import prestart
from feedback_etl.errors import UsageError
from feedback_etl.options import OutputOptions, QualityOptions, ReadOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

app = typer.Typer(
    name="feedback-etl",
    cls=CommandGroup,
    help="From an application's feedback tables to a pseudonymised training set. New here? Try: feedback-etl demo",
    epilog="Example: feedback-etl export --days 90",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(keys.keys_app, name="keys")
app.add_typer(audit.audit_app, name="audit")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print_data(f"feedback-etl {__version__}")
        raise typer.Exit


@app.command(epilog="Example: feedback-etl export --days 90 --output ml/feedback_training")
def export(
    context: typer.Context,
    days: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    output: folder.Output = None,
    min_fields: MinFields = QualityOptions.min_feedback_fields,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    row_model: Annotated[
        str | None,
        typer.Option(help="A pandera model that every batch has to satisfy as well.", metavar="FILE.py:MODEL"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Publish nothing if a single row is rejected.")] = False,
    max_rejected: Annotated[
        float, typer.Option(help="Publish nothing if a greater share is rejected, such as 0.05.", metavar="SHARE")
    ] = QualityOptions.max_rejected,
    hash_recommendation_id: Annotated[
        bool, typer.Option("--hash-recommendation-id", help="Pseudonymise the recommendation as well.")
    ] = False,
    timestamp_precision: Annotated[
        Literal["exact", "minute", "hour", "day"] | None,
        typer.Option(help="Cut times down, after duplicates are dropped.", show_default="exact"),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", help="Leave out rows of fewer people with equal quasi-identifiers.", min=1, metavar="N"),
    ] = None,
    on_small_class: Annotated[
        Literal["suppress", "fail"] | None,
        typer.Option(help="Leave them out, or publish nothing.", show_default="suppress"),
    ] = None,
    max_suppressed: Annotated[
        float | None,
        typer.Option(help="Publish nothing if more would be left out.", metavar="SHARE", show_default="1.0"),
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="To leave the house: k 5, days instead of times, hashed recommendations.")
    ] = False,
    include_image_urls: Annotated[
        bool, typer.Option("--include-image-urls", help="Add image_url, where the user's image_opt_in is true.")
    ] = False,
    include_subject_hash: Annotated[
        bool, typer.Option("--include-subject-hash", help="Add a pseudonym of the user, to split data by person.")
    ] = False,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="What is new since the last such export; the first takes --days.")
    ] = False,
    lookback: Annotated[str, typer.Option(help="How late rows may arrive, as 30m, 2h or 1d.", metavar="TIME")] = str(
        OutputOptions.lookback
    ),
    format: Annotated[  # noqa: A002  as the option
        Literal["csv", "parquet"], typer.Option(help="CSV, or Parquet compressed with zstd.")
    ] = OutputOptions.format,
    compression: Annotated[
        Literal["none", "gzip", "zstd"], typer.Option(help="Compression of CSV.")
    ] = OutputOptions.compression,
    unkeyed: Annotated[
        bool, typer.Option("--unkeyed", help="Plain SHA-256 without a key: anybody who can list the ids inverts it.")
    ] = False,
    allow_new_key: Annotated[
        bool, typer.Option("--allow-new-key", help="Allow a folder whose exports have pseudonyms of another key.")
    ] = False,
    bulk: Annotated[
        bool, typer.Option("--bulk", help="Read time ranges side by side (PostgreSQL); the file is the same.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="How many at once, with --bulk or --executor: there are as many ranges, unless these had fewer than "
            "20,000 rows (--executor).",
            metavar="N",
            min=1,
            max=64,
            show_default="processors, at most 4; with --executor 64",
        ),
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="Have a cluster make the export, in parts: dask=ADDRESS.", metavar="ENGINE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Export feedback as a pseudonymised, deduplicated CSV file.

    Exit codes: 0 done, 2 wrong usage, 3 database, 4 rows that break the rules, 5 files, 6 folder in use. The file
    appears whole or not at all.
    """
    prestart()
    from feedback_etl.pipeline.export import export_feedback
    from feedback_etl.settings import load_settings

    if output == "":
        raise UsageError("--output is empty: name a folder, or leave the option out.")
    require_one_start(context, since)
    settings = load_settings(
        database_url=database_url,
        query=query,
        allow_row_security=allow_row_security,
        row_model=row_model,
        output_dir=output,
        timestamp_precision=timestamp_precision,
        k=k,
        on_small_class=on_small_class,
        max_suppressed=max_suppressed,
    )
    options = settings.to_options(
        days_back=days,
        since=since,
        until=until,
        min_feedback_fields=min_fields,
        strict=strict,
        max_rejected=max_rejected,
        hash_recommendation_id=hash_recommendation_id,
        include_image_urls=include_image_urls,
        include_subject_hash=include_subject_hash,
        incremental=incremental,
        lookback=lookback,
        format=format,
        compression=compression,
        allow_new_key=allow_new_key,
        bulk=bulk,
        workers=workers,
    )
    if share:
        options = replace(options, privacy=options.privacy.for_sharing())
    with _executor(executor) as engine:
        report = export_feedback(
            settings.require_database_url(),
            options=options,
            key=None if unkeyed else keys.key_for_export(settings),
            unkeyed=unkeyed,
            executor=engine,
            on_progress=None if quiet else progress_line(),
        )
    if as_json:
        print_data(json.dumps(report.to_dict()))
    if not quiet:
        tell_summary(report, min_fields)


@app.command(epilog="Example: feedback-etl preview --days 7 --rows 5")
def preview(
    context: typer.Context,
    days: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=1, metavar="N")] = 10,
    min_fields: MinFields = QualityOptions.min_feedback_fields,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Show the first rows of an export and write nothing. The pseudonyms are of a throw-away key."""
    from feedback_etl.exports.csv_text import write_csv
    from feedback_etl.pipeline.load import load_training
    from feedback_etl.privacy.keys import generate_key
    from feedback_etl.settings import load_settings

    require_one_start(context, since)
    settings = load_settings(database_url=database_url, query=query, allow_row_security=allow_row_security)
    options = settings.to_options(days_back=days, since=since, until=until, min_feedback_fields=min_fields)
    pairs = load_training(settings.require_database_url(), options=options, key=generate_key())
    shown = io.BytesIO()
    write_csv(pairs.head(rows), shown, header=True)
    print_data(shown.getvalue())
    if pairs.height:
        shown_of_all = f"The first {min(rows, pairs.height):,} of {pairs.height:,} rows"
        tell(f"{shown_of_all}. Nothing was written, and the pseudonyms are of a throw-away key.")
    else:
        tell("No feedback in the window has enough ratings (--days -1 takes everything).")


@app.command(epilog="Example: feedback-etl demo --rows 100000")
def demo(
    rows: Annotated[int, typer.Option(help="Feedback rows of the sample database.", min=1, metavar="N")] = 5_000,
    seed: Annotated[int, typer.Option(help="Another seed gives other data.", metavar="N")] = 7,
    directory: Annotated[Path, typer.Option(help="Where to make it.", metavar="FOLDER")] = Path("feedback_demo"),
) -> None:
    """Make a sample database and export its last 90 days. Needs no database, no settings and no key."""
    from sqlalchemy import URL

    from feedback_etl.clock import resolve_now
    from feedback_etl.demo.sample import DEMO_KEY, create_sample_database
    from feedback_etl.pipeline.export import export_feedback

    now = resolve_now()
    database = directory / "feedback.db"
    create_sample_database(database, rows=rows, seed=seed, now=now)
    url = URL.create("sqlite", database=str(database))
    report = export_feedback(url, days_back=90, output_dir=directory / "exports", now=now, key=DEMO_KEY)
    tell(f"sample     {rows:,} rows of feedback in {database}")
    tell_summary(report, min_fields=1)
    if report.export_filename:
        tell("The key of the demo is published: it protects nobody. The first lines:\n")
        with Path(report.export_filename).open("rb") as file:
            print_data(b"".join(file.readline() for _ in range(6)))
    tell(f"\nNext: feedback-etl preview --database-url {shlex.quote(str(url))}")


app.command(epilog="Example: feedback-etl config")(config.config)
app.command("list", epilog="Example: feedback-etl list")(folder.list_exports)
app.command(epilog="Example: feedback-etl adopt ml/feedback_training/old.csv")(folder.adopt)
app.command(epilog="Example: feedback-etl erase --user-ids-file ids.txt --dry-run")(folder.erase)
app.command(epilog="Example: feedback-etl prune --keep-days 90")(folder.prune)
app.command(epilog="Example: feedback-etl check --json")(privacy.check)
app.command(epilog="Example: feedback-etl risk ml/feedback_training/*.csv")(privacy.risk)
app.command(epilog="Example: feedback-etl plan --days 365 --workers 32")(plan.plan)
app.command(epilog="Example: feedback-etl report -o report.html")(report.report)
app.command(epilog="Example: feedback-etl contracts schemas")(report.contracts)


@contextmanager
def _executor(name: str | None) -> "Iterator[Executor | None]":
    """Who makes the export; None for this machine."""
    if name is None:
        yield None
        return
    from feedback_etl.pipeline.executors import connect_executor

    with connect_executor(name) as engine:
        yield engine


def main(run: Callable[[], None] = app) -> None:
    """Run the command line."""
    run_politely(run)
