"""The scores that ``orthogan evaluate`` computes: of a generator, images, both nets of a GAN, or a classifier."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from orthogan.cli.parser import parsers
from orthogan.cli.subjects import find_run
from orthogan.config.files import load_config, own_names
from orthogan.config.schema import Config, DataConfig
from orthogan.data import ImageSource, open_configured, open_source
from orthogan.data.held_out import open_held_out
from orthogan.device import chosen_device
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.evaluation import evaluate as score
from orthogan.evaluation.checks import COMPARING
from orthogan.evaluation.critic.complexity import complexity
from orthogan.evaluation.critic.critic import Recipe
from orthogan.evaluation.critic.lipschitz import METRIC as LIPSCHITZ
from orthogan.evaluation.critic.lipschitz import lipschitz
from orthogan.evaluation.critic.neural_divergence import METRIC as DIVERGENCE
from orthogan.evaluation.critic.neural_divergence import neural_divergence
from orthogan.evaluation.names import metric_names
from orthogan.evaluation.paths.path_variants import PATH_METRICS
from orthogan.evaluation.result import NAMES
from orthogan.evaluation.robustness.classifier import METRICS as CLASSIFIER_METRICS
from orthogan.evaluation.robustness.classifier import evaluate_classifier
from orthogan.io.read import printable
from orthogan.models.open import OpenedModel, holds_images, open_model
from orthogan.registry import did_you_mean
from orthogan.training.classifier.task import open_sources

EMBEDDED = ("sprites", "sprites-colour")  # data that are made, not read
BY_TRUST = "add --trust"
BY_DATA = f"name your own images with --data CONFIG, or {BY_TRUST}"
DEFAULT_SAMPLES = 50_000  # what published figures use
COMPLEXITY = "complexity"
OF_CLASSIFIER = (*CLASSIFIER_METRICS, COMPLEXITY)
OF_GAN = (DIVERGENCE, LIPSCHITZ)  # of a whole GAN: images that it never saw, or its discriminator
# options that only some metrics use
SCORING = (
    "extractor",
    "weights",
    "reference",
    "reference_samples",
    "save_reference",
    "truncation",
    "kid_subset_size",
    "precision",
)
ATTACKING = ("attack_norm", "eps", "steps", "restarts")


def compute(arguments: Namespace) -> Sequence[MetricResult]:
    """The scores that ``orthogan evaluate`` asks for, on this process and the others of its group."""
    metrics = metric_names(arguments.metrics, (*NAMES, *PATH_METRICS, *OF_GAN, *OF_CLASSIFIER))
    device = chosen_device(arguments.device)
    kinds: list[tuple[str, Sequence[str], Sequence[str], Callable[..., Sequence[MetricResult]]]] = [
        ("classifier", OF_CLASSIFIER, (*SCORING, "critic", "no_ema"), _classified),
        ("GAN", OF_GAN, (*SCORING, *ATTACKING, "data", "split"), _of_gan),
    ]
    unused, function = (*ATTACKING, "critic"), _generated
    for what, names, others, of in kinds:
        chosen = [metric for metric in metrics if metric in names]
        if chosen and len(chosen) < len(metrics):
            raise UserError(
                f"--metrics {arguments.metrics}: cannot mix metrics of a {what} ({', '.join(chosen)}) with others in "
                "one call"
            )
        if chosen:
            unused, function = others, of
    _refuse(arguments, unused)
    return function(arguments, metrics, device)


def _refuse(arguments: Namespace, unused: Sequence[str]) -> None:
    """Refuse options that the metrics do not use, and overrides without a config."""
    if arguments.overrides and not arguments.data:
        raise UserError(f"{' '.join(arguments.overrides)}: key=value changes the config of --data; give --data CONFIG")
    for name in unused:
        if vars(arguments)[name] != parsers()["evaluate"].get_default(name):
            raise UserError(f"--{name.replace('_', '-')} does not apply to --metrics {arguments.metrics}")


def _generated(arguments: Namespace, metrics: list[str], device: torch.device) -> Sequence[MetricResult]:
    """The scores of a generator or of a set of images."""
    data: DataConfig | None = None
    if arguments.data:
        data = load_config(arguments.data, arguments.overrides, trust=True).data  # its nets are not built
    samples = arguments.samples
    info = {"subject": str(arguments.subject)}
    if holds_images(arguments.subject):
        if data is None:
            raise UserError(f"{arguments.subject}: images need --data CONFIG, which says at what size to compare them")
        subject = _images(arguments.subject, data)
    else:
        trust = arguments.trust or own_names(arguments.data)
        model = open_model(arguments.subject, device=device, ema=not arguments.no_ema, trust=trust).need("generator")
        if data is None:
            compared = arguments.reference is None and set(metrics) & set(COMPARING)
            data = (_followed(arguments, model, BY_DATA) if compared else model.config).data
        subject = model.generator
        samples = samples or DEFAULT_SAMPLES
        info = _info(arguments, model)
    return score(
        subject,
        _reference(arguments, data, metrics),
        metrics=metrics,
        samples=samples,
        extractor=arguments.extractor,
        weights=arguments.weights,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        device=device,
        truncation=arguments.truncation,
        reference_samples=arguments.reference_samples,
        save_reference_to=arguments.save_reference,
        precision=arguments.precision,
        kid_subset_size=arguments.kid_subset_size,
        info=info,
    )


def _classified(arguments: Namespace, metrics: list[str], device: torch.device) -> Sequence[MetricResult]:
    """The scores of a classifier on its test images, or on those of --data and --split."""
    trust = arguments.trust or own_names(arguments.data)
    model = open_model(arguments.subject, device=device, trust=trust).need("classifier")
    if arguments.data:
        asked = load_config(arguments.data, arguments.overrides, trust=True)
    else:
        asked = _followed(arguments, model, BY_DATA)
    learned = _followed(arguments, model, BY_TRUST) if COMPLEXITY in metrics else model.config
    net = model.classifier
    if arguments.split or asked.task != "classifier":
        source: ImageSource = open_configured(asked.data, split=arguments.split)
    else:
        source = open_sources(asked)[1]
    own = model.config.data
    if (list(source.class_names), source.resolution, source.channels) != (
        model.class_names,
        own.resolution,
        own.channels,
    ):
        raise UserError(
            f"{source.name}: {len(source.class_names)} classes, {source.channels} x {source.resolution} px are not "
            f"what {arguments.subject} was trained on; choose images with its classes, channels and resolution"
        )
    info = _info(arguments, model)
    common: dict[str, Any] = {"samples": arguments.samples, "batch_size": arguments.batch_size, "seed": arguments.seed}
    results: list[MetricResult] = []
    if of_test := [metric for metric in metrics if metric != COMPLEXITY]:
        eps = _numbers("--eps", arguments.eps) if arguments.eps else None
        attack: dict[str, Any] = {"norm": arguments.attack_norm, "eps": eps}
        attack |= {"steps": arguments.steps, "restarts": arguments.restarts}
        results += evaluate_classifier(net, source, metrics=of_test, info=info, **attack, **common)
    if COMPLEXITY in metrics:  # a statement about the images that the net was trained on
        results += complexity(net, open_sources(learned)[0], info=info, **common)[0]
    return results


def _of_gan(arguments: Namespace, metrics: list[str], device: torch.device) -> Sequence[MetricResult]:
    """The scores of a run or checkpoint that need more than its generator."""
    model = open_model(arguments.subject, device=device, ema=not arguments.no_ema, trust=arguments.trust)
    data = _followed(arguments, model.need("generator"), BY_TRUST).data
    net, samples = model.generator, arguments.samples
    recipe = _recipe(arguments.critic)
    common: dict[str, Any] = {"seed": arguments.seed, "device": device, "info": _info(arguments, model)}
    results: list[MetricResult] = []
    if DIVERGENCE in metrics:
        run = find_run(arguments.subject)
        keep = None if run is None else run / "critic.safetensors"  # where an interrupted critic is gone on with
        held_out = open_held_out(data)
        many = samples or DEFAULT_SAMPLES
        results.append(neural_divergence(net, held_out, recipe=recipe, samples=many, keep=keep, **common))
    if LIPSCHITZ in metrics:
        options: dict[str, Any] = {"batch_size": arguments.batch_size, **({"pairs": samples} if samples else {})}
        results.append(lipschitz(model.discriminator, net, open_configured(data), **options, **common)[0])
    return results


def _info(arguments: Namespace, model: OpenedModel) -> dict[str, str]:
    """What a protocol says of who was measured."""
    extra = model.about.extra
    known = {key: extra[key] for key in ("step", "images", "weights") if key in extra}
    return {"subject": str(arguments.subject), **known}


def _recipe(text: str | None) -> Recipe:
    """``steps=2000,width=16`` as a recipe; what is not named is as published."""
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    given: dict[str, Any] = {}
    for word in text.split(",") if text else []:
        name, _, value = word.strip().partition("=")
        if name not in kinds:
            raise UserError(
                f"--critic {text}: there is no {name!r}{did_you_mean(name, kinds)}; known: {', '.join(kinds)}"
            )
        try:
            given[name] = kinds[name](value)
        except (ValueError, OverflowError):
            raise UserError(f"--critic {text}: {name} is a number, such as {getattr(Recipe, name)}") from None
    return Recipe(**given)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: give numbers, such as 2,8") from None


def _followed(arguments: Namespace, model: OpenedModel, consent: str) -> Config:
    """The config in a model file, where the data that it names may be opened.

    Data that come with orthogan always may. A run's may too, as they lie on this machine: nothing is downloaded for
    it. A single file may come from anywhere. ``consent``: what would help, for the message.

    Raises:
        UserError: it needs the user's consent.
    """
    data = model.config.data
    if arguments.trust or data.source in EMBEDDED:
        return model.config
    where = f"data.source = {data.source!r}, " + (f"path = {data.path!r}" if data.path else f"root = {data.root!r}")
    if find_run(arguments.subject) is None:
        raise UserError(
            f"{printable(model.name)}: names its images itself ({printable(where)}). A file of weights may come from "
            f"anywhere, so this is not followed: {consent} to open what the file names"
        )
    print(f"orthogan: images as the run names them: {printable(where)}", file=sys.stderr)
    return model.config.model_copy(update={"data": data.model_copy(update={"download": False})})


def _reference(arguments: Namespace, data: DataConfig, metrics: list[str]) -> ImageSource | str | None:
    given = arguments.reference
    if given is None:
        return open_configured(data, split=arguments.split) if set(metrics) & set(COMPARING) else None
    if Path(given).suffix in (".safetensors", ".npz"):
        return given
    return _images(given, data)


def _images(path: str, data: DataConfig) -> ImageSource:
    """The images of a folder or zip, in the form that ``data`` says."""
    return open_source(
        "folder",
        path=path,
        resolution=data.resolution,
        channels=data.channels,
        bad_images=data.bad_images,
        bad_limit=data.bad_limit,
    )
