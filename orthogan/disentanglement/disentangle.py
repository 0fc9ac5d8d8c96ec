"""Disentanglement of a generator: metrics over several seeds, compared with random directions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from orthogan.arguments import checked
from orthogan.data.source import ImageSource
from orthogan.disentanglement.codes.oracle import LEAST_ACCURACY, FactorClassifier
from orthogan.disentanglement.codes.recognizer import Recognizer
from orthogan.disentanglement.inputs import IDENTITY, RANDOM, MetricInputs
from orthogan.disentanglement.registry import check_metrics
from orthogan.disentanglement.result import TIME, GeneratorScore, GeneratorScores, summary, uniform
from orthogan.disentanglement.score import Score
from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.native import native_directions
from orthogan.progress import progress_bar
from orthogan.words import counted

DEFAULT_METRICS = ("vp", "activeness", "mig", "dci", "sap", "modularity")


@checked
def disentangle(
    generator: nn.Module,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    source: ImageSource | None = None,
    directions: Directions | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    samples: int = 10_000,
    controls: bool = True,
    y: int | None = None,
    oracle: FactorClassifier | None = None,
    least_accuracy: float = LEAST_ACCURACY,
    confidence: float = 0.95,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    encoder: Recognizer | None = None,
    progress: bool = True,
    info: Mapping[str, Any] | None = None,
) -> GeneratorScores:
    """Compute one result per metric, in order: mean, spread and interval over ``seeds``, with controls.

    The names (``orthogan.disentanglement.registry``) determine where codes and factors come from:

    * ``vp``, ``activeness``: the generator alone.
    * ``mig``, ``dci`` (random forest), ``sap`` (standardized), ``modularity``, ``explicitness``, ``code_vote``: its
      images, whose factors are predicted by an oracle trained on ``source``; codes are the coordinates of the latent.
      Factors that the oracle predicts with less than ``least_accuracy`` are dropped and reported, and so are factors
      that are constant in the images.
    * ``encoder:mig`` and so on, with ``irs``, ``factor_vae``, ``beta_vae``, ``total_correlation``: images of
      ``source``, whose codes are predicted by an encoder trained on the generator's images.

    Seeds are those of the metrics: of the latents, the networks and the splits. For generators from several training
    seeds, pass each to this function and the results to ``across``.

    Controls: the same metric along a random orthonormal basis of the same span (a new one for every seed), and, if the
    directions are not axes, along as many axes of the latent. An encoder is not trained again for the former.

    Args:
        source: images with factors, at the resolution and channels of the generator.
        directions: k >= 2 directions (default: the native ones of the generator).
        samples: number of images of the generator, or of ``source``, for array metrics.
        y: class of a conditional generator; None cycles through all classes.
        oracle: use this oracle instead of ``oracle_for(source)``.
        options: further arguments of metrics, such as ``{"vp": {"protocol": "published"}}``.
        encoder_options: of ``train_encoder``.
        encoder: Q of an InfoGAN (``recognizer``), which is then used in place of a trained encoder.
        info: further facts.

    Raises:
        UserError: unknown metric or option, missing source, or invalid directions or classes. ValueError: a metric
            rejects its input: too few samples, an oracle of another image size, constant factors.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import disentangle
        >>> generator = orthogan.load("sprites-sngan")
        >>> few = {"activeness": {"samples": 4}}
        >>> (score,) = disentangle(generator, ["activeness"], seeds=[0], options=few)
        >>> score.metric, sorted(score.controls)
        ('activeness', ['random basis'])
    """
    chosen = native_directions(generator) if directions is None else directions
    chosen.check(generator)
    given = dict(options or {})
    check_metrics(metrics, given, source is not None)
    if encoder is not None and not np.array_equal(chosen.matrix, encoder.codes.directions().numpy()):
        raise UserError("encoder: Q predicts the codes of the generator; use its native directions")
    if len(chosen) < 2 or not len(seeds):
        raise UserError(
            f"{counted(len(chosen), 'direction')}, {counted(len(seeds), 'seed')}: at least 2 and 1 are needed"
        )
    bench = MetricInputs(
        generator,
        source,
        chosen,
        tuple(seeds),
        samples,
        y,
        oracle,
        least_accuracy,
        dict(encoder_options or {}),
        progress,
        encoder,
    )
    names = [RANDOM] * controls + [IDENTITY] * (controls and not _are_axes(chosen.matrix))
    jobs = len(metrics) * len(seeds) * (1 + len(names))
    results = GeneratorScores()
    with progress_bar(total=jobs, desc="disentangle", unit=" scores", disable=not progress, leave=False) as bar:
        for metric in metrics:
            began = time.monotonic()
            scores: dict[str, list[Score]] = {}
            for basis in ("", *names):
                for seed in seeds:
                    bar.set_postfix_str(f"{metric}{basis and ', '}{basis}")
                    scores.setdefault(basis, []).append(bench.score(metric, basis, seed, given.get(metric, {})))
                    bar.update()
            first = scores[""][0]
            results.append(
                GeneratorScore(
                    metric=metric,
                    variant=first.variant,
                    score=summary(uniform(scores[""]), confidence=confidence),
                    controls={name: summary(uniform(scores[name]), confidence=confidence) for name in names},
                    parts=_parts(scores[""]),
                    details=first.as_dict()["details"],
                    protocol=bench.protocol(metric, confidence),
                    facts=bench.facts(metric) | dict(info or {}) | {TIME: round(time.monotonic() - began, 1)},
                )
            )
    return results


def _are_axes(matrix: np.ndarray) -> bool:
    """Whether every direction has a single nonzero entry, each at a different index."""
    used = matrix != 0
    return bool((used.sum(1) == 1).all() and (used.sum(0) <= 1).all())


def _parts(scores: Sequence[Score]) -> dict[str, float]:
    """Average the scalar details over seeds."""
    first = scores[0].details
    names = [name for name, value in first.items() if isinstance(value, int | float)]
    return {name: float(np.mean([score.details[name] for score in scores])) for name in names}
