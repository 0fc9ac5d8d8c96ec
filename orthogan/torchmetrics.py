"""Every metric of images and of disentanglement as a ``torchmetrics.Metric``; ``pip install torchmetrics``.

    from orthogan.torchmetrics import torch_metric

    fid = torch_metric("fid")
    for images in loader:
        fid.update(images, real=True)
    fid.update(generator(z), real=False)
    fid.compute()

One adapter serves all metrics, also those that are added later. The values are those of ``orthogan.evaluate`` and
``orthogan.disentanglement``; ``forward``, ``reset``, ``MetricCollection`` and the synchronization of processes are
those of torchmetrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from orthogan.data.source import ImageSource
from orthogan.disentanglement.registry import METRICS as CODE_METRICS
from orthogan.disentanglement.registry import find_metric
from orthogan.distributed import alone
from orthogan.drawing.grid import as_pixels
from orthogan.errors import UserError
from orthogan.evaluation.extractors.extractor import load_extractor, resolve_extractor
from orthogan.evaluation.fidelity.features import Features
from orthogan.evaluation.fidelity.statistics import Gaussian
from orthogan.evaluation.metric import METRICS, Inputs, Score, find_metrics
from orthogan.words import counted

try:
    from torchmetrics import Metric
    from torchmetrics.utilities.distributed import gather_all_tensors
except ModuleNotFoundError:
    raise UserError("orthogan.torchmetrics needs torchmetrics: pip install torchmetrics") from None

SIDES = ("fake", "real", "held_out")


def torch_metric(name: str, **options: Any) -> ImageScore | CodeScore:
    """Return the metric called ``name`` as a ``torchmetrics.Metric``.

    Args:
        name: a metric of features, such as fid, kid, prc, prdc, mmd, or of codes, such as mig, dci, sap.
        options: arguments of ``ImageScore`` or ``CodeScore``.

    Raises:
        UserError: there is no such metric, or it needs a network rather than images or codes.

    Example:
        >>> import torch
        >>> from orthogan.torchmetrics import torch_metric
        >>> metric = torch_metric("prdc", extractor="efficientnet-lite0")
        >>> images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
        >>> metric.update(images, real=True)
        >>> metric.update(images, real=False)
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """
    if name in CODE_METRICS and name not in METRICS:
        return CodeScore(name, **options)
    return ImageScore(name, **options)


class _Joined(Metric):
    """A metric whose processes may have no rows of some states."""

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        """Synchronize the states; the gathering of torchmetrics needs the same kind of tensor from every process."""
        if dist.is_available() and dist.is_initialized():
            lists = {name: state for name in self._defaults if isinstance(state := getattr(self, name), list)}
            mine = {name: (state[0].shape[1:], state[0].dtype) if state else None for name, state in lists.items()}
            group = process_group or self.process_group
            every: list[Any] = [None] * dist.get_world_size(group)
            dist.all_gather_object(every, mine, group)
            for name, state in lists.items():
                like = next((kinds[name] for kinds in every if kinds[name] is not None), None)
                if not state and like is not None:
                    setattr(self, name, [torch.empty((0, *like[0]), dtype=like[1], device=self.device)])
        super()._sync_dist(dist_sync_fn, process_group)


class ImageScore(_Joined):
    """A metric of the features of images.

    Metrics of mean and covariance keep only these; others keep one row of features per image, on the metric's device.

    Args:
        name: as in ``evaluate``.
        extractor, weights: as in ``evaluate``; a metric such as cmmd or fd_dinov2 has its own extractor.
        seed: random seed of subsets.
        parts: ``compute`` returns a dictionary of the value and its parts instead of the value.
        options: arguments of the metric, such as ``{"kid_subset_size": 100}``.
        arguments: those of ``torchmetrics.Metric``.

    Raises:
        UserError: an unknown metric or extractor, or a metric that needs more than images.

    Example:
        >>> import torch
        >>> from orthogan.torchmetrics import ImageScore
        >>> metric = ImageScore("kid_full", extractor="efficientnet-lite0")
        >>> for real in (True, False):
        ...     metric.update(torch.full((4, 3, 16, 16), 255 * real, dtype=torch.uint8), real=real)
        ...
        >>> bool(metric.compute() > 0)
        True
    """

    is_differentiable = False
    full_state_update = False

    def __init__(
        self,
        name: str,
        *,
        extractor: str = "auto",
        weights: str | Path | None = None,
        seed: int = 0,
        parts: bool = False,
        options: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        found = find_metrics(name)
        if len(found) != 1:
            raise UserError(f"{name}: this stands for several metrics; choose one")
        self.metric = found[0]
        others = self.metric.needs - {"gaussian", "rows", "logits", "held_out"}
        if others or not self.metric.needs:
            raise UserError(
                f"{name}: needs {', '.join(sorted(others)) or 'nothing'}, not features of images; use orthogan.evaluate"
            )
        self.seed, self.parts, self.options = seed, parts, dict(options or {})
        self.extractor = load_extractor(self.metric.extractor or resolve_extractor(extractor), weights=weights)
        length, classifies = self.extractor.probe(torch.device("cpu"))
        if "logits" in self.metric.needs and not classifies:
            raise UserError(f"extractor {self.extractor.name} is not a classifier, so it has no logits for {name}")
        for side in SIDES:
            if "gaussian" in self.metric.needs:
                zeros = torch.zeros(length, dtype=torch.float64)
                self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx=None)
                self.add_state(f"{side}_mean", zeros, dist_reduce_fx=None)
                self.add_state(f"{side}_scatter", torch.outer(zeros, zeros), dist_reduce_fx=None)
            for kind in {"rows", "logits"} & self.metric.needs:
                self.add_state(f"{side}_{kind}", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_labels", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_lowest", torch.tensor(torch.inf), dist_reduce_fx="min")  # value of the images

    @property
    def higher_is_better(self) -> bool | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether a higher value is better; None if neither is."""
        return {"higher": True, "lower": False}.get(self.metric.better)

    def update(self, images: Tensor, real: bool, *, held_out: bool = False, labels: Tensor | None = None) -> None:
        """Add images.

        Args:
            images: (n, c, h, w), uint8 or floats in [-1, 1]. ``compute`` refuses floats without any negative value,
                which are in [0, 1] or [0, 255].
            real: whether they are real or generated.
            held_out: they are real, but the generator was not trained on them; for ct.
            labels: classes (n,), for class_fid.

        Raises:
            UserError: images of another shape or type.
        """
        side = "held_out" if held_out else "real" if real else "fake"
        self.extractor.net.to(self.device)
        pixels = torch.from_numpy(as_pixels(images)).to(self.device)
        given = torch.as_tensor(images).detach()
        lowest = given.amin().float() if given.is_floating_point() else torch.tensor(-1.0)
        setattr(self, f"{side}_lowest", torch.minimum(getattr(self, f"{side}_lowest"), lowest.to(self.device)))
        features, logits = self.extractor(pixels)
        if not bool(features.isfinite().all()):
            raise UserError(f"{self.metric.name}: the features contain NaN or infinite values")
        if "gaussian" in self.metric.needs:
            self._merge(side, features.double())
        if "rows" in self.metric.needs:
            getattr(self, f"{side}_rows").append(features)
        if "logits" in self.metric.needs:
            getattr(self, f"{side}_logits").append(logits)
        if labels is not None:
            getattr(self, f"{side}_labels").append(labels.to(self.device))

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Return the value as a float64 scalar; with ``parts``, a dictionary.

        Raises:
            UserError: there are too few images, or the images of one side are floats without a negative value.
        """
        for side in SIDES:
            if 0 <= float(getattr(self, f"{side}_lowest")) < torch.inf:
                raise UserError(
                    f"{self.metric.name}: the {side.replace('_', '-')} images are floats without a negative value, but "
                    "float images must be in [-1, 1]; if they are in [0, 1], pass 2 * x - 1 or uint8"
                )
        with alone():  # torchmetrics has gathered the states already
            fakes, reals, unseen = (self._features(side) for side in SIDES)
            counts = [self._size(side) for side in SIDES]
            inputs = Inputs(
                samples=counts[0],
                reference_samples=counts[1] if counts[1] else None,
                seed=self.seed,
                progress=False,
                device=self.device,
                options=self.options,
                images=_Counted(counts[0], self._labels("fake")),
                reference=_Counted(counts[1], self._labels("real")) if counts[1] else None,
            )
            if counts[2]:
                inputs.held_out = _Counted(counts[2], None)
            self.metric.check(inputs)
            inputs.fakes, inputs.reals, inputs.unseen = self._with_logits(fakes), reals, unseen
            score = self.metric.compute(inputs)
        assert isinstance(score, Score)
        value = torch.tensor(score.value, dtype=torch.float64, device=self.device)
        if not self.parts:
            return value
        spread = {} if score.std is None else {"std": score.std}
        named = {key: torch.tensor(part, dtype=torch.float64) for key, part in {**score.parts, **spread}.items()}
        return {self.metric.name: value, **named}

    def _merge(self, side: str, x: Tensor) -> None:
        """Add rows to mean and scatter matrix (Chan, Golub & LeVeque 1983)."""
        count, mean, scatter = (getattr(self, f"{side}_{part}") for part in ("count", "mean", "scatter"))
        own = x.mean(0)
        delta, total = own - mean, count + len(x)
        share = len(x) / total.double()  # of integers, the quotient would be float32
        centered = x - own
        setattr(self, f"{side}_count", total)
        setattr(self, f"{side}_mean", mean + delta * share)
        added = centered.T @ centered + torch.outer(delta, delta) * (count * share)
        setattr(self, f"{side}_scatter", scatter + added)

    def _gaussian(self, side: str) -> Gaussian | None:
        """Return the statistics of all processes: synchronized states have one more dimension."""
        counts, means, scatters = (getattr(self, f"{side}_{part}") for part in ("count", "mean", "scatter"))
        counts, means = counts.reshape(-1), means.reshape(-1, means.shape[-1])
        total = int(counts.sum())
        if total < 2:
            return None
        shares = counts.double()
        mean = shares @ means / total
        delta = means - mean
        scatter = scatters.reshape(-1, *scatters.shape[-2:]).sum(0) + (delta * shares[:, None]).T @ delta
        return Gaussian(mean.cpu().numpy(), (scatter / (total - 1)).cpu().numpy(), total)

    def _joined(self, name: str) -> Tensor | None:
        found = getattr(self, name, None)
        parts: list[Tensor] = [found] if isinstance(found, Tensor) else list(found or ())
        return torch.cat(parts) if any(map(len, parts)) else None

    def _size(self, side: str) -> int:
        if "gaussian" in self.metric.needs:
            return int(getattr(self, f"{side}_count").sum())
        rows = self._joined(f"{side}_{next(iter({'rows', 'logits'} & self.metric.needs))}")
        return 0 if rows is None else len(rows)

    def _labels(self, side: str) -> np.ndarray | None:
        labels = self._joined(f"{side}_labels")
        return None if labels is None else labels.cpu().numpy()

    def _features(self, side: str) -> Features:
        rows = self._joined(f"{side}_rows")
        gaussian: Any = self._gaussian(side) if "gaussian" in self.metric.needs else None
        if rows is None:
            return Features(gaussian)
        return Features(gaussian, np.arange(len(rows)), rows.cpu())

    def _with_logits(self, fakes: Features) -> Features:
        """Return the features of the fakes with the logits, or the result of the metric's stream of them."""
        logits = self._joined("fake_logits")
        if logits is None:
            return fakes
        stream = self.metric.stream("logits", len(logits), self.device)
        if stream is None:
            return Features(fakes.gaussian, fakes.numbers, fakes.rows, logits.cpu())
        stream.add(logits, 0)
        return Features(fakes.gaussian, fakes.numbers, fakes.rows, stream.result())


