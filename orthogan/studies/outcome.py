"""What became of a cell: ``measures.json`` in its folder, written whole, and ``sittings.jsonl``, a line a sitting."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orthogan.disentanglement.result import jsonable
from orthogan.errors import UserError
from orthogan.io.write import append_json, write_text
from orthogan.studies.study import Found, Number
from orthogan.training.resume import read_records

FILE = "measures.json"
SITTINGS = "sittings.jsonl"
Status = Literal["done", "diverged", "error"]


@dataclass(frozen=True)
class Outcome:
    """A cell that was run.

    ``status``: "diverged" is a result and stands; "error" is none, and the next time the cell is tried again.
    ``definition``: of the config; ``config``: the whole of it. ``found``: by the measure's identity.
    """

    status: Status
    definition: str
    config: Mapping[str, Any]
    reason: str = ""
    found: Mapping[str, Found] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Number]:
        """Of all measures."""
        return {name: number for found in self.found.values() for name, number in found.numbers.items()}

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Of all measures."""
        return {name: list(curve) for found in self.found.values() for name, curve in found.curves.items()}

    @property
    def pictures(self) -> list[str]:
        """Of all measures, as paths in the cell's folder."""
        return [path for found in self.found.values() for path in found.pictures]


def save(folder: Path, outcome: Outcome) -> None:
    """Write ``outcome`` into its cell's folder, on disk when this returns."""
    tree = {
        "status": outcome.status,
        "reason": outcome.reason,
        "definition": outcome.definition,
        "measures": {identity: _packed(found) for identity, found in outcome.found.items()},
        "config": dict(outcome.config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps(jsonable(tree), indent=1, allow_nan=False) + "\n")


def load(folder: Path) -> Outcome | None:
    """The outcome in ``folder``; None where the cell was not run to an end.

    Raises:
        UserError: the file is there and cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        found = {identity: _unpacked(part) for identity, part in tree["measures"].items()}
        return Outcome(tree["status"], tree["definition"], tree["config"], tree["reason"], found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what orthogan study wrote: {error!r}; move the folder away") from None


def sittings(folder: Path) -> list[dict[str, Any]]:
    """The facts of each time a process worked on the cell: machine, versions, seconds, memory."""
    path = folder / SITTINGS
    return read_records(path) if path.is_file() else []


def add_sitting(folder: Path, facts: Mapping[str, Any]) -> None:
    """One more line."""
    append_json(folder / SITTINGS, [jsonable(dict(facts))])


def _packed(found: Found) -> dict[str, Any]:
    return {
        "numbers": {
            name: {"value": float(n.value), "better": n.better, "protocol": dict(n.protocol), "place": dict(n.place)}
            for name, n in found.numbers.items()
        },
        "curves": {name: [[float(x), float(y)] for x, y in curve] for name, curve in found.curves.items()},
        "pictures": list(found.pictures),
    }


def _unpacked(part: Mapping[str, Any]) -> Found:
    return Found(
        {
            name: Number(_number(n["value"]), n["better"], n["protocol"], n["place"])
            for name, n in part["numbers"].items()
        },
        {name: [(_number(x), _number(y)) for x, y in curve] for name, curve in part["curves"].items()},
        part["pictures"],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
