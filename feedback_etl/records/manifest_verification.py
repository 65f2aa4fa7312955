"""Verify manifests by their MACs and by the audit log."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_records import Record
from feedback_etl.records.layout import manifest_path
from feedback_etl.records.manifest import Manifest
from feedback_etl.records.manifest_details import audit_summary

UNAVAILABLE_KEY = "is signed with an unavailable key: pass it with --key-file"
"""The end of a problem that shows no tampering, but that the verification lacked a key."""


class Problem(NamedTuple):
    """Describe a problem; it proves tampering only if `is_certain`."""

    text: str
    is_certain: bool = True


@dataclass
class LogEvidence:
    """Contain what an audit log proves about manifests.

    Attributes:
        starts: The first record of an export, which announced it, by run and stem.
        commits: The record of the commit, by run and stem.
        published: Run and stem of every export that was published.
        revisions: The newest recorded revision, by stem.
        pruned: The stems of pruned exports.
        erased_files: The files that erasures have rewritten.
        has_erasures: Whether the log records an erasure.
    """

    starts: dict[tuple[str, str], Record] = field(default_factory=dict)
    commits: dict[tuple[str, str], Record] = field(default_factory=dict)
    published: list[tuple[str, str]] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)
    pruned: set[str] = field(default_factory=set)
    erased_files: set[str] = field(default_factory=set)
    has_erasures: bool = False

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> Self:
        """Gather the evidence of records; later records take precedence."""
        evidence, stems = cls(), dict[str, str]()
        for record in records:
            event, run, stem = record["event"], str(record.get("run")), str(record.get("stem"))
            evidence.starts.setdefault((run, stem), record)
            is_commit = event == "committed" and bool(record.get("files"))
            is_recovered = event == "recovered" and record.get("outcome") == "committed" and run in stems
            if event == "started":
                stems[run] = stem
            if is_commit:
                evidence.commits[run, stem] = record
            if is_commit or is_recovered or event == "adopted":
                evidence.published.append((run, stems.get(run, stem)))
            if event == "pruned":
                evidence.pruned |= _get_strings(record.get("exports"))
            if event == "erased":
                evidence.erased_files |= _get_strings(record.get("files"))
                evidence.has_erasures = True
            for name, revision in _get_numbers(record.get("revisions")).items():
                evidence.revisions[name] = max(revision, evidence.revisions.get(name, 0))
        return evidence


def _get_strings(values: object) -> set[str]:
    """Return the texts of a list; a forged record may contain anything."""
    return {value for value in values if isinstance(value, str)} if isinstance(values, list) else set()


def _get_numbers(values: object) -> dict[str, int]:
    """Return the numbers of an object by name."""
    items = values.items() if isinstance(values, dict) else ()
    return {name: value for name, value in items if isinstance(value, int)}


def _get_files(values: object) -> list[dict[str, object]]:
    """Return the descriptions of files in a list."""
    files = values if isinstance(values, list) else []
    return [file for file in files if isinstance(file, dict) and isinstance(file.get("path"), str)]


def find_manifest_problems(
    manifests: Sequence[Manifest], evidence: LogEvidence, by_id: Mapping[str, Key]
) -> Iterator[Problem]:
    """Yield the problems of the manifests of a storage, and those of exports whose manifest is missing."""
    for manifest in manifests:
        yield from verify_manifest(manifest, evidence, by_id)
    existing = {(manifest.run, manifest.stem) for manifest in manifests}
    for run, stem in dict.fromkeys(evidence.published):
        if (run, stem) not in existing:
            text = f"{manifest_path(stem)} is missing, and the log records that it was published"
            yield Problem(text, is_certain=False)  # it may have been lost


def verify_manifest(manifest: Manifest, evidence: LogEvidence, by_id: Mapping[str, Key]) -> Iterator[Problem]:
    """Yield the problems of a manifest."""
    yield from map(Problem, _compare_with_log(manifest, evidence))
    if manifest.erased_rows and not evidence.has_erasures:  # or the erasure was interrupted
        text = f"rows were erased from {manifest.stem}, and the log records no erasure: records are missing"
        yield Problem(text, is_certain=False)
    if problem := _verify_mac(manifest, evidence, by_id):
        yield problem


def _verify_mac(manifest: Manifest, evidence: LogEvidence, by_id: Mapping[str, Key]) -> Problem | None:
    """Verify the MAC of a manifest; those of earlier versions and of unkeyed exports have none."""
    name, signed_by = manifest_path(manifest.stem), manifest.signed_by
    if signed_by is None:
        start = evidence.starts.get((manifest.run, manifest.stem), {})
        is_legacy = "version" not in start and not manifest.revision
        is_unkeyed = start.get("key_id") is None and manifest.key_id is None
        if manifest.mac or not (is_legacy or is_unkeyed):
            return Problem(f"{name} is not signed by a key, as it has to be")
        return None
    if signed_by not in by_id:
        return Problem(f"{name} {UNAVAILABLE_KEY}", is_certain=False)
    is_intact = manifest.mac == manifest.compute_mac(by_id[signed_by])
    return None if is_intact else Problem(f"{name} was changed")


def _compare_with_log(manifest: Manifest, evidence: LogEvidence) -> Iterator[str]:
    """Yield what the log contradicts; a manifest without a MAC is verified by the log alone."""
    stem, name = manifest.stem, manifest_path(manifest.stem)
    start = evidence.starts.get((manifest.run, stem))
    if start is None:
        yield f"the log does not record how {stem} was created: records are missing"
    elif start["event"] == "started" and start["key_id"] != manifest.key_id:
        yield f"{name} names another key than the log"
    if manifest.revision < evidence.revisions.get(stem, 0) or (stem in evidence.pruned and not manifest.pruned_at):
        yield f"{name} is older than the log records: an earlier one was put in its place"
    elif (commit := evidence.commits.get((manifest.run, stem))) and not _is_as_committed(manifest, commit, evidence):
        yield f"{name} differs from the log's record of its export"


def _is_as_committed(manifest: Manifest, commit: Record, evidence: LogEvidence) -> bool:
    """Return whether a manifest has the recorded summary, but for what erasures have changed since."""
    summary = audit_summary(manifest)
    if manifest.revision:  # its MAC covers the rest
        return [file.path for file in manifest.files] == [file["path"] for file in _get_files(commit["files"])]
    names = ["mode", "window", "settings", "statistics", "consent", *([] if manifest.erased_rows else ["risk"])]
    files, recorded = (
        [file for file in listed if file["path"] not in evidence.erased_files]
        for listed in (summary["files"], _get_files(commit["files"]))
    )
    return files == recorded and all(summary.get(name) == commit.get(name) for name in [*names, "limits"])