class CodeScore(_Joined):
    """A metric of disentanglement, of codes (n, k) and usually their factors (n, f).

    Args:
        name: as in ``orthogan.disentanglement``: mig, dci, sap, modularity, explicitness, irs, …
        seed: random seed of the metric.
        options: arguments of its function.
        arguments: those of ``torchmetrics.Metric``.

    Raises:
        UserError: an unknown metric, or one that needs a network.

    Example:
        >>> import torch
        >>> from orthogan.torchmetrics import CodeScore
        >>> metric = CodeScore("mig")
        >>> factors = torch.arange(800)[:, None] // torch.tensor([1, 4]) % 4
        >>> metric.update(factors.double(), factors)
        >>> round(float(metric.compute()), 2)
        1.0
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True

    def __init__(self, name: str, *, seed: int = 0, options: Mapping[str, Any] | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        # with the defaults of the function, as in orthogan.disentanglement.mig(codes, factors)
        self.metric = replace(find_metric(name), defaults={})
        self.seed, self.options = seed, dict(options or {})
        if self.metric.needs != "arrays":
            raise UserError(f"{name}: needs a {self.metric.needs}, not codes and factors; use orthogan.disentangle")
        self.add_state("codes", [], dist_reduce_fx="cat")
        self.add_state("factors", [], dist_reduce_fx="cat")

    def update(self, codes: Tensor, factors: Tensor | None = None) -> None:
        """Add codes (n, k) and, unless the metric uses codes alone, integer factors (n, f)."""
        self.codes.append(codes.detach())  # pyright: ignore
        if factors is not None:
            self.factors.append(factors.detach())  # pyright: ignore

    def compute(self) -> Tensor:
        """Return the value as a float64 scalar.

        Raises:
            UserError: the numbers of codes and factors differ, or there are none.
        """
        states: tuple[Any, Any] = (self.codes, self.factors)
        codes, factors = (
            np.concatenate([part.cpu().numpy() for part in ([state] if isinstance(state, Tensor) else state)])
            if any(map(len, state if isinstance(state, list) else [state]))
            else None
            for state in states
        )
        if codes is None:
            raise UserError("no codes yet; call update before compute")
        score = self.metric(codes, factors, seed=self.seed, **self.options)
        return torch.tensor(float(score.value), dtype=torch.float64, device=self.device)


class _Counted(ImageSource):
    """What a metric asks about a set of images whose features are known: their number and classes."""

    in_memory = True

    def __init__(self, count: int, labels: np.ndarray | None) -> None:
        self.name, self.count, self.resolution, self.channels = "images", count, 0, 0
        if labels is not None:
            if len(labels) != count:
                raise UserError(
                    f"{counted(len(labels), 'label')} for {counted(count, 'image')}; pass labels= in every update"
                )
            self.labels, self.num_classes = labels, int(labels.max()) + 1

    def __len__(self) -> int:
        return self.count

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """There are no pixels."""
        raise UserError("the images of a torchmetrics metric are not kept")

    def fingerprint(self) -> str:
        """There are no pixels."""
        raise UserError("the images of a torchmetrics metric are not kept")


__all__ = ["CodeScore", "ImageScore", "torch_metric"]
