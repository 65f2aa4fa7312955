"""Determine which spellings of a text id are equal in the database, and the canonical one among them.

In a collation, or a type such as citext, `bob`, `Bob` and `bob ` can be equal. Such ids are read in their canonical
spelling: in lower case if the database ignores case, without trailing blanks if it ignores those. The spelling depends
on the id alone, so a pseudonym does not depend on other rows. A collation whose equality differs from this is refused.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from feedback_etl.errors import SourceError

Fetch = Callable[[str], Sequence[tuple[Any, ...]]]
CreateError = Callable[[str], SourceError]

_PRINTABLE = [chr(code) for code in range(32, 127)]
_LETTERS = 26
_TEXTS = frozenset({"text", "varchar"})


class IdComparison(NamedTuple):
    """Describe how the database compares the ids of a column.

    Attributes:
        dialect: The dialect of the database.
        ignores_case: `Bob` is `bob`.
        ignores_accents: `bób` is `bob` (DuckDB).
        ignores_trailing_blanks: `bob ` is `bob`.
        ascii_only: The collation, if this is known for printable ASCII only; "" if it is known for every text.
    """

    dialect: str
    ignores_case: bool = False
    ignores_accents: bool = False
    ignores_trailing_blanks: bool = False
    ascii_only: str = ""

    def canonical(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return the canonical spelling of ids, whose bytes are equal exactly if the ids are equal in the database."""
        text: sa.ColumnElement[Any] = sa.cast(column, sa.Text) if self.dialect == "postgresql" else column
        if self.ignores_accents:
            text = sa.func.strip_accents(text)
        if self.ignores_case:  # citext folds case by the database's collation
            text = sa.func.lower(text.collate("default") if self.dialect == "postgresql" else text)
        return sa.func.rtrim(text) if self.ignores_trailing_blanks else text


def find_id_comparison(
    dialect: str, type_name: str, empty_select: str, fetch: Fetch, create_error: CreateError
) -> IdComparison | None:
    """Return how a column of ids is compared; None if by its bytes.

    `empty_select` yields the column as `id`, and no rows. `type_name` is "" on SQLite. `create_error` returns the error
    for a collation.

    Raises:
        SourceError: The column is compared by rules that are not known here.
    """
    if dialect == "postgresql":
        return _find_on_postgresql(type_name, empty_select, fetch, create_error)
    if dialect == "mysql":
        return _find_on_mysql(empty_select, fetch, create_error) if type_name in _TEXTS else None
    return _find_by_trial(dialect, empty_select, fetch, create_error) if type_name in {"", *_TEXTS} else None


def describe_remedy(name: str, collation: str, dialect: str, query_option: str) -> str:
    """Return how to export ids that are compared by rules that are not known here."""
    binary = {"postgresql": '"C"', "mysql": f"{collation.partition('_')[0]}_bin"}.get(dialect, "BINARY")
    return f"Give the column the collation {binary}, or let {query_option} yield {name} COLLATE {binary}."


def build_unknown_rules_error(name: str, dialect: str, query_option: str, collation: str) -> SourceError:
    """Return the error for ids that are compared by rules that are not known here."""
    return SourceError(
        f"{name} has {f'the collation {collation}' if collation else 'a collation'} whose rules are not known here, so "
        "it is unknown which ids are equal in the database. "
        f"{describe_remedy(name, collation, dialect, query_option)}"
    )


def _find_on_postgresql(
    type_name: str, empty_select: str, fetch: Fetch, create_error: CreateError
) -> IdComparison | None:
    column = f"(SELECT 1) AS one LEFT JOIN ({empty_select}) AS ids ON true"
    if type_name == "bpchar":
        return IdComparison("postgresql", ignores_trailing_blanks=True)
    if type_name == "unknown":
        types = fetch(
            f"SELECT base.typname FROM {column} JOIN pg_type AS type ON type.oid = pg_typeof(ids.id) "  # noqa: S608
            "JOIN pg_type AS base ON base.oid = COALESCE(NULLIF(type.typbasetype, 0), type.oid)"
        )
        return IdComparison("postgresql", ignores_case=True) if types == [("citext",)] else None
    if type_name in _TEXTS:
        collations = fetch(
            "SELECT collname FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = collnamespace "  # noqa: S608
            f'JOIN (SELECT pg_collation_for(ids.id) COLLATE "C" AS name FROM {column}) AS of_ids ON name = '
            "CASE WHEN pg_collation_is_visible(c.oid) THEN '' ELSE quote_ident(nspname) || '.' END || "
            "quote_ident(collname) WHERE to_jsonb(c) ->> 'collisdeterministic' = 'false'"
        )
        if collations:
            raise create_error(str(collations[0][0]))
    return None


def _find_on_mysql(empty_select: str, fetch: Fetch, create_error: CreateError) -> IdComparison | None:
    column = f"(SELECT 1 AS one) AS one LEFT JOIN ({empty_select}) AS ids ON true"
    collation = str(fetch(f"SELECT COLLATION(ids.id) FROM {column}")[0][0])  # noqa: S608
    charset = collation.partition("_")[0]
    if collation == "binary" or not re.fullmatch(r"\w+", collation):
        return None
    texts = {text: f"CONVERT('{text}' USING {charset}) COLLATE {collation}" for text in ("a", "A", "a ")}
    characters = " UNION ALL ".join(f"SELECT '{_escape(character)}' AS x" for character in _PRINTABLE)
    pair = f"CONVERT(CONCAT(a.x, b.x, '.') USING {charset}) COLLATE {collation}"
    pairs, case, blanks = fetch(
        f"SELECT COUNT(DISTINCT {pair}), {texts['a']} = {texts['A']}, {texts['a']} = {texts['a ']} "  # noqa: S608
        f"FROM ({characters}) AS a, ({characters}) AS b"
    )[0]
    if pairs != (len(_PRINTABLE) - (_LETTERS if case else 0)) ** 2:  # languages in which v is w, i is y, or ch a letter
        raise create_error(collation)
    is_binary = collation.endswith("_bin")
    if is_binary and not blanks:
        return None
    return IdComparison(
        "mysql", bool(case), ignores_trailing_blanks=bool(blanks), ascii_only="" if is_binary else collation
    )


def _escape(character: str) -> str:
    return character.replace("\\", "\\\\").replace("'", "''")


def _find_by_trial(dialect: str, empty_select: str, fetch: Fetch, create_error: CreateError) -> IdComparison | None:
    """Test which texts a column's collation treats as duplicates: SQLite and DuckDB do not name it."""
    trials = ("b", "B", "c", "c ", "e", "é", "é2", "É2", "i", "y")
    tried = " UNION ".join(f"SELECT '{trial}'" for trial in trials)
    distinct = {text for (text,) in fetch(f"SELECT id FROM ({empty_select}) AS ids UNION {tried}")}  # noqa: S608
    case, blanks, accents, wide_case, other = (
        not distinct.issuperset(pair) for pair in (("b", "B"), ("c", "c "), ("e", "é"), ("é2", "É2"), ("i", "y"))
    )
    if other or (dialect == "sqlite" and (accents or wide_case)):  # a collation that the application has defined
        raise create_error("")
    return IdComparison(dialect, case, accents, blanks) if case or blanks or accents else None
