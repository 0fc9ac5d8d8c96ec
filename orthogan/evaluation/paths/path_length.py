"""How fast the image changes along a path through the latent space: the (perceptual) path length of Karras et al. 2019.

The mean over random paths of d(G(p(t)), G(p(t + eps))) / eps^2, without the pairs outside the 1st and 99th percentile.
Lower is smoother; it says nothing of disentanglement by itself. Numbers of two variants do not compare.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from orthogan import __version__
from orthogan.distributed import broadcast_json, gather_rows, hide_progress, rank_and_world, share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation.finite import IMAGES, Finite
from orthogan.evaluation.images import latents as latents_between
from orthogan.evaluation.metric import METRICS, Inputs, Metric
from orthogan.evaluation.paths.distances import Distance, Function, load_distance
from orthogan.evaluation.paths.path_variants import PATH_METRICS, Sampling, Variant, resolve_variant
from orthogan.evaluation.result import MetricResult
from orthogan.evaluation.steady import choose_device, deterministic_float32, generate_image
from orthogan.latent.directions import Directions
from orthogan.models.generate import in_space
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import derive
from orthogan.rng import generator as seeded

REJECTED = (1, 99)  # percentiles, of which these pairs themselves stay
NOISE = 0.7  # scale of EigenGAN's noise in the code of the NOG paper
# (the generator seen from its space, first pair, last pair + 1) -> both ends of the steps, (n, latent_dim) each
Ends = Callable[[Generator, int, int], tuple[Tensor, Tensor]]


def path_length(
    generator: nn.Module,
    variant: str | Variant = "ppl_zend_v2",
    *,
    distance: str | Distance | Function = "lpips-vgg16",
    samples: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> MetricResult:
    """The path length of ``generator`` in that variant; its ``std`` is the standard error of the mean.

    Both images of a pair have the same noise and class (classes have equal shares). In a process group every process
    calls this with the same arguments, does its share, and gets the same number. The result carries a published
    name only with LPIPS: with another distance it is a pixel_, feature_ or plain path_length of a variant.

    Args:
        variant: a name of ``path_variants.PRESETS``, or a ``Variant``.
        distance: as in ``load_distance``; "pixel" and "efficientnet-lite0" need no download.
        samples: pairs (None: as many as published).
        batch_size: pairs at a time; the number depends on it by rounding, and through noise that a generator draws.
        device: the generator is moved there (default: where it is).
        info: further facts for the protocol.

    Raises:
        UserError: an unknown variant or distance, a space that the generator does not have, images that do not serve.
    """
    chosen = resolve_variant(variant)
    count = chosen.samples if samples is None else samples
    net = as_generator(generator)
    check_path(net, chosen)
    ends = _subspace_path(net, chosen, count, seed) if chosen.space == "subspaces" else _path(chosen, count, seed)
    measured = load_distance(distance, device=choose_device(net, device))
    metric = measured.metric(chosen.published or "ppl", "path_length")
    named = chosen.published is not None and metric == chosen.published
    variant_name = "" if named else measured.variant(chosen.described)
    began = time.monotonic()
    found = _steps(net, chosen, ends, measured, count, batch_size, seed, device, progress)
    protocol = {"variant": chosen.described, **(info or {})}
    return _result(metric, variant_name, found, chosen, measured, seed, began, protocol)


def check_path(generator: nn.Module, variant: Variant) -> None:
    """Whether ``generator`` has the space of that variant, of enough dimensions. Raises ``UserError`` if not."""
    net = as_generator(generator)
    if variant.space == "subspaces":
        if not hasattr(net, "subspaces") or getattr(net, "dims", 0) < 2:
            raise UserError(f"ppl_nog: {type(net).__name__} has no subspaces of 2 or more dimensions; an eigengan has")
    elif _seen(net, variant, 0 if net.num_classes else None).latent_dim < 2 and variant.interpolation != "lerp":
        raise UserError(f"interpolation={variant.interpolation!r}: a latent of one dimension has no arcs; use lerp")


def perturbation_length(
    generator: nn.Module,
    directions: Directions,
    *,
    eps: float = 1.0,
    sampling: Sampling = "full",
    distance: str | Distance | Function = "lpips-vgg16",
    samples: int = 5_000,
    batch_size: int = 16,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> MetricResult:
    """PIPL of the Householder projector (Song et al. 2023): the step goes along a random one of ``directions``.

    The mean of d(G(p), G(p + eps v)) / eps^2 over points p of random paths in the directions' space (straight lines;
    in z, arcs that keep the length) and their rows v, rejected as ever; the step is taken in all layers, as in the
    authors' code. There: W, the ten leading directions of each projector, eps 1. Arguments and errors as
    ``path_length``; with another distance than LPIPS its name is (pixel_, feature_) perturbation_length.
    """
    net = as_generator(generator)
    directions.check(net)
    if directions.space not in ("z", "w"):
        raise UserError(f"directions of space {directions.space!r}: perturbation lengths are of z and w")
    straight = directions.space == "w" or getattr(net, "axis", "z") == "w"
    space, line = ("w", "lerp") if straight else ("z", "slerp_any")
    chosen = Variant(space, line, sampling, eps=eps, samples=samples)
    check_path(net, chosen)
    path, rows = _path(chosen, samples, seed), torch.from_numpy(directions.matrix.copy())
    which = torch.randint(len(rows), (samples,), generator=seeded("cpu", seed, "path direction"))

    def ends(seen: Generator, start: int, stop: int) -> tuple[Tensor, Tensor]:
        here, _ = path(seen, start, stop)
        return here, here + eps * rows[which[start:stop]].to(here.dtype)

    measured = load_distance(distance, device=choose_device(net, device))
    began = time.monotonic()
    found = _steps(net, chosen, ends, measured, samples, batch_size, seed, device, progress)
    name = measured.variant(f"{len(directions)} {directions.method}", directions.space, sampling, f"eps={eps:g}")
    about = f"{len(directions)} directions, {directions.method}, of {directions.space}"
    protocol = {"variant": f"step along a direction, {chosen.described}", "directions": about, **(info or {})}
    metric = measured.metric("pipl", "perturbation_length")
    return _result(metric, name, found, chosen, measured, seed, began, protocol)


def trim(values: np.ndarray) -> np.ndarray:
    """``values`` (n,) without those outside the 1st and 99th percentiles, as published: the edges are members."""
    low = np.percentile(values, REJECTED[0], method="lower")
    high = np.percentile(values, REJECTED[1], method="higher")
    return values[(low <= values) & (values <= high)]


def _path(variant: Variant, count: int, seed: int) -> Ends:
    """A step of eps on a path between two latents of the space."""
    at = _positions(variant, count, seed)

    def ends(seen: Generator, start: int, stop: int) -> tuple[Tensor, Tensor]:
        a, b = (latents_between(seen, start, stop, derive(seed, end)) for end in ("path start", "path end"))
        t = at[start:stop, None]
        return variant.between(a, b, t), variant.between(a, b, t + variant.eps)

    return ends


def _subspace_path(net: Generator, variant: Variant, count: int, seed: int) -> Ends:
    """A step on an arc in every subspace of an EigenGAN, from and to vectors of U[0, 1), under one noise."""
    dims, width = int(getattr(net, "dims", 0)), net.latent_dim - int(getattr(net, "noise_dim", 0))
    uniform, at = _Uniform(width), _positions(variant, count, seed)

    def ends(seen: Generator, start: int, stop: int) -> tuple[Tensor, Tensor]:
        a, b = (
            latents_between(uniform, start, stop, derive(seed, end)).unflatten(1, (-1, dims))
            for end in ("path start", "path end")
        )
        rest = NOISE * latents_between(seen, start, stop, derive(seed, "path noise"))[:, width:]
        t = at[start:stop, None]
        first, second = (variant.between(a, b, here).flatten(1) for here in (t, t + variant.eps))
        return torch.cat([first, rest], 1), torch.cat([second, rest], 1)

    return ends


class _Uniform(Generator):
    """Draws latents of U[0, 1)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        return torch.rand(n, self.latent_dim, generator=seeded("cpu", seed, "latent"))


