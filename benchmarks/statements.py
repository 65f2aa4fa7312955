"""The SQL of the contenders: the join that every one of them reads, and a statement that does all of our work."""

import hashlib
from datetime import datetime

_JOIN = """
FROM recommendation_feedbacks f
LEFT JOIN recommendation_records r ON r.id = f.recommendation_id
LEFT JOIN profiles p ON p.user_id = f.user_id
    AND NOT EXISTS (SELECT 1 FROM profiles e WHERE e.user_id = p.user_id AND e.id < p.id)"""

BARE_JOIN = f"""
SELECT f.id AS feedback_id, f.user_id, f.analysis_id, r.recommendation_id,
    f.helpful_rating, f.product_satisfaction, f.routine_completion_pct, f.would_recommend,
    r.conditions_analyzed, r.rules_applied, f.timeframe, p.age, f.created_at
{_JOIN}"""
"""The columns and the join of the default query, and nothing else."""

_BLOCK_BYTES = 64  # of SHA-256
_FORMULA = r"E'^[=+\\-@\\t\\r\\n]'"
_WRONG_ELEMENT = r"E'^$|,|^[=+\\-@\\t\\r\\n]'"


def copied(query: str) -> str:
    """Return the statement that copies the rows of a query as CSV."""
    return f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER);\n"


def bare_join(since: datetime | None = None) -> str:
    """Return the bare join, of all rows or since a time."""
    return BARE_JOIN if since is None else f"{BARE_JOIN}\nWHERE f.created_at >= '{since.isoformat()}'"


def same_work(key: str, now: datetime) -> str:
    """Return an export as SQL: window, rules, duplicates, pseudonyms, ranges, lists, order and formats.

    Rules are put so that the planner can tell how many rows they keep; with `coalesce(...)` it takes twice as long.
    """
    return f"""
SELECT {_hmac(key)} AS analysis_hash,
    recommendation_id, helpful_rating, product_satisfaction, routine_completion_pct,
    CASE would_recommend WHEN true THEN 'True' WHEN false THEN 'False' END AS would_recommend,
    conditions_detected, rules_applied, nullif(timeframe, '') AS timeframe,
    CASE WHEN age < 18 THEN '<18' WHEN age < 25 THEN '18-25' WHEN age < 35 THEN '25-35' WHEN age < 50 THEN '35-50'
        WHEN age >= 50 THEN '50+' END AS age_range,
    CASE date_trunc('second', created_at) WHEN created_at THEN to_char(created_at, 'YYYY-MM-DD"T"HH24:MI:SS')
        ELSE to_char(created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US') END AS feedback_timestamp,
    '{now.replace(microsecond=0).isoformat()}' AS export_date
FROM (
    SELECT DISTINCT ON (f.created_at, f.analysis_id, r.recommendation_id)
        f.id AS feedback_id, f.analysis_id, r.recommendation_id, f.helpful_rating, f.product_satisfaction,
        f.routine_completion_pct, f.would_recommend, conditions.joined AS conditions_detected,
        rules.joined AS rules_applied, f.timeframe, p.age, f.created_at
    {_JOIN}
    CROSS JOIN LATERAL ({_joined("r.conditions_analyzed")}) conditions
    CROSS JOIN LATERAL ({_joined("r.rules_applied")}) rules
    WHERE f.created_at < '{now.isoformat()}'
        AND (f.helpful_rating IS NOT NULL OR f.product_satisfaction IS NOT NULL
            OR f.routine_completion_pct IS NOT NULL OR f.would_recommend IS NOT NULL)
        AND f.analysis_id IS NOT NULL AND r.recommendation_id <> '' AND r.recommendation_id !~ {_FORMULA}
        AND (f.helpful_rating IS NULL OR f.helpful_rating BETWEEN 1 AND 5)
        AND (f.product_satisfaction IS NULL OR f.product_satisfaction BETWEEN 1 AND 5)
        AND (f.routine_completion_pct IS NULL OR f.routine_completion_pct BETWEEN 0 AND 100)
        AND (p.age IS NULL OR p.age BETWEEN 0 AND 130)
        AND (f.timeframe IS NULL OR f.timeframe !~ {_FORMULA})
        AND {_is_list("r.conditions_analyzed")} AND conditions.wrong IS NOT TRUE
        AND {_is_list("r.rules_applied")} AND rules.wrong IS NOT TRUE
    ORDER BY f.created_at, f.analysis_id, r.recommendation_id, f.id
) kept
ORDER BY created_at, feedback_id"""


def _is_list(column: str) -> str:
    return f"({column} IS NULL OR json_typeof({column}) NOT IN ('object', 'string', 'number', 'boolean'))"


def _joined(column: str) -> str:
    """Return the joined elements of a JSON array, and whether one is invalid; none for other values."""
    elements = f"json_array_elements_text(CASE json_typeof({column}) WHEN 'array' THEN {column} END)"
    return f"SELECT string_agg(one, ',') AS joined, bool_or(one ~ {_WRONG_ELEMENT}) AS wrong FROM {elements} AS one"


def _hmac(key: str) -> str:
    """RFC 2104 with PostgreSQL's own sha256(): the key's two blocks are constants."""
    secret = key.encode()
    block = (secret if len(secret) <= _BLOCK_BYTES else hashlib.sha256(secret).digest()).ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block).hex() for pad in (0x36, 0x5C))
    message = "convert_to('analysis_id:' || analysis_id, 'UTF8')"
    digest = f"sha256('\\x{outer}'::bytea || sha256('\\x{inner}'::bytea || {message}))"
    return f"left(encode({digest}, 'hex'), 16)"
