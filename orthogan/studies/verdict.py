"""The verdict on each published claim: it holds here, it fails here, or it is undecided, with n and interval.

A claim often has several comparisons. Each of them is tested at the level that Holm's procedure gives it within its
claim (``orthogan.stats.holm_levels``), so that the probability of any wrong decision about a claim is at most 5 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orthogan.stats import CONFIDENCE, Estimate, detectable, format_number, holm_adjusted, holm_levels, t_test
from orthogan.studies.study import EVERY, Claim, Hypothesis
from orthogan.studies.table import Table

HELD, FAILED, UNDECIDED, ABSENT = "held here", "did not hold here", "undecided", "not tested here"
EQUAL = "no difference here"  # within the margin of the hypothesis
NO_SETTING = "no such setting at this scale"
POWER = 0.8


@dataclass(frozen=True)
class Finding:
    """One hypothesis in one setting ("" if it spans several).

    ``estimate`` has the ordinary 95 % interval; ``corrected`` has the interval that decides, at ``confidence``, which
    depends on the number of comparisons of the claim; ``p``: adjusted for it.
    """

    contrast: Hypothesis
    setting: str
    estimate: Estimate
    verdict: str = ABSENT
    why: str = ""
    without: str = ""  # runs that failed and are not in the mean
    corrected: Estimate | None = None
    confidence: float = CONFIDENCE
    p: float | None = None

    @property
    def says(self) -> str:
        """The hypothesis in words."""
        return self.contrast.says

    @property
    def detectable(self) -> float | None:
        """The smallest difference that this comparison finds with probability 0.8, at the measured spread."""
        if self.estimate.low is None or self.estimate.high is None:
            return None
        n = self.estimate.n
        return detectable(n, alpha=1 - self.confidence, power=POWER) * statistics.stdev(self.estimate.values)

    def __str__(self) -> str:
        """Return the verdict with its numbers."""
        where = f" ({self.setting})" if self.setting else ""
        numbers = f"mean {format_number(self.estimate.mean)}, n = {self.estimate.n}" if self.estimate.n else "no runs"
        if self.estimate.low is not None:
            numbers += f", 95 % interval {self.estimate.bounds()}"
        if self.corrected is not None and self.confidence > CONFIDENCE + 1e-9:
            numbers += f", corrected {self.corrected.bounds()}"
        if self.p is not None:
            numbers += f", p {'< 0.001' if self.p < 0.001 else f'= {self.p:.3f}'}"
        if self.verdict == UNDECIDED and self.detectable is not None:
            numbers += f", detectable {format_number(self.detectable)}"
        why = f": {self.why}" if self.why else ""
        without = f"; without {self.without}" if self.without else ""
        return f"{self.says}{where}: {self.verdict}{why} ({numbers}{without})"


@dataclass(frozen=True)
class Verdict:
    """A claim, its findings, and the verdict."""

    claim: Claim
    findings: Sequence[Finding]
    verdict: str

    def counts(self) -> str:
        """Return the counts, such as ``3 of 4 comparisons held, 1 undecided``."""
        kinds = [finding.verdict for finding in self.findings]
        return ", ".join(
            f"{kinds.count(kind)} {kind}" for kind in (HELD, FAILED, EQUAL, UNDECIDED, ABSENT) if kind in kinds
        )


def judge(claims: Sequence[Claim], panels: Mapping[str, Table]) -> list[Verdict]:
    """Return the verdict on every claim; ``panels``: tables by setting.

    A claim holds if all of its hypotheses hold, and fails if one of them fails.
    """
    measured = [[one for contrast in claim.contrasts for one in measure(contrast, panels)] for claim in claims]
    return [decide(claim, findings) for claim, findings in zip(claims, measured, strict=True)]


def decide(claim: Claim, findings: Sequence[Finding]) -> Verdict:
    """Return the verdict on a claim from the estimates of its comparisons, corrected for their number."""
    tested = [one for one in findings if one.estimate.low is not None]
    p_values = [t_test(one.estimate.values, one.contrast.bound) for one in tested]
    corrected = iter(zip(holm_levels(p_values), holm_adjusted(p_values), strict=True))
    decided = []
    for one in findings:
        if one.estimate.low is None:
            decided.append(_undecided(one))
            continue
        level, p = next(corrected)
        decided.append(_decided(replace(one, confidence=1 - level, p=p, corrected=one.estimate.at(1 - level))))
    kinds = {one.verdict for one in decided}
    if FAILED in kinds:
        return Verdict(claim, decided, FAILED)
    return Verdict(claim, decided, kinds.pop() if len(kinds) == 1 else UNDECIDED)


def power_note(seeds: int, claims: Sequence[Claim], settings: int) -> str:
    """Return what a study with ``seeds`` runs per method can find, in words, before its runs are made."""
    if seeds < 2:
        return "power: one seed decides no claim; intervals need --seeds 2 or more"
    most = max((_comparisons(claim, settings) for claim in claims), default=1)
    alone, corrected = (detectable(seeds, alpha=(1 - CONFIDENCE) / m, power=POWER) for m in (1, most))
    text = (
        f"power: with n = {seeds}, a single comparison finds a difference of {alone:.2g} standard deviations (of the "
        f"paired differences) with probability {POWER:g}"
    )
    return text + (f"; one of {most} comparisons of a claim, {corrected:.2g}" if most > 1 else "")


def _comparisons(claim: Claim, settings: int) -> int:
    return sum(settings if EVERY in {t.setting for t in contrast.terms} else 1 for contrast in claim.contrasts)


def measure(contrast: Hypothesis, panels: Mapping[str, Table]) -> list[Finding]:
    """Return one estimate, without a verdict, for each setting that the hypothesis is about."""
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
            return Finding(contrast, here, Estimate.of([]), ABSENT, NO_SETTING)
        column = panel.column(term.number)
        values = {} if column is None else column.of(term.method)
        if not values:
            failures = panel.failures(term.method)
            why = f"{term.method} has no {term.number}" + (f" ({failures})" if failures else "")
            return Finding(contrast, here, Estimate.of([]), ABSENT, why)
        by_seed.append((term.factor, values))
        if failures := panel.failures(term.method):
            lost[f"{place} {term.method}".strip()] = failures
    seeds = sorted(set.intersection(*(set(values) for _, values in by_seed)))
    estimate = Estimate.of(
        [_sum([factor * values[seed] for factor, values in by_seed], contrast.bound) for seed in seeds]
    )
    without = ", ".join(f"{failures} of {name}" for name, failures in lost.items())
    return Finding(contrast, here, estimate, without=without)


def _sum(parts: Sequence[float], bound: float) -> float:
    """Return the sum; ``bound`` if it differs from that by rounding only, which is no evidence for either side."""
    total, size = math.fsum(parts) if all(map(math.isfinite, parts)) else sum(parts), sum(map(abs, parts))
    return bound if math.isfinite(total) and abs(total - bound) <= 1e-12 * (size + abs(bound)) else total


def _undecided(finding: Finding) -> Finding:
    """Give the reason why a comparison without an interval decides nothing."""
    if finding.why:
        return finding
    if finding.estimate.n == 0:
        return replace(finding, why="no common seed")
    why = "n = 1, no interval" if finding.estimate.n == 1 else "not all values are finite"
    return replace(finding, verdict=UNDECIDED, why=why)


def _decided(finding: Finding) -> Finding:
    """Decide by the side of the bound that the corrected interval is on, and otherwise by the margin."""
    contrast, interval = finding.contrast, finding.corrected
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    if interval.low <= contrast.bound <= interval.high:
        # two one-sided tests (Schuirmann 1987): equivalence at level a needs the interval at confidence 1 - 2a
        inner = finding.estimate.at(1 - 2 * (1 - finding.confidence))
        assert inner.low is not None
        assert inner.high is not None
        margin = contrast.margin
        if margin is not None and max(contrast.bound - inner.low, inner.high - contrast.bound) <= margin:
            return replace(finding, verdict=EQUAL, why=f"it is not larger than {format_number(margin)}")
        return replace(finding, verdict=UNDECIDED, why=f"the interval contains {format_number(contrast.bound)}")
    below = interval.high < contrast.bound
    return replace(finding, verdict=HELD if below == (contrast.expected == "below") else FAILED)
