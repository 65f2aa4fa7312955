"""Texts that look random and are not: hashes of common words, counters, the digits of constants, and encodings."""

import base64
import functools
import hashlib
import itertools
import math
import re
import string
from collections.abc import Iterator
from contextlib import suppress

_WORDS = """
password passwort passw0rd p@ssw0rd password1 password123 secret geheim mysecret topsecret key mykey apikey secretkey
private public salt pepper token hash test test123 testing tester tests example sample demo default changeme change_me
admin admin123 administrator root toor user guest login letmein welcome welcome1 hello world helloworld hello123 foo bar
foobar baz qux abc abc123 abcd1234 a1b2c3d4 qwerty qwerty123 qwertz azerty asdf asdfgh asdfghjkl zxcvbn zxcvbnm 1q2w3e4r
1qaz2wsx qazwsx iloveyou love lovely sunshine princess monkey dragon master shadow superman batman football baseball
soccer hockey michael jordan jennifer thomas robert daniel andrew joshua charlie george ashley jessica amanda summer
winter spring autumn flower cookie cheese orange banana computer internet access trustno1 starwars whatever freedom
ninja mustang killer pepper hunter ranger buster tigger jordan harley matrix phoenix merlin diamond maggie ginger
production prod staging development dev local localhost database feedback feedback_etl feedbacketl etl feedback-etl
pseudonym pseudonymization pseudonymisation anonymous anonymize privacy training model data dataset analysis analyses
analysis_id user_id app application company server service system null none true false nothing empty string hunter2
""".split()  # noqa: SIM905  a list of words is read as one
_NUMBERS = 1_000
_DIGITS = 300
_MIN_DIGEST = 16
"""Bytes of a digest that do not occur by chance."""

_MIN_TERMS, _MAX_STEP, _MAX_WIDTH = 5, 100, 6


def is_digest_of_a_word(text: str) -> bool:
    """Return whether a text is the beginning of a digest of a common word or a small number, in hex or base64.

    Words count as they are, capitalised and in upper case, and with the line break that `echo` adds.

    >>> is_digest_of_a_word("5f4dcc3b5aa765d61d8327deb882cf99")
    True
    """
    decoded = (content[:_MIN_DIGEST] for content in _decode(text) if len(content) >= _MIN_DIGEST)
    return any(content in _digest_words() for content in decoded)


@functools.cache
def _digest_words() -> frozenset[bytes]:
    words = {form for word in _WORDS for form in (word, word.capitalize(), word.upper())}
    contents = [f"{word}{end}".encode() for word in ["", *words, *map(str, range(_NUMBERS))] for end in ("", "\n")]
    hashes = hashlib.md5, hashlib.sha1, hashlib.sha256, hashlib.sha512
    return frozenset(
        make(content, usedforsecurity=False).digest()[:_MIN_DIGEST] for make in hashes for content in contents
    )


@functools.cache
def list_sequences() -> tuple[str, ...]:
    """Return published sequences of digits: constants to some hundred digits, and the first primes, squares and others.

    >>> [sequence[:8] for sequence in list_sequences()][:2]
    ['31415926', '3243f6a8']
    """
    numbers = range(2, _DIGITS)
    primes = (number for number in numbers if all(number % divisor for divisor in range(2, math.isqrt(number) + 1)))
    fibonacci = [1, 1]
    while len(fibonacci) < _DIGITS // 4:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    runs = primes, (number**2 for number in range(1, _DIGITS)), fibonacci, (2**power for power in range(_DIGITS // 4))
    scales = 10**_DIGITS, 16**_DIGITS
    constants = [
        *(f"{_scale_pi(scales[0])}", f"{_scale_pi(scales[1]):x}"),
        *(f"{_scale_e(scales[0])}", f"{_scale_e(scales[1]):x}"),
        *(str(math.isqrt(number * scales[0] ** 2)) for number in (2, 3)),
        str((scales[0] + math.isqrt(5 * scales[0] ** 2)) // 2),
    ]
    return *constants, *("".join(map(str, run)) for run in runs)


def _scale_pi(scale: int) -> int:
    """Return pi * scale by Machin's formula; the last digits are not exact."""

    def arccot(number: int) -> int:
        terms = itertools.takewhile(bool, (scale // number**power for power in itertools.count(1, 2)))
        return sum((-1) ** index * term // (2 * index + 1) for index, term in enumerate(terms))

    return 4 * (4 * arccot(5) - arccot(239))


def _scale_e(scale: int) -> int:
    """Return e * scale as the sum of the reciprocals of factorials; the last digits are not exact."""
    return sum(itertools.takewhile(bool, itertools.accumulate(itertools.count(1), lambda a, b: a // b, initial=scale)))


def measure_counter(text: str, start: int) -> int:
    """Return the length of the longest counter that begins at a position: numbers in constant, small steps.

    A counter begins the text, or follows something else than a hex digit.

    >>> measure_counter("key 0001000200030004000500060", 4), measure_counter("89101112131415", 0)
    (24, 14)
    """
    if start and text[start - 1] in string.hexdigits:
        return 0
    forms = itertools.product((10, 16), range(1, _MAX_WIDTH + 1), (0, 1))
    return max(_follow_counter(text, start, base, width, width + more) for base, width, more in forms)


def _follow_counter(text: str, start: int, base: int, width: int, next_width: int) -> int:
    """Return the length of a counter whose first two numbers have these widths."""
    pieces = text[start : start + width], text[start + width : start + width + next_width]
    if not all(re.fullmatch(r"[0-9]+" if base == 10 else r"[0-9a-f]+", piece) for piece in pieces):
        return 0
    first, second = (int(piece, base) for piece in pieces)
    step, terms, end = second - first, 0, start
    if not 0 < abs(step) <= min(_MAX_STEP, base**width // 10):
        return 0
    for number in itertools.count(first, step):
        term = f"{number:0{width}d}" if base == 10 else f"{number:0{width}x}"
        if number < 0 or not text.startswith(term, end):
            return end - start if terms >= _MIN_TERMS else 0
        terms, end = terms + 1, end + len(term)
    raise AssertionError


def decode_text(text: str) -> Iterator[str]:
    """Yield what hex or base64 encodes: as text if it is printable, or else as hex digits."""
    for content in _decode(text):
        is_printable = content.isascii() and content.decode().strip().isprintable()
        yield content.decode() if is_printable else content.hex()


def _decode(text: str) -> Iterator[bytes]:
    """Yield the bytes that a text encodes in hex and in base64, if it does."""
    with suppress(ValueError):
        yield bytes.fromhex(text)
    digits = text.translate(str.maketrans("-_", "+/")).rstrip("=")
    with suppress(ValueError):
        yield base64.b64decode(f"{digits}{'=' * (-len(digits) % 4)}", validate=True)
