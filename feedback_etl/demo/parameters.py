"""Distributions of the sample database: weights, effects on ratings, and shares of invalid rows."""

from typing import NamedTuple

WINDOW_HOURS = 180 * 24
WEEKDAY_WEIGHTS = (10, 9, 9, 9, 8, 12, 14)  # Monday first
HOUR_WEIGHTS = (2, 1, 1, 1, 1, 2, 5, 9, 9, 6, 5, 5, 6, 6, 5, 5, 6, 8, 10, 13, 15, 15, 10, 5)

TIMEFRAMES = ("1_week", "2_weeks", "4_weeks", "8_weeks")
TIMEFRAME_WEIGHTS = (32, 27, 22, 19)
TIMEFRAME_DELAYS = (range(7, 10), range(13, 17), range(26, 33), range(52, 57))  # days, after the advice
TIMEFRAME_EFFECTS = (-0.30, -0.05, 0.15, 0.30)  # on the score of 1 to 5: skin care needs time


class Skin(NamedTuple):
    """Skin conditions that occur together, and the rules that a recommendation applies to them."""

    conditions: tuple[str, ...]
    rules: tuple[str, ...]
    weights: tuple[int, int, int]  # how frequent in each of the three age bands
    effect: float  # on the score of 1 to 5


AGE_BANDS = (25, 40)
SKINS = (
    Skin(("acne",), ("r001", "r002"), (16, 8, 2), 0.30),
    Skin(("acne", "oily_skin"), ("r001", "r002", "r003"), (28, 13, 1), 0.25),
    Skin(("acne", "oily_skin", "enlarged_pores"), ("r001", "r003", "r004"), (12, 6, 1), 0.05),
    Skin(("acne", "oily_skin", "enlarged_pores", "hyperpigmentation"), ("r001", "r010"), (4, 3, 1), -0.35),
    Skin(("acne", "sensitive_skin"), ("r002", "r005"), (8, 6, 2), -0.40),
    Skin(("oily_skin",), ("r003",), (12, 8, 3), 0.45),
    Skin(("dark circles",), ("r006",), (3, 6, 3), 0.05),
    Skin(("dryness",), ("r007",), (6, 12, 14), 0.60),
    Skin(("dryness", "sensitive_skin"), ("r005", "r007"), (4, 8, 8), 0.10),
    Skin(("rosacea",), ("r008", "r009"), (1, 5, 7), -0.55),
    Skin(("rosacea", "sensitive_skin"), ("r005", "r008", "r009"), (1, 4, 5), -0.75),
    Skin(("hyperpigmentation",), ("r010", "r011"), (3, 11, 9), -0.10),
    Skin(("wrinkles",), ("r011", "r012"), (0, 3, 14), -0.15),
    Skin(("wrinkles", "dryness"), ("r007", "r011", "r012"), (0, 3, 15), 0.15),
    Skin(("wrinkles", "dryness", "café_au_lait_spots"), ("r007", "r012", "r013"), (0, 1, 4), -0.30),
    Skin((), (), (6, 5, 4), 0.40),
)
SUNSCREEN_RULE = "r014"

MISSING_SHARES = (0.08, 0.11, 0.135, 0.095)  # of each rating, in the order of the columns
KIND_WEIGHTS = {"rated": 97, "repeated": 2, "unrated": 1}  # of 100 feedback rows
WRONG_VALUES = (
    ("helpful_rating", 0),
    ("recommendation_id", None),
    ("routine_completion_pct", 120),
    ("recommendation_id", 2_000_000_000),  # points nowhere
    ("helpful_rating", 6),
)
WRONG_CONDITIONS = ('["acne,oily_skin"]', '{"acne": 0.8}')  # a comma within an element; not an array
WRONG_EVERY = 800  # feedback rows; evenly, so that 5,000 rows show every kind
WRONG_CONDITIONS_EVERY = 500  # recommendations

EXTRAS = (  # columns that are never exported: how often filled, and with what
    (0.30, ("My skin feels calmer than before.", "Easy to follow.", "No change so far.", "Too many steps.")),
    (0.15, ("Fewer steps, please.", "Suggest cheaper products.", "Explain why each step matters.")),
    (0.06, ('["redness"]', '["dryness", "peeling"]', '["itching"]')),
    (0.20, ('{"cleanser": 5, "moisturiser": 4}', '{"cleanser": 3}', '{"serum": 2, "sunscreen": 4}')),
)
FIRST_ANALYSIS = 40_001  # so that the analysis' id is not the recommendation's
