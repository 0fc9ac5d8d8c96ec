"""What cannot be measured is refused at once, not after fifty thousand images have been drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orthogan.data import ImageSource
from orthogan.errors import UserError
from orthogan.evaluation.inception_score import check_inception_score
from orthogan.evaluation.kid import check_kernel_distance
from orthogan.evaluation.path_variants import PATH_METRICS
from orthogan.evaluation.precision_recall import check_precision_recall
from orthogan.evaluation.processes import rank_and_world
from orthogan.evaluation.result import NAMES
from orthogan.latent.truncation import threshold

COMPARING = ("fid", "kid", "prc")  # the Inception Score and path lengths need no reference


def check_request(
    metrics: Sequence[str],
    reference: ImageSource | str | Path | None,
    save_reference_to: str | Path | None,
    truncation: float,
) -> None:
    """Metrics that exist, a reference that serves them, a truncation that means something.

    Raises:
        UserError: naming the metric or the file, and what would do.
    """
    threshold(truncation)
    unknown = [metric for metric in metrics if metric not in (*NAMES, *PATH_METRICS)]
    if unknown or not metrics:
        known = ", ".join([*NAMES, *PATH_METRICS])
        raise UserError(f"metrics: {', '.join(unknown) or 'none'} given; choose out of {known}")
    comparing = [metric for metric in metrics if metric in COMPARING]
    if reference is None and comparing:
        raise UserError(f"metrics: {', '.join(comparing)} need a reference to compare with")
    if isinstance(reference, str | Path) and {"kid", "prc"} & set(metrics):
        raise UserError("metrics: kid and prc compare single images; give them images as reference, not statistics")
    if save_reference_to is None:
        return
    if reference is None:
        alone = ", ".join(metrics)
        raise UserError(f"{save_reference_to}: {alone} alone has no reference whose statistics could be written")
    if Path(save_reference_to).suffix != ".safetensors":
        raise UserError(f"{save_reference_to}: reference statistics are written as .safetensors")


def check_paths(metrics: Sequence[str], images: bool, truncation: float) -> None:
    """Path lengths are of a generator, on the whole of its prior.

    Args:
        images: whether there are only images.

    Raises:
        UserError: naming the metrics.
    """
    paths = ", ".join(metric for metric in metrics if metric in PATH_METRICS)
    if paths and images:
        raise UserError(f"metrics: {paths} walk through a latent space: they need a generator, not images")
    if paths and truncation != 1:
        raise UserError(f"truncation={truncation}: {paths} are defined on untruncated latents; leave it at 1")


def check_counts(metrics: Sequence[str], generated: int, reference: int | None) -> None:
    """Enough images for every metric, and at least one for every process.

    Args:
        generated: images to be scored.
        reference: images to compare with; None where there are only statistics, or nothing.

    Raises:
        UserError: naming the smaller number and what the metric needs.
    """
    fewest = generated if reference is None else min(generated, reference)
    world = rank_and_world()[1]
    if fewest < max(2, world):
        needed = "a covariance needs at least 2" if world <= 2 else f"each of {world} processes needs one"
        raise UserError(f"samples: {fewest} images: {needed}")
    if "isc" in metrics:
        check_inception_score(generated)
    if "kid" in metrics:
        check_kernel_distance(fewest)
    if "prc" in metrics:
        check_precision_recall(fewest)