def _positions(variant: Variant, count: int, seed: int) -> Tensor:
    """(count,) float64: where on its path each step begins."""
    if variant.sampling == "end":
        return torch.zeros(count, dtype=torch.float64)
    return torch.rand(count, dtype=torch.float64, generator=seeded("cpu", seed, "path position"))


def _steps(
    net: Generator,
    variant: Variant,
    ends: Ends,
    distance: Distance,
    count: int,
    batch_size: int,
    seed: int,
    device: torch.device | str | None,
    progress: bool,
) -> np.ndarray:
    """(count,) float64: distance / eps^2 of every step, of all processes."""
    rank, world = rank_and_world()
    if count < max(2, world) or batch_size < 1:
        raise UserError(f"samples={count}, batch_size={batch_size}: at least {max(2, world)} pairs and 1 at a time")
    place = choose_device(net, device)
    net.to(place)
    found: list[Tensor] = []
    finite = Finite(IMAGES)
    with (
        deterministic_float32(net, place),
        tqdm(total=count, desc="path length", unit="pair", disable=hide_progress(progress), leave=False) as bar,
    ):
        for label, start, stop in _batches(net.num_classes, count, batch_size):
            seen = _seen(net, variant, label)
            if not found and rank == 0 and variant.space == "z" and variant.interpolation == "slerp_unit":
                _warn_of_short_latents(seen, label, place)
            noise = derive(seed, "path noise of the generator", start)
            first, second = (
                variant.look(generate_image(seen, points, label, noise_seed=noise, device=place, finite=finite))
                for points in ends(seen, start, stop)
            )
            found.append(distance(first, second).double().cpu() / variant.eps**2)
            bar.update((stop - start) * world)
    finite.check()
    lengths = gather_rows(torch.cat(found)).numpy()
    bad = int((~np.isfinite(lengths)).sum())
    if bad:
        raise UserError(f"path length: {bad} of {count} distances are NaN or infinite: look at the generator's images")
    return lengths


