"""A metric: an object that knows its name, its inputs, its checks, and how to compute it.

    from orthogan.evaluation import Inputs, Metric, Score

    class Contrast(Metric):
        better = "higher"
        needs = frozenset({"images"})

        def compute(self, inputs: Inputs) -> Score:
            return Score(float(inputs.fakes.images.float().std()))

A class like this in your own module is ``my_module:Contrast`` in ``evaluate --metrics``, in the YAML key
``evaluation.metrics`` and in Python. The metrics of orthogan register themselves in ``METRICS``, each in its own file.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.distributed import rank_and_world
from orthogan.errors import UserError
from orthogan.registry import Registry

if TYPE_CHECKING:
    from orthogan.data.source import ImageSource
    from orthogan.evaluation.fidelity.features import Features
    from orthogan.evaluation.result import MetricResult
    from orthogan.models.protocol import Generator

# gaussian, rows, logits: mean and covariance of the features of fakes and reals, the features themselves, and the
# class logits; images: the pixels; pairs: pairs of images a small step apart; then nets and labeled or held-out images.
Need = Literal[
    "gaussian",
    "rows",
    "logits",
    "images",
    "pairs",
    "generator",
    "discriminator",
    "classifier",
    "train",
    "test",
    "held_out",
]
OF_FEATURES = frozenset[Need]({"gaussian", "rows", "logits"})
OF_IMAGES = OF_FEATURES | {"images"}
OF_GENERATORS = OF_IMAGES | {"pairs", "generator"}
ABSENT: Any = None  # a field that no metric needs
T = TypeVar("T")
Kind = TypeVar("Kind", bound="type[Metric]")


class TooFewImages(UserError):
    """A metric needs more images than the arguments give it, which is known before the first one is drawn."""


@dataclass(frozen=True)
class Score:
    """A number, its spread if any, its parts, and every choice that makes it a different metric.

    Example:
        >>> from orthogan.evaluation import Score
        >>> Score(0.81, std=0.02, parts={"precision": 0.9, "recall": 0.74}).value
        0.81
    """

    value: float
    std: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    variant: str = ""


@dataclass
class Inputs:
    """The inputs of metrics; only what they need is present.

    Attributes:
        samples: number of images drawn from the generator or taken from the images (None, for a classifier: all), or of
            pairs.
        reference_samples: number of real images to compare with; None if there are only statistics, or nothing.
        generator: sampled in eval mode; or ``images``, a set of images that is scored like generated images.
        reference: the real images, or a file of their statistics.
        train, test: images that the nets were trained on, and images that they have not seen.
        held_out: real images that the generator was not trained on, to compare their features as well.
        options: arguments of individual metrics, such as ``kid_subset_size``.
        fakes, reals, unseen: requested features of the generated, real and held-out images; only present in
            ``compute``.
        info: further facts for the protocol.

    Example:
        >>> from orthogan.evaluation import Inputs
        >>> Inputs(samples=100, seed=3).batch_size
        64
    """

    samples: int | None = None
    reference_samples: int | None = None
    batch_size: int = 64
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: bool = True
    truncation: float = 1.0
    generator: Generator = ABSENT
    images: ImageSource = ABSENT
    discriminator: nn.Module = ABSENT
    classifier: nn.Module = ABSENT
    reference: ImageSource | Path | None = None
    train: ImageSource = ABSENT
    test: ImageSource = ABSENT
    held_out: ImageSource = ABSENT
    options: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)
    fakes: Features = ABSENT
    reals: Features = ABSENT
    unseen: Features = ABSENT
    _made: dict[str, Any] = field(default_factory=dict)

    def pick(self, *names: str) -> dict[str, Any]:
        """Return the attributes called ``names``, as keyword arguments."""
        return {name: getattr(self, name) for name in names}

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return the result of ``make``, which is called once for all metrics that share ``key``."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class Stream(Protocol):
    """Consumes logits or images batch by batch instead of keeping them all."""

    def add(self, batch: Tensor, first: int, /) -> None:
        """Add the logits or pixels of images ``first`` to ``first + n - 1``."""
        ...

    def result(self) -> Any:
        """Return the value of ``fakes.logits`` or ``fakes.images``; all processes call this together."""
        ...


class Metric:
    """One metric; subclass it, and register it or name it as ``module:Class``.

    Attributes:
        name: set by the registry, or ``module:Class``.
        label: its name in tables with Inception features (empty: the name).
        feature_label: its name with other features, whose name is added (empty: the same label).
        better: "lower", "higher" or "none"; a metric with "none" cannot select the best checkpoint of a run.
        needs: see ``Need``. All metrics of one evaluation share one pass over the images.
        compares: whether it needs real images (or their statistics) to compare with.
        samples: default number of samples (None: all images of a classifier).
        extractor: the extractor that defines the metric, such as that of CMMD (empty: the one that the user chooses).
        in_scorecard: whether the name "scorecard" stands for it too.

    Example:
        >>> import orthogan
        >>> from orthogan.evaluation import Metric, Score
        >>> class Contrast(Metric):
        ...     better = "higher"
        ...     needs = frozenset({"images"})
        ...     def compute(self, inputs):
        ...         return Score(float(inputs.fakes.images.float().std()))
        ...
        >>> Contrast().needs
        frozenset({'images'})
    """

    name: str = ""
    label: ClassVar[str] = ""
    feature_label: ClassVar[str] = ""
    better: ClassVar[Literal["lower", "higher", "none"]] = "none"
    needs: ClassVar[frozenset[Need]] = frozenset()
    compares: ClassVar[bool] = False
    samples: ClassVar[int | None] = 50_000
    extractor: ClassVar[str] = ""
    in_scorecard: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> None:
        """Check the inputs before any image is drawn or read; all processes get the same result.

        Raises:
            UserError: naming the metric and what it needs.
        """
        for need in ("generator", "discriminator", "classifier"):
            if need in self.needs and getattr(inputs, need) is None:
                instead = "a classifier" if inputs.classifier is not None else "images" if need == "generator" else ""
                raise UserError(f"metrics: {self.name} needs a {need}{instead and f', not {instead}'}")
        for need, images in (("train", "the images that the net was trained on"), ("test", "images it has not seen")):
            if need in self.needs and getattr(inputs, need) is None:
                raise UserError(f"metrics: {self.name} needs {images}")
        if "held_out" in self.needs and inputs.held_out is None:
            raise UserError(
                f"metrics: {self.name} needs held-out images, which the generator was not trained on (in Python "
                "held_out=); the data have no such split"
            )
        if self.compares and inputs.reference is None:
            raise UserError(f"metrics: {self.name} needs a reference to compare with")
        if self.compares and self.needs & {"rows", "images", "logits"} and isinstance(inputs.reference, Path):
            raise UserError(
                f"metrics: {self.name} compares individual images; the reference must be images, not statistics"
            )
        if self.needs & (OF_IMAGES | {"pairs"}):
            world, fewest = rank_and_world()[1], self.fewest(inputs)
            if fewest < max(2, world):
                needed = "a covariance needs at least 2" if world <= 2 else f"each of {world} processes needs one"
                raise TooFewImages(f"samples: {fewest} images: {needed}")

    def titled(self, extractor: str, variant: str) -> str:
        """Return the label of a result: ``FID``, ``FD[efficientnet-lite0]``, ``name[variant]``."""
        if self.feature_label and not (self.label and extractor == "inception"):
            return f"{self.feature_label}[{','.join(filter(None, (extractor, variant)))}]"
        label = self.label or self.name.rpartition(":")[2]
        return f"{label}[{variant}]" if variant else label

    def fewest(self, inputs: Inputs) -> int:
        """Return the number of images of the smaller side."""
        return min((n for n in (inputs.samples, inputs.reference_samples) if n is not None), default=0)

    def prepare(self, inputs: Inputs) -> None:
        """Load what ``compute`` needs with ``inputs.once``, so that failures come before long computations."""

    def rows(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Return the ascending indices of generated and real images whose features to keep; by default all."""
        return np.arange(inputs.samples or 0), np.arange(inputs.reference_samples or 0)

    def stream(self, need: Literal["logits", "images"], total: int, device: torch.device) -> Stream | None:
        """Return a consumer of the logits or pixels of ``total`` images; None keeps all of them on the CPU."""
        return None

    def compute(self, inputs: Inputs) -> Score | Sequence[MetricResult]:
        """Compute the score, or results with their own protocol.

        Raises:
            UserError: it is not defined for these inputs.
        """
        raise NotImplementedError


