"""The verdict on each published claim: it holds here, it fails here, or it is undecided, with n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orthogan.stats import Estimate, format_number
from orthogan.studies.study import EVERY, Claim, Hypothesis
from orthogan.studies.table import Table

HELD, FAILED, UNDECIDED, ABSENT = "held here", "did not hold here", "undecided", "not tested here"


@dataclass(frozen=True)
class Finding:
    """One hypothesis in one setting ("" if it spans several)."""

    says: str
    setting: str
    estimate: Estimate
    verdict: str
    why: str = ""
    without: str = ""  # runs that failed and are not in the mean

    def __str__(self) -> str:
        """Return the verdict with its numbers."""
        where = f" ({self.setting})" if self.setting else ""
        numbers = f"mean {format_number(self.estimate.mean)}, n = {self.estimate.n}" if self.estimate.n else "no runs"
        interval = f", 95 % interval {self.estimate.bounds()}" if self.estimate.low is not None else ""
        why = f": {self.why}" if self.why else ""
        without = f"; without {self.without}" if self.without else ""
        return f"{self.says}{where}: {self.verdict}{why} ({numbers}{interval}{without})"


@dataclass(frozen=True)
class Verdict:
    """A claim, its findings, and the verdict."""

    claim: Claim
    findings: Sequence[Finding]
    verdict: str

    def counts(self) -> str:
        """Return the counts, such as ``3 of 4 comparisons held, 1 undecided``."""
        kinds = [finding.verdict for finding in self.findings]
        return ", ".join(f"{kinds.count(kind)} {kind}" for kind in (HELD, FAILED, UNDECIDED, ABSENT) if kind in kinds)


def judge(claims: Sequence[Claim], panels: Mapping[str, Table]) -> list[Verdict]:
    """Return the verdict on every claim; ``panels``: tables by setting.

    A claim holds if all of its hypotheses hold, and fails if one of them fails.
    """
    found = []
    for claim in claims:
        findings = [finding for contrast in claim.contrasts for finding in judge_hypotheses(contrast, panels)]
        kinds = {finding.verdict for finding in findings}
        if FAILED in kinds:
            whole = FAILED
        else:
            whole = kinds.pop() if len(kinds) == 1 else UNDECIDED
        found.append(Verdict(claim, findings, whole))
    return found


def judge_hypotheses(contrast: Hypothesis, panels: Mapping[str, Table]) -> list[Finding]:
    """Return one finding for each setting that the hypothesis is about."""
    places = {term.setting for term in contrast.terms}
    if EVERY in places:
        return [_finding(contrast, panels, setting) for setting in panels]
    return [_finding(contrast, panels, places.pop() if len(places) == 1 else "")]


def _finding(contrast: Hypothesis, panels: Mapping[str, Table], here: str) -> Finding:
    """Estimate the sum of the terms on the seeds that all of them have."""
    by_seed: list[tuple[float, dict[int, float]]] = []
    lost: dict[str, str] = {}
    for term in contrast.terms:
        place = here if term.setting == EVERY else term.setting
        panel = panels.get(place)
        if panel is None:
            return Finding(contrast.says, here, Estimate.of([]), ABSENT, f"no setting {place!r} at this scale")
        column = panel.column(term.number)
        values = {} if column is None else column.of(term.method)
        if not values:
            failures = panel.failures(term.method)
            why = f"{term.method} has no {term.number}" + (f" ({failures})" if failures else "")
            return Finding(contrast.says, here, Estimate.of([]), ABSENT, why)
        by_seed.append((term.factor, values))
        if failures := panel.failures(term.method):
            lost[f"{place} {term.method}".strip()] = failures
    seeds = sorted(set.intersection(*(set(values) for _, values in by_seed)))
    estimate = Estimate.of([sum(factor * values[seed] for factor, values in by_seed) for seed in seeds])
    without = ", ".join(f"{failures} of {name}" for name, failures in lost.items())
    return Finding(contrast.says, here, estimate, *_judged(contrast, estimate), without)


def _judged(contrast: Hypothesis, estimate: Estimate) -> tuple[str, str]:
    """Return (verdict, reason), from the side of the bound that the interval is on."""
    if estimate.n == 0:
        return ABSENT, "no common seed"
    if estimate.n == 1:
        return UNDECIDED, "n = 1, no interval"
    if estimate.low is None or estimate.high is None:
        return UNDECIDED, "not all values are finite"
    if estimate.low <= contrast.bound <= estimate.high:
        return UNDECIDED, f"the interval contains {format_number(contrast.bound)}"
    below = estimate.high < contrast.bound
    return (HELD if below == (contrast.expected == "below") else FAILED), ""
