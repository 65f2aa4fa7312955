"""The words by which tables and columns of an unknown database are recognised."""

import re

MIN_PART_LENGTH = 5
"""Letters that a word must have to be recognised within another one."""


def _parse_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TABLE_WORDS = _parse_words(
    "feedback feedbacks review reviews rating ratings survey surveys vote votes thumb thumbs evaluation evaluations "
    "assessment assessments opinion opinions response responses score scores reaction reactions"
)
USER_WORDS = _parse_words(
    "user customer member student learner person people account author reviewer patient client participant respondent "
    "visitor conversation session"
)
ID_WORDS = _parse_words("id no nr uuid guid key ref")
ITEM_WORDS = (
    "recommendation",
    "item",
    "app",
    "product",
    "course",
    "article",
    "lesson",
    "book",
    "film",
    "movie",
    "song",
    "offer",
)
RATING_WORDS = _parse_words(
    "rating ratings rate stars star score satisfaction helpful helpfulness useful usefulness nps grade vote thumb "
    "thumbs liked like recommend recommends recommended again quality difficulty clarity ease accuracy "
    "likert pct percent csat ces effort resolved solved"
)
COUNT_WORDS = _parse_words("count counts total number num votes sum average avg")
TIME_WORDS = (
    *("created", "submitted", "sent", "rated", "reviewed", "voted", "given", "answered", "posted", "timestamp"),
    *("inserted", "time", "date"),
)
CHANGE_WORDS = _parse_words("updated changed modified edited")
CONSENT_WORDS = _parse_words("consent consents consented allows allowed agreed optin permits")
CONSENT_PHRASES = tuple(map(_parse_words, ("opt in", "may use", "research ok", "training ok")))
"""Words that name consent together."""
REFUSAL_WORDS = _parse_words("not no never withdrawn revoked denied refused declined")
REFUSAL_PHRASES = tuple(map(_parse_words, ("opt out", "opted out", "optout", "do not")))
"""Words that name a refusal together, also one of something else such as marketing."""
OTHER_CONSENT_WORDS = REFUSAL_WORDS | _parse_words("image photo marketing required version")
"""Words of columns of consent to something else, of its refusal, and of its text."""
TAG_WORDS = _parse_words("tags tag labels topics categories keywords")
AGE_WORDS = _parse_words("age user customer member student patient years in")
"""The words of which a column of ages has no others: the age of an account is none."""
QUASI_IDENTIFIER_WORDS = _parse_words("country region state gender sex language locale education occupation segment")
_PERSONAL = {
    "a name of a person": "name firstname lastname surname fullname username nickname login",
    "contact details": "email mail phone telephone tel mobile fax url website",
    "an address": "address street city town zip zipcode postcode postal ip latitude longitude lat lon lng",
    "a date of birth": "birth birthday birthdate dob born",
    "an identity document, an account or a secret": "iban ssn passport card password token secret",
    "an image of a person": "avatar photo picture image",
    "text that a person wrote": "comment comments text note notes message review body feedback description remark "
    "remarks reason suggestion suggestions content title headline question prompt explanation opinion answer reply "
    "response verbatim",
}
_SENSITIVE = {
    "health data": "hiv health diagnosis diagnoses diagnosed disease illness medical medication symptom symptoms "
    "disability pregnant pregnancy allergy allergies cancer depression anxiety",
    "data on origin, belief, sexuality, crime or income": "ethnicity ethnic race religion religious political sexual "
    "criminal income salary",
}
SENSITIVE_REASONS = frozenset(_SENSITIVE)
"""Reasons not to export a column of any type, even as a rating."""
PRIVATE_REASONS = {"contact details", "text that a person wrote"}
"""Reasons for which a column is not a quasi-identifier, though its name contains such a word."""
PERSONAL_WORDS = {word: reason for reason, words in (_SENSITIVE | _PERSONAL).items() for word in words.split()}


def separate_words(name: str) -> str:
    """Return a name with a blank before each capital that begins a word."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)


def split_words(name: str) -> set[str]:
    """Return the words of a name, in lower case.

    >>> sorted(split_words("createdAt")), sorted(split_words("user_id"))
    (['at', 'created'], ['id', 'user'])
    """
    return {*re.findall("[a-z]+", separate_words(name).lower())}


def contains_word(word: str, name: str) -> bool:
    """Return whether a name contains a word that nothing separates from others, such as `useremail`."""
    return len(word) >= MIN_PART_LENGTH and word in name.lower()


def find_reasons(name: str) -> list[str]:
    """Return why the name of a column looks personal."""
    words = split_words(name)
    return [reason for word, reason in PERSONAL_WORDS.items() if word in words or contains_word(word, name)]


def is_attribute(name: str) -> bool:
    """Return whether a column looks like a quasi-identifier, and not like a text about one."""
    return bool(split_words(name) & QUASI_IDENTIFIER_WORDS) and not PRIVATE_REASONS & {*find_reasons(name)}


def is_consent(name: str) -> bool:
    """Return whether a column looks like consent to the use of feedback.

    >>> is_consent("may_use"), is_consent("may_not_use"), is_consent("email_ok")
    (True, False, False)
    """
    return _names_consent(name) and not split_words(name) & OTHER_CONSENT_WORDS


def is_refusal(name: str) -> bool:
    """Return whether a column looks like a refusal, in which true is a no.

    >>> is_refusal("marketing_opt_out"), is_refusal("doNotTrack"), is_refusal("consent_withdrawn_at"), is_refusal("no")
    (True, True, True, False)
    """
    words = split_words(name)
    is_negated = _names_consent(name) and bool(words & REFUSAL_WORDS)
    return is_negated or any(phrase <= words for phrase in REFUSAL_PHRASES)


def _names_consent(name: str) -> bool:
    words = split_words(name)
    return bool(words & CONSENT_WORDS) or any(phrase <= words for phrase in CONSENT_PHRASES)


def is_label(name: str) -> bool:
    """Return whether a column of elements does not look personal; a `name` in a table of tags is that of a tag.

    >>> is_label("name"), is_label("tag_name"), is_label("full_name")
    (True, True, False)
    """
    return not find_reasons(name) or split_words(name) - TAG_WORDS <= {"name", "title", "text"}
