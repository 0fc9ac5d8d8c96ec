"""Scores of a generator over metric seeds, with controls and protocol, and the same over several generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from orthogan.disentanglement.score import Score
from orthogan.drawing.notebook import html_table
from orthogan.io.json_lines import jsonable
from orthogan.io.terminal import text_table
from orthogan.stats import t_interval
from orthogan.words import counted

TIME = "seconds"  # fact: how long a metric took


@dataclass(frozen=True)
class Interval:
    """The mean over ``runs`` and the bounds of its confidence interval.

    Example:
        >>> from orthogan.disentanglement import Interval
        >>> print(Interval("mig", 0.3, 0.2, 0.4, 0.95, 3))
        mig 0.3 ± 0.1 (95%, 3 runs)
    """

    name: str
    mean: float
    low: float
    high: float
    confidence: float
    runs: int

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        return f"{self.name} {self.mean:.4g} ± {half:.2g} ({self.confidence:.0%}, {self.runs} runs)"


def interval(results: Sequence[Score], *, detail: str | None = None, confidence: float = 0.95) -> Interval:
    """Compute Student's t interval over runs that differ in their seed (of the model, the metric or both).

    The interval assumes roughly normal scores; near 0 or 1 it may extend beyond them.

    Args:
        results: a score per run, at least two.
        detail: use this detail instead of the value, such as "completeness" of ``dci``.
        confidence: probability that the interval covers the mean, in (0, 1).

    Raises:
        ValueError: fewer than two results, different variants, a detail that is not a number, a non-finite number, or a
            confidence outside (0, 1).

    Example:
        >>> from orthogan.disentanglement import Score, interval
        >>> found = interval([Score("mig", "bins=20", value, seed) for seed, value in enumerate((0.2, 0.3, 0.4))])
        >>> print(found)
        mig[bins=20] 0.3 ± 0.25 (95%, 3 runs)
    """
    names = sorted({result.name for result in results})
    if len(names) > 1:
        raise ValueError(f"interval: cannot average results of different variants: {', '.join(names)}")
    name = " ".join([*names, *([detail] if detail else [])])
    return _interval(name, [_number(result, detail) for result in results], confidence)


def _interval(name: str, values: Sequence[float], confidence: float) -> Interval:
    return Interval(name, *t_interval(values, confidence), confidence, len(values))


def _number(result: Score, detail: str | None) -> float:
    if detail is None:
        return result.value
    found = result.details.get(detail)
    if not isinstance(found, int | float):
        numbers = [key for key, value in result.details.items() if isinstance(value, int | float)]
        raise ValueError(
            f"interval: detail={detail!r} is not a number in {result.name}; available: {', '.join(numbers) or 'none'}"
        )
    return float(found)


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (ddof 1) and confidence bounds over several seeds; None for one seed.

    Example:
        >>> from orthogan.disentanglement import Summary
        >>> Summary(0.3, 0.1, 0.05, 0.55, (0.2, 0.3, 0.4)).value
        0.3
    """

    value: float
    std: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...]

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        if self.std is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ± {self.std:.2g} [{self.low:.4g}, {self.high:.4g}]"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"value": self.value, "std": self.std, "low": self.low, "high": self.high, "values": list(self.values)}


def summary(scores: Sequence[Score], *, confidence: float = 0.95) -> Summary:
    """Return the mean of scores of one variant, and Student's t interval. Raises ValueError as ``interval``."""
    values = tuple(score.value for score in scores)
    if len(scores) < 2:
        return Summary(scores[0].value, None, None, None, values)
    found = interval(scores, confidence=confidence)
    return Summary(found.mean, float(np.std(values, ddof=1)), found.low, found.high, values)


