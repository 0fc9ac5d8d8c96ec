"""A disentanglement score and the variant of its metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orthogan.drawing.notebook import html_table


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """A number and its details; ``float(score)`` is the number.

    ``metric``: "mig". ``variant``: every choice that affects the number, such as "bins=20,n=10000"; scores of different
    variants are not comparable. ``seed``: random seed of the metric; deterministic metrics only record it.
    ``details``: per-code (d,), per-factor (K,) and matrix (d, K) arrays, and numbers, by name.

    Example:
        >>> from orthogan.disentanglement import Score
        >>> score = Score("mig", "bins=20", 0.3, seed=0)
        >>> score.name, float(score)
        ('mig[bins=20]', 0.3)
    """

    metric: str
    variant: str
    value: float
    seed: int
    details: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"<{self.name} {self.value:.4g}>"

    def _repr_html_(self) -> str:
        numbers = {key: value for key, value in self.details.items() if isinstance(value, int | float)}
        return html_table(
            [(key, f"{value:.4g}") for key, value in ({self.name: self.value} | numbers).items()], ("score", "value")
        )

    @property
    def name(self) -> str:
        """``mig[bins=20,n=10000]``."""
        return f"{self.metric}[{self.variant}]"

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON, with arrays as lists."""
        details = {
            key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in self.details.items()
        }
        return {"name": self.name, "value": self.value, "seed": self.seed, "details": details}
