"""What a case found, what all of them found together, and the table of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.child import ALLOWED, Child

KINDS = ("lost", "different", "tracebacks", "other")


@dataclass
class Findings:
    """The result of one case.

    ``tried``: kills, flips or inputs. ``counts``: how many faults of each kind: "lost" (a checkpoint, a log line, a
    TensorBoard point, a run that cannot be resumed), "different" (from the uninterrupted run), "tracebacks", and
    "other" (an exit code that is not promised, a hang, files or processes left behind). ``problems``: in words.
    """

    tried: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str, count: int = 1) -> None:
        """Note a fault."""
        assert kind in KINDS
        self.counts[kind] += count
        self.problems.append(f"{kind}: {text}")

    def ended(self, child: Child, what: str, allowed: Collection[int] = ALLOWED) -> bool:
        """Check how a child ended: in time, its code, and that it printed no traceback; returns whether all is well."""
        before, said = len(self.problems), child.said()
        last = [line[:300] for line in said.splitlines() if line.strip()][-1:]
        if child.late:
            self.add("other", f"{what}: did not end within {child.late:.0f} s: {last}")
        elif "Traceback (most recent call last)" in said:
            raised = re.findall(r"^[\w.]+(?:Error|Exception|Interrupt)\b.*", said, re.MULTILINE)
            self.add("tracebacks", f"{what}: {raised[-1][:300] if raised else last}")
        elif child.code not in allowed:
            lost = child.code in ALLOWED  # a promised code, but not one that is right here
            self.add("lost" if lost else "other", f"{what}: exit code {child.code}: {last}")
        return len(self.problems) == before


def store(path: Path, section: str, index: int, seconds: float, found: Findings) -> None:
    """Append the result of a case."""
    record = {"section": section, "index": index, "seconds": round(seconds, 2), **vars(found)}
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def stored(path: Path) -> list[dict]:
    """The results so far; a last line that a kill cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def table(records: Iterable[dict], sections: Iterable[str]) -> str:
    """A line per section as Markdown, and the sum of the faults."""
    head = ["", "cases", "tried", *KINDS]
    lines: list[list[object]] = [[*head], ["---", *["---:"] * (len(head) - 1)]]
    records = list(records)
    for section in sections:
        of = [record for record in records if record["section"] == section]
        counts = [sum(record["counts"].get(kind, 0) for record in of) for kind in KINDS]
        lines.append([section, len(of), sum(record["tried"] for record in of), *counts])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
