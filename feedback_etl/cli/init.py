"""The command that proposes a settings file for an unknown database."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.console import echo_err
from feedback_etl.cli.options import RawFiles
from feedback_etl.cli.summary import LABEL_WIDTH
from feedback_etl.database.files_prefix import FILES_PREFIX
from feedback_etl.errors import ExportFileError, SourceError, UsageError

if TYPE_CHECKING:
    from feedback_etl.database.column_uses import Use
    from feedback_etl.database.proposal import Proposal
    from feedback_etl.database.reflection import ReflectedTable


def init(
    url: Annotated[
        str | None, typer.Argument(help="URL of the database.  [default: FEEDBACK_ETL_DATABASE_URL]", metavar="URL")
    ] = None,
    raw_files: RawFiles = None,
    table: Annotated[str | None, typer.Option(help="Table of the feedback.", metavar="NAME")] = None,
    db_schema: Annotated[str | None, typer.Option("--db-schema", help="Schema of the table.", metavar="NAME")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; it must not exist.", metavar="FILE")
    ] = Path("feedback-etl.toml"),
    yes: Annotated[bool, typer.Option("--yes", help="Accept every proposal without a question.")] = False,
) -> None:
    """Propose a settings file for a database or raw files.

    Tables and columns are found by their names and types, the scales of ratings by their values, and columns of text
    by a sample of their values. Columns that may
    contain names, contact details or free text are left out. On a terminal, each choice is asked.
    """
    from feedback_etl.settings.template import render_declaration

    if output.exists() or output.is_symlink():
        raise _build_exists_error(output)
    asks = not yes
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("`init` asks its questions on a terminal: pass --yes to accept its proposals elsewhere.")
    if raw_files is not None:
        if url is not None:
            raise UsageError("--from and a URL exclude each other: give one of them.")
        url = f"{FILES_PREFIX}{raw_files}"
    url, is_shown = _resolve_url(url)
    proposal = _propose(url, db_schema, table, asks=asks)
    text = render_declaration(proposal, url if is_shown else None)
    if asks and not typer.confirm(f"Write {output}?", default=True, err=True):
        raise typer.Exit(1)
    _write_new(output, text)
    for line in _summarize(proposal, output):
        echo_err(line, indent=LABEL_WIDTH)


def _build_exists_error(path: Path) -> UsageError:
    return UsageError(f"{path} exists, and `init` never overwrites a file: name another one with --output.")


def _resolve_url(url: str | None) -> tuple[str, bool]:
    """Return the URL, and whether the file may contain it: one that was given here and has no password."""
    from feedback_etl.database.urls import parse_url
    from feedback_etl.settings.model import load_settings

    if url is None:
        return load_settings().require_database_url(), False
    return url, parse_url(url).password is None


def _propose(url: str, db_schema: str | None, name: str | None, *, asks: bool) -> "Proposal":
    """Return the proposal for the table of that name, or for the most likely one, changed by the answers."""
    from feedback_etl.database.connect import open_connection
    from feedback_etl.database.proposal import propose
    from feedback_etl.database.reflection import fetch_scales, reflect_tables
    from feedback_etl.database.value_kinds import with_value_kinds
    from feedback_etl.options.read import ReadOptions

    with open_connection(url, ReadOptions(db_schema=db_schema)) as source:
        tables = reflect_tables(source)
        if not tables:
            place = f"the schema {db_schema}" if db_schema else "the default schema"
            raise SourceError(f"No table is visible to this user in {place}: name another one with --db-schema.")
        chosen = tables[0] if source.has_files else _choose_table(tables, name, asks=asks)
        children = {table for table in tables if any(column.references == chosen.name for column in table.columns)}
        tables = [with_value_kinds(source, table) if table in children else table for table in tables]
        proposal = propose(tables, with_value_kinds(source, chosen))
        if asks:
            proposal = _ask_columns(proposal)
        proposal.require_complete()
        numeric = [column.column.name for column in proposal.find("rating") if column.column.kind != "boolean"]
        items = [
            own._replace(scale=fetch_scales(source, own.table, [own.rating])[own.rating]) for own in proposal.items
        ]
        return proposal._replace(scales=fetch_scales(source, proposal.table, numeric), items=tuple(items))


def _choose_table(tables: "list[ReflectedTable]", name: str | None, *, asks: bool) -> "ReflectedTable":
    """Return the table of a name, or the most likely one.

    Raises:
        UsageError: There is no table of that name.
        SourceError: No table looks like feedback.
    """
    from feedback_etl.database.proposal import rank_tables

    names = ", ".join(table.full_name for table in tables)
    ranked = rank_tables(tables)
    if name is None and not ranked and not asks:
        raise SourceError(
            f"No table has a key, a time and a rating by its names and types. Name one with --table: {names}."
        )
    if name is None and asks:
        echo_err(f"tables     {names}", indent=LABEL_WIDTH)
        name = typer.prompt("Table of the feedback", default=ranked[0].full_name if ranked else None, err=True)
    if name is None:
        return ranked[0]
    matching = [table for table in tables if name in (table.name, table.full_name)]
    if not matching:
        raise UsageError(f"The database has no table {name} (--table). Its tables are: {names}.")
    return matching[0]


def _ask_columns(proposal: "Proposal") -> "Proposal":
    """Ask for the columns of ids and the time; "-" is none."""
    questions: dict[Use, str] = {
        "feedback_id": "Id of a feedback",
        "user_id": "Id of the person, - for none",
        "item_id": "What was rated, - for nothing",
        "created_at": "Time of a feedback",
    }
    names = [column.column.name for column in proposal.columns]
    echo_err(f"columns    {', '.join(names)}", indent=LABEL_WIDTH)
    if proposal.user:
        del questions["user_id"]  # another table says whose feedback it is
    for use, question in questions.items():
        proposed = next((column.column.name for column in proposal.find(use)), "-")
        while (name := typer.prompt(question, default=proposed, err=True)) not in (*names, "-"):
            echo_err(f"{proposal.table.full_name} has no such column.")
        proposal = proposal.with_use(use, name)
    return proposal


def _write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet, whole."""
    from feedback_etl.storage.posix import write_private_file

    try:
        write_private_file(path, text.encode())
    except FileExistsError:
        raise _build_exists_error(path) from None
    except OSError as error:
        raise ExportFileError(f"{path} cannot be written: {error.strerror}.") from None