def _adopt(thing: Any) -> Metric:
    """Convert the object named by ``module:Name``: a subclass of ``Metric``, or an instance."""
    if inspect.isclass(thing) and issubclass(thing, Metric):
        try:
            thing = thing()
        except Exception as error:  # user code
            raise TypeError(f"it cannot be created: {type(error).__name__}: {error}") from error
    if not isinstance(thing, Metric):
        raise TypeError(f"this is a {type(thing).__name__}; it must be a subclass of Metric")
    return thing


_HOMES = (f"orthogan.evaluation.{folder}" for folder in ("fidelity", "paths", "robustness", "critic"))
SCORECARD = "scorecard"
METRICS: Registry[Metric] = Registry("metric", *_HOMES, adopt=_adopt)


def register(name: str, *aliases: str) -> Callable[[Kind], Kind]:
    """Register an instance of the decorated class; ``aliases``: its names in other tools."""

    def add(kind: Kind) -> Kind:
        metric = kind()
        metric.name = name
        METRICS.register(name, *aliases)(metric)
        return kind

    return add


def known_metric(name: str) -> Metric | None:
    """Return the built-in metric with exactly this name, without importing user code."""
    return METRICS.get(name) if ":" not in name and name in METRICS else None


def names_scorecard(names: Sequence[str] | str) -> bool:
    """Whether ``names`` contains the scorecard, from which metrics that cannot be computed are left out."""
    return SCORECARD in (word.strip() for word in _listed(names) if isinstance(word, str))


