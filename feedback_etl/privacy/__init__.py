"""Protect people: pseudonym keys, erasure, coarser times and measures of the risk of re-identification."""

from typing import TYPE_CHECKING

from feedback_etl.lazy_names import build_lazy_names

if TYPE_CHECKING:
    __all__: list[str]

    from feedback_etl.privacy.erasure import erase as erase
    from feedback_etl.privacy.keys import Key as Key
    from feedback_etl.privacy.risk_measures import Risk as Risk
    from feedback_etl.privacy.risk_measures import journalist_risk as journalist_risk
    from feedback_etl.privacy.risk_measures import linkage_risk as linkage_risk
    from feedback_etl.privacy.risk_measures import risk as risk
    from feedback_etl.transform.transforms import coarsen as coarsen
else:
    __getattr__, __dir__, __all__ = build_lazy_names(
        __name__,
        {
            "Key": "privacy.keys",
            "Risk": "privacy.risk_measures",
            "coarsen": "transform.transforms",
            "erase": "privacy.erasure",
            "journalist_risk": "privacy.risk_measures",
            "linkage_risk": "privacy.risk_measures",
            "risk": "privacy.risk_measures",
        },
    )
