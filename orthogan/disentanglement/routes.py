"""The metrics of a generator by name, and which of three ways gives each its codes and factors.

No prefix: the generator itself (vp, activeness), or its images as an oracle reads them, with the latent's coordinates
as codes. ``encoder:``: real images, with the answers of an encoder trained on the generator's images as codes.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from orthogan.disentanglement.activity import activity
from orthogan.disentanglement.beta_vae import beta_vae
from orthogan.disentanglement.code_vote import code_vote
from orthogan.disentanglement.codes.predicted import without_rare
from orthogan.disentanglement.dci import dci
from orthogan.disentanglement.explicitness import explicitness
from orthogan.disentanglement.factor_vae import factor_vae
from orthogan.disentanglement.irs import irs
from orthogan.disentanglement.mig import mig
from orthogan.disentanglement.modularity import modularity
from orthogan.disentanglement.sap import sap
from orthogan.disentanglement.score import Score
from orthogan.disentanglement.total_correlation import gaussian_total_correlation
from orthogan.disentanglement.vp import vp
from orthogan.errors import UserError
from orthogan.io.yaml_text import parse_yaml

ENCODER = "encoder:"
LARGEST = 10**7  # of a number given as an option: more images, votes or trees than anybody can wait for


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


def read_options(metrics: Sequence[str], given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options out of a text, such as ``{"vp": {"pairs": 200.0}}``, in the types that the metrics declare.

    Raises UserError: as ``check_metrics``, or a value of another type, not finite, or above ``LARGEST``.
    """
    check_metrics(metrics, given, has_source=True)
    return {
        metric: {name: _read(metric, name, value) for name, value in values.items()} for metric, values in given.items()
    }


def _read(metric: str, name: str, value: Any) -> Any:
    hint = get_type_hints(inspect.unwrap(_function_of(metric)))[name]
    if isinstance(value, str) and "," in value:  # -2,0,2
        value = [parse_yaml(word, f"option {name!r} of {metric!r}") for word in value.split(",")]
    about = f"option {name!r} of {metric!r} is {value!r}"
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) and bool not in (hint, *get_args(hint)):
            raise UserError(f"{about}: it is no yes or no")
        if isinstance(number, int | float) and not abs(number) <= LARGEST:
            raise UserError(f"{about}: give a finite number of at most {LARGEST:g}")
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        said = dict.fromkeys(one["msg"][:1].lower() + one["msg"][1:] for one in error.errors())
        raise UserError(f"{about}: {'; '.join(said)}") from None


def _function_of(metric: str) -> Callable[..., Score]:
    real = metric.startswith(ENCODER)
    functions = REAL_ARRAYS | REAL_VOTES if real else LATENT | ARRAYS | VOTE
    return functions[metric.removeprefix(ENCODER)][0]


def options_of(metric: str) -> list[str]:
    """What may be set of ``metric``, a name of ``METRICS``, beyond what ``disentangle`` sets itself."""
    return [name for name in inspect.signature(_function_of(metric)).parameters if name not in SET]
