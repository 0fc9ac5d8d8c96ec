"""The metrics of a generator by name, and which of three ways gives each its codes and factors.

No prefix: the generator itself (vp, activeness), or its images as an oracle reads them, with the latent's coordinates
as codes. ``encoder:``: real images, with the answers of an encoder trained on the generator's images as codes.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from orthogan.disentanglement.activity import activity
from orthogan.disentanglement.beta_vae import beta_vae
from orthogan.disentanglement.code_vote import code_vote
from orthogan.disentanglement.dci import dci
from orthogan.disentanglement.explicitness import explicitness
from orthogan.disentanglement.factor_vae import factor_vae
from orthogan.disentanglement.irs import irs
from orthogan.disentanglement.mig import mig
from orthogan.disentanglement.modularity import modularity
from orthogan.disentanglement.predicted import without_rare
from orthogan.disentanglement.sap import sap
from orthogan.disentanglement.score import Score
from orthogan.disentanglement.total_correlation import gaussian_total_correlation
from orthogan.disentanglement.vp import vp
from orthogan.errors import UserError

ENCODER = "encoder:"


@functools.wraps(explicitness)
def _explicitness(codes: np.ndarray, factors: np.ndarray, **options: Any) -> Score:
    return explicitness(*without_rare(codes, factors), **options)  # every value must be in both parts of its split


@functools.wraps(gaussian_total_correlation)
def _total_correlation(codes: np.ndarray, factors: np.ndarray, **options: Any) -> Score:
    del factors
    return gaussian_total_correlation(codes, **options)


# Each with the options that differ from the metric's own defaults.
LATENT: dict[str, tuple[Callable[..., Score], dict[str, Any]]] = {"vp": (vp, {}), "activeness": (activity, {})}
VOTE: dict[str, tuple[Callable[..., Score], dict[str, Any]]] = {"code_vote": (code_vote, {})}
ARRAYS: dict[str, tuple[Callable[..., Score], dict[str, Any]]] = {
    "mig": (mig, {}),
    "dci": (dci, {"classifier": "random_forest"}),
    "sap": (sap, {"standardise": True}),
    "modularity": (modularity, {}),
    "explicitness": (_explicitness, {}),
}
REAL_ARRAYS = ARRAYS | {"irs": (irs, {}), "total_correlation": (_total_correlation, {})}
VOTES: dict[str, Any] = {"train_votes": 800, "test_votes": 400, "variance_samples": 5000}
POINTS: dict[str, Any] = {"train_points": 800, "test_points": 400}
REAL_VOTES: dict[str, tuple[Callable[..., Score], dict[str, Any]]] = {
    "factor_vae": (factor_vae, VOTES),
    "beta_vae": (beta_vae, POINTS),
}
SET = ["generator", "directions", "oracle", "source", "encoder", "codes", "factors", "test", "y", "seed", "progress"]
METRICS = (*LATENT, *ARRAYS, *VOTE, *(ENCODER + name for name in (*REAL_ARRAYS, *REAL_VOTES)))


def check_metrics(metrics: Sequence[str], options: Mapping[str, Mapping[str, Any]], has_source: bool) -> None:
    """Raises UserError: none, unknown or repeated metrics, options of others, or no labelled data for them."""
    if not metrics or len(set(metrics)) < len(metrics):
        raise UserError(f"metrics: {', '.join(metrics) or 'none'}: each once, at least one of {', '.join(METRICS)}")
    for name in metrics:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, 1)
            raise UserError(
                f"metric {name!r}: {f'did you mean {near[0]!r}?' if near else 'choose out of ' + ', '.join(METRICS)}"
            )
        if name not in LATENT and not has_source:
            raise UserError(f"metric {name!r}: needs images with known factors; give a source of them, as sprites")
    for name, given in options.items():
        if name not in metrics:
            raise UserError(f"options of {name!r}: it is not among the metrics asked for, {', '.join(metrics)}")
        known = options_of(name)
        for option in given:
            if option not in known:
                near = difflib.get_close_matches(option, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
                raise UserError(f"option {option!r} of {name!r}: {hint}")


def options_of(metric: str) -> list[str]:
    """What may be set of ``metric``, a name of ``METRICS``, beyond what ``disentangle`` sets itself."""
    real = metric.startswith(ENCODER)
    functions = REAL_ARRAYS | REAL_VOTES if real else LATENT | ARRAYS | VOTE
    function, _ = functions[metric.removeprefix(ENCODER)]
    return [name for name in inspect.signature(function).parameters if name not in SET]
