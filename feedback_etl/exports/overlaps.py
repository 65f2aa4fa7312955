"""Repeated releases: find by the audit log what a recipient received before, and whether more would reveal people.

The difference between two files of overlapping windows can be the rows of one person, and files with other age ranges
or quasi-identifiers can be joined to smaller classes than each of them has. k of one file says nothing about that.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from feedback_etl.errors import ValidationError
from feedback_etl.records.audit_records import Record, find_ends
from feedback_etl.records.layout import PREFIX


class Release(NamedTuple):
    """What a run shares.

    Attributes:
        recipient: Who gets it.
        window: The half-open window, ISO 8601 in UTC; None where it is open.
        settings_digest: A digest of the settings that decide the rows and their form.
    """

    recipient: str
    window: list[str | None]
    settings_digest: str


def parse_release(started: Record) -> Release | None:
    """Return the release of a run by the record of its start; None for other exports."""
    recipient, window, digest = (started.get(name) for name in Release._fields)
    return Release(recipient, window, str(digest)) if recipient and isinstance(window, list) else None


def require_no_overlap(records: Iterable[Record], release: Release, run: str) -> None:
    """Refuse to share a window of which the recipient got a part with other settings.

    Args:
        records: The records of the audit log.
        release: What the run shares.
        run: The id of the run.

    Raises:
        ValidationError: There is such a part, or another run is sharing one now.
    """
    for earlier, end in _list_overlaps(records, release, run):
        if end is None:
            raise ValidationError(
                f"Another run is sharing an overlapping window with {release.recipient}, so nothing was exported. Wait "
                "for its end; a run that was killed in an object store counts for a day."
            )
        if earlier != release:
            how = "with other settings" if earlier.window == release.window else _describe(earlier)
            raise ValidationError(
                f"{release.recipient} got a part of this window before ({how}), and the difference can be the rows of "
                f"one person, so nothing was exported. {_advise(earlier)}"
            )


def require_equal_rows(records: Iterable[Record], release: Release, run: str, digest: str) -> None:
    """Refuse to share a window again whose rows are not those that the recipient got.

    Raises:
        ValidationError: Rows were added, changed or erased since.
    """
    for earlier, end in _list_overlaps(records, release, run):
        if end is not None and end.get("rows_digest") != digest:
            raise ValidationError(
                f"{earlier.recipient} got this window before, and its rows have changed since: the difference can be "
                f"the rows of one person, so nothing was exported. {_advise(earlier)}"
            )


def _list_overlaps(records: Iterable[Record], release: Release, run: str) -> Iterator[tuple[Release, Record | None]]:
    """Yield earlier and running releases of the window to the recipient, each with the record of its end."""
    records = list(records)
    ends = find_ends(records)
    for started in records:
        earlier = parse_release(started) if started["event"] == "started" else None
        if earlier is None or earlier.recipient != release.recipient or started.get("run") == run:
            continue
        end = ends.get(started.get("run"))
        if has_overlap(earlier.window, release.window) and (end is None or _is_published(end)):
            yield earlier, end


def _is_published(end: Record) -> bool:
    """Return whether a run ended with pairs: it committed them, or was found committed after a crash."""
    paths = [str(file["path"]) for file in end.get("files", ())]
    return end.get("outcome") == "committed" or any(path.startswith(PREFIX) for path in paths)


def has_overlap(first: list[str | None], second: list[str | None]) -> bool:
    """Return whether two half-open windows overlap; ISO texts of different precision compare as their times do."""
    (first_start, first_end), (second_start, second_end) = first, second
    return (first_start or "") < (second_end or "~") and (second_start or "") < (first_end or "~")


def _describe(release: Release) -> str:
    start, end = release.window
    return f"from {start} to {end}" if start else f"until {end}"


def _advise(release: Release) -> str:
    return (
        f"Share a window from {release.window[1]} on (--since), or confirm with --allow-overlap that the recipient may "
        "compare both files."
    )
