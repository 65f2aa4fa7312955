"""What each step of an export costs in processor time, and the least that it could cost; from a recorded Arrow stream.

    python steps.py FOLDER RECORDING

The steps are those of `own_share.process`, one after the other in one thread, so that their times do not overlap. The
bound of a step is the part of its work that no other code could save: the digest alone, the text alone, the bytes
through a pipe. The database is that of FEEDBACK_ETL_DATABASE_URL; the result is JSON.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import polars as pl
import pyarrow as pa
from own_share import BATCH_ROWS, connectorx_url

from feedback_etl.data_files.csv_files import write_csv
from feedback_etl.database.raw_types import to_raw
from feedback_etl.database.relation import build_default_relation
from feedback_etl.database.sql import select_feedback
from feedback_etl.database.window import Window
from feedback_etl.options.export import ExportOptions
from feedback_etl.pipeline.release import validate_pairs
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import ClassCounter
from feedback_etl.privacy.keys import Key
from feedback_etl.transform.duplicates import RawDuplicateFilter
from feedback_etl.transform.expressions import hash_id, iso_timestamp
from feedback_etl.transform.formulas import escape_texts
from feedback_etl.transform.raw_schema import partition_valid
from feedback_etl.transform.training_schema import PSEUDONYM_PATTERN
from feedback_etl.transform.transforms import anonymize, has_min_ratings

P = ParamSpec("P")
T = TypeVar("T")


class Costs:
    """Processor seconds of steps and of their bounds, summed over the batches."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Do the work of a step, and return its result."""
        before = time.process_time()
        result = work(*arguments, **options)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - before
        return result


def measure(recording: Path, folder: Path, url: str, options: TransformOptions) -> dict[str, Any]:
    """Return the number of rows, and the processor seconds of the steps and of their bounds by their names."""
    steps, bounds = Costs(), Costs()
    rows = _measure_reader(recording, url, options.now, steps, bounds)
    _measure_parent(recording, folder, options, steps, bounds)
    return {"rows": rows, "steps": steps.seconds, "bounds": bounds.seconds}


def _measure_reader(recording: Path, url: str, now: datetime, steps: Costs, bounds: Costs) -> int:
    import connectorx

    query = select_feedback(build_default_relation("postgresql"), Window(None, now))

    def read() -> int:
        stream = connectorx.read_sql(connectorx_url(url), query, return_type="arrow_stream", batch_size=BATCH_ROWS)
        return sum(batch.num_rows for batch in stream)

    rows = steps.add("reader: rows to Arrow (ConnectorX)", read)
    with pa.memory_map(str(recording)) as file, pa.ipc.open_stream(file) as stream:
        schema, batches = stream.schema, list(stream)
        with _sink() as pipe, pa.ipc.new_stream(pipe, schema) as writer:
            for batch in batches:
                steps.add("reader: Arrow into the pipe", writer.write_batch, batch)
    with _sink() as pipe:
        bounds.add("reader: Arrow into the pipe", pipe.write, recording.read_bytes())
    with _source(recording) as pipe, pa.ipc.open_stream(pipe) as stream:
        steps.add("Arrow from the pipe", list, stream)
    with _source(recording) as pipe:
        bounds.add("Arrow from the pipe", pipe.read)
    return rows


@contextmanager
def _sink() -> Iterator[Any]:
    with subprocess.Popen(["sh", "-c", "cat > /dev/null"], stdin=subprocess.PIPE) as process:
        yield process.stdin


@contextmanager
def _source(path: Path) -> Iterator[Any]:
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as process:
        yield process.stdout


def _measure_parent(recording: Path, folder: Path, options: TransformOptions, steps: Costs, bounds: Costs) -> None:
    duplicates = RawDuplicateFilter(options.schema.dedup_key)
    names = list(dict.fromkeys(options.k_policy.quasi_identifiers))
    people = ClassCounter(names, options.k_policy.max_counted_people)
    is_tied = (pl.col("created_at") == pl.col("created_at").shift(1)).any()
    pseudonym = hash_id("analysis_id", key=options.key)
    transform = partial(anonymize, now=options.now, key=options.key, schema=options.schema)
    with (
        pa.memory_map(str(recording)) as file,
        pa.ipc.open_stream(file) as stream,
        (folder / "steps").open("wb", buffering=0) as output,
    ):
        for frame in map(pl.DataFrame, stream):
            raw = steps.add("types", to_raw, frame)
            valid = steps.add("which rows are valid", _select_valid, raw, options)
            bounds.add("which rows are valid", raw.filter, has_min_ratings(1))
            unique = steps.add("duplicates", duplicates.filter_raw, valid)
            bounds.add("duplicates", valid.select, is_tied)
            pairs = steps.add("pseudonyms, ranges, lists", transform, unique)
            bounds.add("pseudonyms, ranges, lists", unique.select, pseudonym)
            steps.add("people of each class (k)", people.add, pairs, unique["user_id"])
            bounds.add("people of each class (k)", pairs.group_by(names).len)
            _measure_writer(pairs, options, output, steps, bounds)


def _select_valid(raw: pl.DataFrame, options: TransformOptions) -> pl.DataFrame:
    rated = raw.filter(has_min_ratings(options.min_feedback_fields, options.schema))
    return partition_valid(rated, options.schema, reject_formulas=options.reject_formulas).valid


def _measure_writer(pairs: pl.DataFrame, options: TransformOptions, file: Any, steps: Costs, bounds: Costs) -> None:
    steps.add("gate (pandera)", validate_pairs, pairs, options)
    bounds.add("gate (pandera)", pairs.select, pl.col("analysis_hash").str.contains(PSEUDONYM_PATTERN).all())
    buffer = io.BytesIO()
    steps.add("CSV text", _write, pairs, buffer)
    texts = pairs.with_columns(iso_timestamp("feedback_timestamp"), export_date=pl.lit(str(options.now)))
    bounds.add("CSV text", texts.write_csv, io.BytesIO(), include_header=False, quote_style="never")
    steps.add("digest and file", hashlib.sha256, buffer.getbuffer())
    steps.add("digest and file", file.write, buffer.getbuffer())
    bounds.add("digest and file", file.write, buffer.getbuffer())


def _write(pairs: pl.DataFrame, buffer: io.BytesIO) -> None:
    write_csv(escape_texts(pairs)[0], buffer, header=False)


if __name__ == "__main__":
    OPTIONS = TransformOptions.from_options(
        ExportOptions(), datetime.now(UTC).replace(tzinfo=None), Key(os.environ["FEEDBACK_ETL_KEY"])
    )
    print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[1]), os.environ["FEEDBACK_ETL_DATABASE_URL"], OPTIONS)))
