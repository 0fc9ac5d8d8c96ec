"""Studies: configs x methods x seeds -> one table with means and intervals, one report, one verdict on each claim."""

from orthogan.studies.registry import STUDIES, get_study, listing
from orthogan.studies.study import (
    EVERY,
    SCALES,
    Claim,
    Hypothesis,
    Measure,
    MeasureResult,
    Method,
    Scale,
    Setting,
    Study,
    Term,
    Value,
    higher,
    lower,
    under,
)

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
