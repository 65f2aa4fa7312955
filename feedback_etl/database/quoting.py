"""Quote texts and names for the SQL of PostgreSQL and DuckDB."""


def quote_text(text: str) -> str:
    """Return a text as a literal.

    >>> print(quote_text("it's"))
    'it''s'
    """
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """Return the name of a column as an identifier.

    >>> print(quote_name('a "great" column'))
    "a ""great"" column"
    """
    return '"' + name.replace('"', '""') + '"'
