"""Studies: methods x settings x seeds -> tables with means and intervals, a report, and a verdict on each claim."""

from orthogan.studies.study import (
    EVERY,
    SCALES,
    STUDIES,
    Claim,
    Hypothesis,
    Measure,
    Method,
    Scale,
    Search,
    Setting,
    Study,
    Term,
    get_study,
    higher,
    listing,
    lower,
    under,
)
from orthogan.studies.values import MeasureResult, Value

__all__ = [
    "EVERY",
    "SCALES",
    "STUDIES",
    "Claim",
    "Hypothesis",
    "Measure",
    "MeasureResult",
    "Method",
    "Scale",
    "Search",
    "Setting",
    "Study",
    "Term",
    "Value",
    "get_study",
    "higher",
    "listing",
    "lower",
    "under",
]
