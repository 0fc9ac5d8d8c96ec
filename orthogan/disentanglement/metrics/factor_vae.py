"""The FactorVAE score: does fixing a factor reduce the variance of one code (Kim & Mnih 2018)?"""

from __future__ import annotations

import numpy as np

from orthogan.disentanglement.arrays import constant_codes, exponents, rescale
from orthogan.disentanglement.codes.source import ROWS, Encoder, LabelledSource, draw, encode_images, varying
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score


@register_metric("factor_vae", train_votes=800, test_votes=400, variance_samples=5000)
def factor_vae(
    source: LabelledSource,
    encoder: Encoder,
    *,
    variance_samples: int = 10_000,
    train_votes: int = 10_000,
    test_votes: int = 5_000,
    batch: int = 64,
    threshold: float = 0.05,
    absolute: bool = False,
    seed: int = 0,
) -> Score:
    """Test accuracy of the majority vote code -> factor, from about 1 / number of factors to 1.

    A vote fixes a random factor k at a random value in ``batch`` observations and chooses the code with the smallest
    local variance relative to its global variance. Each code is then assigned to the factor for which it was chosen
    most often in ``train_votes``; the score is the accuracy of this assignment in ``test_votes``.

    It encodes batch * (train_votes + test_votes) + variance_samples observations: 970,000 by default. Constant factors
    are never chosen as k. Constant codes are always ignored; if no code remains, the score is 0.

    Args:
        source: observations of chosen factors.
        encoder: maps observations to codes (n, d).
        variance_samples: number of observations for the global variances.
        train_votes: number of votes that assign the codes to factors.
        test_votes: number of votes for the accuracy.
        batch: observations per vote.
        threshold: codes with a standard deviation below this share of the largest one are ignored.
        absolute: ignore the codes below ``threshold`` itself, as in Locatello et al. 2019. This only suits codes of a
            known scale, such as those of a VAE.
        seed: of the factors and the observations.

    Returns:
        The score, with details "train", "active" (indices of the codes used), "deviation" (d,), "factors" (the indices
            of possible k), "votes" and "test_votes" (factors of the source, d), and "assigned" (d,): the factor of each
            code, -1 without votes.

    Raises:
        ValueError: fewer than two varying factors, sizes that are too small, or an encoder with an invalid output
            shape.

    Source: Kim & Mnih 2018, arXiv:1802.05983.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import GridSource, factor_vae
        >>> factors = np.argwhere(np.ones((4, 4), bool))
        >>> source = GridSource(factors, observations=factors)
        >>> few = {"variance_samples": 200, "train_votes": 50, "test_votes": 50, "batch": 16}
        >>> factor_vae(source, lambda codes: codes, **few).value
        1.0
    """
    factors = varying("factor_vae", source)
    if min(batch, variance_samples) < 2 or min(train_votes, test_votes) < 1 or threshold < 0:
        raise ValueError(
            f"factor_vae: batch={batch}, variance_samples={variance_samples}, train_votes={train_votes}, "
            f"test_votes={test_votes}, threshold={threshold}: must be at least 2, 2, 1, 1, 0"
        )
    rng = np.random.default_rng(seed)
    codes = encode_images("factor_vae", source, encoder, draw(source, (variance_samples,), rng))
    scale = int(exponents(codes).max())
    codes = rescale(codes, scale)
    variance = codes.var(axis=0, ddof=1)
    deviation = np.ldexp(np.sqrt(variance), scale)
    least = threshold if absolute else threshold * deviation.max()
    active = np.flatnonzero((deviation >= least) & ~constant_codes(codes))  # a constant code would be 0 / 0
    tables = np.zeros((2, len(source.factor_sizes), codes.shape[1]), np.int64)
    if len(active):
        for table, count in zip(tables, (train_votes, test_votes), strict=True):
            held, named = _votes(source, encoder, factors, active, variance, scale, count, batch, rng)
            np.add.at(table, (held, named), 1)
    voted = tables[0].sum(0) > 0
    assigned = np.where(voted, tables[0].argmax(0), -1)
    # a code that was never chosen in training has no factor, so all its test votes are wrong
    right = [sum(int(table[assigned[i], i]) for i in np.flatnonzero(voted)) for table in tables]
    details = {
        "train": right[0] / train_votes,
        "active": active,
        "deviation": deviation,
        "factors": factors,
        "votes": tables[0],
        "test_votes": tables[1],
        "assigned": assigned,
    }
    prune = f"{threshold:g}" if absolute else f"{threshold:g}*max"
    variant = f"prune={prune},batch={batch},votes={train_votes}+{test_votes},variance={variance_samples}"
    return Score("factor_vae", variant, right[1] / test_votes, seed, details)


def _votes(
    source: LabelledSource,
    encoder: Encoder,
    factors: np.ndarray,
    active: np.ndarray,
    variance: np.ndarray,
    scale: int,
    count: int,
    batch: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the fixed factor (count,) and the chosen code (count,), an index among all codes, of each vote.

    ``variance`` is of codes over 2 ^ ``scale``.
    """
    held = rng.choice(factors, size=count)
    group = max(1, ROWS // batch)
    named = []
    for start in range(0, count, group):
        still = held[start : start + group]
        drawn = draw(source, (len(still), batch), rng)
        each = np.arange(len(still))
        drawn[each, :, still] = drawn[each, :1, still]
        codes = rescale(encode_images("factor_vae", source, encoder, drawn.reshape(-1, drawn.shape[-1])), scale)
        local = codes[:, active].reshape(len(still), batch, -1).var(axis=1, ddof=1)
        named.append(active[np.argmin(local / variance[active], axis=1)])
    return held, np.concatenate(named)
