"""What cannot be measured is refused at once, not after fifty thousand images have been drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orthogan.data import ImageSource
from orthogan.distributed import rank_and_world
from orthogan.errors import UserError
from orthogan.evaluation.fidelity.inception_score import check_inception_score
from orthogan.evaluation.fidelity.kid import check_kernel_distance
from orthogan.evaluation.fidelity.precision_recall import check_precision_recall
from orthogan.evaluation.paths.path_variants import PATH_METRICS
from orthogan.models.generate import threshold

COMPARING = ("fid", "kid", "prc")  # the Inception Score and path lengths need no reference


def check_request(
    metrics: Sequence[str],
    reference: ImageSource | Path | None,
    save_reference_to: str | Path | None,
    truncation: float,
) -> None:
    """A truncation that means something, and a place for the statistics of a reference.

    Raises:
        UserError: naming the file or number, and what would do.
    """
    threshold(truncation)
    if save_reference_to is None:
        return
    if reference is None:
        alone = ", ".join(metrics)
        raise UserError(f"{save_reference_to}: {alone} alone has no reference whose statistics could be written")
    if Path(save_reference_to).suffix != ".safetensors":
        raise UserError(f"{save_reference_to}: reference statistics are written as .safetensors")


def check_metric(
    metric: str,
    reference: ImageSource | Path | None,
    *,
    images: bool,
    truncation: float,
    counts: tuple[int, int | None],
    subset_size: int | None = None,
) -> None:
    """Whether one metric can be computed, as far as the request alone tells.

    Args:
        images: whether the subject is images, without a generator.
        counts: as of ``check_counts``.
        subset_size: of kid.

    Raises:
        UserError: naming the metric and what it needs.
    """
    if metric in PATH_METRICS:
        if images:
            raise UserError(f"metrics: {metric} walks through a latent space: it needs a generator, not images")
        if truncation != 1:
            raise UserError(f"truncation={truncation}: {metric} is defined on untruncated latents; leave it at 1")
    if metric in COMPARING and reference is None:
        raise UserError(f"metrics: {metric} needs a reference to compare with")
    if metric in ("kid", "prc") and isinstance(reference, Path):
        raise UserError(f"metrics: {metric} compares single images; give it images as reference, not statistics")
    check_counts([metric], *counts, subset_size=subset_size)


def check_counts(
    metrics: Sequence[str], generated: int, reference: int | None, *, subset_size: int | None = None
) -> None:
    """Enough images for every metric, and at least one for every process.

    Args:
        generated: images to be scored.
        reference: images to compare with; None where there are only statistics, or nothing.
        subset_size: of kid, see ``check_kernel_distance``.

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
        check_kernel_distance(fewest, subset_size)
    if "prc" in metrics:
        check_precision_recall(fewest)
