"""Column expressions: what happens to one value, written for whole columns.

Each function takes a column name or an expression first, its options by keyword, and gives a `pl.Expr`. Nulls stay
null. Nothing here reads a file, the environment or the clock.
"""

import polars as pl
import polars_hash as plh  # noqa: F401  registers the `chash` namespace

from feedback_etl.errors import UsageError

PSEUDONYM_LENGTH = 16
"""Hex characters kept of a digest: 64 bits, so that two of a million ids collide with a chance of about 3e-8."""

MIN_KEY_BYTES = 32
"""The output size of SHA-256: RFC 2104 section 3 discourages shorter HMAC keys."""

MAX_AGE = 130
AGE_EDGES = (18, 25, 35, 50)
AGE_RANGE = pl.Enum(["<18", "18-25", "25-35", "35-50", "50+"])

FORMULA_STARTS = "=+-@\t\r\n"
"""A text that begins with one of these is run as a formula by spreadsheet programs (OWASP, CSV injection)."""

# A JSON string by RFC 8259 section 7, without lone surrogates: no decoder can turn those into text.
_JSON_STRING = (
    r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
    r'|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})))*"'
)
_JSON_SPACE = " \t\n\r"
_S = r"[ \t\n\r]*"
_STRING_ARRAY = rf"\A{_S}\[{_S}(?:{_JSON_STRING}{_S}(?:,{_S}{_JSON_STRING}{_S})*)?\]{_S}\z"


def _column(column: str | pl.Expr) -> pl.Expr:
    return pl.col(column) if isinstance(column, str) else column


def hash_id(
    column: str | pl.Expr, *, key: str | None = None, domain: str | None = None, unkeyed: bool = False
) -> pl.Expr:
    """Pseudonym of an id: the first 16 hex characters of a digest.

    Keyed: HMAC-SHA256(key, domain + ":" + id as text), RFC 2104. Unkeyed, only when asked for: SHA-256(id as text),
    which anybody who can list the possible ids inverts in seconds.

    Ids are integers of any width or text. A float is not an id (42.0 is not 42): `anonymize` refuses such columns.
    Null stays null.

    A serialised expression (`expr.meta.serialize()`, pickle) holds the key in clear: never store or ship one.

    Args:
        column: Name or expression of the ids.
        key: The pseudonym key as text, at least 32 bytes in UTF-8.
        domain: What kind of id this is, so that equal ids of two kinds get different pseudonyms; the name of the
            column unless given.
        unkeyed: Use the plain SHA-256 form.

    Returns:
        A String expression: 16 lower-case hex characters.

    Raises:
        UsageError: Neither `key` nor `unkeyed=True`, or both, or a key of fewer than 32 bytes.

    >>> pl.select(hash_id(pl.lit(42), unkeyed=True)).item()
    '73475cb40a568e8d'
    >>> pl.select(hash_id(pl.lit(42), key="k" * 32, domain="analysis_id")).item()
    'a5e68b051226b1a1'
    """
    if (key is None) is not unkeyed:
        raise UsageError("hash_id needs either key=... or unkeyed=True.")
    ids = _column(column)
    text = ids.cast(pl.String)
    if key is None:
        digest = text.chash.sha2_256()  # type: ignore[attr-defined]
    elif len(key.encode()) < MIN_KEY_BYTES:
        raise UsageError(f"The key has fewer than {MIN_KEY_BYTES} bytes; `feedback-etl keys new` makes one.")
    else:
        prefixed = pl.lit(f"{domain or ids.meta.output_name()}:") + text
        digest = prefixed.chash.hmac_sha256(key=key)  # type: ignore[attr-defined]
    pseudonym: pl.Expr = digest.str.slice(0, PSEUDONYM_LENGTH)
    return pseudonym.alias(ids.meta.output_name())