def _batches(classes: int, count: int, batch_size: int) -> Iterator[tuple[int | None, int, int]]:
    """(class, first, last + 1) of this process's pairs: the classes one after the other, in equal shares."""
    first, last = share_of_rank(count)
    while first < last:
        label = first * classes // count if classes else None
        end = last if label is None else min(last, -(-(label + 1) * count // classes))
        stop = min(first + batch_size, end)
        yield label, first, stop
        first = stop


def _seen(net: Generator, variant: Variant, label: int | None) -> Generator:
    """``net`` from the variant's space."""
    axis = getattr(net, "axis", "z")
    if variant.space == "w":
        return net if axis == "w" else in_space(net, "w", y=label).eval()
    if axis != "z":
        raise UserError(f"{variant.described}: a path in z, but this is a view from {axis}; give the generator itself")
    return net


def _warn_of_short_latents(net: Generator, label: int | None, place: torch.device) -> None:
    """Latents of length 1 are this generator's own only if it divides them by their length."""
    z = net.sample_latent(2, seed=0)
    own, short = (
        generate_image(net, points, label, noise_seed=0, device=place, finite=Finite(IMAGES))
        for points in (z, z / z.norm(dim=1, keepdim=True))
    )
    if not torch.allclose(own, short, rtol=1e-2, atol=1e-2):
        warnings.warn(
            f"path length on latents of length 1: this generator was made for lengths near {net.latent_dim**0.5:.2g}; "
            "ppl_zend_any and ppl_zfull_any keep the length",
            stacklevel=2,
        )


def _result(
    metric: str,
    variant_name: str,
    found: np.ndarray,
    variant: Variant,
    distance: Distance,
    seed: int,
    began: float,
    about: Mapping[str, str],
) -> MetricResult:
    kept = trim(found)
    error = float(kept.std(ddof=1)) / len(kept) ** 0.5 if len(kept) > 1 else None
    value, error, seconds = broadcast_json([float(kept.mean()), error, round(time.monotonic() - began, 1)])
    protocol = {
        "samples": len(found),
        "reference": "none",
        **about,
        "eps": variant.eps,
        "distance": distance.what,
        "distance weights": distance.weights,
        "kept": f"{len(kept)} pairs, percentiles {REJECTED[0]} to {REJECTED[1]}",
        "spread": "standard error",
        "seed": seed,
        "batch norm": "running statistics",
        "dtype": "float32 without TF32",
        "orthogan": __version__,
        "torch": torch.__version__,
        "seconds": seconds,
    }
    return MetricResult(metric, value, distance.name, error, {}, protocol, variant_name)


class PathLength(Metric):
    """A path length by name: that variant, with that distance."""

    better = "lower"
    needs = frozenset({"pairs"})

    def __init__(self, name: str, variant: Variant, distance: str) -> None:
        self.name, self.variant, self.distance = name, variant, distance

    def check(self, inputs: Inputs) -> None:
        """A generator with the variant's space, and latents that are not truncated."""
        if inputs.generator is None:
            instead = "images" if inputs.classifier is None else "a classifier"
            raise UserError(f"metrics: {self.name} walks through a latent space: it needs a generator, not {instead}")
        if inputs.truncation != 1:
            raise UserError(
                f"truncation={inputs.truncation}: {self.name} is defined on untruncated latents; leave it at 1"
            )
        super().check(inputs)
        check_path(inputs.generator, self.variant)

    def prepare(self, inputs: Inputs) -> None:
        """The net behind the distance."""
        self._distance(inputs)

    def compute(self, inputs: Inputs) -> list[MetricResult]:
        """See ``path_length``."""
        return [
            path_length(
                inputs.generator,
                self.variant,
                distance=self._distance(inputs),
                samples=inputs.samples,
                batch_size=inputs.batch_size,
                seed=inputs.seed,
                device=inputs.device,
                progress=inputs.progress,
                info=inputs.info,
            )
        ]

    def _distance(self, inputs: Inputs) -> Distance:
        load = partial(load_distance, self.distance, device=inputs.device)
        return inputs.once(f"distance {self.distance}", load)


for _name, (_variant, _distance) in PATH_METRICS.items():
    METRICS.register(_name)(PathLength(_name, _variant, _distance))
