"""FID of each class, and their mean: does a conditional generator draw every class well?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from orthogan.data import ImageSource
from orthogan.errors import UserError
from orthogan.evaluation.fidelity.frechet import frechet_distance
from orthogan.evaluation.fidelity.statistics import Moments
from orthogan.evaluation.images import class_order, labels_at, subset
from orthogan.evaluation.metric import Inputs, Metric, Score, register
from orthogan.models.label_table import label_table

LISTED = 100  # classes


@register("class_fid", "class_fd", "intra_fid")
class ClassFID(Metric):
    """The mean over classes of the FID between generated and real images of a class (Miyato & Koyama 2018).

    Its parts are the FIDs of the classes (of the worst 100, if there are more). Each has only the images of one class,
    so it is biased upward more than the FID of all images; compare equal numbers only.
    """

    label, feature_label = "class FID", "class FD"
    better = "lower"
    in_scorecard = True
    needs = frozenset({"rows"})
    compares = True

    def check(self, inputs: Inputs) -> None:
        """Check that both sides have the same classes."""
        super().check(inputs)
        reals = inputs.reference
        assert isinstance(reals, ImageSource)
        fakes = inputs.images if inputs.generator is None else inputs.generator
        if reals.label_vectors is not None or (inputs.generator is not None and label_table(inputs.generator)):
            raise UserError("metrics: class_fid needs images with one class each, but the labels are vectors")
        if not fakes.num_classes or not reals.num_classes:
            side = "real images have" if fakes.num_classes else "generated images have"
            raise UserError(f"metrics: class_fid needs images with classes, but the {side} none")
        if fakes.num_classes != reals.num_classes:
            raise UserError(
                f"metrics: class_fid: {fakes.num_classes} classes of generated images, but {reals.num_classes} of real "
                "images"
            )

    def compute(self, inputs: Inputs) -> Score:
        """Return the mean and, as parts, the distance of each class."""
        reals = inputs.reference
        assert isinstance(reals, ImageSource)
        if inputs.generator is not None:
            classes = class_order(inputs.generator, inputs.samples or 0, inputs.seed).numpy()
        else:
            classes = labels_at(inputs.images, subset(inputs.images, inputs.samples, inputs.seed))
        of_reals = labels_at(reals, subset(reals, inputs.reference_samples))
        names = list(reals.class_names) or [str(i) for i in range(reals.num_classes)]
        found = class_frechet_distances(
            inputs.fakes.rows, classes, inputs.reals.rows, of_reals, names, device=inputs.device
        )
        worst = sorted(found, key=lambda name: -found[name])[:LISTED]
        parts = {name: found[name] for name in found if len(found) <= LISTED or name in worst}
        return Score(float(np.mean(list(found.values()))), parts=parts)


def class_frechet_distances(
    generated: Tensor,
    generated_classes: np.ndarray,
    reference: Tensor,
    reference_classes: np.ndarray,
    names: list[str],
    *,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Return the Fréchet distance of each class, by name.

    Args:
        generated, reference: features (n, d), (m, d), and the class of each, an index of ``names``.

    Raises:
        UserError: a class has fewer than 2 images on a side.

    Example:
        >>> import numpy as np, torch
        >>> from orthogan.evaluation.fidelity.class_fid import class_frechet_distances
        >>> x, classes = torch.randn(40, 3), np.arange(40) % 2
        >>> found = class_frechet_distances(x, classes, x + 2, classes, ["cat", "dog"])
        >>> {name: round(value, 3) for name, value in found.items()}
        {'cat': 12.0, 'dog': 12.0}
    """
    found = {}
    for index, name in enumerate(names):
        sides = []
        for what, rows, classes in (
            ("generated", generated, generated_classes),
            ("real", reference, reference_classes),
        ):
            own = torch.from_numpy(np.flatnonzero(classes == index))
            if len(own) < 2:
                raise UserError(
                    f"class_fid: class {name!r} has {len(own)} {what} images; a covariance needs at least 2, so use "
                    "more images"
                )
            moments = Moments()
            moments.add(rows[own])
            sides.append(moments.gaussian())
        found[name] = frechet_distance(*sides, device=device)
    return found
