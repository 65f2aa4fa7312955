"""Describe exports: an HTML report, and Croissant metadata."""

from typing import TYPE_CHECKING

from feedback_etl.lazy_names import build_lazy_names

if TYPE_CHECKING:
    __all__: list[str]

    from feedback_etl.report.croissant import write_croissant as write_croissant
    from feedback_etl.report.write import write_report as write_report
else:
    __getattr__, __dir__, __all__ = build_lazy_names(
        __name__,
        {
            "write_croissant": "report.croissant",
            "write_report": "report.write",
        },
    )
