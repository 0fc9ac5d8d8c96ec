"""What is measured of a run, and when two numbers may share a column: where their protocols agree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["", "lower", "higher"]
# Of a run or of the day, not of how the number is defined: who was measured, with which random draws, when, by which
# version and on what device, and how long it took. The reports tell machines and versions apart from the table.
VERSIONS = ("orthogan", "torch", "torch-fidelity")
CIRCUMSTANCES = ("subject", "step", "images", "seed", "seconds", "date", "device", *VERSIONS)


@dataclass(frozen=True)
class Value:
    """A measured number of one run; NaN or infinite where there is none.

    ``better``: which way is good, where one is. ``protocol``: what it depends on, as of ``MetricResult``; numbers of
    unlike protocols are never in one column. ``place``: of numbers that mean nothing elsewhere (seconds, memory), the
    machine.
    """

    value: float
    better: Better = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasureResult:
    """What a measure found: numbers and curves [(images seen by the net, value), …] by name, pictures in the run."""

    numbers: Mapping[str, Value] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    pictures: Sequence[str] = ()


def standing(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a protocol that must agree."""
    return {key: value for key, value in protocol.items() if key not in CIRCUMSTANCES}


def differing(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which the protocols do not all agree, in order of appearance."""
    kept = [standing(protocol) for protocol in protocols]
    keys = dict.fromkeys(key for protocol in kept for key in protocol)
    return [key for key in keys if len({text(protocol.get(key)) for protocol in kept}) > 1]


def alike(protocols: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Of each protocol its values at ``keys``, as text: what tells one column from another."""
    return [tuple(text(protocol.get(key)) for key in keys) for protocol in protocols]


def text(value: Any) -> str:
    """A value in a form that compares: None where a protocol says nothing of the key."""
    if value is None:
        return "not said"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
