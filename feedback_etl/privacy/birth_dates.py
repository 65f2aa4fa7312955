"""Ages and dates of birth in declared columns, found by the names and the values of the columns."""

import re
from typing import NamedTuple

import polars as pl

MIN_YEARS = 10
"""Years after which most dates of a column of any name are dates of birth."""

MAX_YEARS = 110
"""Years after which dates are placeholders, such as 1900-01-01."""

MIN_SHARE = 0.2
"""Share of the values of a column from which dates or numbers count; the others may be missing values or labels."""

_AGE_NAME = re.compile(r"(^|_)(age|alter|born|dob|yob|birth\w*|geburt\w*)(_|$)")
_OTHER_NAME = re.compile(
    r"(^|_)(account|order|subscription|product|item|ticket|session|device|page|post|car|house)(_|$)"
)
_YEAR_PATTERNS = (  # `\d` also matches digits that a cast refuses
    r"^([0-9]{4})[-/.](?:0?[1-9]|1[0-2])(?:[-/. T]|$)",  # 1951-01-31, 1951-01
    r"^[0-9]{1,2}[-/. ]{1,2}(?:[0-9]{1,2}|\pL{3,})[-/. ]{1,2}([0-9]{4})\b",  # 31.01.1951, 31 January 1951
    r"^\pL{3,}\.? [0-9]{1,2},? ([0-9]{4})\b",  # January 31, 1951
    r"^(?:0?[1-9]|1[0-2])[-/.]([0-9]{4})$",  # 01/1951
    r"^((?:19|20)[0-9]{2})(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])$",  # 19510131
)
_NUMBER = r"(?i)^(-?[0-9]+(?:\.[0-9]+)?) ?(?:y|yrs?|years?(?: old)?|j|jahre?|mo|mos|months?|monate?)?$"


def is_age_name(name: str) -> bool:
    """Return whether a column is called an age or a date of birth, of a person.

    >>> is_age_name("user_age"), is_age_name("date_of_birth"), is_age_name("account_age"), is_age_name("stage")
    (True, True, False, False)
    """
    return _AGE_NAME.search(name) is not None and _OTHER_NAME.search(name) is None


def extract_year(text: pl.Expr) -> pl.Expr:
    """Return the year of a date in any of the usual forms; null if a text is not a date.

    >>> pl.select(extract_year(pl.lit("31 January 1951"))).item()
    1951
    """
    return pl.coalesce(text.str.extract(pattern) for pattern in _YEAR_PATTERNS).cast(pl.Int64, strict=False)


def extract_number(text: pl.Expr) -> pl.Expr:
    """Return the number of a text that is one, also with a unit of an age."""
    return text.str.extract(_NUMBER).cast(pl.Float64, strict=False)


class AgeCounts(NamedTuple):
    """Counts of the values of one column that may be ages or dates of birth.

    Attributes:
        dates: Number of dates.
        births: Number of dates between `MIN_YEARS` and `MAX_YEARS` in the past.
        numbers: Number of numbers.
    """

    dates: int = 0
    births: int = 0
    numbers: int = 0

    def find_problems(self, name: str, values: int) -> list[str]:
        """Return, as clauses, why these counts of values show ages or dates of birth; none if they do not."""
        are_dates, are_numbers = (count and count >= MIN_SHARE * values for count in (self.dates, self.numbers))
        if are_dates and self.births > self.dates / 2:
            return [f"{self.births:,} of {values:,} are dates {MIN_YEARS} to {MAX_YEARS} years ago"]
        if is_age_name(name) and (are_dates or are_numbers):
            return [f"{max(self.dates, self.numbers):,} of {values:,} are dates or numbers"]
        return []


def find_ages(column: str, dtype: pl.DataType, year: int) -> dict[str, pl.Expr]:
    """Return, by the fields of `AgeCounts`, the expressions that are true for such values in this year."""
    value = pl.col(column)
    text = value.cast(pl.String).str.normalize("NFKC").str.strip_chars().str.replace(r"\.0+$", "")  # 19510131.0
    years = value.dt.year() if dtype.is_temporal() else extract_year(text)
    births = years.is_between(year - MAX_YEARS, year - MIN_YEARS)
    numbers = value if dtype.is_numeric() else extract_number(text)
    is_number = pl.lit(value=False) if dtype.is_temporal() else numbers.is_not_null()
    return {"dates": years.is_not_null(), "births": births, "numbers": is_number}
