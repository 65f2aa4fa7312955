"""The command that creates a sample database and exports it."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from feedback_etl.cli.console import echo_err, write_stdout
from feedback_etl.cli.options import require_rows
from feedback_etl.cli.summary import print_summary


def demo(
    rows: Annotated[int, typer.Option(help="Number of feedback rows.", metavar="N")] = 5_000,
    seed: Annotated[int, typer.Option(help="Seed of the random data.", metavar="N")] = 7,
    directory: Annotated[Path, typer.Option(help="Folder to create.", metavar="FOLDER")] = Path("feedback_demo"),
) -> None:
    """Create a sample database and export its last 90 days.

    It requires no database, no settings and no key.
    """
    from sqlalchemy import URL

    from feedback_etl.clock import resolve_now
    from feedback_etl.demo.sample import DEMO_KEY, create_sample_database
    from feedback_etl.pipeline.export import export_feedback

    require_rows(rows)
    now = resolve_now()
    database = directory / "feedback.db"
    create_sample_database(database, rows=rows, seed=seed, now=now)
    url = URL.create("sqlite", database=str(database))
    report = export_feedback(url, days_back=90, output_dir=directory / "exports", now=now, key=DEMO_KEY)
    echo_err(f"sample     {rows:,} rows of feedback in {database}")
    print_summary(report, min_fields=1)
    if report.export_filename:
        echo_err("The demo key is public and protects no one. First lines of the file:")
        echo_err("")
        with Path(report.export_filename).open("rb") as file:
            write_stdout(b"".join(file.readline() for _ in range(6)))
    echo_err("")
    echo_err(f"Next: feedback-etl preview --database-url {shlex.quote(str(url))}")