def _summarize(proposal: "Proposal", output: Path) -> Iterator[str]:
    """Yield the lines of the summary."""
    uses: tuple[Use, ...] = ("item_id", "rating", "list", "age", "column")
    exported = [column.name for use in uses for column in proposal.find(use)]
    exported += [elements.name for elements in proposal.elements]
    personal = [column.column.name for column in proposal.find("none") if column.reason]
    undecided = [column.column.name for column in proposal.find("none") if not column.reason]
    yield f"table      {proposal.table.full_name}"
    yield f"exported   {', '.join(exported)}"
    if items := [*(column.name for column in proposal.find("items")), *(table.name for table in proposal.items)]:
        yield f"items      {', '.join(items)}: exported with --items"
    if personal:
        yield f"left out   {', '.join(personal)}: may be personal"
    if undecided:
        yield f"undecided  {', '.join(undecided)}: left out until you declare them"
    if not proposal.has_consent:
        found = "is used" if proposal.unused_consent else "was found"
        yield f"consent    no column of consent {found}: the feedback of all users would be exported"
    if proposal.unused_consent:
        yield f"not used   {', '.join(proposal.unused_consent)}: for consent to this use, write a query"
        yield f"           {output} says how: a declaration names only a boolean that is true for a yes, one join away"
    if proposal.is_default:
        yield "default    these are the default tables, which are read with lists and ages without a declaration"
    yield f"written    {output}: check every line of it"
    next_command = "feedback-etl preview --days -1"
    moved = "" if output == Path("feedback-etl.toml") else f"mv {shlex.quote(str(output))} feedback-etl.toml && "
    yield f"Next: {moved}{next_command}"
