"""(Perceptual) path length of Karras et al. 2019: how fast images change along a path in the latent space.

The mean over random paths of d(G(p(t)), G(p(t + eps))) / eps^2, without the pairs outside the 1st and 99th percentile.
Lower is smoother; by itself it does not measure disentanglement. Different variants are not comparable.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.arguments import checked
from orthogan.distributed import broadcast_json, gather_rows, hide_progress, rank_and_world, share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation.deterministic import choose_device, deterministic_float32, generate_image
from orthogan.evaluation.finite import Images
from orthogan.evaluation.images import latents as latents_between
from orthogan.evaluation.metric import METRICS, Inputs
from orthogan.evaluation.paths.distances import Distance, DistanceMetric, Function, load_distance
from orthogan.evaluation.result import MetricResult, made_by
from orthogan.latent.directions import Directions
from orthogan.latent.interpolation import lerp, slerp_any, slerp_unit
from orthogan.models.generate import in_space
from orthogan.models.protocol import Generator, as_generator
from orthogan.progress import progress_bar
from orthogan.rng import derive
from orthogan.rng import generator as seeded

REJECTED = (1, 99)  # percentiles; pairs exactly at them are kept
NOISE = 0.7  # scale of EigenGAN's noise in the code of the NOG paper
# (the generator viewed from its space, first pair, last pair + 1) -> both ends of the steps, (n, latent_dim) each
Ends = Callable[[Generator, int, int], tuple[Tensor, Tensor]]
SIDE = 256  # pixels; VGG16 was made for 224
Space = Literal["z", "w", "subspaces"]
Interpolation = Literal["lerp", "slerp_any", "slerp_unit"]
Sampling = Literal["end", "full"]
Resize = Literal["none", "shrink", "fit"]


INTERPOLATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "lerp": lerp,
    "slerp_any": slerp_any,
    "slerp_unit": slerp_unit,
}


@dataclass(frozen=True)
class Variant:
    """A variant: the latents at the ends of the path, the position of the step, and the preprocessing of images.

    ``space``: "z", "w" (if the generator has it), or "subspaces": EigenGAN's z_1 … z_k, each on its own arc between
    vectors of U[0, 1), with fixed noise of 0.7 N(0, I) (the code of the NOG paper).
    ``sampling``: the step from t to t + eps begins at t = 0 ("end") or t ~ U[0, 1) ("full").
    ``crop``: to the face of FFHQ, rows 3/8 to 7/8 and columns 2/8 to 6/8.
    ``resize``: "shrink" averages blocks where the side is 512 pixels or more, so that 256 (or a little more) remain;
    "fit" also enlarges smaller images to 256, bilinearly as in TensorFlow 1; "none" keeps the images. Of rectangles,
    the shorter side counts, and the proportions stay.
    ``samples``: number of pairs in the publication.

    Raises ``UserError`` for unknown choices or invalid combinations.
    """

    space: Space = "z"
    interpolation: Interpolation = "slerp_any"
    sampling: Sampling = "full"
    crop: bool = False
    resize: Resize = "none"
    eps: float = 1e-4
    samples: int = 50_000

    def __post_init__(self) -> None:
        for name, kinds in (
            ("space", Space),
            ("interpolation", Interpolation),
            ("sampling", Sampling),
            ("resize", Resize),
        ):
            if getattr(self, name) not in get_args(kinds):
                raise UserError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(get_args(kinds))}")
        needed = {"w": "lerp", "subspaces": "slerp_unit"}.get(self.space, self.interpolation)
        if self.interpolation != needed:
            raise UserError(f"interpolation={self.interpolation!r}: must be {needed!r} in the space {self.space!r}")
        if not self.eps > 0 or self.samples < 2:
            raise UserError(f"eps={self.eps}, samples={self.samples}: needs a positive step and at least 2 pairs")

    @property
    def described(self) -> str:
        """``z,slerp_any,full``: every choice that affects the number."""
        parts = [self.space, self.interpolation, self.sampling]
        parts += ["crop"] if self.crop else []
        parts += [self.resize] if self.resize != "none" else []
        parts += [f"eps={self.eps:g}"] if self.eps != Variant.eps else []
        return ",".join(parts)

    @property
    def published(self) -> str | None:
        """Return its published name, if any; the number of samples does not matter."""
        mine = _choices(self)
        return next((name for name, other in PRESETS.items() if _choices(other) == mine), None)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """Return the point at ``t`` (n, 1) of the path from ``a`` to ``b`` (n, ..., d), computed in float64."""
        at = t.double().reshape(len(t), *[1] * (a.ndim - 1))
        return INTERPOLATIONS[self.interpolation](a.double(), b.double(), at).to(a.dtype)

    def look(self, images: Tensor) -> Tensor:
        """Preprocess images (n, c, h, w) for the distance."""
        if self.crop:
            down, across = (side // 8 for side in images.shape[2:])
            images = images[:, :, 3 * down : 7 * down, 2 * across : 6 * across]
        side = min(images.shape[2:])
        if self.resize == "fit" and side < SIDE:
            from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

            size = [round(one * SIDE / side) for one in images.shape[2:]]
            return interpolate_bilinear_2d_like_tensorflow1x(images, size=size, align_corners=False)
        factor = side // SIDE
        if self.resize != "none" and factor > 1:
            images = functional.avg_pool2d(images, factor)
        return images


PRESETS: dict[str, Variant] = {
    # Karras et al. 2019, section 4.1 and code
    "ppl_zfull": Variant("z", "slerp_unit", "full", crop=True, resize="shrink", samples=100_000),
    "ppl_wfull": Variant("w", "lerp", "full", crop=True, resize="shrink", samples=100_000),
    "ppl_zend": Variant("z", "slerp_unit", "end", crop=True, resize="shrink", samples=100_000),
    "ppl_wend": Variant("w", "lerp", "end", crop=True, resize="shrink", samples=100_000),
    # StyleGAN2-ADA and StyleGAN3
    "ppl2_wend": Variant("w", "lerp", "end", resize="shrink", samples=50_000),
    # the code of the Hessian penalty, and of OroJaR
    "ppl_zend_v2": Variant("z", "slerp_unit", "end", resize="fit", samples=100_000),
    # ours, for generators that do not normalize their Gaussian latent
    "ppl_zfull_any": Variant("z", "slerp_any", "full", resize="shrink", samples=50_000),
    "ppl_zend_any": Variant("z", "slerp_any", "end", resize="shrink", samples=50_000),
    # Song, Sebe & Wang, EigenGAN part of their code
    "ppl_nog": Variant("subspaces", "slerp_unit", "full", samples=10_000),
}
PLAIN = Variant()
# name for ``evaluate`` -> variant and distance
PATH_METRICS: dict[str, tuple[Variant, str]] = {
    **{name: (variant, "lpips-vgg16") for name, variant in PRESETS.items()},
    "pixel_path_length": (PLAIN, "pixel"),
    "feature_path_length": (PLAIN, "efficientnet-lite0"),
}


def resolve_variant(variant: str | Variant) -> Variant:
    """Return the variant of this name. Raises ``UserError`` for an unknown one."""
    if isinstance(variant, Variant):
        return variant
    if variant not in PRESETS:
        raise UserError(f"path length {variant!r}: choose one of {', '.join(PRESETS)}, or pass a Variant")
    return PRESETS[variant]


def _choices(variant: Variant) -> list[object]:
    return [getattr(variant, field.name) for field in fields(variant) if field.name != "samples"]


@checked
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
    """Compute the path length of ``generator`` in this variant; ``std`` is the standard error of the mean.

    Both images of a pair have the same noise and class (classes are equally frequent). In a process group, every
    process calls this with the same arguments, computes its part, and gets the same number. The result has a published
    name only with LPIPS: with another distance it is a pixel_, feature_ or plain path_length of a variant.

    Args:
        variant: a name in ``PRESETS``, or a ``Variant``.
        distance: as in ``load_distance``; "pixel" and "efficientnet-lite0" need no download.
        samples: number of pairs (None: as published).
        batch_size: pairs per batch; it affects rounding, and random noise of the generator.
        device: the generator is moved there (default: its current device).
        info: further facts for the protocol.

    Raises:
        UserError: unknown variant or distance, a space that the generator does not have, or unsuitable images.

    Source: Karras et al. 2019, arXiv:1812.04948.

    Example:
        >>> import orthogan
        >>> from orthogan.evaluation import path_length
        >>> result = path_length(orthogan.load("sprites-sngan"), "ppl_zend", distance="pixel", samples=8)
        >>> result.value > 0
        True
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