def _listed(names: Sequence[str] | str) -> Sequence[str]:
    return names.split(",") if isinstance(names, str) else names


def _expanded(names: Sequence[str] | str) -> list[str]:
    """Return the words of ``names``, the scorecard replaced by its metrics."""
    if not names_scorecard(names):
        return list(_listed(names))
    members = [name for name, metric in METRICS.items() if metric.in_scorecard]
    words = (members if str(word).strip() == SCORECARD else [word] for word in _listed(names))
    return [word for part in words for word in part]


def find_metrics(names: Sequence[str] | str, key: str = "metrics") -> list[Metric]:
    """Return the metrics called ``names`` (or in a comma-separated string), each once; messages mention ``key``.

    Names of other tools (``FID``, ``fd``, ``precision``) and ``module:Class``, which is imported, also work;
    ``scorecard`` stands for several.

    Raises:
        UserError: no name, or an unknown or ambiguous one.
    """
    found: dict[str, Metric] = {}
    for word in _expanded(names):
        if not isinstance(word, str):
            raise UserError(f"{key}: {word!r} is not the name of a metric; known: {', '.join(METRICS)}")
        name = word.strip()
        try:
            metric = METRICS.get(name, key)
        except UserError:
            variants = [known for known in METRICS if name and known.startswith(name.lower())]
            if len(variants) < 2:
                raise
            raise UserError(f"{key}: {name!r} is ambiguous; choose one of {', '.join(variants)}") from None
        if ":" in name:
            metric = copy.copy(metric)
            metric.name = name
        found[metric.name] = metric
    if not found:
        raise UserError(f"{key}: name at least one of {', '.join(METRICS)}")
    return list(found.values())
