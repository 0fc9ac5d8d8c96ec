"""The metrics that ``disentangle`` knows by name, and their inputs.

A metric is a function that returns a ``Score``. Its first arguments determine its inputs:

* ``(generator, directions, *, y, seed)``: the generator alone.
* ``(generator, oracle, directions, *, factors, y, seed)``: also a factor classifier on generated images.
* ``(codes, factors, *, seed)`` or ``(codes, *, seed)``: arrays. By its plain name, of generated images: the coordinates
  of their latents, and their factors predicted by a classifier. With the prefix ``encoder:``, of real images: the
  predictions of an encoder that was trained on generated images, and the true factors.
* ``(source, encoder, *, seed)``: that encoder on real images of chosen factors; always with the prefix ``encoder:``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from orthogan.arguments import checked
from orthogan.config.base import hints_of
from orthogan.disentanglement.score import Score
from orthogan.errors import UserError
from orthogan.io.yaml_text import parse_yaml
from orthogan.registry import Registry, did_you_mean

ENCODER = "encoder:"
LARGEST = 10**7  # largest number allowed as an option
Needs = Literal["generator", "classifier", "arrays", "source"]
Function = TypeVar("Function", bound=Callable[..., Score])
_FIRST: dict[tuple[str, ...], Needs] = {
    ("generator", "directions"): "generator",
    ("generator", "oracle"): "classifier",
    ("codes", "factors"): "arrays",
    ("codes",): "arrays",
    ("source", "encoder"): "source",
}
_NO_OPTIONS = {"generator", "directions", "oracle", "source", "encoder", "codes", "factors", "test", "y", "seed"}
_NO_OPTIONS.add("progress")


@dataclass(frozen=True)
class DisentanglementMetric:
    """A metric, the options that ``disentangle`` sets by default, and where it applies.

    Raises ``TypeError`` if the first arguments of the function are none of those above.
    """

    function: Callable[..., Score]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    on_generated: bool = True  # whether an array metric also applies to generated images

    def __post_init__(self) -> None:
        if self._needs() is None:
            first = "; ".join(", ".join(names) for names in _FIRST)
            raise TypeError(f"expected a function that returns a Score, whose first arguments are one of: {first}")

    def _needs(self) -> Needs | None:
        names = list(inspect.signature(self.function).parameters) if callable(self.function) else []
        return next((needs for first, needs in _FIRST.items() if tuple(names[: len(first)]) == first), None)

    @property
    def needs(self) -> Needs:
        """Return the inputs of the function."""
        needs = self._needs()
        assert needs is not None
        return needs

    @functools.cached_property
    def options(self) -> list[str]:
        """Return the options that users may set."""
        return [name for name in inspect.signature(self.function).parameters if name not in _NO_OPTIONS]

    def __call__(self, *inputs: Any, **options: Any) -> Score:
        """Compute the score of ``inputs``, with ``defaults`` overridden by ``options``."""
        if self.needs == "arrays" and "factors" not in inspect.signature(self.function).parameters:
            inputs = inputs[:1]
        return self.function(*inputs, **{**self.defaults, **options})


METRICS: Registry[DisentanglementMetric] = Registry(
    "disentanglement metric", "orthogan.disentanglement.metrics", adopt=DisentanglementMetric
)


def register_metric(name: str, *, on_generated: bool = True, **defaults: Any) -> Callable[[Function], Function]:
    """Return a decorator that registers a function under ``name``; ``defaults``: options set by ``disentangle``.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import Score, register_metric
        >>> @register_metric("docs_spread")
        ... def spread(codes, factors, *, seed=0):
        ...     return Score("docs_spread", "", float(np.std(codes)), seed)
        ...
        >>> spread(np.array([[0.0], [2.0]]), None).value
        1.0
    """

    def add(function: Function) -> Function:
        function = checked(function)
        METRICS.register(name)(DisentanglementMetric(function, defaults, on_generated))
        return function

    return add


def find_metric(name: str) -> DisentanglementMetric:
    """Return the metric called ``name``, such as "mig", "encoder:mig" or "my.module:metric".

    Raises:
        UserError: there is no such metric, or it does not apply with or without this prefix.
    """
    plain = name.removeprefix(ENCODER)
    if ":" not in plain and plain not in METRICS:
        raise UserError(
            f"unknown metric {name!r}{did_you_mean(name, metric_names())}; choose from {', '.join(metric_names())}, "
            "or module:name for your own"
        )
    metric = METRICS.get(plain, "metric")
    if name not in _names(plain, metric):
        raise UserError(f"metric {name!r}: {plain} is only available as {', '.join(_names(plain, metric))}")
    return metric


def metric_names() -> list[str]:
    """Return all names of built-in metrics, with and without the prefix.

    Example:
        >>> from orthogan.disentanglement import metric_names
        >>> "mig" in metric_names(), "encoder:mig" in metric_names()
        (True, True)
    """
    names = [name for plain, metric in METRICS.items() for name in _names(plain, metric)]
    return sorted(names, key=lambda name: name.startswith(ENCODER))


def _names(plain: str, metric: DisentanglementMetric) -> list[str]:
    if metric.needs in ("generator", "classifier"):
        return [plain]
    return [plain] * (metric.needs == "arrays" and metric.on_generated) + [ENCODER + plain]


def check_metrics(metrics: Sequence[str], options: Mapping[str, Mapping[str, Any]], has_source: bool) -> None:
    """Raise UserError for no, unknown or repeated metrics, options of other metrics, or missing labeled data."""
    if not metrics or len(set(metrics)) < len(metrics):
        given = ", ".join(metrics) or "none"
        raise UserError(f"metrics: {given}: name at least one of {', '.join(metric_names())}, each once")
    for name in metrics:
        if find_metric(name).needs != "generator" and not has_source:
            raise UserError(
                f"metric {name!r} needs images with known factors; add a source such as sprites (--data sprites)"
            )
    for name, given in options.items():
        if name not in metrics:
            raise UserError(f"options of {name!r}: this metric is not among the requested metrics {', '.join(metrics)}")
        known = find_metric(name).options
        for option in given:
            if option not in known:
                raise UserError(
                    f"unknown option {option!r} of {name!r}{did_you_mean(option, known)}; known: "
                    f"{', '.join(known) or 'none'}"
                )


def read_options(metrics: Sequence[str], given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Convert options such as ``{"vp": {"pairs": 200.0}}`` to the types that the metrics declare.

    Raises UserError as ``check_metrics``, or for a value of another type, not finite, or above ``LARGEST``.

    Example:
        >>> from orthogan.disentanglement import read_options
        >>> read_options(["vp"], {"vp": {"pairs": 200.0}})
        {'vp': {'pairs': 200}}
    """
    check_metrics(metrics, given, has_source=True)
    return {
        metric: {name: _read(metric, name, value) for name, value in values.items()} for metric, values in given.items()
    }


def _read(metric: str, name: str, value: Any) -> Any:
    hint = hints_of(inspect.unwrap(find_metric(metric).function)).get(name, Any)
    if isinstance(value, str) and "," in value:  # -2,0,2
        value = [parse_yaml(word, f"option {name!r} of {metric!r}") for word in value.split(",")]
    about = f"option {name!r} of {metric!r} is {value!r}"
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) and bool not in (hint, *get_args(hint)):
            raise UserError(f"{about}: must not be true or false")
        if isinstance(number, int | float) and not abs(number) <= LARGEST:
            raise UserError(f"{about}: must be a finite number of at most {LARGEST:g}")
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        said = dict.fromkeys(one["msg"][:1].lower() + one["msg"][1:] for one in error.errors())
        raise UserError(f"{about}: {'; '.join(said)}") from None
