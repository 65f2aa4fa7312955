"""Select what an erasure removes: pure functions of the request and the content of a file."""

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import polars as pl

from feedback_etl.data_files.row_filter import NO_ANALYSIS
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.tombstones import hash_column
from feedback_etl.schema.model import SUBJECT_HASH
from feedback_etl.transform.expressions import hash_id


class FileMatch(NamedTuple):
    """Rows of one file to remove.

    Attributes:
        pseudonyms: Pseudonyms whose rows are removed.
        ids: Requested ids, as the caller gave them, that the file contains.
        damaged: Whether the file could not be read.
    """

    pseudonyms: Set[str] = frozenset()
    ids: Set[str] = frozenset()
    damaged: bool = False


class ErasureRequest(NamedTuple):
    """People and analyses to erase; each spelling is mapped to the ids that the caller gave for it.

    Attributes:
        users: User ids.
        analyses: Analysis ids that the caller gave.
        rows: All analyses to erase, those of `users` among them. A row without an analysis is identified by
            `NO_ANALYSIS` and its feedback id as the list of rejected rows contains it.
        remaining: Analyses that the database still contains: every other one is erased too. None if not requested.
        named: Pseudonyms that files name for `users`, each with its `subject_hash`, by key id.
        erased: Digests of the pseudonyms of earlier erasures, by key id; see `tombstones`. An interrupted erasure may
            have left these, and the database no longer knows them.
    """

    users: Mapping[str, Set[str]]
    analyses: Mapping[str, Set[str]]
    rows: Mapping[str, Set[str]]
    remaining: Sequence[str] | None
    named: Mapping[str | None, Mapping[str, str]] = MappingProxyType({})
    erased: Mapping[str | None, Set[str]] = MappingProxyType({})

    @property
    def is_sweep(self) -> bool:
        """Return whether everyone who has left the database is erased."""
        return self.remaining is not None

    @property
    def given_ids(self) -> list[str]:
        """Return the ids as the caller gave them."""
        return [given for ids in (self.users, self.analyses) for given in dict.fromkeys(chain(*ids.values()))]

    def with_key(self, key: Key | None) -> "KeyedRequest":
        """Return the request in the pseudonyms of a key."""
        remaining = None if self.remaining is None else {*map_pseudonyms(self.remaining, key)}
        subjects = _hash_ids([*self.users], key, SUBJECT_HASH.name)
        named = self.named.get(get_key_id(key), {})
        return KeyedRequest(self, key, map_pseudonyms(self.rows, key), subjects, named, remaining)


class KeyedRequest(NamedTuple):
    """A request in the pseudonyms of one key.

    Attributes:
        request, key: The request and the key.
        pseudonyms: Pseudonyms of the analyses to erase, each with its analysis.
        subjects: `subject_hash` of the users to erase, each with its user id.
        named: Pseudonyms that files name for `subjects`, each with its `subject_hash`.
        remaining: Pseudonyms that may stay; None without a sweep.
    """

    request: ErasureRequest
    key: Key | None
    pseudonyms: dict[str, str]
    subjects: dict[str, str]
    named: Mapping[str, str]
    remaining: set[str] | None

    def match(self, present: Set[str], *, is_seen_rows: bool = False) -> FileMatch:
        """Select the pseudonyms to remove from a file.

        Digests of seen rows without an analysis do not reveal the person, so those of all people are removed for one
        who has such a row: the next incremental export reads these rows again, and rejects them again.

        Args:
            present: All pseudonyms in the file.
            is_seen_rows: Whether it contains digests of seen rows.
        """
        erased = self.request.erased.get(get_key_id(self.key), frozenset[str]())
        unwanted = present & {*self.pseudonyms, *self.named} | _find_erased(present, erased, self.key)
        if is_seen_rows and any(row.startswith(NO_ANALYSIS) for row in self.request.rows):
            unwanted |= present & {""}
        if self.remaining is not None:
            left = present - self.remaining
            unwanted |= {pseudonym for pseudonym in left if pseudonym and not pseudonym.startswith(NO_ANALYSIS)}
        rows, users = self.request.rows, self.request.users
        by_analysis = (rows[self.pseudonyms[pseudonym]] for pseudonym in unwanted & {*self.pseudonyms})
        by_user = (users[self.subjects[self.named[pseudonym]]] for pseudonym in unwanted & {*self.named})
        return FileMatch(unwanted, {*chain.from_iterable(by_analysis), *chain.from_iterable(by_user)})


def _find_erased(pseudonyms: Set[str], digests: Set[str], key: Key | None) -> set[str]:
    """Return the pseudonyms that have a tombstone among digests under a key."""
    texts = pl.Series(list(pseudonyms) if digests else [], dtype=pl.String)
    is_erased = hash_column("pseudonym", pl.lit(texts), key).is_in(sorted(digests))
    return {*pl.select(pl.lit(texts).filter(is_erased)).to_series()}


def map_pseudonyms(analyses: Iterable[str], key: Key | None) -> dict[str, str]:
    """Map the pseudonyms of analyses to the analyses; rows without an analysis keep their feedback id."""
    analyses = list(analyses)
    feedback_ids = {analysis: analysis for analysis in analyses if analysis.startswith(NO_ANALYSIS)}
    ids = [analysis for analysis in analyses if analysis not in feedback_ids]
    return _hash_ids(ids, key, "analysis_id") | feedback_ids


def _hash_ids(ids: Sequence[str], key: Key | None, domain: str) -> dict[str, str]:
    """Map the pseudonyms of ids to the ids."""
    texts = pl.Series("id", ids, dtype=pl.String)
    hashes = pl.select(hash_id(pl.lit(texts), key=key, domain=domain, unkeyed=key is None)).to_series()
    return dict(zip(hashes, texts, strict=True))
