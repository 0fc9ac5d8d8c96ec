"""A contact sheet: several seeds walked along the same directions, so that what a direction does shows in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.traverse import Traversal, walk_seeds
from orthogan.latent.walks import Walk


@dataclass(frozen=True)
class ContactSheet:
    """``traversals``: one for each of ``seeds``, with the same directions, offsets and unit in all of them."""

    seeds: Sequence[int]
    traversals: Sequence[Traversal]

    @property
    def metadata(self) -> dict[str, str]:
        """Provenance as texts: that of the traversals, with all "seeds" and "classes"."""
        about = [one.metadata for one in self.traversals]
        classes = [one["class"] for one in about]
        shared = {key: value for key, value in about[0].items() if key not in ("seed", "class")}
        alike = len(set(classes)) == 1
        return {**shared, "seeds": ",".join(map(str, self.seeds)), "class": classes[0] if alike else ",".join(classes)}

    def __len__(self) -> int:
        return len(self.traversals)


def contact_sheet(
    generator: nn.Module,
    directions: Directions,
    *,
    seeds: Sequence[int],
    dims: Literal["all"] | Sequence[int] = "all",
    range: float = 3.0,
    steps: int = 7,
    y: int | None = None,
    truncation: float = 1.0,
    centred: bool = False,
    walk: Walk = "line",
    control: int = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> ContactSheet:
    """``traverse`` for each of ``seeds``, with its arguments; the random control directions are the same for all.

    ``y``: one class for all seeds of a conditional generator; by default each seed has its own, as in ``traverse``.
    Raises ``UserError`` for no seeds, and as ``traverse``.
    """
    if not seeds:
        raise UserError("no seeds: a contact sheet needs at least one, such as 0-4")
    walked = walk_seeds(
        generator,
        directions,
        seeds,
        dims=dims,
        range=range,
        steps=steps,
        y=y,
        truncation=truncation,
        base="sample",
        centred=centred,
        walk=walk,
        control=control,
        batch_size=batch_size,
        device=device,
    )
    return ContactSheet(list(seeds), walked)