def bucket_age(column: str | pl.Expr) -> pl.Expr:
    """Age in years to its range: `<18`, `18-25`, `25-35`, `35-50` or `50+`.

    Ranges are half-open: 25 is in `25-35`. Null, NaN and ages outside 0 to 130 give null.

    Args:
        column: Name or expression of ages, any numeric dtype.

    Returns:
        An expression of the dtype `AGE_RANGE`, a Polars Enum in ascending order.

    >>> pl.DataFrame({"age": [17, 25, 50, 131, None]}).select(bucket_age("age")).to_series().to_list()
    ['<18', '25-35', '50+', None, None]
    """
    age = _column(column)
    edges_passed = pl.sum_horizontal([age >= edge for edge in AGE_EDGES], ignore_nulls=False)
    in_range = pl.when(age.is_between(0, MAX_AGE)).then(edges_passed)
    labels = AGE_RANGE.categories
    return in_range.replace_strict(range(len(labels)), labels, return_dtype=AGE_RANGE).alias(age.meta.output_name())


def iso_timestamp(column: str | pl.Expr) -> pl.Expr:
    """Time to text, exactly as `datetime.isoformat()` prints it: no fraction when it is zero, else six digits.

    Args:
        column: Name or expression of times, Datetime("us"), naive UTC or in UTC.

    Returns:
        A String expression without offset.

    >>> from datetime import datetime
    >>> pl.select(iso_timestamp(pl.lit(datetime(2025, 10, 25, 10)))).item()
    '2025-10-25T10:00:00'
    """
    naive = _column(column).dt.replace_time_zone(None)
    return naive.dt.to_string("iso:strict").str.strip_suffix(".000000")


def pair_hash(
    analysis_hash: str | pl.Expr = "analysis_hash",
    recommendation_id: str | pl.Expr = "recommendation_id",
    feedback_timestamp: str | pl.Expr = "feedback_timestamp",
) -> pl.Expr:
    """What makes two rows the same feedback: SHA-256 of `analysis_hash|recommendation_id|feedback_timestamp`.

    Null if one of the three is null.

    Returns:
        A String expression of 64 lower-case hex characters named `pair_hash`.

    >>> pl.select(pair_hash(pl.lit("a"), pl.lit("b"), pl.lit("c"))).item()[:16]
    'a52dd81bfd5e4e66'
    """
    parts = [_column(part) for part in (analysis_hash, recommendation_id, feedback_timestamp)]
    joined = pl.concat_str(parts, separator="|")
    digest: pl.Expr = joined.chash.sha2_256()  # type: ignore[attr-defined]
    return digest.alias("pair_hash")


def is_string_list(column: str | pl.Expr) -> pl.Expr:
    """Whether a JSON text is an array of strings; the empty text, `null` and SQL NULL count as an empty one.

    >>> frame = pl.DataFrame({"json": ['["a"]', "null", None, '["a", 1]', "{}"]})
    >>> frame.select(is_string_list("json")).to_series().to_list()
    [True, True, True, False, False]
    """
    text = _column(column)
    none = text.is_null() | text.str.strip_chars(_JSON_SPACE).is_in(["", "null"])
    return none | text.str.contains(_STRING_ARRAY)


def decode_list(column: str | pl.Expr) -> pl.Expr:
    """A JSON array of strings to List(String); null where there is none or where it is not such an array.

    >>> frame = pl.DataFrame({"json": ['["acne", "dry skin"]', "[]", "null", "not json"]})
    >>> frame.select(decode_list("json")).to_series().to_list()
    [['acne', 'dry skin'], [], None, None]
    """
    text = _column(column)
    valid = pl.when(text.str.contains(_STRING_ARRAY)).then(text).otherwise(None)
    return valid.str.json_decode(pl.List(pl.String)).alias(text.meta.output_name())


def join_list(column: str | pl.Expr) -> pl.Expr:
    """A JSON array of strings to its elements joined by `,` in their order; null where there are none.

    >>> frame = pl.DataFrame({"json": ['["acne", "dry skin"]', "[]", None]})
    >>> frame.select(join_list("json")).to_series().to_list()
    ['acne,dry skin', None, None]
    """
    elements = decode_list(column)
    return pl.when(elements.list.len() > 0).then(elements.list.join(",")).alias(elements.meta.output_name())


def is_formula(column: str | pl.Expr) -> pl.Expr:
    """Whether a text begins with a character that makes spreadsheet programs run it; null stays null.

    >>> pl.DataFrame({"text": ["=1+1", "acne", None]}).select(is_formula("text")).to_series().to_list()
    [True, False, None]
    """
    return _column(column).str.slice(0, 1).is_in(list(FORMULA_STARTS))
