"""The export with pandas and hashlib, as one would write it: the whole table in memory, pseudonyms value by value."""

import hmac
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import sqlalchemy as sa
from statements import BARE_JOIN

RATINGS = ["helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend"]
LIMITS = {"helpful_rating": (1, 5), "product_satisfaction": (1, 5), "routine_completion_pct": (0, 100)}
FORMULA_STARTS = tuple("=+-@\t\r\n")


def is_list(value: object) -> bool:
    """Whether it is a list of texts that can be joined by commas; none is an empty one."""
    return value is None or (
        isinstance(value, list)
        and all(isinstance(text, str) and text and "," not in text and text[0] not in FORMULA_STARTS for text in value)
    )


def export(url: str, key: bytes, folder: Path, now: datetime) -> None:
    """Read, judge, pseudonymise and write everything there is."""
    frame = pd.read_sql(sa.text(BARE_JOIN), sa.create_engine(url))
    frame = frame[(frame["created_at"] < now) & frame[RATINGS].notna().any(axis=1)]

    valid = frame["analysis_id"].notna() & frame["recommendation_id"].notna()
    for name, limits in LIMITS.items():
        valid &= frame[name].isna() | frame[name].between(*limits)
    for name in ("conditions_analyzed", "rules_applied"):
        valid &= frame[name].map(is_list)
    for name in ("recommendation_id", "timeframe"):
        valid &= ~frame[name].str.startswith(FORMULA_STARTS, na=False)
    frame = frame[valid].sort_values(["created_at", "feedback_id"])
    frame = frame.drop_duplicates(["analysis_id", "recommendation_id", "created_at"])

    def pseudonym(analysis_id: int) -> str:
        return hmac.new(key, f"analysis_id:{analysis_id}".encode(), "sha256").hexdigest()[:16]

    pd.DataFrame(
        {
            "analysis_hash": frame["analysis_id"].map(pseudonym),
            "recommendation_id": frame["recommendation_id"],
            **{name: frame[name].astype("Int64") for name in RATINGS[:3]},
            "would_recommend": frame["would_recommend"],
            "conditions_detected": frame["conditions_analyzed"].map(lambda texts: ",".join(texts or ())),
            "rules_applied": frame["rules_applied"].map(lambda texts: ",".join(texts or ())),
            "timeframe": frame["timeframe"],
            "age_range": pd.cut(
                frame["age"],
                [0, 18, 25, 35, 50, 131],
                right=False,
                labels=["<18", "18-25", "25-35", "35-50", "50+"],
            ),
            "feedback_timestamp": frame["created_at"].map(lambda time: time.isoformat()),
            "export_date": now.replace(microsecond=0).isoformat(),
        }
    ).replace("", None).to_csv(folder / "export.csv", index=False)


if __name__ == "__main__":
    export(
        os.environ["FEEDBACK_ETL_DATABASE_URL"],
        os.environ["FEEDBACK_ETL_KEY"].encode(),
        Path(sys.argv[1]),
        datetime.now(UTC).replace(tzinfo=None),
    )
