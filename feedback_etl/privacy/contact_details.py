"""Contact and account details in texts: e-mail addresses, telephone numbers, IBANs and URLs, found by their form.

Texts are compared in Unicode's compatibility form (NFKC), in which full-width characters are ordinary ones, without
invisible characters, and with `@` and `+` in place of their forms in URLs and HTML. Digits alone that begin neither
with 0 nor with + are not a telephone number: ids look the same.
There is no recognition of names: a text without any of these can still be about a person.
"""

import polars as pl

from feedback_etl.transform.expressions import to_expr

_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
    "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 "
    "JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 "
    "NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 "
    "TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
"""The lengths of IBANs by country (ISO 13616 registry)."""

_LENGTH_BY_COUNTRY = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}
_NUMBER_BY_LETTER = {chr(ord("A") + number): str(10 + number) for number in range(26)}
_MAX_IBAN_DIGITS = 68
"""The digits of the longest IBAN (34 characters) if all are letters, which have two digits each."""

_GAP = r"[ .\-/()]{0,3}"
_START, _END = r"(?:^|[^\w.\-])", r"(?:[^\w\-]|$)"
_DOMAINS = "com|org|net|edu|gov|mil|info|biz|eu|de|ch|fr|uk|nl|pl|es|cz|dk|se|fi|pt|gr|ru|cn|jp|br|au|ca"
"""Top-level domains that are not common words, so that a dot before one is the dot of a host name."""

_PATTERNS = {
    "e-mail addresses": (
        r"[\w.%+\-]+ ?@ ?[\w\-]+(?:\.[\w\-]+)* ?\.\pL{2,}"
        r"|(?i)[\w.%+\-] ?[(\[{<] ?(?:at|@) ?[)\]}>] ?[\w\-]+(?: ?[(\[{<] ?dot ?[)\]}>] ?| dot |\.)[\w\-]*\pL{2}"
        r"|(?i)\w at [\w\-]+(?: dot [\w\-]+)* dot \pL{2,}"
    ),
    "telephone numbers": (
        rf"\+{_GAP}[1-9](?:{_GAP}\d){{6,13}}"  # international
        rf"|{_START}00[1-9]\d{{0,2}}[ .\-/(]{_GAP}\d(?:{_GAP}\d){{5,12}}"  # the same without a plus
        rf"|{_START}00[1-9]\d{{9,12}}{_END}"  # and without separators
        rf"|{_START}\(?0[1-9]\d{{1,4}}\)?[ /\-]{_GAP}\d(?:[ \-]?\d){{4,8}}{_END}"  # with an area code
        rf"|{_START}0[1-9]\d{{8,11}}{_END}"  # without separators
        rf"|{_START}0[1-9](?: \d\d){{4}}{_END}"  # French
        rf"|{_START}\(?[2-9]\d\d\)?[ .\-][2-9]\d\d[ .\-]\d{{4}}{_END}"  # North American
        rf"|\pL[ .:,]{{1,3}}1?[2-9]\d\d[2-9]\d{{6}}{_END}"  # without separators, after a word
    ),
    "URLs": r"(?i)\b(?:https?|ftp)://[^\s/]|\bwww\.[\w\-]+\.\pL",
}
_HOST = r"(?i)(?:^|[^\w@.\-])[\w\-]*\pL[\w\-]*(?:\.[\w\-]+)*\."
_URL_WITHOUT_SCHEME = rf"{_HOST}(?:(?:{_DOMAINS})(?:[^\w.\-]|\.?(?:\s|$))|\pL{{2,}}/[\w~])"
_IBAN_LIKE = r"\b[A-Z]{2}\d{2}[ .\-]?(?:[A-Z0-9]{1,4}[ .\-]?){3,8}"
_SPACED_IBAN_LIKE = _IBAN_LIKE.replace(r"\d{2}", r"[ .\-]\d{2}", 1)
_ENCODED = {**dict.fromkeys(("%40", "&#64;", "&#x40;", "&commat;"), "@"), "%2B": "+", "%2b": "+", "&#43;": "+"}
_INVISIBLE = r"[\p{Cf}\x{fe0f}]"


def find_contact_details(column: str | pl.Expr) -> dict[str, pl.Expr]:
    """Return, by kind, an expression that is true for texts that contain contact or account details of this kind.

    >>> frame = pl.DataFrame({"text": ["ask ann@example.org", "DE89 3704 0044 0532 0130 00", "acne", None]})
    >>> found = frame.select(expression.alias(kind) for kind, expression in find_contact_details("text").items())
    >>> found["e-mail addresses"].to_list(), found["IBANs"].to_list()
    ([True, False, False, None], [False, True, False, None])
    """
    text = to_expr(column).str.normalize("NFKC").str.replace_all(_INVISIBLE, "").str.replace_many(_ENCODED)
    upper = text.str.to_uppercase()
    candidates = upper.str.extract_all(_IBAN_LIKE).list.concat(upper.str.extract_all(_SPACED_IBAN_LIKE))
    has_iban = candidates.list.eval(_is_iban(pl.element())).list.any()
    details = {kind: text.str.contains(pattern) for kind, pattern in _PATTERNS.items()} | {"IBANs": has_iban}
    details["URLs"] |= text.str.contains(_URL_WITHOUT_SCHEME) & ~details["e-mail addresses"]
    details["telephone numbers"] &= ~has_iban  # groups of an IBAN can look like one
    return details


def _is_iban(candidate: pl.Expr) -> pl.Expr:
    """Return whether a text begins with an IBAN whose checksum is right (ISO 7064, MOD 97-10)."""
    compact = candidate.str.replace_all(r"[ .\-]", "")
    length = compact.str.slice(0, 2).replace_strict(_LENGTH_BY_COUNTRY, default=None, return_dtype=pl.Int64)
    iban = compact.str.slice(0, length)
    digits = (iban.str.slice(4) + iban.str.slice(0, 4)).str.replace_many(_NUMBER_BY_LETTER)
    rest = pl.lit("")
    for start in range(0, _MAX_IBAN_DIGITS, 7):  # nine digits at once: two of the remainder and seven new ones
        number = (rest + digits.str.slice(start, 7)).cast(pl.Int64, strict=False)
        rest = (number % 97).cast(pl.String)
    return (iban.str.len_chars() == length) & (rest == "1")