def check_path(net: Generator, variant: Variant) -> None:
    """Raise ``UserError`` unless ``net`` has the space of this variant, with enough dimensions."""
    if variant.space == "subspaces":
        if not hasattr(net, "subspaces") or getattr(net, "dims", 0) < 2:
            raise UserError(
                f"ppl_nog: {type(net).__name__} has no subspaces of 2 or more dimensions; an eigengan has them"
            )
    elif _seen(net, variant, 0 if net.num_classes else None).latent_dim < 2 and variant.interpolation != "lerp":
        raise UserError(f"interpolation={variant.interpolation!r}: a latent with one dimension has no arcs; use lerp")


@checked
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
    """PIPL of the Householder projector (Song et al. 2023): each step goes along a random one of ``directions``.

    The mean of d(G(p), G(p + eps v)) / eps^2 over points p of random paths in the directions' space (straight lines; in
    z, arcs that keep the length) and their rows v, with outliers rejected as above; the step is taken in all layers, as
    in the authors' code, which uses W, the ten leading directions of each projector and eps 1.

    Args:
        generator: the generator.
        directions: the directions of the steps, and their space.
        eps: length of a step, in the units of the space.
        sampling: a step starts anywhere on its path ("full"), or where the path starts ("end").
        distance: name of a distance, or a distance, as in ``path_length``. With another one than LPIPS the name of the
            result is pixel_ or feature_perturbation_length.
        samples: number of paths.
        batch_size: paths at a time.
        seed: of the paths and of the choice of directions.
        device: where images are generated and compared; default: that of the generator.
        progress: show a progress bar.
        info: further entries for the protocol of the result.

    Raises:
        As ``path_length``.

    Source: Song, Zhang, Sebe & Wang 2023, arXiv:2307.08012.

    Example:
        >>> import orthogan
        >>> from orthogan.evaluation import perturbation_length
        >>> generator = orthogan.load("sprites-sngan")
        >>> directions = orthogan.first_layer_directions(generator).select([0, 1])
        >>> perturbation_length(generator, directions, distance="pixel", samples=8).value > 0
        True
    """
    net = as_generator(generator)
    directions.check(net)
    if directions.space not in ("z", "w"):
        raise UserError(f"directions of space {directions.space!r}: perturbation lengths need directions of z or w")
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
    """Return ``values`` (n,) between the 1st and 99th percentiles (inclusive), as published."""
    low = np.percentile(values, REJECTED[0], method="lower")
    high = np.percentile(values, REJECTED[1], method="higher")
    return values[(low <= values) & (values <= high)]


