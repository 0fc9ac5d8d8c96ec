"""What became of a cell: ``measures.json`` in its folder, written whole, and ``sittings.jsonl``, a line a sitting."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from orthogan.disentanglement.result import jsonable
from orthogan.io.hashing import json_sha256
from orthogan.io.read import describe_error, parse_json, printable, read_regular
from orthogan.io.weights import HASH, Damaged
from orthogan.io.write import append_json, disk_errors, write_text
from orthogan.studies.values import Better, MeasureResult, Value
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
    found: Mapping[str, MeasureResult] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Value]:
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
    """Write ``outcome`` with its hash into its cell's folder, on disk when this returns. Raises ``CannotWrite``."""
    content = {
        "status": outcome.status,
        "reason": outcome.reason,
        "definition": outcome.definition,
        "measures": {identity: _packed(found) for identity, found in outcome.found.items()},
        "config": dict(outcome.config),
    }
    tree = json.loads(json.dumps(jsonable(content), allow_nan=False))
    write_text(folder / FILE, json.dumps({**tree, HASH: json_sha256(tree)}, indent=1) + "\n")


def load(folder: Path) -> Outcome | None:
    """The outcome in ``folder``; None where the cell was not run to an end.

    Raises:
        Damaged: the file does not hold what was written.
        UserError: it cannot be read.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return None
    content = read_regular(path)
    try:
        tree = dict(parse_json(content, FILE))
        if tree.pop(HASH, None) not in (None, json_sha256(tree)):  # early versions wrote none
            raise ValueError("its content is not what its hash says")
        if tree["status"] not in get_args(Status):
            raise ValueError(f"status {tree['status']!r}")
        found = {identity: _unpacked(part) for identity, part in tree["measures"].items()}
        return Outcome(tree["status"], tree["definition"], dict(tree["config"]), str(tree["reason"]), found)
    except Exception as error:  # whatever a damaged tree leads to
        raise Damaged(f"{printable(path)}: damaged ({describe_error(error)})") from None


def recover(folder: Path) -> Outcome | None:
    """As ``load``, but a damaged file is renamed, which stderr tells, and its cell counts as not measured."""
    try:
        return load(folder)
    except Damaged as damage:
        path = folder / FILE
        with disk_errors(path):
            path.replace(path.with_name(f"{FILE}.damaged"))
        print(f"orthogan: {damage}: renamed to {FILE}.damaged; the run is measured again", file=sys.stderr)
        return None


def sittings(folder: Path) -> list[dict[str, Any]]:
    """The facts of each time a process worked on the cell: machine, versions, seconds, memory."""
    path = folder / SITTINGS
    return read_records(path, _check_sitting) if os.path.lexists(path) else []


def add_sitting(folder: Path, facts: Mapping[str, Any]) -> None:
    """One more line."""
    append_json(folder / SITTINGS, [jsonable(dict(facts))])


def _check_sitting(record: dict[str, Any]) -> None:
    for name in ("seconds", "peak memory [MiB]"):
        float(record.get(name, 0))


def _packed(found: MeasureResult) -> dict[str, Any]:
    return {
        "numbers": {
            name: {"value": float(n.value), "better": n.better, "protocol": dict(n.protocol), "place": dict(n.place)}
            for name, n in found.numbers.items()
        },
        "curves": {name: [[float(x), float(y)] for x, y in curve] for name, curve in found.curves.items()},
        "pictures": list(found.pictures),
    }


def _unpacked(part: Mapping[str, Any]) -> MeasureResult:
    return MeasureResult(
        {
            name: Value(_number(n["value"]), _better(n["better"]), dict(n["protocol"]), dict(n["place"]))
            for name, n in part["numbers"].items()
        },
        {name: [(_number(x), _number(y)) for x, y in curve] for name, curve in part["curves"].items()},
        [str(path) for path in part["pictures"]],
    )


def _better(side: Any) -> Better:
    for known in get_args(Better):
        if known == side:
            return known
    raise ValueError(f"better: {side!r}")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
