"""Write an export in one file: process the batches of a stream inside a transaction, and publish the result."""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from feedback_etl.database.read import FeedbackStream
from feedback_etl.exports.idempotency import asked_by
from feedback_etl.exports.incremental import INCREMENTAL, Chain, begun
from feedback_etl.exports.local_transaction import ExportFiles
from feedback_etl.exports.manifest import digest_of
from feedback_etl.exports.manifest_details import Facts
from feedback_etl.exports.seen_rows import Memory
from feedback_etl.exports.tombstones import Tombstones
from feedback_etl.pipeline.batches import process_batches
from feedback_etl.pipeline.keys import available_keys
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import KAnonymityPolicy, drop_small_classes
from feedback_etl.results import ExportReport

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import BatchProcessor

SLOW_SECONDS = 10.0
"""An export that takes longer looks for an index that would make reading faster."""


def write_export(request: ExportRequest, stream: FeedbackStream, series: Chain | None = None) -> ExportReport:
    """Write the rows of a stream as an export; with a series, as its next increment."""
    rules, window, watermark = request.rules, request.selection.window, stream.watermark
    details = Facts("full", window, request.settings, source=stream.dialect, extra=rules.extra_columns)
    with _begin_transaction(request, stream, series) as files:
        memory = None if series is None else Memory(series.rows_file, rules.key, watermark.until)
        processor = _create_processor(rules, files.forgotten, memory)
        write = files.append if rules.anonymity.k is None else files.hold
        process_batches(processor, stream.batches, write=write, write_rejected=files.reject)
        processor.check_limits(window, stream.excluded)
        suppress_small_classes(files, processor, rules.anonymity)
        report = processor.build_report(window, stream.excluded)
        if series is not None and memory is not None:
            files.remember(memory.rows())
            increment = series.next(window.start, watermark.until, watermark.counts)
            details = details._replace(mode=INCREMENTAL, chain=increment)
            report.mode, report.late_records = INCREMENTAL, series.late(watermark.counts)
        published = files.publish(details._replace(statistics=report.to_statistics(), risk=report.risk))
        report.audit_head = files.audit_head
    if series is not None and any(published):
        series.let_go()
    report.export_filename = str(published.pairs or "")
    report.rejected_filename = str(published.rejected or "")
    if time.perf_counter() - request.started > SLOW_SECONDS:
        report.advice = stream.suggest_index()
    return report


def suppress_small_classes(files: ExportFiles, processor: "BatchProcessor", policy: KAnonymityPolicy) -> None:
    """Write the spooled rows, without those of equivalence classes that are too small."""
    small = processor.find_small_classes()
    files.let_through(lambda pairs: drop_small_classes(pairs, small, policy.quasi_identifiers))


def _begin_transaction(request: ExportRequest, stream: FeedbackStream, series: Chain | None) -> ExportFiles:
    rules, output = request.rules, request.output
    if series is None:
        plan = asked_by(output.idempotency_key)
    else:
        plan = begun(request.selection.window.start, digest_of(request.settings))
    return ExportFiles(
        request.folder,
        rules.now,
        key=rules.key,
        form=output.file_format,
        contract=_row_schema(rules) if output.format == "parquet" else "",
        allow_new_key=output.allow_new_key,
        known_keys=available_keys,
        consent=stream.consent,
        plan=plan,
        lock_timeout=request.lock_timeout,
        own_pseudonyms=rules.overrides.hash_id is not None,
    )


def _row_schema(rules: TransformOptions) -> str:
    from feedback_etl.exports.row_schema import row_schema  # imports pandera, which CSV needs later, in parallel

    return json.dumps(row_schema(rules.extra_columns, rules.age_edges, rules.overrides.names()))


def _create_processor(
    rules: TransformOptions, forgotten: Sequence[Tombstones], memory: Memory | None
) -> "BatchProcessor":
    from feedback_etl.pipeline.batch_processor import (
        BatchProcessor,  # imports pandera, while the database executes the query
    )

    return BatchProcessor(rules, forgotten, memory)
