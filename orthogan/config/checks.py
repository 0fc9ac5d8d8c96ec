"""What does not go together in a config, and what a task has by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from orthogan.evaluation.metric import OF_IMAGES, known_metric

if TYPE_CHECKING:
    from orthogan.config.schema import Config

# What another task than the GAN has by default, and what belongs to one task alone: whole sections or keys.
TASK_DEFAULTS: dict[str, dict[str, Any]] = {
    "classifier": {
        "data.labels": True,
        "data.dequantize": False,
        "training.ema.half_life": 0,
        "evaluation.metrics": ["accuracy"],
        "evaluation.best": "accuracy",
    }
}
ONLY_OF = {
    "gan": (
        "data.labels",
        "data.dequantize",
        "augment",
        "model.init",
        "model.generator",
        "model.discriminator",
        "loss.kind",
        "loss.gradient_penalty",
        "loss.latent_penalty",
        "optimizer.generator",
        "optimizer.discriminator",
        "training.generator_batch_size",
        "training.d_steps_per_g_step",
        "training.fakes_at_once",
        "training.ema",
        "logging.samples_every",
        "evaluation.reference_samples",
        "evaluation.extractor",
        "evaluation.precision",
    ),
    "classifier": (
        "data.crop",
        "data.label_noise",
        "data.test_split",
        "data.holdout",
        "model.classifier",
        "loss.label_smoothing",
        "optimizer.classifier",
    ),
}


def fill_task_defaults(tree: Any) -> Any:
    """``tree`` with what its task has by default where nothing was said."""
    if isinstance(tree, Mapping):
        for key, value in TASK_DEFAULTS.get(str(tree.get("task")), {}).items():
            tree = _with(tree, key.split("."), value)
    return tree


def check_task(config: Config) -> None:
    """Refuse keys of another task, and a classifier without test images.

    Raises:
        ValueError: its message starts with the key.
    """
    other = "classifier" if config.task == "gan" else "gan"
    for key in ONLY_OF[other]:
        section, _, last = key.rpartition(".")
        mine: BaseModel = getattr(config, section) if section in type(config).model_fields else config
        usual = type(mine).model_fields[last].default
        for name, value, expected in _changed(getattr(mine, last), usual, key, TASK_DEFAULTS.get(config.task, {})):
            raise ValueError(
                f"{name}: task {config.task!r} has no use for {value!r}, which is for task {other!r}; "
                f"leave it at {expected!r}"
            )
    there = {"classifier", "test"} if config.task == "classifier" else OF_IMAGES | {"pairs", "generator"}
    for name in config.evaluation.metrics:
        # the defaults are known to fit, and finding a metric by its name takes a second
        metric = None if name == {"gan": "fid", "classifier": "accuracy"}[config.task] else known_metric(name)
        if metric and metric.needs - there:
            raise ValueError(
                f"evaluation.metrics: {name!r} needs the {min(metric.needs - there)}, which task {config.task!r} does "
                f"not give it; choose {'accuracy, corruptions, …' if config.task == 'classifier' else 'fid, kid, …'}"
            )
        if metric and metric.better == "none" and name == config.evaluation.best:
            raise ValueError(f"evaluation.best: neither lower nor higher {name!r} is better; choose another metric")
    if config.task == "classifier" and config.data.one_part and not config.data.holdout:
        raise ValueError(
            f"data.holdout: {config.data.source!r} has no test part; keep a share of the images for it, such as 0.1"
        )


def check_gan(config: Config) -> None:
    """Refuse combinations of loss, penalty, constraint and average that cannot work.

    Raises:
        ValueError: its message starts with the key, and gives the reason.
    """
    penalty = config.loss.gradient_penalty
    norm = config.model.discriminator.norm
    if config.loss.kind == "wasserstein" and penalty.kind == "none" and not norm.lipschitz and ":" not in norm.kind:
        raise ValueError(
            "loss.gradient_penalty.kind: a Wasserstein critic must be kept Lipschitz; use 'wgan-gp', "
            "or model.discriminator.norm.kind 'spectral', 'stable_rank' or 'orthogonal'"
        )
    latent = config.loss.latent_penalty
    parts = config.training.accumulate * latent.shrink
    if latent.kind != "none" and config.training.fakes % parts:
        raise ValueError(
            f"loss.latent_penalty.shrink: {latent.shrink} parts (times accumulate {config.training.accumulate}) do "
            f"not divide training.generator_batch_size = {config.training.fakes}"
        )
    pooling = config.model.discriminator.pooling
    if pooling.kind == "covariance" and pooling.method not in ("eigh", "newton_schulz") and penalty.kind != "none":
        raise ValueError(
            "model.discriminator.pooling.method: a gradient penalty differentiates D twice, which only "
            "'newton_schulz' and 'eigh' allow"
        )
    if penalty.kind == "wgan-gp" and penalty.interval != 1:
        raise ValueError("loss.gradient_penalty.interval: wgan-gp is applied at every D update; set it to 1")


def _with(tree: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """``tree`` with ``value`` at ``path``, unless something stands there; what is no mapping is left to be refused."""
    first, *rest = path
    here = tree.get(first, {} if rest else value)
    if isinstance(here, BaseModel):
        here = here.model_dump(exclude_unset=True)
    return {**tree, first: _with(here, rest, value) if rest and isinstance(here, Mapping) else here}


def _changed(value: Any, usual: Any, name: str, defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value, usual value) of what differs from the usual below ``name``."""
    if isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _changed(getattr(value, field), getattr(usual, field), f"{name}.{field}", defaults)
    elif value != (expected := defaults.get(name, usual)):
        yield name, value, expected
