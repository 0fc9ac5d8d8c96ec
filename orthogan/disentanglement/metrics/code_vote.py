"""The FactorVAE vote with swapped roles: fix a code, and find the factor of the images that varies least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from orthogan.disentanglement.codes.coordinates import BATCH, LatentCoordinates, subject
from orthogan.disentanglement.codes.oracle import LEAST_ACCURACY, FactorClassifier
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score
from orthogan.latent.directions import Directions
from orthogan.progress import progress_bar
from orthogan.rng import derive


@register_metric("code_vote")
def code_vote(
    generator: nn.Module,
    oracle: FactorClassifier,
    directions: Directions | None = None,
    *,
    factors: Sequence[int] | None = None,
    train_votes: int = 400,
    test_votes: int = 200,
    batch: int = 32,
    samples: int = 2000,
    y: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Score:
    """Test accuracy of the majority vote factor -> code, from about 1 over the number of codes, k, up to "ceiling".

    ``factor_vae`` fixes a factor and finds the code that varies least; a generator needs the reverse. A vote fixes a
    random coordinate at a random value of the prior in ``batch`` images and chooses the factor that varies least in the
    predictions of ``oracle``: its Gini impurity (the probability that two images differ in it) relative to that of
    ``samples`` images. Each factor is then assigned to the code for which it was chosen most often; the score is the
    accuracy of this assignment.

    K factors can represent only K codes: with k > K no generator exceeds "ceiling", about K / k. "consistency" reads
    the same votes in reverse, how often a code votes for its most common factor: 1 if every code always votes for
    one factor, about 1 / K by chance. Neither is comparable with ``factor_vae``.

    Generates batch * (train_votes + test_votes) + samples images: 21,200 by default.

    Args:
        factors: indices of the factors of the oracle that may be chosen (default: those predicted with at least 90 %
            accuracy). Factors that do not vary in the images are never chosen.
        y: class of a conditional generator; None cycles through all classes.

    Returns details "chance", "ceiling", "consistency", "train", "factors" (indices that could be chosen), "votes" (k,
    K) of training, "test_votes", "assigned" (K,): the code of each factor, -1 if it was never chosen.

    Raises:
        ValueError: numbers that are too small, fewer than two varying factors, or an oracle of another image size.
            UserError: invalid directions or class.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.data import ArraySource
        >>> from orthogan.disentanglement import code_vote, train_oracle
        >>> factors = np.argwhere(np.ones((8, 8), bool)) // 4  # is the left, the right half bright?
        >>> images = (factors.repeat(8, axis=1)[:, None, None] * np.ones((16, 1))).astype(np.uint8) * 255
        >>> halves = {"factor_names": ["left", "right"], "factor_sizes": [2, 2]}
        >>> source = ArraySource("halves", images, factors=factors, **halves)
        >>> oracle = train_oracle(source, steps=20, batch_size=16, held_out=20, precision="float32", progress=False)
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Unflatten(1, (1, 1, 2)), nn.Upsample((16, 16)))
        >>> _ = nn.init.eye_(net[0].weight)
        >>> net.latent_dim = 2
        >>> votes = {"train_votes": 20, "test_votes": 20, "batch": 16, "samples": 200}
        >>> code_vote(net, oracle, **votes).value > 0.7
        True
    """
    if min(batch, samples) < 2 or min(train_votes, test_votes) < 1:
        raise ValueError(
            f"code_vote: batch={batch}, samples={samples}, train_votes={train_votes}, test_votes={test_votes}: must "
            "be at least 2, 2, 1, 1"
        )
    allowed = oracle.kept(LEAST_ACCURACY) if factors is None else [int(j) for j in factors]
    with subject(generator, directions, y=y) as seen:
        k = len(seen)
        whole = _impurity(_read(seen, oracle, samples, derive(seed, "vote", "all"))[None], oracle.merging.sizes)[0]
        named_of = np.array([j for j in allowed if whole[j] > 0], np.int64)
        if len(named_of) < 2:
            names = [oracle.merging.names[j] for j in named_of]
            raise ValueError(f"code_vote: at least 2 factors must vary in the images; varying: {names or 'none'}")
        tables = np.zeros((2, k, len(oracle.merging.sizes)), np.int64)
        total = train_votes + test_votes
        held = np.random.default_rng(derive(seed, "vote", "codes")).integers(0, k, total)
        group = max(1, BATCH // batch)
        with progress_bar(total=total, desc="code vote", unit=" votes", disable=not progress, leave=False) as bar:
            for start in range(0, total, group):
                still = held[start : start + group]
                local = _held(seen, oracle, still, batch, derive(seed, "vote", start))
                named = named_of[np.argmin(local[:, named_of] / whole[named_of], axis=1)]
                part = (np.arange(start, start + len(still)) >= train_votes).astype(np.int64)
                np.add.at(tables, (part, still, named), 1)
                bar.update(len(still))
    voted = tables[0].sum(0) > 0
    assigned = np.where(voted, tables[0].argmax(0), -1)
    right = [sum(int(table[assigned[j], j]) for j in np.flatnonzero(voted)) for table in tables]
    own = tables[0].argmax(1)
    details = {
        "chance": 1 / k,
        "ceiling": min(1.0, len(named_of) / k),
        "consistency": float(tables[1][np.arange(k), own].sum() / test_votes),
        "train": right[0] / train_votes,
        "factors": named_of,
        "votes": tables[0],
        "test_votes": tables[1],
        "assigned": assigned,
    }
    variant = f"gini,k={k},factors={len(named_of)},batch={batch},votes={train_votes}+{test_votes},samples={samples}"
    return Score("code_vote", variant, right[1] / test_votes, seed, details)


def _read(seen: LatentCoordinates, oracle: FactorClassifier, n: int, seed: int) -> np.ndarray:
    z, labels = seen.draw(n, seed)
    return oracle.read(seen.images(z, labels))[0]


def _held(seen: LatentCoordinates, oracle: FactorClassifier, codes: np.ndarray, batch: int, seed: int) -> np.ndarray:
    """Return the impurity (votes, K) of ``batch`` images for each of ``codes`` (votes,), with that code fixed."""
    z, labels = seen.draw(len(codes) * batch, seed)
    index = torch.from_numpy(codes).repeat_interleave(batch)
    own = seen.coordinates.of(z).gather(1, index[:, None])[:, 0]
    same = own.view(len(codes), batch)[:, :1].expand(-1, batch).reshape(-1)  # that of the first image of the vote
    z = seen.coordinates.put_one(z, index, same)
    answers = oracle.read(seen.images(z, labels))[0]
    return _impurity(answers.reshape(len(codes), batch, -1), oracle.merging.sizes)


def _impurity(answers: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """1 - sum of squared shares of the values, float64 (groups, K), of answers (groups, n, K)."""
    columns = []
    for j, size in enumerate(sizes):
        shares = np.stack([(answers[:, :, j] == value).mean(1) for value in range(size)])
        columns.append(1 - (shares**2).sum(0))
    return np.stack(columns, axis=1)
