"""Estimate how hard a pseudonym key is to guess."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from feedback_etl.transform.published_texts import decode_text, is_digest_of_a_word, list_sequences, measure_counter

MIN_KEY_BITS = 90
"""The minimum estimate of a usable key, in bits. 32 random hex characters (128 bits) are estimated at 124 on average,
and at less than 96 once in 30,000 keys; what 2**90 guesses cost is out of reach."""

_BITS_PER_WORD_LETTER = 1.5
"""Bits per letter of English text: Shannon, Prediction and Entropy of Printed English, 1951, upper bound near 1.3."""

_BITS_PER_DATE = 15
"""The days of a century."""

_ROWS = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertz", "azerty")
_COLUMNS = "1q2w3e4r5t6y7u8i9o0p 1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p"
_KNOWN = " ".join([_COLUMNS, *_ROWS, *(row[::-1] for row in _ROWS)])
"""Alphabet, digits, and rows and columns of keyboards: a piece of them counts as a repetition."""

_MIN_REPETITION = 3
_MIN_SEQUENCE = 8
"""Digits of a published sequence that do not occur by chance."""

_BITS_PER_SEQUENCE = 20
"""About a million positions in published sequences, or forms of counters."""

_MAX_CHARACTERS = 256

_DATE = re.compile(r"(?:19|20)\d\d[-/. ]?(?:0[1-9]|1[0-2])[-/. ]?(?:0[1-9]|[12]\d|3[01])")
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_SEPARATOR = re.compile(r"[\W_]+")
_BIGRAMS = frozenset(
    re.findall(
        "..",
        "thheineranrendatonnthaesstenedtoitoueahiisortiasteetngofaldeselesasiarveraldurroriicllnemelicemaomioecchusulelco"
        "laeeottasssowobetrachoutpemonofodifiprcaowamayeyookeemimiladabdogogewawersnscklyqunminapapoeiiesc",
    )
)
"""Common pairs of letters in English and German: seven in ten of their texts, one in six of random letters."""

_MIN_BIGRAMS = 0.5
"""The share of common pairs from which runs of letters are words."""

_CHANCE = 1 / 6
"""The share of common pairs in random letters."""

_DEVIATIONS = 4
"""Standard deviations above that share: random keys have few pairs in runs of letters, and half of these by chance."""

_WORD = re.compile(r"[A-Z][a-z]{2,}|[a-z]{4,}|[A-Z]{4,}|\b[A-Za-z]{1,3}\b")


def estimate_key_bits(text: str) -> float:
    """Estimate the entropy of a key's text in bits, by its form alone.

    Only the first 256 characters count. The estimate is the smallest of those of the text, of the text without
    separators, and of what it encodes in hex or base64. A digest of a common word is estimated at 0.

    A text is cut into pieces from left to right, and the estimate is the sum of their costs:

    - a repetition of three or more earlier characters, or a part of the alphabet, of the digits or of a row of a
      keyboard, upper and lower case alike: log2(number of positions it could start at) + log2(its length);
    - eight or more digits of a published sequence (pi, primes and others), or five or more numbers in equal steps: 20;
    - a date: 15;
    - a word (a run of four letters, a capital and two, or fewer between separators): 1.5 a letter, if words have three
      quarters of the letters and enough common pairs of letters, and the text is not of hex digits alone;
    - separators behind a word: 1;
    - any other character: the smaller of log2(size of the character classes of the text) and the text's entropy of
      single characters with Miller and Madow's correction for short texts, H + (distinct - 1) / (2 n ln 2).

    Limits: only digests of some hundred words are known, and no dictionary is consulted, so words with digits in place
    of letters, a quotation longer than about 70 characters, a published key or the output of a weak generator may be
    estimated too high. A passphrase of random words is estimated too low.

    >>> round(estimate_key_bits("password" * 4)), round(estimate_key_bits("daa0871acd4ebc9edb39ffe5bb8b89c8"))
    (46, 124)
    """
    text = text[:_MAX_CHARACTERS]
    compact = _SEPARATOR.sub("", text)
    if any(map(is_digest_of_a_word, (text, compact))):
        return 0.0
    return min(_estimate_form(form) if form else 0.0 for form in {text, compact, *decode_text(text)})


def _estimate_form(text: str) -> float:
    """Estimate the entropy of a text as it is."""
    folded = text.lower()
    context = f"{_KNOWN} {folded}"
    offset = len(context) - len(folded)
    ends = _find_cheap_pieces(text)
    literal = _measure_bits_per_character(text)
    position, bits = 0, 0.0
    while position < len(text):
        end, cost = ends.get(position, (position + 1, literal))
        length = _measure_longest_repetition(context, offset + position)
        repetition = math.log2(offset + position) + math.log2(max(length, 1))
        if length >= _MIN_REPETITION and repetition / length < cost / (end - position):
            end, cost = position + length, repetition
        length = max(_measure_longest_sequence(folded, position), measure_counter(folded, position))
        if length > end - position and _BITS_PER_SEQUENCE / length < cost / (end - position):
            end, cost = position + length, _BITS_PER_SEQUENCE
        position, bits = end, bits + cost
    return bits


def _find_cheap_pieces(text: str) -> dict[int, tuple[int, float]]:
    """Return end and cost of each date, word and separators behind a word, by its start."""
    pieces: dict[int, tuple[int, float]] = {}
    words = [] if _HEX.fullmatch(text) else list(_WORD.finditer(text))
    are_most = 4 * sum(len(word[0]) for word in words) >= 3 * sum(map(str.isalpha, text))
    if are_most and _have_common_pairs(word[0].lower() for word in words):
        for word in words:
            pieces[word.start()] = word.end(), _BITS_PER_WORD_LETTER * len(word[0])
            if separator := _SEPARATOR.match(text, word.end()):
                pieces[word.end()] = separator.end(), 1.0
    pieces |= {date.start(): (date.end(), _BITS_PER_DATE) for date in _DATE.finditer(text)}
    return pieces


def _have_common_pairs(words: Iterable[str]) -> bool:
    """Return whether enough pairs of letters in words are common ones."""
    pairs = ["".join(pair) for word in words for pair in pairwise(word)]
    random = _CHANCE * len(pairs) + _DEVIATIONS * math.sqrt(_CHANCE * (1 - _CHANCE) * len(pairs))
    return sum(pair in _BIGRAMS for pair in pairs) >= max(_MIN_BIGRAMS * len(pairs), random)


def _measure_longest_sequence(text: str, start: int) -> int:
    """Return the length of the longest piece at `start` that is a part of a published sequence."""
    if not any(text[start : start + _MIN_SEQUENCE] in sequence for sequence in list_sequences()):
        return 0
    lengths = range(_MIN_SEQUENCE, len(text) - start + 1)
    return max(
        (n for n in lengths if any(text[start : start + n] in sequence for sequence in list_sequences())), default=0
    )


def _measure_longest_repetition(context: str, start: int) -> int:
    """Return the length of the longest piece at `start` that also begins earlier in the text."""
    length = 0
    while start + length < len(context) and context.find(context[start : start + length + 1], 0, start + length) >= 0:
        length += 1
    return length


def _measure_bits_per_character(text: str) -> float:
    """Return the bits of a character that belongs to no pattern."""
    counts = Counter(text)
    entropy = -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())
    corrected = entropy + (len(counts) - 1) / (2 * len(text) * math.log(2))
    if _HEX.fullmatch(text):
        return min(corrected, math.log2(16))
    classes = (r"[0-9]", 10), (r"[a-z]", 26), (r"[A-Z]", 26)
    others = len([character for character in counts if not re.match(r"[0-9a-zA-Z]", character)])
    size = others + sum(size for pattern, size in classes if re.search(pattern, text))
    return min(corrected, math.log2(max(size, 1)))
