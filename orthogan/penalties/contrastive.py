"""The contrastive regularizer of InfoGAN-CR (Lin et al. 2020): which code do two images share?

A network of its own sees two images of G whose latents agree in one code and in the noise, and names that code. G helps
it, so that each code changes images in a way of its own (``loss.contrastive``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Self

from pydantic import Field, model_validator

from orthogan.config.base import BatchSize, Fraction, NotNegative, Positive, PositiveInt, Section, Width


class ContrastiveConfig(Section):
    """The config section ``loss.contrastive``."""

    weight: NotNegative = Field(
        default=0.0,
        description="InfoGAN-CR: coefficient of the contrastive loss of G; needs model.generator.codes; 0 = off; "
        "published: 2 (sprites), 3 (3D teapots), 1 (CelebA)",
    )
    start: Annotated[Fraction, Field(lt=1.0)] = Field(
        default=0.0, description="fraction of the run after which it begins, below 1; 0.893 as published for sprites"
    )
    gap: Annotated[float, Field(ge=0.0, lt=2.0)] = Field(
        default=0.0,
        description="progressive training: smallest difference of the codes that a pair does not share, at the start, "
        "in units of the codes (from -1 to 1); published: 0 (sprites), 1.9 (3D teapots)",
    )
    gap_until: Fraction = Field(default=1.0, description="fraction of the run after which the gap is 0 [0-1]")
    gap_steps: PositiveInt = Field(
        default=1,
        description="number of equal steps in which the gap falls to 0; the classifier of pairs is initialized again",
    )
    batch_size: BatchSize | None = Field(
        default=None, description="pairs per update, summed over processes; null = training.batch_size [pairs]"
    )
    channels: Width = Field(
        default=32, description="width of the first two convolutions of the classifier of pairs [feature maps]"
    )
    lr: Positive = Field(
        default=2e-3,
        description="learning rate of the classifier of pairs (Adam; betas and eps as for D if it has Adam)",
    )

    def unused(self) -> tuple[str, Collection[str]]:
        """Without a weight, the other keys have no effect."""
        return ("", ()) if self.weight else ("weight", set(type(self).model_fields) - {"weight"})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.gap and self.gap_until <= self.start:
            raise ValueError(f"gap_until: {self.gap_until} must be after start = {self.start}")
        return self

    def falls(self, share: float) -> int:
        """How often the gap has fallen at ``share`` of the run: 0 to ``gap_steps``."""
        if not self.gap:
            return 0
        passed = (share - self.start) / (self.gap_until - self.start)
        return min(self.gap_steps, max(0, int(passed * self.gap_steps + 1e-9)))

    def gap_at(self, share: float) -> float:
        """Return the gap at ``share`` of the run."""
        return self.gap * (1 - self.falls(share) / self.gap_steps)