@dataclass(frozen=True, eq=False, repr=False)
class GeneratorScore:
    """One metric of one generator; ``float(score)`` is its mean over seeds.

    ``metric``: the requested name, "mig" or "encoder:mig". ``variant``: every choice that affects the number.
    ``controls``: the same metric along other directions, by name. ``parts``: further numbers, means over seeds
    ("completeness" of dci). ``details``: arrays of the first seed. ``protocol``: what must be equal for two scores to
    be comparable. ``facts``: about this generator and this run: its hash, the confidence of the oracle, seconds.

    Example:
        >>> from orthogan.disentanglement import GeneratorScore, Summary
        >>> score = GeneratorScore("mig", "bins=20", Summary(0.3, 0.1, 0.05, 0.55, (0.2, 0.3, 0.4)))
        >>> float(score)
        0.3
    """

    metric: str
    variant: str
    score: Summary
    controls: dict[str, Summary] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.score.value

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return self.score.value

    @property
    def label(self) -> str:
        """``mig[bins=20,n=10000]``."""
        return f"{self.metric}[{self.variant}]"

    def __repr__(self) -> str:
        return f"<{self.one_line()}>"

    def _repr_html_(self) -> str:
        return GeneratorScores([self])._repr_html_()

    def one_line(self) -> str:
        """The score, its spread, its controls."""
        controls = [f"{name} {control}" for name, control in self.controls.items()]
        return ", ".join([f"{self.metric} {self.score}", *controls])

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; non-finite numbers become None."""
        plain = {
            "label": self.label,
            "metric": self.metric,
            **self.score.as_dict(),
            "controls": {name: control.as_dict() for name, control in self.controls.items()},
            "parts": self.parts,
            "details": self.details,
            "protocol": self.protocol,
            "facts": self.facts,
        }
        return jsonable(plain)


class GeneratorScores(list[GeneratorScore]):
    """A list of scores; in a notebook, it shows itself as a table."""

    def _repr_html_(self) -> str:
        controls = list(dict.fromkeys(name for result in self for name in result.controls))
        rows = [
            [result.metric, str(result.score), *(str(result.controls.get(name, "")) for name in controls)]
            for result in self
        ]
        details = [f"{result.variant}; {_words(result.protocol)}" for result in self]
        return html_table(rows, ["metric", "score", *controls], details=details)


def table(results: Sequence[GeneratorScore]) -> str:
    """Format results as text: the scores with their controls, then the protocols.

    Example:
        >>> from orthogan.disentanglement import GeneratorScore, Summary, table
        >>> score = GeneratorScore("mig", "bins=20", Summary(0.3, 0.1, 0.05, 0.55, (0.2, 0.3, 0.4)))
        >>> table([score]).splitlines()[0]
        'mig  0.3 ± 0.1 [0.05, 0.55]'
    """
    if not results:
        return ""
    rows = []
    for result in results:
        rows.append((result.metric, str(result.score)))
        rows += [(f"  {name}", str(control)) for name, control in result.controls.items()]
        rows += [(f"  {name}", f"{value:.4g}") for name, value in result.parts.items()]
    said: list[dict[str, Any]] = [jsonable({**result.protocol, **result.facts}) for result in results]
    shared = {n: v for n, v in said[0].items() if n != TIME and all(_has(other, n, v) for other in said)}
    notes = [(name, _words(value)) for name, value in shared.items()]
    for place, result in enumerate(results):
        own = {name: value for name, value in said[place].items() if name not in shared}
        # times are equal by chance only, so they do not make two metrics equal
        alike = [[n for n, v in own.items() if n != TIME and _has(earlier, n, v)] for earlier in said[:place]]
        most = max(range(place), key=lambda i: len(alike[i]), default=0)
        again = alike[most] if place and len(alike[most]) > 1 else []
        notes.append((result.metric, result.variant))
        notes += [(f"  {name}", _words(value)) for name, value in own.items() if name not in again]
        notes += [("  else", f"as {results[most].metric}")] if again else []
    return text_table([*rows, ("", ""), *notes], "ll")


@dataclass(frozen=True, eq=False)
class Across:
    """One metric over several generators: ``score`` over their means; ``gains``: paired differences to the controls.

    Example:
        >>> from orthogan.disentanglement import GeneratorScore, Summary, across
        >>> scores = [Summary(value, None, None, None, (value,)) for value in (0.2, 0.3, 0.4)]
        >>> (result,) = across([[GeneratorScore("mig", "bins=20", score)] for score in scores])
        >>> round(float(result), 3), result.score.runs
        (0.3, 3)
    """

    metric: str
    variant: str
    score: Interval
    controls: dict[str, Interval]
    gains: dict[str, Interval]
    protocol: dict[str, Any]

    def __float__(self) -> float:
        return self.score.mean

    def __str__(self) -> str:
        rows = [(self.metric, _bounds(self.score))]
        for name, control in self.controls.items():
            rows.append((f"  {name}", f"{_bounds(control)}, difference {_bounds(self.gains[name])}"))
        return text_table(rows, "ll")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        plain = {
            "metric": self.metric,
            "label": f"{self.metric}[{self.variant}]",
            **_plain(self.score),
            "controls": {name: _plain(found) for name, found in self.controls.items()},
            "gains": {name: _plain(found) for name, found in self.gains.items()},
            "protocol": self.protocol,
        }
        return jsonable(plain)


def across(runs: Sequence[Sequence[GeneratorScore]], *, confidence: float = 0.95) -> list[Across]:
    """Aggregate several generators (such as training seeds) with the same metrics: mean and t interval.

    Args:
        runs: the results of ``disentangle`` for each generator.
        confidence: probability that an interval covers the mean, in (0, 1).

    Raises:
        ValueError: fewer than two generators, or different metrics, variants or protocols.

    Example:
        >>> from orthogan.disentanglement import GeneratorScore, Summary, across
        >>> scores = [Summary(value, None, None, None, (value,)) for value in (0.2, 0.3, 0.4)]
        >>> (result,) = across([[GeneratorScore("mig", "bins=20", score)] for score in scores])
        >>> round(result.score.low, 2), round(result.score.high, 2)
        (0.05, 0.55)
    """
    if len(runs) < 2:
        raise ValueError(f"across: {counted(len(runs), 'generator')}: at least 2 are needed")
    found = []
    for place, first in enumerate(runs[0]):
        column = [run[place] if place < len(run) else None for run in runs]
        same = [result for result in column if result is not None and result.label == first.label]
        if len(same) < len(runs) or any(len(run) != len(runs[0]) for run in runs):
            raise ValueError(
                f"across: the generators have no common {first.label}: "
                + "; ".join(", ".join(result.label for result in run) for run in runs)
            )
        _check_protocols(same)
        controls = {
            name: _interval(f"{first.label} {name}", [result.controls[name].value for result in same], confidence)
            for name in first.controls
        }
        gains = {
            name: _interval(f"{first.label} less {name}", [r.value - r.controls[name].value for r in same], confidence)
            for name in first.controls
        }
        score = _interval(first.label, [result.value for result in same], confidence)
        found.append(Across(first.metric, first.variant, score, controls, gains, first.protocol))
    return found


def uniform(scores: Sequence[Score]) -> list[Score]:
    """Return the scores under the variant of the first one, ignoring row counts that are random."""
    return [replace(score, variant=scores[0].variant) for score in scores]


def _check_protocols(results: Sequence[GeneratorScore]) -> None:
    first = results[0]
    for number, other in enumerate(results[1:], 2):
        keys = [*first.protocol, *(key for key in other.protocol if key not in first.protocol)]
        for key in keys:
            mine, theirs = (jsonable(result.protocol.get(key)) for result in (first, other))
            if mine != theirs:
                raise ValueError(
                    f"across: {first.metric} of generators 1 and {number} differ in {key}: {mine} and {theirs}; "
                    "measure them with the same settings"
                )
        if set(first.controls) != set(other.controls):
            raise ValueError(f"across: {first.metric} of generators 1 and {number} have different controls")


def _plain(found: Interval) -> dict[str, Any]:
    return {"value": found.mean, "low": found.low, "high": found.high, "runs": found.runs}


def _bounds(found: Interval) -> str:
    return f"{found.mean:.4g} [{found.low:.4g}, {found.high:.4g}]"


def _has(entries: dict[str, Any], name: str, value: Any) -> bool:
    return name in entries and entries[name] == value


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
