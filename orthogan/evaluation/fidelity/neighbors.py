"""Nearest neighbors of feature vectors, in blocks: memory does not grow with the product of the numbers of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from orthogan.evaluation.fidelity.statistics import float64_place

CHUNK = 2000  # rows and columns of the distance matrix at a time
CUDA_CHUNK = 10_000  # larger products keep a GPU busy: 400 MB


def chunk_of(features: Tensor) -> int:
    """Return the number of rows and columns of the distance matrix to compute at a time."""
    return CUDA_CHUNK if features.is_cuda else CHUNK


def float64_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the distances (n, m) of features (n, d), (m, d) in float64; 0 for equal rows, in any block."""
    x, y = x.double(), y.double()
    center = y.mean(0)  # a common offset would take up digits
    x, y = x - center, y - center
    squares = torch.cdist(x, y).square()
    rounding = 64 * torch.finfo(x.dtype).eps * (x.square().sum(1)[:, None] + y.square().sum(1))
    return torch.where(squares > rounding, squares, 0.0).sqrt()


def radii(
    features: Tensor, chunk: int, neighbors: int, distances_of: Callable[[Tensor, Tensor], Tensor] = torch.cdist
) -> Tensor:
    """Return the distance (n,) of each row of ``features`` (n, d) to its neighbor ``neighbors``, not counting itself.

    By default, distances are those of ``torch.cdist``, as in torch-fidelity.
    """
    found = []
    for rows in features.split(chunk):
        nearest = distances_of(rows, rows[:0])
        for columns in features.split(chunk):
            distances = distances_of(rows, columns)
            closest = distances.topk(min(neighbors + 1, len(columns)), largest=False, sorted=False).values
            nearest = torch.cat([nearest, closest], 1)
            if nearest.shape[1] > neighbors + 1:
                nearest = nearest.topk(neighbors + 1, largest=False, sorted=False).values
        found.append(nearest.amax(1))
    return torch.cat(found)


def nearest(queries: Tensor, points: Tensor, count: int = 1, *, same: bool = False) -> tuple[Tensor, Tensor]:
    """Return distances (n, count) in float64 and indices (n, count) of the nearest ``points`` (m, d), nearest first.

    The candidates are found in float64, because images that differ by a few gray levels are closer than the rounding
    of a matrix product in float32. Their distances are then computed without such a product, so a copy has distance 0.

    Args:
        queries: features (n, d).
        same: queries and points are the same images in the same order; an image is not its own neighbor.
    """
    queries, points = float64_place(queries), float64_place(points)
    chunk = chunk_of(queries)
    every_distance, every_index = [], []
    for first, rows in zip(range(0, len(queries), chunk), queries.split(chunk), strict=True):
        best = rows.new_empty(len(rows), 0, dtype=torch.float64)
        where = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        for start, columns in zip(range(0, len(points), chunk), points.split(chunk), strict=True):
            distances = torch.cdist(rows.double(), columns.double())
            if same and first == start:
                distances.fill_diagonal_(torch.inf)
            found = distances.topk(min(count, len(columns)), largest=False)
            best, where = torch.cat([best, found.values], 1), torch.cat([where, found.indices + start], 1)
            if best.shape[1] > count:
                kept = best.topk(count, largest=False)
                best, where = kept.values, where.gather(1, kept.indices)
        exact = (rows.cpu().double()[:, None] - points.cpu()[where.cpu()].double()).square().sum(2).sqrt()
        exact, order = exact.sort(1)
        every_distance.append(exact)
        every_index.append(where.cpu().gather(1, order))
    return torch.cat(every_distance), torch.cat(every_index)
