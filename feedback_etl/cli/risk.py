"""The command that measures the re-identification risk of files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_etl.cli.command_group import option
from feedback_etl.cli.console import echo_err, print_json, print_lines
from feedback_etl.cli.options import JsonOutput, load_command_settings
from feedback_etl.cli.tables import print_table
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping


_LABELS = {
    "rows": ("rows", "{repeated}"),
    "classes": ("classes", "equivalence classes: equal quasi-identifiers"),
    "k": ("k", "{counted} in the smallest class (k-anonymity)"),
    "linked_k": ("k, linked", "{linked} alike, if all rows of one are linked"),
    "average_risk": ("average risk", "of re-identification: classes / {counted}"),
    "highest_risk": ("prosecutor risk", "highest, 1 / k, if a person is known to be in it"),
    "share_unique": ("unique", "share of rows in classes of size 1"),
    "small_rows": ("small rows", "rows in classes of fewer than 5 {counted}"),
    "small_people": ("small classes", "{counted} in these classes"),
    "discernibility": ("discernibility", "sum of the squared rows of the classes"),
    "distinct_l": ("l", "minimum number of different values in a class"),
    "homogeneous_classes": ("uniform", "classes in which all answer alike"),
    "entropy_l": ("entropy l", "minimum exp(entropy) of the values in a class"),
    "t": ("t", "maximum distance of a class from all rows"),
}
"""The printed label and the explanation of each figure; `risk_measures.Risk` defines them with their sources."""

DataFiles = Annotated[
    list[Path], typer.Argument(help="CSV (also .gz, .zst) or Parquet files, or folders of parts.", metavar="FILE")
]
QuasiIdentifiers = Annotated[
    list[str] | None,
    option(
        "--quasi-identifier",
        "Column that an attacker may know about a person; may be repeated.  [default: those of the exports' manifests, "
        "or of the settings]",
        "COLUMN",
    ),
]
SensitiveColumns = Annotated[
    list[str] | None,
    option(
        "--sensitive",
        "Column that an attacker must not learn; may be repeated.  [default: the ratings and columns with the "
        "role sensitive]",
        "COLUMN",
    ),
]
PersonColumn = Annotated[
    str | None,
    option(
        "--person",
        "Column that identifies the person of a row; without one, each row counts as a person.  [default: "
        "subject_hash, if the files have it]",
        "COLUMN",
    ),
]


def measure_risk(
    files: DataFiles,
    quasi_identifier: QuasiIdentifiers = None,
    sensitive: SensitiveColumns = None,
    person: PersonColumn = None,
    as_json: JsonOutput = False,
) -> None:
    """Measure the re-identification risk of files.

    The figures are k-anonymity, l-diversity, t-closeness and values derived from them, over all files together. A row
    that is in several exports counts once.
    """
    from feedback_etl.cli.data_files import read_files
    from feedback_etl.data_files.row_filter import PSEUDONYM
    from feedback_etl.privacy.risk_measures import linkage_risk, risk
    from feedback_etl.schema.model import SUBJECT_HASH

    settings = load_command_settings()
    schema = settings.declaration.schema
    table, repeated, links_rows, measured_names = read_files(
        files, numeric=sensitive or settings.feedback_schema.rating_names, schema=schema
    )
    missing = {column.name for column in settings.extra_columns} - {*table.columns}
    if person is None and SUBJECT_HASH.name in table.columns:
        person = SUBJECT_HASH.name
    configured = [name for name in settings.effective_quasi_identifiers if name not in missing]
    names = quasi_identifier or measured_names or configured
    sensitive = sensitive or [name for name in schema.sensitive_columns if name in table.columns]
    measured = risk(table, quasi_identifiers=names, sensitive=sensitive, person=person).to_dict()
    linked_by = person or (PSEUDONYM if links_rows else None)
    if linked_by is not None:
        measured["linked_k"] = linkage_risk(table, names, by=linked_by).k
    if as_json:
        counted = {"counted": "people" if person else "rows", "person": person, "repeated_rows": repeated}
        counted["linked_by"] = linked_by
        print_json({"linked_k": None} | measured | counted | {"quasi_identifiers": names, "sensitive": sensitive})
    else:
        units = f"people, by {person}" if person else "rows: no column identifies people (--person)"
        print_lines(f"counted   {units}", f"known     {', '.join(names)} (quasi-identifiers)", indent=10)
        nouns = {"counted": "people" if person else "rows", "linked": "people" if person else "analyses"}
        nouns["repeated"] = "of all files" if repeated is None else "a row in several files counts once"
        print_table(["Figure", "Value", "Meaning"], _format_figures(measured, nouns), right={"Value"})
    if repeated is None:
        echo_err("A row in several files counts in each: the files lack columns of the key that would identify it.")
    elif repeated:
        echo_err(f"{pluralize(repeated, 'row')} that several files contain counted once.")
    if person is None:
        echo_err("Each row counts as a person, because no column identifies people (--person).")
    if linked_by is None:
        echo_err("k of linked rows was not measured: no column links the rows of a person (--person).")


def _format_figures(measured: "Mapping[str, Any]", nouns: "Mapping[str, str]") -> Iterator[tuple[str, str, str]]:
    """Yield label, value and explanation of each figure, or of each column of a figure."""
    for name, (label, explanation) in _LABELS.items():
        if name not in measured:
            continue
        value = measured[name]
        if isinstance(value, dict):
            yield label, "", f"{explanation}:"
            yield from (("", _format_number(number), f"  {column}") for column, number in value.items())
        else:
            yield label, _format_number(value), explanation.format(**nouns)
            if name == "highest_risk":
                yield "journalist risk", _format_number(value), "at most, if it is not known who is in it"


def _format_number(number: float) -> str:
    """Return an integer in full, and other numbers with four digits."""
    return f"{number:,}" if isinstance(number, int) else f"{number:.4g}"
