"""The command that exports feedback."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feedback_etl.cli.console import create_progress_line, print_json
from feedback_etl.cli.keys import resolve_export_key
from feedback_etl.cli.options import (
    AllowRowSecurity,
    Compression,
    DatabaseUrl,
    Days,
    FileFormat,
    Formulas,
    IncludeImageUrls,
    IncludeSubjectHash,
    JsonOutput,
    MinFields,
    OutputFolder,
    Query,
    Since,
    Until,
    Workers,
    is_given,
    load_command_settings,
    require_effective,
    require_one_start,
)
from feedback_etl.cli.summary import print_summary
from feedback_etl.database.reader_pool import prestart
from feedback_etl.errors import UsageError
from feedback_etl.options.output import OutputOptions
from feedback_etl.options.privacy import SHARED_K, PrivacyOptions
from feedback_etl.options.quality import QualityOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.storage.urls import is_object_store

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from feedback_etl.options.export import ExportOptions
    from feedback_etl.results import ExportReport
    from feedback_etl.settings.model import Settings


def export(
    context: typer.Context,
    days: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    output: OutputFolder = None,
    min_fields: MinFields = QualityOptions.min_feedback_fields,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    row_model: Annotated[
        str | None, typer.Option(help="Pandera model that every batch must also satisfy.", metavar="FILE.py:MODEL")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Publish nothing if any row is rejected.")] = False,
    max_rejected: Annotated[
        float,
        typer.Option(
            help="Publish nothing if a larger share of the rows is rejected, for example 0.05.", metavar="SHARE"
        ),
    ] = QualityOptions.max_rejected,
    hash_recommendation_id: Annotated[
        bool, typer.Option("--hash-recommendation-id", help="Pseudonymise recommendation_id as well.")
    ] = False,
    pseudonym_length: Annotated[
        int | None,
        typer.Option(
            help="Hex digits of a pseudonym; 32 for 100 million analyses or more.  [default: 16]", metavar="16|32"
        ),
    ] = None,
    timestamp_precision: Annotated[
        Literal["exact", "minute", "hour", "day", "week", "month", "quarter"] | None,
        typer.Option(help="Truncate feedback_timestamp, after deduplication.  [default: exact]"),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            help="Require at least N people in each equivalence class (equal quasi-identifiers).",
            metavar="N",
        ),
    ] = None,
    on_small_class: Annotated[
        Literal["suppress", "fail"] | None,
        typer.Option(help="Suppress the rows of smaller equivalence classes, or publish nothing.  [default: suppress]"),
    ] = None,
    max_suppressed: Annotated[
        float | None,
        typer.Option(
            help="Publish nothing if a larger share of the rows would be suppressed.  [default: 1.0]", metavar="SHARE"
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="Preset for sharing outside the organisation: k of at least 5, dates instead of times, hashed "
            "recommendation ids.",
        ),
    ] = False,
    include_image_urls: IncludeImageUrls = False,
    include_subject_hash: IncludeSubjectHash = False,
    incremental: Annotated[
        bool,
        typer.Option(
            "--incremental",
            help="Export the rows that are new since the last incremental export; the first uses --days.",
        ),
    ] = False,
    lookback: Annotated[
        str, typer.Option(help="How late rows may arrive, for example 30m, 2h or 1d.", metavar="DURATION")
    ] = str(OutputOptions.lookback),
    format: FileFormat = OutputOptions.format,  # noqa: A002  as the option
    compression: Compression = OutputOptions.compression,
    formulas: Formulas = None,
    unkeyed: Annotated[
        bool,
        typer.Option("--unkeyed", help="Use plain SHA-256 without a key: anyone who can list the ids can invert it."),
    ] = False,
    allow_new_key: Annotated[
        bool, typer.Option("--allow-new-key", help="Export even if exports in the folder were made with another key.")
    ] = False,
    bulk: Annotated[
        bool, typer.Option("--bulk", help="Read time ranges in parallel (PostgreSQL); the file is the same.")
    ] = False,
    workers: Workers = None,
    executor: Annotated[
        str | None,
        typer.Option(help="Run the export in parts on a cluster: dask=ADDRESS.", metavar="ENGINE"),
    ] = None,
    as_json: JsonOutput = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Export feedback as a pseudonymised, deduplicated file.

    Exit codes: 0 success, 2 wrong usage, 3 database error, 4 invalid rows or a privacy limit, 5 file error, 6 folder
    locked. The file is published completely or not at all.
    """
    prestart()
    require_one_start(context, since)
    settings = load_command_settings(
        output,
        database_url=database_url,
        query=query,
        allow_row_security=allow_row_security,
        row_model=row_model,
        pseudonym_length=pseudonym_length,
        timestamp_precision=timestamp_precision,
        k=k,
        on_small_class=on_small_class,
        max_suppressed=max_suppressed,
        formulas=formulas,
    )
    _require_effective_options(context, settings, share=share)
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
    options = replace(options, privacy=options.privacy.for_sharing()) if share else options
    report = _run_export(settings, options, unkeyed=unkeyed, executor=executor, quiet=quiet)
    if as_json:
        print_json(report.to_dict())
    if not quiet:
        print_summary(report, min_fields)


def _require_effective_options(context: typer.Context, settings: "Settings", *, share: bool) -> None:
    """Refuse options that would be ignored or overridden silently."""
    given = context.params
    is_parallel = given["bulk"] or given["executor"] or is_object_store(str(settings.output_dir))
    require_effective(
        context,
        {
            "lookback": ("--incremental", given["incremental"]),
            "formulas": ("--format csv", given["format"] == "csv"),
            "workers": ("--bulk or --executor", is_parallel),
            "on_small_class": ("--k", settings.k or share),
            "max_suppressed": ("--k", settings.k or share),
        },
    )
    for name in ("on_small_class", "max_suppressed"):
        if not (settings.k or share) and getattr(settings, name) != getattr(PrivacyOptions, name):
            raise UsageError(f"The setting {name} has no effect without k: set k, or pass --k.")
    if is_given(context, "max_suppressed") and settings.on_small_class == "fail":
        raise UsageError("--on-small-class fail allows no suppressed row: leave --max-suppressed out.")
    if given["strict"] and is_given(context, "max_rejected"):
        raise UsageError("--strict allows no rejected row: leave --max-rejected out.")
    if share and given["timestamp_precision"] not in (None, "day"):
        raise UsageError("--share truncates times to the day: leave --timestamp-precision out.")
    if share and given["unkeyed"]:
        raise UsageError("--share needs a key: anyone who can list the ids can invert unkeyed pseudonyms.")
    if share and given["k"] is not None and given["k"] < SHARED_K:
        raise UsageError(f"--share requires k of at least {SHARED_K}: give a larger --k, or leave it out.")


def _run_export(
    settings: "Settings", options: "ExportOptions", *, unkeyed: bool, executor: str | None, quiet: bool
) -> "ExportReport":
    """Export with the active key, on this machine or on the cluster of --executor."""
    from feedback_etl.pipeline.export import export_feedback

    with _connect_executor(executor) as cluster:
        return export_feedback(
            settings.require_database_url(),
            options=options,
            key=None if unkeyed else resolve_export_key(settings),
            unkeyed=unkeyed,
            executor=cluster,
            on_progress=None if quiet else create_progress_line(),
        )


@contextmanager
def _connect_executor(name: str | None) -> "Iterator[Executor | None]":
    """Connect to the cluster of --executor; yield None to export on this machine."""
    if name is None:
        yield None
        return
    from feedback_etl.pipeline.executors import connect_executor

    with connect_executor(name) as executor:
        yield executor
