"""Which facts of a protocol must agree before two numbers may stand in one column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Of a run or of the day, not of how the number is defined: who was measured, with which random draws, when, by which
# version and on what device, and how long it took. The reports tell machines and versions apart from the table.
VERSIONS = ("orthogan", "torch", "torch-fidelity")
CIRCUMSTANCES = ("subject", "step", "images", "seed", "seconds", "date", "device", *VERSIONS)


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
