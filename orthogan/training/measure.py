"""What is measured of a net in training: the same functions beside the training loop and in a process of their own."""

from __future__ import annotations

import time

import torch
from torch import nn

from orthogan.config.schema import Config
from orthogan.data import ImageSource
from orthogan.evaluation import MetricResult, evaluate
from orthogan.evaluation.measure import check_metrics, measure
from orthogan.evaluation.metric import Inputs, find_metrics
from orthogan.evaluation.result import made_by
from orthogan.evaluation.robustness.accuracy import Accuracy, accuracy
from orthogan.models.protocol import Generator
from orthogan.rng import derive


def measure_generator(
    config: Config, net: Generator, source: ImageSource, *, step: int, device: torch.device, progress: bool = True
) -> list[MetricResult]:
    """The metrics of ``config.evaluation`` of a generator, against its training images."""
    section = config.evaluation
    return evaluate(
        net,
        source,
        metrics=section.metrics,
        samples=section.samples,
        extractor=section.extractor,
        batch_size=section.batch_size,
        seed=config.seed,
        precision=section.precision,
        device=device,
        reference_samples=section.reference_samples,
        kid_subset_size=section.kid_subset_size,
        progress=progress,
        info={"weights": "ema" if config.training.ema.half_life else "raw", "step": str(step)},
    )


def check_generator(config: Config, net: Generator, source: ImageSource, *, device: torch.device) -> None:
    """Find out before training what would spoil its first score.

    Raises:
        UserError: too few images, a space that the generator does not have, an extractor or weights that cannot be had.
    """
    section = config.evaluation
    inputs = Inputs(
        samples=section.samples,
        reference_samples=min(len(source), section.reference_samples or len(source)),
        device=device,
        generator=net,
        reference=source,
        options={"kid_subset_size": section.kid_subset_size},
    )
    metrics = find_metrics(section.metrics, "evaluation.metrics")
    check_metrics(metrics, inputs, extractor=section.extractor, precision=section.precision)


def measure_classifier(
    config: Config, net: nn.Module, train: ImageSource, test: ImageSource, *, step: int, device: torch.device
) -> list[MetricResult]:
    """Accuracy on the test images, and on training images as they lie (no crops): their gap; then the other metrics."""
    section = config.evaluation
    found: list[MetricResult] = []
    measured: float | None = None
    for metric, source, samples in (
        ("accuracy", test, None),
        ("train_accuracy", train, section.samples),
    ):
        began = time.monotonic()
        seed = derive(config.seed, "accuracy")
        value, loss, count = accuracy(
            net, source, samples=samples, batch_size=section.batch_size, seed=seed, device=device
        )
        parts = {"error": 1.0 - value, "loss": loss}
        if measured is None:
            measured = value
        else:
            parts["gap"] = value - measured
        protocol = {
            "samples": count,
            "reference": source.name,
            "label noise": config.data.label_noise if source is train else 0.0,
            "batch norm": "running statistics",
            "seed": seed,
            "dtype": "float32",
            "device": device.type,
            **made_by({"step": str(step)}, began),
        }
        found.append(Accuracy(metric, value, "none", None, parts, protocol))
    others = [metric for metric in find_metrics(section.metrics, "evaluation.metrics") if metric.name != "accuracy"]
    return [*found, *measure(others, classifier_inputs(config, net, test, step=step, device=device))]


def classifier_inputs(config: Config, net: nn.Module, test: ImageSource, *, step: int, device: torch.device) -> Inputs:
    """What other metrics than the accuracy are computed of."""
    return Inputs(
        batch_size=config.evaluation.batch_size,
        seed=config.seed,
        device=device,
        progress=False,
        classifier=net,
        test=test,
        info={"step": str(step)},
    )


def check_classifier(config: Config, net: nn.Module, test: ImageSource, *, device: torch.device) -> None:
    """Find out before training what would spoil its first score. Raises ``UserError``."""
    metrics = find_metrics(config.evaluation.metrics, "evaluation.metrics")
    check_metrics(metrics, classifier_inputs(config, net, test, step=0, device=device))
