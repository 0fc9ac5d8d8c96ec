"""Directions from numbers that belong to latents: a linear boundary or regression per attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.models.generate import model_hash
from orthogan.words import counted

CORRELATION = "correlation"  # score
FEW = 4  # with fewer rows than this times the latent dimension, the mean difference is used
FOLDS = 5
LEAST = 2  # rows of each of two classes, or of numbers
LEAST_REST = 0.1  # smallest length that a unit direction keeps, made orthogonal to the others


def boundaries(
    generator: nn.Module,
    latents: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    groups: Sequence[str],
    *,
    method: str,
    conditional: bool = False,
    seed: int = 0,
) -> Directions:
    """Fit one unit direction per column of ``values`` (n, m), NaN where unknown, to ``latents`` (n, latent_dim).

    See ``fit_row``. The score "correlation" is that of the value with the coordinate along the direction, on rows that
    were held out (5 folds). ``conditional``: remove from each direction its projection onto the span of the directions
    of all other factors (``groups``), so that moving along it keeps their coordinates (Shen et al. 2020,
    arXiv:2005.09635, Section 3.2).

    Raises ``UserError`` for a column without enough values, or a direction that is a combination of the others.
    """
    rows, scores = [], []
    for name, column in zip(names, values.T, strict=True):
        known = np.isfinite(column)
        z, v = latents[known].astype(np.float64), column[known]
        check_values(name, v)
        rows.append(fit_row(z, v))
        scores.append(held_out(z, v))
    matrix = np.stack(rows)
    return Directions(
        orthogonal_to_others(matrix, groups, names) if conditional else matrix,
        method=f"{method}, conditional" if conditional else method,
        names=names,
        scores={CORRELATION: scores},
        model_hash=model_hash(generator),
        seed=seed,
    )


def fit_row(latents: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The unit direction (latent_dim,) along which ``values`` (n,) rise.

    Two classes (0 and 1): the normal of a linear support vector machine with balanced classes, as in InterFaceGAN (Shen
    et al. 2020, arXiv:2005.09635). Other numbers: linear regression by least squares; for Gaussian latents its
    coefficients are the mean gradient of the values (Stein's lemma). For fewer than 4 rows per latent dimension, both
    are replaced by the covariance of latents and values, which for two classes is the difference of their means
    (White 2016, arXiv:1609.04468).
    """
    centered = latents - latents.mean(axis=0)
    if len(latents) < FEW * latents.shape[1]:
        row = centered.T @ (values - values.mean())
    elif is_binary(values):
        from sklearn.svm import LinearSVC

        machine: Any = LinearSVC(dual=False, class_weight="balanced", max_iter=10_000)  # pyright: ignore
        row = machine.fit(latents, values).coef_[0]
    else:
        row = np.linalg.lstsq(centered, values - values.mean(), rcond=None)[0]
    norm = float(np.linalg.norm(row))
    return row / norm if norm > 0 else np.eye(latents.shape[1])[0]


def held_out(latents: np.ndarray, values: np.ndarray) -> float:
    """The correlation of ``values`` (n,) with their coordinates along directions fitted to the other folds."""
    projected = np.zeros(len(values))
    for held in folds(values):
        if np.ptp(values[~held]) > 0:
            projected[held] = latents[held] @ fit_row(latents[~held], values[~held])
    return correlation(projected, values)


def folds(values: np.ndarray) -> list[np.ndarray]:
    """Masks (n,) of up to 5 folds, each with about the same distribution of ``values``."""
    fold = np.empty(len(values), np.int64)
    fold[np.argsort(values, kind="stable")] = np.arange(len(values)) % max(2, min(FOLDS, len(values) // 2))
    return [fold == part for part in range(int(fold.max()) + 1)]


def correlation(guessed: np.ndarray, values: np.ndarray) -> float:
    """Pearson's correlation; 0 if one of both is constant."""
    return float(np.corrcoef(guessed, values)[0, 1]) if np.ptp(guessed) > 0 and np.ptp(values) > 0 else 0.0


def orthogonal_to_others(matrix: np.ndarray, groups: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Unit rows (k, d), each without its projection onto the span of the rows of all other ``groups``."""
    found = []
    for row, group, name in zip(matrix, groups, names, strict=True):
        others = matrix[[at for at, one in enumerate(groups) if one != group]]
        if len(others):
            _, size, right = np.linalg.svd(others, full_matrices=False)
            basis = right[size > 1e-9 * size[0]]
            row = row - basis.T @ (basis @ row)
        norm = float(np.linalg.norm(row))
        if norm < LEAST_REST:
            raise UserError(
                f"conditional: the direction '{name}' is nearly a combination of the other {len(others)} "
                f"(a part of {norm:.2g} is left); choose fewer attributes"
            )
        found.append(row / norm)
    return np.stack(found)


def is_binary(values: np.ndarray) -> bool:
    """Whether all values are 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def check_values(name: str, values: np.ndarray) -> None:
    """Raise ``UserError`` unless there are two examples of both classes, or of different numbers."""
    if is_binary(values) and min((values == 0).sum(), (values == 1).sum()) < LEAST:
        yes = int((values == 1).sum())
        raise UserError(f"{name}: {yes} yes and {len(values) - yes} no; at least {LEAST} of each are needed")
    if len(values) < 2 * LEAST or not np.ptp(values) > 0:
        raise UserError(
            f"{name}: {counted(len(values), 'label')}, {len(np.unique(values))} of them different; at least {LEAST} "
            f"pictures with and {LEAST} without the attribute are needed"
        )
