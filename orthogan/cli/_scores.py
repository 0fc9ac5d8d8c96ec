"""Scores of ``orthogan evaluate``: of a generator, of images, of both networks of a GAN, or of a classifier."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from orthogan.cli.arguments import refuse_unused
from orthogan.cli.subjects import find_run
from orthogan.config.base import code_in
from orthogan.config.files import load_config, own_names
from orthogan.config.schema import Config
from orthogan.data import ImageSource, open_configured, open_held_out, open_source
from orthogan.data.config import DataConfig
from orthogan.data.sources import DATA_SOURCES, generated_sources
from orthogan.device import chosen_device
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.evaluation import evaluate as score
from orthogan.evaluation.critic.critic import Recipe
from orthogan.evaluation.measure import measure, refuse_uncompared
from orthogan.evaluation.metric import Inputs, Metric, names_scorecard
from orthogan.io.read import printable
from orthogan.models.generate import image_size
from orthogan.models.open import OpenedModel, holds_images, open_model
from orthogan.named_code import require_trust
from orthogan.registry import did_you_mean
from orthogan.training.classifier.task import open_sources

BY_TRUST = "add --trust"
BY_DATA = f"choose the images yourself with --data CONFIG, or {BY_TRUST}"
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
    "nearest",
)
ATTACKING = ("attack_norm", "eps", "steps", "restarts")


def compute(arguments: Namespace, metrics: list[Metric]) -> Sequence[MetricResult]:
    """Compute the scores that ``orthogan evaluate`` asks for, on all processes of the group."""
    device = chosen_device(arguments.device)
    kinds: list[tuple[str, set[str], Sequence[str], Callable[..., Sequence[MetricResult]]]] = [
        ("classifier", {"classifier"}, (*SCORING, "critic", "no_ema"), _classified),
        ("GAN", {"discriminator", "train", "test"}, (*SCORING, *ATTACKING, "data", "split"), _of_gan),
    ]
    unused, function = (*ATTACKING, "critic"), _generated
    for what, needs, others, of in kinds:
        chosen = [metric.name for metric in metrics if metric.needs & needs]
        if chosen and len(chosen) < len(metrics):
            raise UserError(
                f"--metrics {arguments.metrics}: cannot mix metrics of a {what} ({', '.join(chosen)}) with others in "
                "one call"
            )
        if chosen:
            unused, function = others, of
            break
    _refuse(arguments, unused)
    return function(arguments, metrics, device)


def _asked(arguments: Namespace, size: Callable[[], tuple[int, Any]] | None = None) -> Config:
    """Return the config of --data; for the name of a data source, one with images like those scored.

    ``size``: returns their channels and resolution.
    """
    name, given = arguments.data, arguments.overrides
    if name not in DATA_SOURCES:
        return load_config(name, given, trust=arguments.trust, only="data")
    named: dict[str, Any] = {"data.source": name}
    if size is not None:
        named["data.channels"], named["data.resolution"] = size()
    return load_config(None, [named, *given], trust=arguments.trust, only="data")


def _refuse(arguments: Namespace, unused: Sequence[str]) -> None:
    """Refuse options that the metrics do not use, and overrides without a config."""
    if arguments.overrides and not arguments.data:
        raise UserError(f"{' '.join(arguments.overrides)}: key=value changes the config of --data; add --data CONFIG")
    refuse_unused(arguments, unused, f"does not apply to --metrics {arguments.metrics}")


def _generated(arguments: Namespace, metrics: list[Metric], device: torch.device) -> Sequence[MetricResult]:
    """Score a generator or a set of images."""
    samples = arguments.samples
    if arguments.reference is not None:
        refuse_unused(arguments, ["split"], "does not apply with --reference")
    given = {
        "--split": arguments.split,
        "--reference": arguments.reference,
        "--reference-samples": arguments.reference_samples,
        "--save-reference": arguments.save_reference,
    }
    refuse_uncompared(metrics, given)
    info = {"subject": str(arguments.subject)}
    if holds_images(arguments.subject):
        if arguments.data is None:
            raise UserError(
                f"{arguments.subject}: scoring images needs --data CONFIG, which sets the resolution and the real "
                "images"
            )
        sized = any(override.startswith("data.resolution=") for override in arguments.overrides)
        if arguments.data in DATA_SOURCES and not sized:
            raise UserError(
                f"--data {arguments.data}: the name of a data source does not say the size of the images; add "
                "data.resolution=N"
            )
        data = _asked(arguments).data
        subject = _images(arguments.subject, data)
    else:
        trust = arguments.trust or own_names(arguments.data)
        model = open_model(arguments.subject, device=device, ema=not arguments.no_ema, trust=trust).need("generator")
        if arguments.data:
            data = _asked(arguments, lambda: image_size(model.generator)).data
        else:
            compared = arguments.reference is None and any(metric.compares for metric in metrics)
            data = (trusted_config(arguments, model, BY_DATA) if compared else model.config).data
        subject = model.generator
        samples = samples or max(metric.samples or 0 for metric in metrics)
        info = _info(arguments, model)
    return score(
        subject,
        _reference(arguments, data, metrics),
        metrics=arguments.metrics,
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
        held_out=_held_out(arguments, data, metrics),
        nearest=arguments.nearest,
        info=info,
    )


def _classified(arguments: Namespace, metrics: list[Metric], device: torch.device) -> Sequence[MetricResult]:
    """Score a classifier on its test images, or on those of --data and --split."""
    trust = arguments.trust or own_names(arguments.data)
    model = open_model(arguments.subject, device=device, trust=trust).need("classifier")
    if arguments.data:
        own = model.config.data
        asked = _asked(arguments, lambda: (own.channels, own.resolution))
    else:
        asked = trusted_config(arguments, model, BY_DATA)
    of_training = any("train" in metric.needs for metric in metrics)
    learned = trusted_config(arguments, model, BY_TRUST) if of_training else model.config
    net = model.classifier  # refuse an unreadable file before opening the images
    own, data = model.config.data, asked.data
    named = arguments.data in DATA_SOURCES
    parted = not data.one_part or bool(data.holdout)
    if named and not parted and not arguments.split and (data.source, data.path) == (own.source, own.path):
        raise UserError(
            f"--data {data.source}: {arguments.subject} was trained on it, and it has no test split; omit --data to "
            "use the images that were held out"
        )
    if arguments.split or not (parted if named else asked.task == "classifier"):
        source: ImageSource = open_configured(data, split=arguments.split)
    else:
        source = open_sources(asked)[1]
    if (list(source.class_names), source.resolution, source.channels) != (
        model.class_names,
        own.resolution,
        own.channels,
    ):
        raise UserError(
            f"{source.name} has {len(source.class_names)} classes and {source.channels} channels at "
            f"{source.resolution} px, unlike the training data of {arguments.subject}; choose images with the same "
            "classes, channels and resolution"
        )
    inputs = Inputs(
        samples=arguments.samples,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        device=device,
        classifier=net,
        test=source,
        options={
            "attack_norm": arguments.attack_norm,
            "eps": _numbers("--eps", arguments.eps) if arguments.eps else None,
            "steps": arguments.steps,
            "restarts": arguments.restarts,
        },
        info=_info(arguments, model),
    )
    if of_training:
        inputs.train = open_sources(learned)[0]
    return measure(metrics, inputs)


def _of_gan(arguments: Namespace, metrics: list[Metric], device: torch.device) -> Sequence[MetricResult]:
    """Compute the scores of a run or checkpoint that need more than its generator."""
    model = open_model(arguments.subject, device=device, ema=not arguments.no_ema, trust=arguments.trust)
    data = trusted_config(arguments, model.need("generator"), BY_TRUST).data
    needs = {need for metric in metrics for need in metric.needs}
    run = find_run(arguments.subject)
    inputs = Inputs(
        samples=arguments.samples,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        device=device,
        generator=model.generator,
        options={
            "critic": _recipe(arguments.critic),
            "keep": None if run is None else run / "critic.safetensors",  # to resume the training of a critic
        },
        info=_info(arguments, model),
    )
    if "discriminator" in needs:
        inputs.discriminator = model.discriminator
    if "train" in needs:
        inputs.train = open_configured(data)
    if "test" in needs:
        inputs.test = open_held_out(data)
    return measure(metrics, inputs)


def _info(arguments: Namespace, model: OpenedModel) -> dict[str, str]:
    """Describe the measured model for the protocol."""
    extra = model.about.extra
    known = {key: extra[key] for key in ("step", "images", "weights") if key in extra}
    return {"subject": str(arguments.subject), **known}


def _recipe(text: str | None) -> Recipe:
    """Parse a recipe such as ``steps=2000,width=16``; other values stay as published."""
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    given: dict[str, Any] = {}
    for word in text.split(",") if text else []:
        name, _, value = word.strip().partition("=")
        if name not in kinds:
            raise UserError(
                f"--critic {text}: unknown option {name!r}{did_you_mean(name, kinds)}; known: {', '.join(kinds)}"
            )
        try:
            given[name] = kinds[name](value)
        except (ValueError, OverflowError):
            raise UserError(f"--critic {text}: {name} must be a number, such as {getattr(Recipe, name)}") from None
    return Recipe(**given)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: must be a list of numbers, such as 2,8") from None


def trusted_config(arguments: Namespace, model: OpenedModel, consent: str) -> Config:
    """Return the config in a model file if its data may be opened.

    Data that ship with orthogan may always be opened. So may the data of a run, because they are on this machine;
    nothing is downloaded for it. A single file may come from anywhere. ``consent``: the fix to name in the message.

    Raises:
        UserError: the user must consent first.
    """
    data = model.config.data
    if "origin" in model.about.extra:
        raise UserError(
            f"{printable(model.name)}: was not trained with orthogan, so its training images are not known; choose "
            "images to compare with: --data CONFIG"
        )
    if arguments.trust or data.source in generated_sources():
        return model.config
    require_trust(code_in(data, "data."), model.name, False)
    where = f"data.source = {data.source!r}, " + (f"path = {data.path!r}" if data.path else f"root = {data.root!r}")
    if find_run(arguments.subject) is None:
        raise UserError(
            f"{printable(model.name)} names its own images ({printable(where)}). A weights file may come from "
            f"anywhere, so these are not opened: {consent} to open what the file names"
        )
    print(f"orthogan: using the images of the run: {printable(where)}", file=sys.stderr)
    return model.config.model_copy(update={"data": data.model_copy(update={"download": False})})


def _reference(arguments: Namespace, data: DataConfig, metrics: list[Metric]) -> ImageSource | str | None:
    given = arguments.reference
    if given is None:
        return open_configured(data, split=arguments.split) if any(metric.compares for metric in metrics) else None
    if Path(given).suffix in (".safetensors", ".npz"):
        return given
    return _images(given, data)


def _held_out(arguments: Namespace, data: DataConfig, metrics: list[Metric]) -> ImageSource | None:
    """Open the images that the generator was not trained on, if a metric needs them and the data have such a split."""
    if arguments.reference is not None or not any("held_out" in metric.needs for metric in metrics):
        return None
    try:
        return open_held_out(data)
    except UserError:
        if names_scorecard(arguments.metrics):
            return None
        raise


def _images(path: str, data: DataConfig) -> ImageSource:
    """Open the images of a folder or zip file in the format given by ``data``."""
    return open_source(
        "folder",
        path=path,
        resolution=data.resolution,
        channels=data.channels,
        bad_images=data.bad_images,
        bad_limit=data.bad_limit,
    )
