"""The command that creates a sample database and exports it."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from feedback_etl.cli.console import echo_command, echo_err, write_stdout
from feedback_etl.cli.options import require_rows
from feedback_etl.cli.summary import print_summary


def demo(
    rows: Annotated[int, typer.Option(help="Number of feedback rows.", metavar="N")] = 5_000,
    seed: Annotated[int, typer.Option(help="Seed of the random data.", metavar="N")] = 7,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to create.", metavar="FOLDER")] = Path(
        "feedback_demo"
    ),
) -> None:
    """Create a sample database and export its last 90 days.

    It requires no database, no settings and no key.
    """
    from sqlalchemy import URL

    from feedback_etl.clock import resolve_now
    from feedback_etl.demo.sample import DEMO_KEY, create_sample_database
    from feedback_etl.pipeline.export import export_feedback
    from feedback_etl.privacy.keys import write_key_file

    require_rows(rows)
    database, exports, key_file, now = output / "feedback.db", output / "exports", output / "demo_key", resolve_now()
    echo_err(
        f"The demo creates {database}, the database of an invented application, and exports its last 90 days to "
        f"{exports}, with the public key {key_file}. It reads and writes nothing else."
    )
    echo_err("")
    create_sample_database(database, rows=rows, seed=seed, now=now)
    if not key_file.exists():
        write_key_file(DEMO_KEY, key_file)
    url = URL.create("sqlite", database=str(database))
    report = export_feedback(url, days_back=90, output_dir=exports, now=now, key=DEMO_KEY)
    echo_err(f"sample     {rows:,} rows of feedback in {database}")
    print_summary(report, min_fields=1)
    if report.export_filename:
        echo_err("The demo key is public and protects no one. First lines of the file:")
        echo_err("")
        with Path(report.export_filename).open("rb") as file:
            write_stdout(b"".join(file.readline() for _ in range(6)))
    echo_err("")
    echo_err("Next, for example:")
    program = _find_program()
    for words in (
        ["preview", "--database-url", str(url)],
        ["list", str(exports)],
        ["report", str(exports), "--key-file", str(key_file), "--output", str(output / "report.html")],
    ):
        echo_command(f"  {shlex.join([*program, *words])}")


def _find_program() -> list[str]:
    """Return the words by which this program can be run again from here: its name, if that is on the path."""
    path = Path(sys.argv[0])
    if path.suffix == ".py":
        return [sys.executable, "-m", "feedback_etl"]
    program = shutil.which(path.name)
    is_on_path = program is not None and (not path.exists() or path.samefile(program))
    return [path.name if is_on_path else str(path)]
