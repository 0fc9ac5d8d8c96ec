"""Measured values of a run, and when two numbers can share a column: if their protocols agree."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

Better = Literal["", "lower", "higher"]
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # JSON has no NaN
# Keys of a protocol that do not define the number: subject, random seed, date, versions, device, duration. Reports
# list machines and versions beside the table.
VERSIONS = ("orthogan", "torch", "torch-fidelity")
CIRCUMSTANCES = ("subject", "step", "images", "seed", "seconds", "date", "device", *VERSIONS)


@dataclass(frozen=True)
class Value:
    """A measured number of one run; NaN or infinite if there is none.

    ``better``: which direction is better, if any. ``protocol``: what the number depends on, as in ``MetricResult``;
    numbers of different protocols are never in one column. ``place``: the machine, for seconds and memory.

    Example:
        >>> from orthogan.studies import Value
        >>> Value(12.5, better="lower", protocol={"samples": 10_000}).value
        12.5
    """

    value: Number
    better: Better = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasureResult:
    """The result of a measure: numbers and curves [(images seen, value), …] by name, and pictures in the run folder.

    Example:
        >>> from orthogan.studies import MeasureResult, Value
        >>> MeasureResult({"test error [%]": Value(12.5, "lower")}).numbers["test error [%]"].value
        12.5
    """

    numbers: Mapping[str, Value] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[Number, Number]]] = field(default_factory=dict)
    pictures: Sequence[str] = ()


def standing(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a protocol that must agree."""
    return {key: value for key, value in protocol.items() if key not in CIRCUMSTANCES}


def differing(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which the protocols do not all agree, in order of appearance."""
    kept = [standing(protocol) for protocol in protocols]
    keys = dict.fromkeys(key for protocol in kept for key in protocol)
    return [key for key in keys if len({text(protocol.get(key)) for protocol in kept}) > 1]


def alike(protocols: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the values of each protocol at ``keys``, as text."""
    return [tuple(text(protocol.get(key)) for key in keys) for protocol in protocols]


def text(value: Any) -> str:
    """Return a value as text that can be compared."""
    if value is None:
        return "not said"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
