"""Maintain a folder of exports: list, prune, and register files of other tools."""

from typing import TYPE_CHECKING

from feedback_etl.lazy_names import build_lazy_names

if TYPE_CHECKING:
    __all__: list[str]

    from feedback_etl.exports.adoption import adopt as adopt
    from feedback_etl.exports.maintenance import list_exports as list_exports
    from feedback_etl.exports.maintenance import prune as prune
    from feedback_etl.exports.series_status import list_series as list_series
else:
    __getattr__, __dir__, __all__ = build_lazy_names(
        __name__,
        {
            "adopt": "exports.adoption",
            "list_exports": "exports.maintenance",
            "list_series": "exports.series_status",
            "prune": "exports.maintenance",
        },
    )
