"""Write a report."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from feedback_etl.clock import resolve_now
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.errors import explain_write_errors, refuse_links
from feedback_etl.storage.posix import replace_private_file, temporary_path
from feedback_etl.transform.fork_guard import require_usable_polars


def write_report(
    path: str | Path,
    exports: str | Path | Iterable[str | Path],
    *,
    keys: Key | str | Iterable[Key | str] = (),
    now: datetime | None = None,
) -> Path:
    """Write a report on exports as one HTML page: data dictionary, re-identification risk, drift and audit log.

    It contains no row and no pseudonym, and no value of fewer than five people, as counted by `subject_hash` or,
    without it, by `analysis_hash`, of which a person can have several. It needs no network and runs no script.

    Rows, columns, classes and drift cover the exports that can be combined with the newest one: those of equal key,
    timestamp precision, age ranges and form of recommendation_id. The page says how many are excluded, and why. Drift
    is measured between the newest of these and an earlier one of its folder with equal settings and a similar window.

    Args:
        path: Path of the page (0600); an existing file is replaced, unless it is a link.
        exports: A folder of exports, a prefix of an object store, or a data file of an export; or several of them.
        keys: Keys that signed the audit log.
        now: Time of the report, UTC; by default the current time.

    Returns:
        The path.

    Raises:
        ExportFileError: There is no export, a file cannot be read or does not match its manifest, or the page cannot be
            written, for example because its folder does not exist.
        UsageError: The path is a folder, or a folder or file of `exports` does not exist.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> key = generate_key()
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, days_back=90, key=key, output_dir="reported")
    >>> write_report("report.html", "reported", keys=key).read_text().splitlines()[0]
    '<!doctype html>'
    """
    require_usable_polars()
    from feedback_etl.report.data import collect_data, find_report_exports
    from feedback_etl.report.page import render_page

    path = Path(path)
    refuse_links(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file for the report.")
    if not path.parent.exists():
        raise ExportFileError(f"The folder {path.parent} does not exist: create it, or name another file with -o.")
    locations = [exports] if isinstance(exports, str | Path) else exports
    data = collect_data(find_report_exports(locations), Key.parse_all(keys), resolve_now(now))
    text = render_page(data)
    with explain_write_errors(path.parent, "Name another file with -o."):
        replace_private_file(path, temporary_path(path.parent, path.name), text.encode())
    return path
