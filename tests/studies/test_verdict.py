"""Claims against numbers: held, did not hold, undecided; each finding carries n and interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orthogan.stats import detectable
from orthogan.studies.study import Claim, Hypothesis, Term, higher, lower, under
from orthogan.studies.table import Entry, Table
from orthogan.studies.verdict import ABSENT, EQUAL, FAILED, HELD, NO_SETTING, UNDECIDED, Finding, judge, power_note
from tests.fixtures.tables import entry, table

BASE = {0: 10.0, 1: 11.0, 2: 12.0}


def of(**rows: dict[int, float]) -> Table:
    return table([entry(row, seed, value) for row, values in rows.items() for seed, value in values.items()])


def shifted(by: float, noise: float = 0.01) -> dict[int, float]:
    return {seed: value + by + noise * (seed - 1) for seed, value in BASE.items()}


def judge_hypotheses(contrast: Hypothesis, panels: dict[str, Table]) -> Sequence[Finding]:
    return judge([Claim("x", "y", (contrast,))], panels)[0].findings


def verdict_of(contrast: Hypothesis, found: Table) -> str:
    return judge_hypotheses(contrast, {"": found})[0].verdict


@pytest.mark.parametrize(
    ("by", "noise", "expected"),
    [(-1.0, 0.01, HELD), (1.0, 0.01, FAILED), (-1.0, 5.0, UNDECIDED), (0.0, 0.0, UNDECIDED)],
)
def test_lower_by_the_side_of_the_interval(by: float, noise: float, expected: str) -> None:
    found = of(base=BASE, new=shifted(by, noise))
    assert verdict_of(lower("error", "new", "base"), found) == expected
    turned = {HELD: FAILED, FAILED: HELD}.get(expected, expected)
    assert verdict_of(higher("error", "new", "base"), found) == turned


def test_a_finding_says_mean_n_interval_and_why_it_is_undecided() -> None:
    finding = judge_hypotheses(lower("error", "new", "base"), {"": of(base=BASE, new=shifted(-1.0, 5.0))})[0]
    assert "undecided: the interval contains 0 (mean -1, n = 3, 95 % interval [" in str(finding)
    assert "corrected" not in str(finding)
    assert finding.detectable == pytest.approx(5.0 * detectable(3))  # the standard deviation is 5


def test_one_seed_decides_nothing() -> None:
    finding = judge_hypotheses(lower("error", "new", "base"), {"": of(base={0: 10.0}, new={0: 1.0})})[0]
    assert (finding.verdict, finding.why) == (UNDECIDED, "n = 1, no interval")


def test_the_pairing_finds_what_the_spread_over_seeds_hides() -> None:
    wild = {0: 0.0, 1: 100.0, 2: 50.0}
    found = of(base=wild, new={seed: value - 1.0 + 0.01 * seed for seed, value in wild.items()})
    assert verdict_of(lower("error", "new", "base"), found) == HELD


def test_a_bound_other_than_zero() -> None:
    found = of(base={0: 0.001, 1: 0.0012, 2: 0.0011})
    assert verdict_of(under("error", "base", 0.01), found) == HELD
    assert verdict_of(under("error", "base", 0.0001), found) == FAILED


def test_a_difference_of_rounding_is_no_evidence() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 for every seed, without any spread
    found = of(a=dict.fromkeys(range(3), 0.1), b=dict.fromkeys(range(3), 0.2), c=dict.fromkeys(range(3), 0.3))
    terms = (Term("error", "a", 1.0), Term("error", "b", 1.0), Term("error", "c", -1.0))
    (finding,) = judge_hypotheses(Hypothesis("x", terms, "above"), {"": found})
    assert (finding.verdict, finding.p) == (UNDECIDED, 1.0)
    assert verdict_of(under("error", "a", 0.1), found) == UNDECIDED


def test_a_sum_over_two_settings() -> None:
    panels = {"shallow": of(base=BASE, new=shifted(-2.0)), "deep": of(base=BASE, new=shifted(-0.5))}
    terms = (
        Term("error", "new", 1.0, "shallow"),
        Term("error", "base", -1.0, "shallow"),
        Term("error", "new", -1.0, "deep"),
        Term("error", "base", 1.0, "deep"),
    )
    finding = judge_hypotheses(Hypothesis("gain", terms, "below"), panels)[0]
    assert finding.estimate.mean == pytest.approx(-1.5)
    assert finding.verdict == HELD


def test_a_contrast_about_every_setting_is_tested_in_each() -> None:
    panels = {"a": of(base=BASE, new=shifted(-1.0)), "b": of(base=BASE, new=shifted(1.0))}
    findings = judge_hypotheses(lower("error", "new", "base"), panels)
    assert [(f.setting, f.verdict) for f in findings] == [("a", HELD), ("b", FAILED)]


def test_a_contrast_says_in_which_setting_it_is_tested() -> None:
    panels = {"a": of(base=BASE, new=shifted(-1.0)), "b": of(base=BASE, new=shifted(1.0))}
    findings = judge_hypotheses(lower("error", "new", "base", "b"), panels)
    assert [(f.setting, f.verdict) for f in findings] == [("b", FAILED)]
    assert str(findings[0]).startswith("error: new less base, below 0 (b): did not hold here")


def test_a_setting_that_the_scale_lacks_and_a_method_without_numbers_are_not_tested() -> None:
    diverged = Entry("new", 0, Path("x"), "diverged", "nan")
    found = table([entry("base", 0, 1.0), diverged])
    finding = judge_hypotheses(lower("error", "new", "base"), {"": found})[0]
    assert (finding.verdict, finding.why) == (ABSENT, "new has no error (1 diverged)")
    absent = judge_hypotheses(lower("error", "new", "base", "deep"), {"": found})[0]
    assert (absent.verdict, absent.why) == (ABSENT, NO_SETTING)


def test_what_failed_is_named_beside_a_finding() -> None:
    entries = [entry(row, seed, value) for row in ("base", "new") for seed, value in BASE.items()]
    found = table([*entries, Entry("new", 3, Path("x"), "diverged", "nan")])
    assert "without 1 diverged of new" in str(judge_hypotheses(lower("error", "new", "base"), {"": found})[0])


def test_a_claim_holds_where_all_its_contrasts_do() -> None:
    found = {"": of(base=BASE, good=shifted(-1.0), bad=shifted(1.0), open=shifted(0.1, 5.0))}
    cases = {
        ("good",): HELD,
        ("good", "bad"): FAILED,
        ("good", "open"): UNDECIDED,
        ("bad", "open"): FAILED,
        ("good", "none"): UNDECIDED,
        ("none",): ABSENT,
    }
    for methods, expected in cases.items():
        claim = Claim("x", "y", tuple(lower("error", method, "base") for method in methods))
        assert judge([claim], found)[0].verdict == expected, methods
    both = judge([Claim("x", "y", (lower("error", "good", "base"), lower("error", "bad", "base")))], found)[0]
    assert both.counts() == "1 held here, 1 did not hold here"


def test_the_comparisons_of_a_claim_are_corrected_for_their_number() -> None:
    # a t statistic of 2 * sqrt(3) * 5 / sqrt(3) = 10 has p = 0.0099, below 0.05 and above 0.05 / 6
    found = {"": of(base=BASE, near=shifted(-1.0, 0.1 * 3**0.5), off=shifted(0.0, 1.0))}
    near = lower("error", "near", "base")
    alone = judge([Claim("x", "y", (near,))], found)[0].findings[0]
    assert alone.verdict == HELD
    assert alone.p == pytest.approx(0.0099, abs=1e-4)
    many = judge([Claim("x", "y", (near, *[lower("error", "off", "base")] * 5))], found)[0]
    first = many.findings[0]
    assert first.verdict == UNDECIDED
    assert first.p == pytest.approx(6 * alone.p)
    assert first.confidence == pytest.approx(1 - 0.05 / 6)
    assert first.corrected is not None
    assert first.corrected.high is not None
    assert first.corrected.high > 0 > (first.estimate.high or 0)
    assert ", corrected [" in str(first)
    assert many.verdict == UNDECIDED


def test_a_small_difference_is_no_difference_where_the_margin_allows_it() -> None:
    found = of(base=BASE, new=shifted(0.0, 0.1))
    assert verdict_of(lower("error", "new", "base"), found) == UNDECIDED
    finding = judge_hypotheses(lower("error", "new", "base", margin=0.5), {"": found})[0]
    assert finding.verdict == EQUAL
    assert "no difference here: it is not larger than 0.5" in str(finding)
    assert verdict_of(lower("error", "new", "base", margin=0.15), found) == UNDECIDED  # 0.1686 is not excluded


def test_equivalence_is_two_one_sided_tests() -> None:
    # the 90 % interval of differences -0.1, 0, 0.1 is 0 +- 2.92 * 0.1 / sqrt(3)
    found = of(base=BASE, new=shifted(0.0, 0.1))
    reach = 2.919986 * 0.1 / 3**0.5
    assert verdict_of(lower("error", "new", "base", margin=reach * 1.001), found) == EQUAL
    assert verdict_of(lower("error", "new", "base", margin=reach * 0.999), found) == UNDECIDED


def test_the_power_is_said_beforehand() -> None:
    claim = Claim("x", "y", (lower("error", "new", "base"), lower("error", "other", "base", "a")))
    text = power_note(5, [claim], settings=2)
    assert f"difference of {detectable(5):.2g} standard deviations" in text
    assert f"one of 3 comparisons of a claim, {detectable(5, alpha=0.05 / 3):.2g}" in text
    assert "one seed decides no claim" in power_note(1, [claim], settings=2)
