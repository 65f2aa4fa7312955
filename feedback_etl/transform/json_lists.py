"""Column expressions for JSON arrays of strings."""

import polars as pl

from feedback_etl.transform.expressions import to_expr

# A JSON string as in RFC 8259 section 7, without lone surrogates, which cannot be decoded to text.
JSON_STRING = (
    r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
    r'|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})))*"'
)
SPACE = r"[ \t\n\r]*"
_STRING_ARRAY = rf"\A{SPACE}\[{SPACE}(?:{JSON_STRING}{SPACE}(?:,{SPACE}{JSON_STRING}{SPACE})*)?\]{SPACE}\z"
NULL_OR_EMPTY = rf"\A(?:{SPACE}null{SPACE})?\z"


def is_string_list(column: str | pl.Expr) -> pl.Expr:
    """Return whether a JSON text is an array of strings; an empty text, `null` and SQL NULL count as an empty array.

    >>> frame = pl.DataFrame({"json": ['["a"]', "null", None, '["a", 1]', "{}"]})
    >>> frame.select(is_string_list("json")).to_series().to_list()
    [True, True, True, False, False]
    """
    text = to_expr(column).cast(pl.String)
    return text.is_null() | text.str.contains(NULL_OR_EMPTY) | text.str.contains(_STRING_ARRAY)


def decode_list(column: str | pl.Expr) -> pl.Expr:
    """Decode a JSON array of strings to List(String); other texts become null.

    >>> frame = pl.DataFrame({"json": ['["acne", "dry skin"]', "[]", "null", "not json"]})
    >>> frame.select(decode_list("json")).to_series().to_list()
    [['acne', 'dry skin'], [], None, None]
    """
    text = to_expr(column).cast(pl.String)
    valid = pl.when(text.str.contains(_STRING_ARRAY)).then(text).otherwise(None)
    return valid.str.json_decode(pl.List(pl.String)).alias(text.meta.output_name())


def non_empty_list(column: str | pl.Expr) -> pl.Expr:
    """Decode a JSON array of strings to List(String); an empty array and other texts become null.

    >>> frame = pl.DataFrame({"json": ['["a, b", "c"]', "[]", None]})
    >>> frame.select(non_empty_list("json")).to_series().to_list()
    [['a, b', 'c'], None, None]
    """
    elements = decode_list(column)
    return pl.when(elements.list.len() > 0).then(elements).alias(elements.meta.output_name())


def encode_list(column: str | pl.Expr) -> pl.Expr:
    """Encode lists of texts as JSON arrays, as CSV files contain them; null stays null.

    Elements have no control characters but tab, LF and CR, which are escaped as JSON requires.

    >>> frame = pl.DataFrame({"tags": [["a, b", "c"], None]})
    >>> frame.select(encode_list("tags")).to_series().to_list()
    ['["a, b","c"]', None]
    """
    elements = to_expr(column)
    text = pl.element()
    for character, escaped in {"\\": r"\\", '"': r"\"", "\t": r"\t", "\n": r"\n", "\r": r"\r"}.items():
        text = text.str.replace_all(character, escaped, literal=True)
    quoted = elements.list.eval(pl.lit('"') + text + pl.lit('"')).list.join(",")
    return (pl.lit("[") + quoted + pl.lit("]")).alias(elements.meta.output_name())


def encode_lists(schema: pl.Schema) -> list[pl.Expr]:
    """Return expressions that encode the lists of a frame with this schema."""
    return [encode_list(name) for name, dtype in schema.items() if dtype == pl.List]


def join_list(column: str | pl.Expr) -> pl.Expr:
    """Join the elements of a JSON array of strings with `,`, in order; an empty array and other texts become null.

    >>> frame = pl.DataFrame({"json": ['["acne", "dry skin"]', "[]", None]})
    >>> frame.select(join_list("json")).to_series().to_list()
    ['acne,dry skin', None, None]
    """
    return non_empty_list(column).list.join(",")
