"""Projection of pictures: the latents whose images are nearest to given pictures, found by gradient descent.

As in the projector of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, appendix D), with noise on the latents that
decays and regularized noise maps; for any generator, from several starts, and with a penalty outside of the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan import __version__
from orthogan.arguments import checked
from orthogan.drawing.grid import as_pixels
from orthogan.errors import UserError
from orthogan.io.hashing import tensors_sha256
from orthogan.latent.discovery.response import GeneratorFunction, trace_generator
from orthogan.latent.invert.descent import Kept, descend
from orthogan.latent.invert.prior import Prior, find_prior
from orthogan.latent.latents import Latents
from orthogan.models.generate import check_has_classes, image_size, in_space, list_spaces, model_hash
from orthogan.models.noise import noise_maps, replaced
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import derive
from orthogan.rng import generator as seeded
from orthogan.size import sides, size_in_words

# targets (n, c, h, w) in [-1, 1] -> a function of images (n, c, h, w): their distances (n,) from the targets
Against = Callable[[Tensor], Callable[[Tensor], Tensor]]
SHORTLIST = 16  # candidates that are compared by their features too; and fakes that give the scale of a distance
JITTER, CALM = 0.05, 0.5  # noise on the latents, of the prior's scale; share of the steps after which it is gone
NOISE_WEIGHT = 0.02  # of the autocorrelation of each noise map, where white noise has 1
SMALLEST_MAP = 8


@dataclass(frozen=True)
class Projection:
    """Projected pictures.

    Attributes:
        latents: one per picture. Their scores: "error" is the root mean square difference of pixels [gray levels of
            255], "features" the distance of features (if there are any), "fakes" the mean error of 16 random images of
            the model, "nearest" the smallest error of all candidates, "distance" the distance from the mean of the
            prior in its standard deviations (about 1 for the prior's own latents), and "farther" the share of the prior
            that is at least as far.
        targets: the pictures, uint8 (n, c, h, w).
        images: their reconstructions, uint8 (n, c, h, w).
        scales: (n, 2), the mean squared difference of pixels in [-1, 1] and the mean distance of features between a
            picture and random fakes.
    """

    latents: Latents
    targets: np.ndarray
    images: np.ndarray
    scales: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """What the model does not show: |picture - reconstruction|, uint8 (n, c, h, w)."""
        return np.abs(self.targets.astype(np.int16) - self.images).astype(np.uint8)


@checked
def project(
    generator: nn.Module,
    pictures: np.ndarray,
    *,
    space: str | None = None,
    labels: Sequence[int | None] | None = None,
    names: Sequence[str] = (),
    steps: int = 400,
    starts: int = 4,
    candidates: int = 256,
    rate: float = 0.1,
    against: Against | None = None,
    feature_weight: float = 1.0,
    prior_weight: float = 1.0,
    noise: bool = False,
    guess: Callable[[np.ndarray, str, int | None], Tensor] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    kept: Path | None = None,
    protocol: Mapping[str, str] | None = None,
    progress: bool = True,
    after: Callable[[int], None] | None = None,
    stopped: Callable[[], str | None] = lambda: None,
) -> Projection:
    """Find the latents of ``pictures``, uint8 (n, c, h, w) of the size of the generator's images.

    Each picture starts from the ``starts`` nearest of ``candidates`` images of the model (and from ``guess``). After a
    quarter of the steps, the best of them goes on. The loss is the mean squared difference of pixels, plus
    ``feature_weight`` times the distance ``against`` the picture; both are divided by their mean over random images of
    the model, so that 1 is as bad as chance. ``prior_weight`` times a penalty applies to latents that are less usual
    than 99 % of the prior (see ``orthogan.latent.invert.prior``).

    Args:
        space: one of ``list_spaces(generator)``; w if there is one, else z.
        labels: classes of the pictures; None, for all or for one: the class of the nearest candidate.
        names: of the pictures, for the file.
        steps: of Adam.
        rate: learning rate, in standard deviations of the prior.
        noise: also fit the generator's noise maps, whose autocorrelation is penalized.
        guess: (pictures, space, class) -> latents (n, latent_dim) to start from as well, such as an encoder's.
        batch_size: images in a step, over all pictures and starts.
        kept: a file for the state of the work, from which the same call continues after an interruption. It stays
            there when the work is done.
        protocol: further facts for the file.
        after: called after each step with the number of steps done, over all pictures.
        stopped: see ``descend``.

    Raises:
        UserError: unknown space or class, or pictures of another size.
        Stopped: the work was stopped; its state is in ``kept``.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import sample_images
        >>> generator = orthogan.load("sprites-sngan")
        >>> picture = sample_images(generator, seeds=[3]).images
        >>> found = orthogan.project(generator, picture, steps=2, starts=1, candidates=8, progress=False)
        >>> found.latents.matrix.shape, found.images.shape
        ((1, 16), (1, 1, 32, 32))
    """
    net = as_generator(generator)
    space = space or ("w" if "w" in list_spaces(net) else "z")
    _check_pictures(pictures, net)
    for name, value, least in (("steps", steps, 1), ("starts", starts, 1), ("candidates", candidates, starts)):
        if value < least:
            raise UserError(f"{name}={value}: must be at least {least}")
    if noise and not noise_maps(net):
        raise UserError("noise: this generator has no noise maps to fit; omit it")
    given = list(labels) if labels is not None else [None] * len(pictures)
    about = {
        "software": f"orthogan {__version__}",
        "model_hash": model_hash(net),
        "pictures": tensors_sha256({"pictures": torch.from_numpy(np.ascontiguousarray(pictures))}),
        "labels": ",".join(map(str, given)),
        "space": space,
        "steps": str(steps),
        "starts": str(starts),
        "candidates": str(candidates),
        "rate": f"{rate:g}",
        "feature_weight": f"{feature_weight if against else 0:g}",
        "prior_weight": f"{prior_weight:g}",
        "noise": str(noise).lower(),
        "seed": str(seed),
        **(protocol or {}),
    }
    work = _Work(net, space, against, feature_weight, prior_weight, seed, batch_size, candidates)
    state = Kept(kept, {**about, "batch_size": batch_size})
    targets = torch.from_numpy(pictures)
    classes = work.classes(targets, given)
    matrix: dict[int, Tensor] = {}
    maps: dict[int, dict[str, Tensor]] = {}
    scores: dict[int, dict[str, float]] = {}
    images: dict[int, np.ndarray] = {}
    scales: dict[int, np.ndarray] = {}
    rows = starts + (guess is not None)
    explore = steps // 4 if rows > 1 else 0
    each = max(1, batch_size // rows)
    groups = [[i for i, label in enumerate(classes) if label == one] for one in dict.fromkeys(classes)]
    chunks = [group[at : at + each] for group in groups for at in range(0, len(group), each)]
    for number, chunk in enumerate(chunks):
        label = classes[chunk[0]]
        what = "projecting" if len(chunks) == 1 else f"projecting, part {number + 1} of {len(chunks)}"

        def told(step: int, before: int = number * steps) -> None:
            if after is not None:
                after(before + step + 1)

        with work.seen(label) as task:
            goal = task.goal(targets[chunk])
            run = {"rate": rate, "kept": state, "progress": progress, "stopped": stopped}
            first, last = f"part {number}, all starts", f"part {number}"
            if first in state.parts or last in state.parts:
                begin = torch.zeros(len(chunk), rows, task.net.latent_dim)
            else:
                begin = task.begin(goal, starts)
                if guess is not None:
                    begin = torch.cat([guess(pictures[chunk], space, label)[:, None].to(begin), begin], 1)
            maps_now = {
                name: one.expand(len(chunk), -1, -1, -1) for name, one in (noise_maps(net) if noise else {}).items()
            }
            if explore:
                found = task.descend(
                    goal, begin, maps_now, steps=explore, part=first, what=f"{what}: all starts", after=told, **run
                )
                begin, maps_now = found.latents[:, None], found.maps
            ended = task.descend(
                goal,
                begin,
                maps_now,
                steps=steps - explore,
                part=last,
                what=what,
                after=lambda step, told=told: told(explore + step),
                jitter=not explore,
                **run,
            )
            for place, index in enumerate(chunk):
                matrix[index], maps[index] = ended.latents[place], {k: v[place] for k, v in ended.maps.items()}
                scores[index], images[index] = task.scores(goal, ended, place), ended.pixels[place]
                scales[index] = np.array([float(goal.pixels[place]), float(goal.features[place])])
    order = range(len(pictures))
    latents = Latents(
        torch.stack([matrix[i] for i in order]).numpy(),
        space,
        labels=[label for label in classes if label is not None] or None,
        names=list(names) or [str(i) for i in order],
        model_hash=about["model_hash"],
        noise={name: np.stack([maps[i][name].numpy() for i in order]) for name in maps[0]},
        scores={name: [scores[i][name] for i in order] for name in scores[0]},
        protocol=about,
    )
    stacked = [np.stack([found[i] for i in order]) for found in (images, scales)]
    return Projection(latents, pictures, *stacked)


def _check_pictures(pictures: np.ndarray, net: Generator) -> None:
    channels, side = image_size(net)
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or pictures.shape[1:] != (channels, *sides(side)):
        raise UserError(
            f"pictures of shape {pictures.shape}, {pictures.dtype}: expected uint8 (n, {channels}, height, width) at "
            f"{size_in_words(side)} pixels, the size of this generator's images"
        )


def gray_levels(squares: Tensor) -> Tensor:
    """Convert mean squared differences in [-1, 1] to root mean square differences [gray levels of 255]."""
    return squares.sqrt() * 127.5


@dataclass(frozen=True)
class _Goal:
    """Pictures (n, c, h, w) in [-1, 1], their candidates, and what a random fake is away from each of them."""

    pictures: Tensor
    nearest: Tensor  # (n, SHORTLIST): numbers of the candidates, the nearest first
    pixels: Tensor  # (n,), mean over random fakes
    features: Tensor  # (n,)
    best: Tensor  # (n,), smallest squared error of all candidates


@dataclass(frozen=True)
class _Ended:
    """The best end of each picture: latents (n, latent_dim), noise maps, pixels uint8, distances of features (n,)."""

    latents: Tensor
    maps: dict[str, Tensor]
    pixels: np.ndarray
    features: Tensor


class _Work:
    """What does not depend on the class: the generator, the loss, and how the candidates are drawn."""

    def __init__(
        self,
        net: Generator,
        space: str,
        against: Against | None,
        feature_weight: float,
        prior_weight: float,
        seed: int,
        batch_size: int,
        candidates: int,
    ) -> None:
        self.net, self.space, self.against = net, space, against
        self.feature_weight, self.prior_weight = feature_weight, prior_weight
        self.seed, self.batch_size, self.candidates = seed, batch_size, candidates

    def classes(self, targets: Tensor, given: Sequence[int | None]) -> list[int | None]:
        """Return the class of each picture: the given one, else that of the nearest image of the model."""
        if named := [label for label in given if label is not None]:
            check_has_classes(self.net, named)
        if not (count := self.net.num_classes):
            return [None] * len(targets)
        if None not in given:
            return list(given)
        with trace_generator(self.net) as response:
            z, labels = response.draw(max(self.candidates, 8 * count), derive(self.seed, "classes"))
            assert labels is not None
            images = _draw(response, z, labels, self.batch_size)
            nearest = _squares(_unit(targets), images).argmin(1)
        return [int(labels[nearest[i]]) if label is None else label for i, label in enumerate(given)]

    def seen(self, label: int | None) -> _Seen:
        """Return a context with the generator, viewed from the space, for pictures of one class."""
        return _Seen(self, label)


class _Seen:
    """The generator viewed from the space, for one class; a context."""

    def __init__(self, work: _Work, label: int | None) -> None:
        self.work, self.label = work, label
        self.net = in_space(work.net, work.space, y=None if work.space == "z" else label)
        self.prior: Prior = find_prior(self.net, seed=work.seed)

    def __enter__(self) -> _Seen:
        self._context: Any = trace_generator(self.net, y=self.label if self.net.num_classes else None)
        self.response: GeneratorFunction = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def draw(self, z: Tensor) -> Tensor:
        """Return images of latents, in [-1, 1] as they are shown."""
        labels = None
        if self.net.num_classes:
            assert self.label is not None
            labels = torch.full((len(z),), self.label, device=z.device)
        return self.response(z, labels)

    @torch.no_grad()
    def goal(self, pictures: Tensor) -> _Goal:
        """Compare pictures with the candidates."""
        work = self.work
        self.candidates = self.net.sample_latent(work.candidates, seed=derive(work.seed, "candidates")).float().cpu()
        parts = [self.draw(z.to(self.response.device)).cpu() for z in self.candidates.split(work.batch_size)]
        images = torch.cat(parts).clamp(-1, 1)
        targets = _unit(pictures)
        squares = _squares(targets, images)
        nearest = squares.argsort(dim=1, stable=True)[:, : max(SHORTLIST, 1)]
        scale = squares[:, :SHORTLIST].mean(1).clamp(min=1e-8)
        features = torch.ones(len(targets))
        if work.against is not None:
            features = torch.stack(
                [self._features(one, images[:SHORTLIST]).mean() for one in targets],
            ).clamp(min=1e-8)
            order = []
            for place, one in enumerate(targets):
                likeness = squares[place, nearest[place]] / scale[place]
                seen = self._features(one, images[nearest[place]]) / features[place]
                order.append(nearest[place][(likeness + work.feature_weight * seen).argsort(stable=True)])
            nearest = torch.stack(order)
        return _Goal(targets, nearest, scale, features, squares.min(1).values)

    def _features(self, target: Tensor, images: Tensor) -> Tensor:
        assert self.work.against is not None
        place = self.response.device
        compare = self.work.against(target[None].expand(len(images), -1, -1, -1).to(place))
        return compare(images.to(place)).cpu()

    def begin(self, goal: _Goal, starts: int) -> Tensor:
        """Return the first latents (n, starts, latent_dim)."""
        some = goal.nearest[:, :starts]
        if some.shape[1] < starts:  # more than the shortlist
            rest = torch.arange(SHORTLIST, SHORTLIST + starts - some.shape[1])
            some = torch.cat([some, rest.expand(len(some), -1)], 1)
        return self.candidates[some]

    def descend(
        self,
        goal: _Goal,
        begin: Tensor,
        noise: Mapping[str, Tensor],
        *,
        steps: int,
        rate: float,
        part: str,
        kept: Kept,
        what: str,
        progress: bool,
        after: Callable[[int], None],
        stopped: Callable[[], str | None],
        jitter: bool = True,
    ) -> _Ended:
        """Optimize the latents ``begin`` (n, starts, latent_dim) of the pictures of ``goal``; the best end of each.

        ``noise``: the first noise maps (n, 1, s, s). ``jitter``: whether noise that decays is added to the latents.
        """
        work, place = self.work, self.response.device
        count, starts, dim = begin.shape
        unit = self.prior.scale
        latents = (begin.reshape(-1, dim) / unit).to(place).requires_grad_()
        maps = {
            name: one.repeat_interleave(starts, 0).clone().to(place).requires_grad_() for name, one in noise.items()
        }
        targets = goal.pictures.repeat_interleave(starts, 0).to(place)
        scales = [one.repeat_interleave(starts).to(place) for one in (goal.pixels, goal.features)]
        compare = None if work.against is None else work.against(targets)

        def errors(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with replaced(work.net, maps):
                images = self.draw(z)
            squares = (images - targets).square().flatten(1).mean(1)
            return images, squares, torch.zeros_like(squares) if compare is None else compare(images)

        def total(z: Tensor, squares: Tensor, features: Tensor) -> Tensor:
            likeness = squares / scales[0] + work.feature_weight * features / scales[1]
            return likeness + work.prior_weight * self.prior.excess(z)

        def loss(step: int) -> Tensor:
            z = latents * unit
            size = JITTER * unit * max(0.0, 1 - step / (CALM * steps)) ** 2
            if jitter and size:
                shift = torch.randn(begin.shape[1:], generator=seeded("cpu", work.seed, "jitter", step))
                z = z + size * shift.repeat(count, 1).to(z)
            _, squares, features = errors(z)
            plain = [autocorrelation(one) for one in maps.values()]
            return total(latents * unit, squares, features).sum() + NOISE_WEIGHT * sum(plain)

        @torch.no_grad()
        def then(step: int) -> None:
            for one in maps.values():
                one -= one.mean((1, 2, 3), keepdim=True)
                one *= one.square().mean((1, 2, 3), keepdim=True).rsqrt()
            after(step)

        params = {"latents": latents, **{f"noise.{name}": one for name, one in maps.items()}}
        descend(
            params,
            loss,
            steps=steps,
            rate=rate,
            part=part,
            kept=kept,
            what=what,
            progress=progress,
            after=then,
            stopped=stopped,
        )
        with torch.no_grad():
            z = latents * unit
            images, squares, features = errors(z)
            best = total(z, squares, features).view(count, starts).argmin(1) + starts * torch.arange(
                count, device=place
            )
            ended = {name: one[best].detach().cpu() for name, one in maps.items()}
            return _Ended(z[best].cpu(), ended, as_pixels(images[best]), features[best].cpu())

    def scores(self, goal: _Goal, ended: _Ended, place: int) -> dict[str, float]:
        """Return the scores of one picture, see ``Projection``."""
        shown = (goal.pictures[place] - _unit(torch.from_numpy(ended.pixels[place]))).square().mean()
        latent = ended.latents[place : place + 1]
        features = {"features": float(ended.features[place] / goal.features[place])} if self.work.against else {}
        return {
            "error": float(gray_levels(shown)),
            **features,
            "fakes": float(gray_levels(goal.pixels[place])),
            "nearest": float(gray_levels(goal.best[place])),
            "distance": float(self.prior.distance(latent)),
            "farther": float(self.prior.farther(latent)),
        }


def autocorrelation(maps: Tensor) -> Tensor:
    """Return the regularizer of noise maps (n, 1, s, s) of Karras et al. 2020, appendix D, summed over all maps.

    The squared means of each map times itself, shifted by a pixel in both directions, at all scales down to 8 pixels;
    divided by the expected value for white noise, so that it is about 1 per map of noise.
    """
    found, expected = maps.new_zeros(()), 0.0
    while True:
        for axis in (2, 3):
            found = found + (maps * maps.roll(1, axis)).mean((1, 2, 3)).square().sum()
            expected += 1 / maps.shape[-1] ** 2
        if maps.shape[-1] <= SMALLEST_MAP:
            return found / expected
        maps = functional.avg_pool2d(maps, 2) * 2  # keeps the variance of white noise


def _unit(pictures: Tensor) -> Tensor:
    """Convert uint8 to floats in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def _squares(targets: Tensor, images: Tensor) -> Tensor:
    """Return mean squared differences (n, m) of all pairs."""
    return torch.stack([(images - one).square().flatten(1).mean(1) for one in targets])


@torch.no_grad()
def _draw(response: GeneratorFunction, z: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    parts = zip(z.split(batch_size), labels.split(batch_size), strict=True)
    return torch.cat([response(one, two).cpu() for one, two in parts]).clamp(-1, 1)
