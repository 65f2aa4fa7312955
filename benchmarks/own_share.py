"""What is ours alone: a recorded Arrow stream of the default query goes through the steps and becomes CSV.

`record` writes the stream to a file; run as a program, this file reads it.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

BATCH_ROWS = 65_536


def connectorx_url(text: str) -> str:
    """SQLAlchemy's URL of a server on a Unix socket as ConnectorX takes it."""
    import sqlalchemy as sa

    url = sa.make_url(text)
    if url.get_backend_name() == "sqlite":
        return f"sqlite://{url.database}"
    host, port = str(url.query["host"]), int(str(url.query["port"]))
    return sa.URL.create(
        "postgresql", url.username, host=quote(host, safe=""), port=port, database=url.database
    ).render_as_string(hide_password=False)


def record(url: str, path: Path, now: datetime) -> None:
    """Write what ConnectorX gives for the default query."""
    import connectorx
    import pyarrow as pa

    from feedback_etl.database.relation import build_default_relation
    from feedback_etl.database.sql import select_feedback
    from feedback_etl.database.window import Window

    query = select_feedback(build_default_relation("postgresql"), Window(None, now))
    stream = connectorx.read_sql(connectorx_url(url), query, return_type="arrow_stream", batch_size=BATCH_ROWS)
    with pa.ipc.new_stream(path, stream.schema) as writer:
        for batch in stream:
            writer.write_batch(batch)


def process(recording: Path, key: str, folder: Path, now: datetime) -> None:
    """Types settled, steps, files: all that an export does between the reader and the published file."""
    import polars as pl
    import pyarrow as pa

    from feedback_etl.database.raw_types import to_raw
    from feedback_etl.database.window import Window
    from feedback_etl.exports.transaction import ExportTransaction
    from feedback_etl.options.export import ExportOptions
    from feedback_etl.pipeline.batch_processor import BatchProcessor
    from feedback_etl.pipeline.batches import process_batches
    from feedback_etl.pipeline.transform_options import TransformOptions
    from feedback_etl.privacy.keys import Key

    started = time.perf_counter()
    processor = BatchProcessor(TransformOptions.from_options(ExportOptions(), now, Key(key)))
    with (
        ExportTransaction(folder, now, form=ExportOptions().output.file_format) as files,
        pa.OSFile(str(recording)) as recorded,
    ):
        raw = (to_raw(pl.DataFrame(batch)) for batch in pa.ipc.open_stream(recorded))
        process_batches(
            processor, raw, write=lambda batch: files.write(batch.pairs), write_rejected=files.write_rejected
        )
        processor.check_limits(Window(None, now), 0)
        files.commit()
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    process(
        Path(sys.argv[2]), os.environ["FEEDBACK_ETL_KEY"], Path(sys.argv[1]), datetime.now(UTC).replace(tzinfo=None)
    )
