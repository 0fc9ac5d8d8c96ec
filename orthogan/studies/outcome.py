"""The outcome of a cell: ``measures.json`` in its folder, and ``sittings.jsonl`` with a line per session."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from orthogan.disentanglement.result import jsonable
from orthogan.io.hashing import json_sha256
from orthogan.io.read import describe_error, parse_json, printable, read_regular
from orthogan.io.weights import HASH, Damaged
from orthogan.io.write import append_json, disk_errors, write_text
from orthogan.studies.values import MeasureResult, Value
from orthogan.training.resume import read_records

FILE = "measures.json"
SITTINGS = "sittings.jsonl"
Status = Literal["done", "diverged", "error"]
FOUND = TypeAdapter(dict[str, MeasureResult])


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell.

    ``status``: "diverged" is a final result; after an "error" the cell is run again the next time.
    ``definition``: a hash of ``config``. ``found``: results by the identity of the measure.
    """

    status: Status
    definition: str
    config: Mapping[str, Any]
    reason: str = ""
    found: Mapping[str, MeasureResult] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Value]:
        """Return the numbers of all measures."""
        return {name: number for found in self.found.values() for name, number in found.numbers.items()}

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Return the curves of all measures."""
        return {name: list(curve) for found in self.found.values() for name, curve in found.curves.items()}

    @property
    def pictures(self) -> list[str]:
        """Return the pictures of all measures, as paths relative to the cell's folder."""
        return [path for found in self.found.values() for path in found.pictures]


def save(folder: Path, outcome: Outcome) -> None:
    """Write ``outcome`` with its hash to ``folder``, synced to disk. Raises ``CannotWrite``."""
    content = {
        "status": outcome.status,
        "reason": outcome.reason,
        "definition": outcome.definition,
        "measures": {identity: asdict(found) for identity, found in outcome.found.items()},
        "config": dict(outcome.config),
    }
    tree = json.loads(json.dumps(jsonable(content), allow_nan=False))
    write_text(folder / FILE, json.dumps({**tree, HASH: json_sha256(tree)}, indent=1) + "\n")


def load(folder: Path) -> Outcome | None:
    """Return the outcome in ``folder``; None if the cell has not finished.

    Raises:
        Damaged: the file was changed since it was written.
        UserError: it cannot be read.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return None
    content = read_regular(path)
    try:
        tree = dict(parse_json(content, FILE))
        if tree.pop(HASH, None) not in (None, json_sha256(tree)):  # early versions wrote none
            raise ValueError("its content does not match its hash")
        if tree["status"] not in get_args(Status):
            raise ValueError(f"status {tree['status']!r}")
        found = FOUND.validate_python(tree["measures"])
        return Outcome(tree["status"], tree["definition"], dict(tree["config"]), str(tree["reason"]), found)
    except Exception as error:  # a damaged tree can raise many kinds of error
        raise Damaged(f"{printable(path)}: damaged ({describe_error(error)})") from None


def recover(folder: Path) -> Outcome | None:
    """Load as ``load`` does, but rename a damaged file, warn on stderr, and count its cell as not measured."""
    try:
        return load(folder)
    except Damaged as damage:
        path = folder / FILE
        with disk_errors(path):
            path.replace(path.with_name(f"{FILE}.damaged"))
        print(f"orthogan: {damage}: renamed to {FILE}.damaged; the run is measured again", file=sys.stderr)
        return None


def sittings(folder: Path) -> list[dict[str, Any]]:
    """Return the facts of each session of work on the cell: machine, versions, seconds, memory."""
    path = folder / SITTINGS
    return read_records(path, _check_sitting) if os.path.lexists(path) else []


def add_sitting(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add a line for one session."""
    append_json(folder / SITTINGS, [jsonable(dict(facts))])


def _check_sitting(record: dict[str, Any]) -> None:
    for name in ("seconds", "peak memory [MiB]"):
        float(record.get(name, 0))
