"""The rows of the join, untouched, to CSV with dlt: Arrow tables read by ConnectorX, as its documentation shows it."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import connectorx
import dlt
from own_share import connectorx_url
from statements import BARE_JOIN

SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",  # it would wait for the network
    "DATA_WRITER__DISABLE_COMPRESSION": "true",  # nobody else compresses
}


def feedback(url: str) -> Iterator[Any]:
    """Return the rows as an Arrow table."""
    yield connectorx.read_sql(connectorx_url(url), BARE_JOIN, return_type="arrow")


def export(url: str, folder: Path) -> int:
    """Extract, normalise and load; gives the number of rows."""
    pipeline = dlt.pipeline(
        "feedback_etl_bench",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=(folder / "output").as_uri()),
        dataset_name="bench",
    )
    pipeline.run(dlt.resource(feedback(url), name="feedback"), loader_file_format="csv")
    return int(pipeline.last_trace.last_normalize_info.row_counts["feedback"])


if __name__ == "__main__":
    os.environ.update(SETTINGS)
    print(json.dumps({"rows": export(os.environ["FEEDBACK_ETL_DATABASE_URL"], Path(sys.argv[1]))}))
