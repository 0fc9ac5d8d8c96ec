"""Measurements of a network during training, used both in the training loop and in the scoring process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from orthogan.config.schema import Config
from orthogan.data import ImageSource, to_float
from orthogan.evaluation import MetricResult, evaluate
from orthogan.evaluation.extractors.extractor import load_extractor, resolve_extractor
from orthogan.evaluation.images import generate_images, real
from orthogan.evaluation.measure import check_metrics, measure
from orthogan.evaluation.metric import OF_FEATURES, OF_IMAGES, Inputs, find_metrics
from orthogan.evaluation.precision import prepare_net, resolve_precision
from orthogan.evaluation.result import made_by
from orthogan.evaluation.robustness.accuracy import Accuracy, accuracy
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from orthogan.rng import derive


def measure_generator(
    config: Config, net: Generator, source: ImageSource, *, step: int, device: torch.device, progress: bool = True
) -> list[MetricResult]:
    """Compute the metrics of ``config.evaluation`` of a generator against its training images."""
    info = {"weights": "ema" if config.training.ema.on else "raw", "step": str(step)}
    return score_generator(config, net, source, device=device, info=info, progress=progress)


def score_generator(
    config: Config,
    net: Generator,
    source: ImageSource,
    *,
    device: torch.device,
    info: Mapping[str, str],
    progress: bool = True,
) -> list[MetricResult]:
    """Compute the metrics of ``config.evaluation`` of any generator; ``info`` becomes part of the protocol."""
    section = config.evaluation
    compares = any(metric.compares for metric in find_metrics(section.metrics))
    return evaluate(
        net,
        source if compares else None,
        metrics=section.metrics,
        samples=section.samples,
        extractor=section.extractor,
        batch_size=section.batch_size,
        seed=config.seed,
        precision=section.precision,
        device=device,
        reference_samples=section.reference_samples if compares else None,
        kid_subset_size=section.kid_subset_size,
        progress=progress,
        info=info,
    )


def check_generator(config: Config, net: Generator, source: ImageSource, *, device: torch.device) -> None:
    """Check before training whether the first score can be computed.

    Raises:
        UserError: too few images, a space that the generator does not have, or a missing extractor or weights.
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


@torch.no_grad()
def time_generator_score(config: Config, net: Generator, *, device: torch.device) -> float:
    """Seconds that ``measure_generator`` takes per score, from one batch of fakes and their features.

    Metrics that draw images of their own, such as path lengths, and the features of the reference, which are stored
    and read again, are not counted. Every process calls it, or one of them within ``alone``.
    """
    section = config.evaluation
    metrics = find_metrics(section.metrics, "evaluation.metrics")
    if not any(metric.needs & OF_IMAGES for metric in metrics):
        return 0.0
    formats, extractor = resolve_precision(section.precision, device), None
    if any(metric.needs & OF_FEATURES for metric in metrics):
        with torch.random.fork_rng(devices=[]):  # a net is drawn before its weights are read
            extractor = load_extractor(resolve_extractor(section.extractor), device=device, bf16=formats.features)
    size = min(section.batch_size, section.samples)
    options: dict[str, Any] = {"seed": config.seed, "batch_size": size, "truncation": 1.0, "device": device}
    with eval_mode(net), prepare_net(net):
        took = 0.0
        for _ in range(2):  # the first one warms up
            _synchronize(device)
            began = time.perf_counter()
            images = next(generate_images(net, size, bf16=formats.sampling, **options))
            if extractor is not None:
                extractor(images.to(device))
            _synchronize(device)
            took = time.perf_counter() - began
    return took * section.samples / size


@torch.no_grad()
def time_classifier_score(
    config: Config, net: nn.Module, train: ImageSource, test: ImageSource, *, device: torch.device
) -> float:
    """Seconds that the accuracies of ``measure_classifier`` take per score, from one batch; other metrics do not count.

    No other process is waited for.
    """
    section = config.evaluation
    pixels: Tensor = next(real(test, None, batch_size=min(section.batch_size, len(test))))
    images = to_float(pixels.to(device), dequantize=False)
    took = 0.0
    with eval_mode(net):
        for _ in range(2):
            _synchronize(device)
            began = time.perf_counter()
            net(images)
            _synchronize(device)
            took = time.perf_counter() - began
    return took * (len(test) + min(section.samples, len(train))) / len(images)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure_classifier(
    config: Config, net: nn.Module, train: ImageSource, test: ImageSource, *, step: int, device: torch.device
) -> list[MetricResult]:
    """Compute the accuracy on test images and on training images without crops, their gap, and the other metrics."""
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
    """Return the inputs of metrics other than the accuracy."""
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
    """Check before training whether the first score can be computed. Raises ``UserError``."""
    metrics = find_metrics(config.evaluation.metrics, "evaluation.metrics")
    check_metrics(metrics, classifier_inputs(config, net, test, step=0, device=device))
