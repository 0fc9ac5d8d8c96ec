"""A measured number with everything it depends on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from orthogan import __version__
from orthogan.distributed import broadcast_json
from orthogan.drawing.notebook import html_table
from orthogan.evaluation.metric import known_metric
from orthogan.io.json_lines import jsonable
from orthogan.io.terminal import text_table
from orthogan.io.write import append_json

LENGTHS = ("ppl", "pipl", "path_length", "perturbation_length")  # not a registered metric; lower is better


@dataclass(frozen=True, repr=False)
class MetricResult:
    """The value of a metric, its spread if any, its parts (precision, recall), and the protocol.

    ``extractor``: the network or distance. ``variant``: for a metric without a single definition, every choice that
    affects the number. ``title`` and ``better`` ("lower", "higher", "none"): for a user's metric, so that its records
    can be read without importing it.

    Example:
        >>> from orthogan.evaluation import MetricResult, table
        >>> result = MetricResult("fid", 12.3, "efficientnet-lite0", protocol={"samples": 1000})
        >>> result.value, result.protocol["samples"]
        (12.3, 1000)
    """

    metric: str
    value: float
    extractor: str
    std: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    title: str = ""
    better: str = ""

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        about = [f"{self.protocol[key]} {key}" for key in ("samples", "reference") if key in self.protocol]
        spread = f" ± {self.std:.2g}" if self.std is not None else ""
        return f"<{', '.join([f'{self.label} {self.value:.5g}{spread}', *about])}>"

    def _repr_html_(self) -> str:
        return MetricResults([self])._repr_html_()

    @property
    def label(self) -> str:
        """``FID`` for Inception features, ``FD[efficientnet-lite0]`` and so on for others; ``metric[variant]``."""
        if metric := known_metric(self.metric):
            return metric.titled(self.extractor, self.variant)
        return self.title or (f"{self.metric}[{self.variant}]" if self.variant else self.metric)

    def is_better(self, other: float | None) -> bool:
        """Whether this value is better than ``other`` (None: there is none yet)."""
        if other is None:
            return True
        better = self.direction
        return self.value < other if better == "lower" else better == "higher" and self.value > other

    @property
    def direction(self) -> str:
        """Which values are better: "lower", "higher" or "none"."""
        metric, length = known_metric(self.metric), self.metric.endswith(LENGTHS)
        return metric.better if metric else self.better or ("lower" if length else "higher")

    def one_line(self) -> str:
        """Format value, spread, parts, and the essential part of the protocol."""
        text = f"{self.label} {self.value:.4g}" + (f" ± {self.std:.2g}" if self.std is not None else "")
        text += "".join(f", {name} {value:.3f}" for name, value in self.parts.items())
        step = f"step {self.protocol['step']}: " if "step" in self.protocol else ""
        return f"{step}{text} ({self.protocol['samples']} fakes, {self.protocol['reference']})"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        empty = [name for name in ("variant", "title", "better") if not getattr(self, name)]
        described = {name: value for name, value in asdict(self).items() if name not in empty}
        return jsonable({"label": self.label, **described})


class MetricResults(list[MetricResult]):
    """A list of results; in a notebook, it shows itself as a table.

    Example:
        >>> from orthogan.evaluation import MetricResult, MetricResults
        >>> MetricResults([MetricResult("fid", 12.5, "inception-v3-compat", {"samples": 50_000})])[0].value
        12.5
    """

    def _repr_html_(self) -> str:
        rows, details = [], []
        for result in self:
            about = [str(result.protocol.get(key, "")) for key in ("samples", "reference")]
            spread = f" ± {result.std:.2g}" if result.std is not None else ""
            rows.append([result.label, f"{result.value:.5g}{spread}", *about])
            rows += [[f"{result.label}: {name}", f"{value:.4f}", *about] for name, value in result.parts.items()]
            said = ", ".join(f"{name} {value}" for name, value in result.protocol.items())
            details += [said] * (1 + len(result.parts))
        return html_table(rows, ["score", "value", "samples", "reference"], details=details)


def made_by(info: Mapping[str, str] | None, began: float) -> dict[str, Any]:
    """Return the end of every protocol: versions, further facts, and the seconds since ``began`` (``time.monotonic``).

    All processes call this together; the clock of the first one counts.
    """
    seconds = broadcast_json(round(time.monotonic() - began, 1))
    return {"orthogan": __version__, "torch": torch.__version__, **(info or {}), "seconds": seconds}


class Described(Protocol):
    """A result that can be written as JSON."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        ...


def append_jsonl(path: str | Path, results: Sequence[Described]) -> None:
    """Append a line for each result to ``path`` and sync it to disk. Raises ``CannotWrite``.

    Example:
        >>> from pathlib import Path
        >>> from orthogan.evaluation import MetricResult, append_jsonl
        >>> append_jsonl("metrics.jsonl", [MetricResult("fid", 12.3, "efficientnet-lite0")])
        >>> len(Path("metrics.jsonl").read_text().splitlines())
        1
    """
    append_json(path, [result.as_dict() for result in results])


def table(results: Sequence[MetricResult]) -> str:
    """Format results as text, each above its protocol; results with the same protocol are grouped.

    Example:
        >>> from orthogan.evaluation import MetricResult, table
        >>> text = table([MetricResult("fid", 12.3, "efficientnet-lite0", protocol={"samples": 1000})])
        >>> text.splitlines()[0]
        'FD[efficientnet-lite0]  12.3'
    """
    groups: list[list[MetricResult]] = []
    for result in results:
        if groups and groups[-1][0].protocol == result.protocol:
            groups[-1].append(result)
        else:
            groups.append([result])
    return "\n\n".join(_block(group) for group in groups)


def _block(results: Sequence[MetricResult]) -> str:
    rows = []
    for result in results:
        spread = f" ± {result.std:.2g}" if result.std is not None else ""
        rows.append((result.label, f"{result.value:.5g}{spread}"))
        rows += [(f"  {name}", f"{value:.4f}") for name, value in result.parts.items()]
    protocol = [(name, str(value)) for name, value in results[0].protocol.items()]
    return text_table([*rows, ("", ""), *protocol], "ll")
