"""Texts that spreadsheet programs run as formulas, and texts with control characters.

In a CSV file an apostrophe is put before a text that such a program would run; the program then shows it as text. A
text that begins with an apostrophe gets another one. Removing one apostrophe therefore restores every text, whatever
was a formula by the version that wrote it.
"""

import polars as pl
import polars.selectors as cs

from feedback_etl.transform.expressions import to_expr

_ACTIVE = r"=+\-@" + r"\uff1d\uff0b\uff0d\uff20" + r"\ufe66\ufe62\ufe63\ufe6b" + r"\u2212"
"""The characters that begin a formula (OWASP, CSV injection), their full-width and small forms, and the minus sign."""

_INVISIBLE = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5"
    r"\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""White space, control characters and format characters (Unicode Z*, Cc, Cf), which programs may skip, and blanks."""

FORMULA_PATTERN = rf"^(?:[\t\r\n]|[{_INVISIBLE}]*[{_ACTIVE}])"
"""Pattern of texts that spreadsheet programs may run as formulas."""

_ESCAPED_PATTERN = rf"^(?:['\t\r\n]|[{_INVISIBLE}]*[{_ACTIVE}])"

CONTROL_CHARACTERS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
"""The control characters (Unicode Cc) without tab, LF and CR, which longer texts contain and CSV can quote."""

_NEVER_ESCAPED = ("analysis_hash", "age_range")
"""Columns that are validated to contain no formulas, and are compared as they are written."""


def is_formula(column: str | pl.Expr) -> pl.Expr:
    """Return whether spreadsheet programs might run a text as a formula; null stays null.

    White space, control characters and invisible characters before the formula are skipped.

    >>> pl.DataFrame({"text": ["=1+1", " @a", "acne", None]}).select(is_formula("text")).to_series().to_list()
    [True, True, False, None]
    """
    return to_expr(column).cast(pl.String).str.contains(FORMULA_PATTERN)


def has_control_character(column: str | pl.Expr) -> pl.Expr:
    """Return whether a text contains a control character other than tab, LF and CR; null stays null.

    >>> texts = pl.DataFrame({"text": ["acne", "ac" + chr(0), None]})
    >>> texts.select(has_control_character("text")).to_series().to_list()
    [False, True, None]
    """
    return to_expr(column).cast(pl.String).str.contains(f"[{CONTROL_CHARACTERS}]")


def escape_formula(column: str | pl.Expr) -> pl.Expr:
    """Convert a value to text, with an apostrophe before a formula or another apostrophe; `unescape` removes it.

    >>> pl.DataFrame({"id": ["=1+1", "'a", "17", None]}).select(escape_formula("id")).to_series().to_list()
    ["'=1+1", "''a", '17', None]
    """
    text = to_expr(column).cast(pl.String)
    escaped = pl.when(_needs_escape(text)).then(pl.lit("'") + text).otherwise(text)
    return escaped.alias(text.meta.output_name())


def unescape(column: str | pl.Expr) -> pl.Expr:
    """Restore the texts of a column from their escaped forms.

    >>> pl.DataFrame({"id": ["'=1+1", "''a", "17", None]}).select(unescape("id")).to_series().to_list()
    ['=1+1', "'a", '17', None]
    """
    return to_expr(column).str.strip_prefix("'")


def escape_texts(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Escape the texts of training pairs; return them with the number of escaped texts by column, without zeros.

    Pseudonyms of analyses and age ranges are not formulas and stay as they are.
    """
    names = [name for name in frame.select(cs.string()).columns if name not in _NEVER_ESCAPED]
    counts = frame.select(_needs_escape(pl.col(name)).sum() for name in names).to_dicts() if names else []
    escaped = {name: number for count in counts for name, number in count.items() if number}
    return (frame.with_columns(map(escape_formula, escaped)) if escaped else frame), escaped


def _needs_escape(text: pl.Expr) -> pl.Expr:
    return text.str.contains(_ESCAPED_PATTERN)
