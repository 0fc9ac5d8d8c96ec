"""A test for data copying: are generated images closer to the training images than held-out images are?"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from orthogan.errors import UserError
from orthogan.evaluation.fidelity.neighbors import nearest
from orthogan.evaluation.metric import Inputs, Metric, Score, TooFewImages, register

COMPONENTS, CELLS, FEWEST = 64, 3, 20  # of dgm-eval: principal components, cells, generated images per cell


@register("ct", "c_t", "data_copying")
class DataCopying(Metric):
    """C_T (Meehan et al. 2020, arXiv 2004.05675): far below 0 means copies of training images.

    Far above 0 means underfitting. The reference must be the training images. Images that the generator has not seen
    are needed too.
    """

    feature_label = "C_T"
    better = "none"
    in_scorecard = True
    needs = frozenset({"rows", "held_out"})
    compares = True

    def check(self, inputs: Inputs) -> None:
        """Check that there are enough images."""
        super().check(inputs)
        counts = (inputs.samples or 0, inputs.reference_samples or 0, len(inputs.held_out))
        if min(counts) < 2 * FEWEST:
            raise TooFewImages(
                f"samples: ct needs at least {2 * FEWEST} generated, training and held-out images, not "
                f"{', '.join(map(str, counts))}; use more images"
            )

    def compute(self, inputs: Inputs) -> Score:
        """Return the statistic."""
        return Score(data_copying(inputs.fakes.rows, inputs.reals.rows, inputs.unseen.rows))


def data_copying(
    generated: Tensor, training: Tensor, held_out: Tensor, *, cells: int = CELLS, components: int = COMPONENTS
) -> float:
    """Compute C_T, a mean of z-scores over the cells of a partition of the training images (arXiv 2004.05675, sec. 3).

    In each cell, the distances of generated and of held-out images to the nearest training image of the cell are
    compared by a Mann-Whitney test. Cells count by their share of the held-out images; cells with at most 20 generated
    images do not count. As in dgm-eval, features are reduced to 64 principal components, and k-means makes 3 cells.

    Args:
        generated, training, held_out: features (n, d).

    Raises:
        UserError: no cell has enough images.

    Example:
        >>> import torch
        >>> from orthogan.evaluation.fidelity.data_copying import data_copying
        >>> x = torch.randn(900, 4, generator=torch.Generator().manual_seed(0))
        >>> data_copying(x[:300] + 1e-3, x[:300], x[300:600]) < -5  # copies
        True
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    sides = [side.double().numpy() for side in (generated, training, held_out)]
    if sides[1].shape[1] > components and min(len(sides[1]), sides[1].shape[1]) > components:
        reduce = PCA(components, random_state=0).fit(sides[1])
        sides = [reduce.transform(side) for side in sides]
    partition = KMeans(cells, n_init=10, random_state=0).fit(sides[1])  # pyright: ignore[reportArgumentType]
    labels = [partition.predict(side) for side in sides]
    scores, shares = [], []
    for cell in range(cells):
        q, t, p = (side[label == cell] for side, label in zip(sides, labels, strict=True))
        if len(q) > FEWEST and len(t) and len(p):
            scores.append(_z_score(q, t, p))
            shares.append(len(p))
    if not scores:
        raise UserError(
            f"ct: no cell of the training images has more than {FEWEST} generated and some held-out images; use more "
            "images"
        )
    return float(np.average(scores, weights=shares))


def _z_score(generated: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> float:
    """Return the z-score of the Mann-Whitney statistic: below 0 if generated images are closer than held-out ones."""
    import torch
    from scipy.stats import rankdata

    points = torch.from_numpy(training)
    q, p = (nearest(torch.from_numpy(side), points)[0][:, 0].numpy() for side in (generated, held_out))
    m, n = len(q), len(p)
    u = rankdata(np.concatenate([q, p]))[:m].sum() - m * (m + 1) / 2
    return (u - m * n / 2 + 0.5) / math.sqrt(m * n * (m + n + 1) / 12)  # 0.5: continuity correction