def _path(variant: Variant, count: int, seed: int) -> Ends:
    """Return the ends of a step of eps on a path between two latents of the space."""
    at = _positions(variant, count, seed)

    def ends(seen: Generator, start: int, stop: int) -> tuple[Tensor, Tensor]:
        a, b = (latents_between(seen, start, stop, derive(seed, end)) for end in ("path start", "path end"))
        t = at[start:stop, None]
        return variant.between(a, b, t), variant.between(a, b, t + variant.eps)

    return ends


def _subspace_path(net: Generator, variant: Variant, count: int, seed: int) -> Ends:
    """Return the ends of a step on arcs in all subspaces of an EigenGAN between U[0, 1) vectors, with fixed noise."""
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
    """Return the position (count,) float64 of each step on its path."""
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
    """Return distance / eps^2 (count,) float64 of every step, of all processes."""
    rank, world = rank_and_world()
    if count < max(2, world) or batch_size < 1:
        raise UserError(f"samples={count}, batch_size={batch_size}: must be at least {max(2, world)} and 1")
    place = choose_device(net, device)
    net.to(place)
    found: list[Tensor] = []
    finite = Images(net)
    with (
        deterministic_float32(net, place),
        progress_bar(total=count, desc="path length", unit="pair", disable=hide_progress(progress), leave=False) as bar,
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
        raise UserError(
            f"path length: {bad} of {count} distances are NaN or infinite; check the images of the generator"
        )
    return lengths


def _batches(classes: int, count: int, batch_size: int) -> Iterator[tuple[int | None, int, int]]:
    """Yield (class, first, last + 1) of this process's pairs, one class after the other, equally many each."""
    first, last = share_of_rank(count)
    while first < last:
        label = first * classes // count if classes else None
        end = last if label is None else min(last, -(-(label + 1) * count // classes))
        stop = min(first + batch_size, end)
        yield label, first, stop
        first = stop


def _seen(net: Generator, variant: Variant, label: int | None) -> Generator:
    """View ``net`` from the space of the variant."""
    axis = getattr(net, "axis", "z")
    if variant.space == "w":
        return net if axis == "w" else in_space(net, "w", y=label).eval()
    if axis != "z":
        raise UserError(
            f"{variant.described}: the path is in z, but this is a view from {axis}; pass the generator itself"
        )
    return net


def _warn_of_short_latents(net: Generator, label: int | None, place: torch.device) -> None:
    """Warn about latents of length 1 if the generator does not normalize its latents."""
    z = net.sample_latent(2, seed=0)
    own, short = (
        generate_image(net, points, label, noise_seed=0, device=place, finite=Images(net))
        for points in (z, z / z.norm(dim=1, keepdim=True))
    )
    if not torch.allclose(own, short, rtol=1e-2, atol=1e-2):
        warnings.warn(
            f"path length on latents of length 1: this generator expects lengths near {net.latent_dim**0.5:.2g}; "
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
    value, error = broadcast_json([float(kept.mean()), error])
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
        **made_by(None, began),
    }
    return MetricResult(metric, value, distance.name, error, {}, protocol, variant_name)


class PathLength(DistanceMetric):
    """A path length by name: a variant with a distance."""

    better = "lower"
    needs = frozenset({"pairs"})

    def __init__(self, name: str, variant: Variant, distance: str) -> None:
        super().__init__(name, distance)
        self.variant = variant

    def check(self, inputs: Inputs) -> None:
        """Check that the generator has the space of the variant, and that latents are not truncated."""
        if inputs.generator is None:
            instead = "images" if inputs.classifier is None else "a classifier"
            raise UserError(f"metrics: {self.name} interpolates in a latent space: it needs a generator, not {instead}")
        if inputs.truncation != 1:
            raise UserError(
                f"truncation={inputs.truncation}: {self.name} is defined for untruncated latents; set truncation to 1"
            )
        super().check(inputs)
        check_path(inputs.generator, self.variant)

    def compute(self, inputs: Inputs) -> list[MetricResult]:
        """See ``path_length``."""
        options = inputs.pick("samples", "batch_size", "seed", "device", "progress", "info")
        return [path_length(inputs.generator, self.variant, distance=self.loaded(inputs), **options)]


for _name, (_variant, _distance) in PATH_METRICS.items():
    METRICS.register(_name)(PathLength(_name, _variant, _distance))
