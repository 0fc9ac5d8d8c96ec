"""Pivotal tuning: the generator is trained a little further, so that fixed latents show the given pictures.

Roich et al. 2021, "Pivotal Tuning for Latent-based Editing of Real Images", arXiv:2106.05744.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from orthogan.arguments import checked
from orthogan.latent.invert.descent import Kept, descend
from orthogan.latent.invert.project import Against, Projection
from orthogan.latent.latents import Latents
from orthogan.models.generate import in_space, model_hash
from orthogan.models.modes import eval_mode, get_device
from orthogan.models.noise import replaced
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import derive
from orthogan.rng import generator as seeded


@checked
def tune(
    generator: nn.Module,
    projection: Projection,
    *,
    steps: int = 200,
    rate: float = 3e-4,
    against: Against | None = None,
    feature_weight: float = 1.0,
    locality: float = 1.0,
    batch_size: int = 8,
    seed: int = 0,
    kept: Path | None = None,
    progress: bool = True,
    stopped: Callable[[], str | None] = lambda: None,
) -> Generator:
    """Return a copy of the generator that shows the projected pictures better at their latents.

    All its parameters are trained with Adam on the loss of ``project``. ``locality`` times the same distance, between
    the images of the copy and of the original at latents between a picture's and random ones, keeps the rest of the
    model as it was (equation 4 of the paper, at a random place of the way instead of a fixed distance).

    Args:
        rate: learning rate; 3e-4 in the paper.
        batch_size: pictures per step.
        kept, stopped: as in ``project``.

    Raises:
        Stopped: the work was stopped; its state is in ``kept``.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import sample_images
        >>> from orthogan.latent.invert import tune
        >>> generator = orthogan.load("sprites-sngan")
        >>> picture = sample_images(generator, seeds=[3]).images
        >>> found = orthogan.project(generator, picture, steps=2, starts=1, candidates=8, progress=False)
        >>> tuned = tune(generator, found, steps=2, progress=False)
        >>> found.latents.images(tuned).shape
        (1, 1, 32, 32)
    """
    net = as_generator(generator)
    latents, place = projection.latents, get_device(net)
    tuned = copy.deepcopy(net).requires_grad_(True)
    targets = torch.from_numpy(projection.targets).float() / 127.5 - 1
    pixels, features = torch.from_numpy(projection.scales).float().T.to(place)
    prior = _Sampler(net, latents)

    def draw(which: Generator, indices: list[int], z: Tensor) -> Tensor:
        """Return images of latents z, which belong to the classes and noise maps of the pictures ``indices``."""
        found: list[Tensor] = [torch.empty(0)] * len(indices)
        for label in dict.fromkeys(latents.label(i) for i in indices):
            rows = [row for row, i in enumerate(indices) if latents.label(i) == label]
            seen = in_space(which, latents.space, y=None if latents.space == "z" else label)
            maps = {
                name: torch.from_numpy(one[[indices[row] for row in rows]]).to(place)
                for name, one in latents.noise.items()
            }
            y = None if label is None or not seen.num_classes else torch.full((len(rows),), label, device=place)
            with replaced(which, maps):
                images = seen(z[rows].to(place)) if y is None else seen(z[rows].to(place), y)
            for row, image in zip(rows, images.float(), strict=True):
                found[row] = image
        return torch.stack(found)

    def likeness(images: Tensor, indices: list[int]) -> Tensor:
        goals = targets[indices].to(place)
        found = (images - goals).square().flatten(1).mean(1) / pixels[indices]
        return found if against is None else found + feature_weight * against(goals)(images) / features[indices]

    each = min(batch_size, len(latents))

    def loss(step: int) -> Tensor:
        indices = [(step * each + row) % len(latents) for row in range(each)]
        pivots = torch.from_numpy(latents.matrix[indices])
        value = likeness(draw(tuned, indices, pivots), indices).mean()
        if not locality:
            return value
        share = torch.rand(each, 1, generator=seeded("cpu", seed, "locality", step))
        others = torch.lerp(pivots, prior.sample(indices, derive(seed, "locality latents", step)), share)
        with torch.no_grad():
            before = draw(net, indices, others)
        moved = (draw(tuned, indices, others) - before).square().flatten(1).mean(1) / pixels[indices]
        return value + locality * moved.mean()

    state = Kept(
        kept,
        {
            "tune": [steps, rate, feature_weight if against else 0, locality, each, seed],
            "latents": {**latents.protocol, "matrix": latents.matrix.tobytes().hex()},
            "model_hash": model_hash(net),
        },
    )
    with eval_mode(tuned), eval_mode(net):
        descend(
            {name: one for name, one in tuned.named_parameters() if one.requires_grad},
            loss,
            steps=steps,
            rate=rate,
            part="tuning",
            kept=state,
            what="tuning",
            progress=progress,
            stopped=stopped,
        )
    return tuned.requires_grad_(False).eval()


class _Sampler:
    """Draws latents of the prior of the space, for the class of each picture."""

    def __init__(self, net: Generator, latents: Latents) -> None:
        self.net, self.latents = net, latents

    def sample(self, indices: list[int], seed: int) -> Tensor:
        rows = []
        for place, index in enumerate(indices):
            label = None if self.latents.space == "z" else self.latents.label(index)
            seen = in_space(self.net, self.latents.space, y=label)
            rows.append(seen.sample_latent(1, seed=derive(seed, place)).cpu())
        return torch.cat(rows)
