"""Results and their confidence intervals over runs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from orthogan.disentanglement import Score, dci, interval, mig
from tests.fixtures import toy


def runs(*values: float, variant: str = "n=5") -> list[Score]:
    return [Score("mig", variant, value, seed, {"other": 2 * value}) for seed, value in enumerate(values)]


def test_bounds_are_those_of_students_t() -> None:
    values = [0.3, 0.5, 0.45, 0.41]
    for confidence in (0.5, 0.95, 0.999):
        found = interval(runs(*values), confidence=confidence)
        low, high = stats.t.interval(confidence, 3, np.mean(values), stats.sem(values))
        assert (float(found), found.low, found.high) == pytest.approx((np.mean(values), low, high))
        assert (found.runs, found.name) == (4, "mig[n=5]")
    assert str(interval(runs(0.4, 0.6))) == "mig[n=5] 0.5 ± 1.3 (95%, 2 runs)"


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        found = interval(runs(*rng.standard_normal(3)), confidence=0.8)
        inside += found.low < 0 < found.high
    assert inside / 2000 == pytest.approx(0.8, abs=0.03)


def test_a_number_of_the_details_has_an_interval_too() -> None:
    found = interval(runs(0.2, 0.4), detail="other")
    assert float(found) == pytest.approx(0.6)
    assert found.name == "mig[n=5] other"
    x, y = toy.noisy(100, (3, 4), 3, 0.1, 0)
    forests = [dci(x, y, classifier="random_forest", estimators=2, seed=seed) for seed in (0, 1)]
    assert 0 < float(interval(forests, detail="completeness")) < 1


def test_what_has_no_mean_is_refused() -> None:
    for results, options, text in (
        (runs(0.5), {}, "1 result; at least 2"),
        (runs(0.5) + runs(0.6, variant="n=6"), {}, r"different variants: mig\[n=5\], mig\[n=6\]"),
        (runs(0.5, math.nan), {}, "value of run 1 is not finite"),
        (runs(0.5, 0.6), {"confidence": 1.0}, "confidence=1.0"),
        (runs(0.5, 0.6), {"detail": "gaps"}, "detail='gaps' is not a number .* available: other"),
    ):
        with pytest.raises(ValueError, match=text):
            interval(results, **options)


def test_a_score_is_a_number_a_name_and_json() -> None:
    x, y = toy.noisy(600, (3, 4), 3, 0.1, 0)
    score = mig(x, y, seed=4)
    read = json.loads(json.dumps(score.as_dict()))
    assert read["name"] == score.name == "mig[bins=20,n=600]"
    assert read["value"] == float(score) == score.value
    assert read["seed"] == 4
    np.testing.assert_allclose(read["details"]["mutual_information"], score.details["mutual_information"])
