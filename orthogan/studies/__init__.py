"""Studies: configs x methods x seeds -> one table with means and intervals, one report, one verdict on each claim."""

from orthogan.studies.registry import STUDIES, find, listing
from orthogan.studies.study import (
    EVERY,
    SCALES,
    Claim,
    Contrast,
    Found,
    Measure,
    Method,
    Number,
    Scale,
    Setting,
    Study,
    Term,
    higher,
    lower,
    under,
)

__all__ = [
    "EVERY",
    "SCALES",
    "STUDIES",
    "Claim",
    "Contrast",
    "Found",
    "Measure",
    "Method",
    "Number",
    "Scale",
    "Setting",
    "Study",
    "Term",
    "find",
    "higher",
    "listing",
    "lower",
    "under",
]
