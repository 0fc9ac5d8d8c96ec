"""Length of the path of images as a latent moves along a direction (TPL: Zhu, Xu & Tao 2021, PS-SC)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.arguments import checked
from orthogan.distributed import broadcast_json, gather_rows, hide_progress, rank_and_world, share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation.deterministic import choose_device, deterministic_float32, generate_image
from orthogan.evaluation.finite import Finite, Images
from orthogan.evaluation.metric import METRICS, Inputs
from orthogan.evaluation.paths.distances import (
    FEATURES,
    LPIPS,
    PIXEL,
    Distance,
    DistanceMetric,
    Function,
    load_distance,
)
from orthogan.evaluation.paths.path_length import Variant
from orthogan.evaluation.result import MetricResult, made_by
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.native import native_directions
from orthogan.latent.traverse import path
from orthogan.models.generate import in_space, sample_label, sample_latents
from orthogan.models.protocol import Generator, as_generator
from orthogan.progress import progress_bar
from orthogan.rng import derive

SCORES = {LPIPS: "perceptual length", PIXEL: "pixel length", FEATURES: "feature length"}
LOOK, SAMPLES = Variant(resize="shrink"), 50


@checked
def traversal_length(
    generator: nn.Module,
    directions: Directions | None = None,
    *,
    distance: str | Distance | Function = "lpips-vgg16",
    samples: int = SAMPLES,
    steps: int = 25,
    extent: float = 4.0,
    threshold: float = 0.1,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> tuple[MetricResult, Directions]:
    """Sum the lengths of the active directions; also returns the directions with their lengths as scores.

    For the length of a direction, the coordinate of a latent along it goes from -extent to extent (in units of the row)
    in ``steps`` images; the distances between neighboring images are summed (square roots for pixels and features, so
    that finer steps do not shorten it; LPIPS as it is, as published), and averaged over ``samples`` latents, cycling
    through classes. A direction is active if its mean is above ``threshold``, in units of the distance. ``parts``: the
    number of active directions, the sum over all of them divided by their number (active or not), and the mean over
    directions of the
    spread over latents, inactive ones counting 0. Published: the axes of z, 25 to 193 images, 10 to 3000 latents.
    In a process group, every process calls this, computes its part, and gets the same result.

    Args:
        directions: directions of any space of the generator, applied to their own layers (None: its native directions).
        batch_size: approximate number of images per batch.

    Raises:
        UserError: invalid directions, an unknown distance, or too few samples or steps.

    Source: Zhu, Xu & Tao 2021, arXiv:2104.05622.

    Example:
        >>> import orthogan
        >>> from orthogan.evaluation import traversal_length
        >>> generator = orthogan.load("sprites-sngan")
        >>> directions = orthogan.first_layer_directions(generator).select([0, 1])
        >>> result, lengths = traversal_length(generator, directions, distance="pixel", samples=2, steps=3)
        >>> result.value > 0, len(lengths)
        (True, 2)
    """
    began, net = time.monotonic(), as_generator(generator)
    chosen = native_directions(net) if directions is None else directions
    chosen.check(net)
    _, world = rank_and_world()
    if samples < world or steps < 2 or batch_size < 1 or not extent > 0:
        raise UserError(
            f"samples={samples}, steps={steps}, batch_size={batch_size}, extent={extent}: must be at least {world}, "
            "2 and 1, and above 0"
        )
    place = choose_device(net, device)
    net.to(place)
    measured = load_distance(distance, device=place)
    offsets = np.linspace(-extent, extent, steps)
    first, last = share_of_rank(samples)
    lengths: list[Tensor] = []
    finite = Images(net)
    bar = progress_bar(total=samples, desc="traversals", unit="latent", disable=hide_progress(progress), leave=False)
    with deterministic_float32(net, place), bar:
        for index in range(first, last):
            walk = derive(seed, "traversal", index)
            lengths.append(
                _lengths(net, chosen, offsets, measured, batch_size, walk, sample_label(net, index), place, finite)
            )
            bar.update(world)
    finite.check()
    table = gather_rows(torch.stack(lengths)).numpy()
    if not np.isfinite(table).all():
        raise UserError("traversal length: distances are NaN or infinite; check the images of the generator")
    mean, active = table.mean(axis=0), table.mean(axis=0) > threshold
    value, per_direction = broadcast_json([float(mean[active].sum()), mean.tolist()])
    parts = {
        "active": float(active.sum()),
        "mean": value / len(chosen),
        "spread": float(table.std(axis=0)[active].sum()) / len(chosen),
    }
    protocol = {
        "samples": samples,
        "reference": "none",
        "directions": f"{len(chosen)}, {chosen.method}, of {chosen.space}",
        "walk": f"-{extent:g} to {extent:g} in {steps} images",
        "active": f"above {threshold:g}",
        "distance": measured.what + (", its root" if measured.square else ""),
        "distance weights": measured.weights,
        "seed": seed,
        "batch norm": "running statistics",
        "dtype": "float32 without TF32",
        **made_by(info, began),
    }
    metric = measured.metric("tpl", "traversal_length")
    name = measured.variant(chosen.method, f"±{extent:g}", f"{steps} steps", f">{threshold:g}")
    result = MetricResult(metric, value, measured.name, None, parts, protocol, name)
    score = SCORES.get(measured.name, f"{measured.name} length")
    return result, replace(chosen, scores={**chosen.scores, score: per_direction})


def _lengths(
    net: Generator,
    directions: Directions,
    offsets: np.ndarray,
    distance: Distance,
    batch_size: int,
    seed: int,
    label: int | None,
    place: torch.device,
    finite: Finite,
) -> Tensor:
    """Return the lengths (k,) float64 of the paths of one latent along each direction, with fixed noise."""
    space, layers = directions.space, directions.layers
    start = sample_latents(in_space(net, space, y=label, layers=layers), [seed])[0]
    # layers to which the directions do not apply keep this latent
    seen = in_space(net, space, y=label, layers=layers, base=start if layers else None).eval()
    rows = directions.matrix.astype(np.float64)
    parts: list[Tensor] = []
    for few in np.array_split(rows, -(-len(rows) // batch_size)):
        at = path(start.double().numpy(), few, "line", centred=True)
        total, before = torch.zeros(len(few), dtype=torch.float64), None
        for offset in offsets:
            points = torch.from_numpy(at(float(offset))).to(start.dtype)
            now = LOOK.look(generate_image(seen, points, label, noise_seed=seed, device=place, finite=finite))
            if before is not None:
                moved = distance(before, now).double().cpu()
                total += moved.clamp(min=0).sqrt() if distance.square else moved
            before = now
        parts.append(total)
    return torch.cat(parts)


class TraversalLength(DistanceMetric):
    """The traversal length along the native directions of the generator, with a named distance."""

    better = "higher"
    needs = frozenset({"generator"})
    samples = SAMPLES

    def compute(self, inputs: Inputs) -> list[MetricResult]:
        """See ``traversal_length``."""
        found, _ = traversal_length(
            inputs.generator,
            distance=self.loaded(inputs),
            samples=inputs.samples or SAMPLES,
            **inputs.pick("batch_size", "seed", "device", "progress", "info"),
        )
        return [found]


for _name, _distance in (("tpl", LPIPS), ("pixel_traversal_length", PIXEL), ("feature_traversal_length", FEATURES)):
    METRICS.register(_name)(TraversalLength(_name, _distance))
