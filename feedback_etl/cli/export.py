"""The command that exports feedback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from feedback_etl.cli import export_options
from feedback_etl.cli.console import echo_err, print_json
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
    RawFiles,
    Since,
    Until,
    Workers,
    find_given_options,
    has_row_security,
    is_given,
    load_given_settings,
    require_effective,
    require_one_start,
)
from feedback_etl.cli.progress import show_progress
from feedback_etl.cli.summary import print_summary
from feedback_etl.database.reader_pool import prestart
from feedback_etl.database.window import window_of_days
from feedback_etl.errors import UsageError
from feedback_etl.options.output import OutputOptions
from feedback_etl.options.privacy import PrivacyOptions
from feedback_etl.options.quality import QualityOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.options.sharing import SHARED_K, SHARED_PRECISIONS
from feedback_etl.storage.urls import is_object_store

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from feedback_etl.options.export import ExportOptions
    from feedback_etl.results import ExportReport
    from feedback_etl.settings.model import Settings


def export(
    context: typer.Context,
    days_back: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    output_dir: OutputFolder = None,
    min_feedback_fields: MinFields = QualityOptions.min_feedback_fields,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    row_model: export_options.RowModel = None,
    items: export_options.Items = None,
    strict: export_options.Strict = False,
    max_rejected: export_options.MaxRejected = QualityOptions.max_rejected,
    hash_recommendation_id: export_options.HashRecommendationId = False,
    pseudonym_length: export_options.PseudonymLength = None,
    timestamp_precision: export_options.TimestampPrecision = None,
    k: export_options.K = None,
    on_small_class: export_options.OnSmallClass = None,
    max_suppressed: export_options.MaxSuppressed = None,
    l: export_options.L = None,  # noqa: E741  as the option
    t: export_options.T = None,
    share: export_options.Share = False,
    recipient: export_options.Recipient = None,
    allow_overlap: export_options.AllowOverlap = False,
    include_image_urls: IncludeImageUrls = False,
    include_subject_hash: IncludeSubjectHash = False,
    incremental: export_options.Incremental = False,
    cursor: export_options.Cursor = None,
    lookback: export_options.Lookback = str(OutputOptions.lookback),
    max_pending: export_options.MaxPending = str(OutputOptions.max_pending),
    new_series: export_options.NewSeries = False,
    backfill: export_options.Backfill = False,
    format: FileFormat = OutputOptions.format,  # noqa: A002  as the option
    compression: Compression = OutputOptions.compression,
    formulas: Formulas = None,
    unkeyed: export_options.Unkeyed = False,
    allow_new_key: export_options.AllowNewKey = False,
    bulk: export_options.Bulk = False,
    workers: Workers = None,
    executor: export_options.Executor = None,
    as_json: JsonOutput = False,
    quiet: export_options.Quiet = False,
    raw_files: RawFiles = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Export feedback as a pseudonymised, deduplicated file.

    Exit codes: 0 success, 2 wrong usage, 3 database error, 4 invalid rows or a privacy limit, 5 file error, 6 folder
    locked. The file is published completely or not at all.
    """
    prestart()
    require_one_start(context)
    settings = load_given_settings(context)
    _require_effective_options(context, settings)
    options = settings.to_options(**find_given_options(context))
    report = _run_export(settings, options, unkeyed=unkeyed, executor=executor, quiet=quiet)
    if as_json:
        print_json(report.to_dict())
    if not quiet:
        print_summary(report, min_feedback_fields)
        if incremental and is_given(context, "days_back"):
            _report_ignored_days(report, days_back)


def _report_ignored_days(report: "ExportReport", days_back: int) -> None:
    """Report that a continued series did not use --days."""
    if report.window and report.window != window_of_days(days_back, now=report.window.end):
        echo_err("--days had no effect: only the first export of a series uses it, and this one continued a series.")


def _require_effective_options(context: typer.Context, settings: "Settings") -> None:
    """Refuse options that would be ignored or overridden silently."""
    given, share = context.params, context.params["share"]
    is_parallel = given["bulk"] or given["executor"] or is_object_store(str(settings.output_dir))
    require_effective(
        context,
        {
            **dict.fromkeys(("cursor", "lookback", "new_series", "backfill"), ("--incremental", given["incremental"])),
            "max_pending": ("--incremental and --k", given["incremental"] and (settings.k or share)),
            "formulas": ("--format csv", given["format"] == "csv"),
            "workers": ("--bulk or --executor", is_parallel),
            **dict.fromkeys(("on_small_class", "max_suppressed", "l", "t"), ("--k", settings.k or share)),
            **dict.fromkeys(("recipient", "allow_overlap"), ("--share", share)),
            "allow_row_security": ("PostgreSQL, which alone has row-level security", has_row_security(settings)),
        },
    )
    for name in ("on_small_class", "max_suppressed", "l", "t"):
        if not (settings.k or share) and getattr(settings, name) != getattr(PrivacyOptions, name):
            raise UsageError(f"The setting {name} has no effect without k: set k, or pass --k.")
    if is_given(context, "max_suppressed") and settings.on_small_class == "fail":
        raise UsageError("--on-small-class fail allows no suppressed row: leave --max-suppressed out.")
    if given["strict"] and is_given(context, "max_rejected"):
        raise UsageError("--strict allows no rejected row: leave --max-rejected out.")
    if share:
        _require_shareable(context, settings)


def _require_shareable(context: typer.Context, settings: "Settings") -> None:
    """Refuse options and settings that would weaken --share, rather than override them silently."""
    given = context.params
    if "timestamp_precision" in settings.model_fields_set and settings.timestamp_precision not in SHARED_PRECISIONS:
        source = "--timestamp-precision" if given["timestamp_precision"] else "the setting timestamp_precision"
        raise UsageError(f"--share allows no times finer than the day: leave {source} out.")
    if given["unkeyed"]:
        raise UsageError("--share needs a key: anyone who can list the ids can invert unkeyed pseudonyms.")
    if given["k"] is not None and given["k"] < SHARED_K:
        raise UsageError(f"--share requires k of at least {SHARED_K}: give a larger --k, or leave it out.")
    if given["recipient"] is None:
        raise UsageError("--share requires --recipient NAME: pseudonyms are of a key for the recipient.")
    if not is_given(context, "output_dir"):
        raise UsageError(
            "--share requires --output FOLDER, a folder of shared files only: their pseudonyms differ from those of "
            "other exports, with which they cannot be read together."
        )


def _run_export(
    settings: "Settings", options: "ExportOptions", *, unkeyed: bool, executor: str | None, quiet: bool
) -> "ExportReport":
    """Export with the active key, on this machine or on the cluster of --executor."""
    database = settings.require_database_url()
    key = None if unkeyed else resolve_export_key(settings)
    with show_progress(quiet=quiet) as progress, _connect_executor(executor) as cluster:
        from feedback_etl.pipeline.export import export_feedback

        return export_feedback(
            database,
            options=options,
            key=key,
            unkeyed=unkeyed,
            executor=cluster,
            **progress._asdict(),
        )


@contextmanager
def _connect_executor(name: str | None) -> "Iterator[Executor | None]":
    """Connect to the cluster of --executor; yield None to export on this machine."""
    if name is None:
        yield None
        return
    from feedback_etl.pipeline.dask_executor import connect_executor

    with connect_executor(name) as executor:
        yield executor
