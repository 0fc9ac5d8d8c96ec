"""From a config to nets: the families by name, or a class of the user's own as ``module:Class``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from orthogan import weights
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.layers import CovariancePooling, decorrelate
from orthogan.memory import out_of_memory
from orthogan.models.classifiers.base import CLASSIFIERS
from orthogan.models.config import CovariancePoolingConfig, NetConfig, WhiteningConfig
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Generator, as_generator
from orthogan.registry import Registry
from orthogan.rng import derive
from orthogan.weights.network import CONSTRAINT, ConstraintConfig

Start = Callable[[nn.Module], None]  # fills a net with given weights
# what options and sizes that make no sense lead to
NOT_BUILT = (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError)


def build_generator(config: Config, *, num_classes: int, start: Start | None = None) -> Generator:
    """The generator of ``config``, initialised as a function of ``config.seed`` alone.

    Args:
        start: given the net before any constraint is on its weights, to fill them; constraints are fitted to these.
            ``config.model.init`` is not read here (see ``orthogan.models.warm_start``).

    Raises:
        UserError: an unknown kind, a class that cannot be imported or built, an unsupported resolution.
    """
    section = config.model.generator
    arguments = {
        "resolution": config.data.resolution,
        "image_channels": config.data.channels,
        "channels": section.channels,
        "latent_dim": section.latent_dim,
        "num_classes": num_classes,
    }
    net = _build(section.kind, section.options, GENERATORS, arguments, "model.generator", config.seed)
    apply_constraints(net, section, "model.generator", config.seed, start)
    return as_generator(net)


def build_discriminator(config: Config, *, num_classes: int, start: Start | None = None) -> nn.Module:
    """The discriminator of ``config``, initialised as a function of ``config.seed`` alone (all as above)."""
    section = config.model.discriminator
    arguments: dict[str, Any] = {
        "resolution": config.data.resolution,
        "image_channels": config.data.channels,
        "channels": section.channels,
        "num_classes": num_classes,
    }
    pooling = section.pooling
    if pooling.kind == "covariance":
        make = DISCRIMINATORS.get(section.kind, "model.discriminator.kind")
        if "pooling" not in inspect.signature(make).parameters:
            raise UserError(f"model.discriminator.pooling.kind: {section.kind!r} has no covariance pooling; sngan has")
        arguments["pooling"] = partial(_covariance_pooling, pooling, batch_norm=False)
    net = _build(section.kind, section.options, DISCRIMINATORS, arguments, "model.discriminator", config.seed)
    apply_constraints(net, section, "model.discriminator", config.seed, start)
    return net


def build_classifier(config: Config, *, num_classes: int) -> nn.Module:
    """The classifier of ``config``, initialised as a function of ``config.seed`` alone (errors as above)."""
    section = config.model.classifier
    arguments = {
        "resolution": config.data.resolution,
        "image_channels": config.data.channels,
        "channels": section.channels,
        "num_classes": num_classes,
    }
    pool = partial(_covariance_pooling, section.pooling) if section.pooling.kind == "covariance" else None
    net = _build(section.kind, section.options, CLASSIFIERS, arguments, "model.classifier", config.seed, pool)
    apply_constraints(net, section, "model.classifier", config.seed)
    return net


def build_for_file(config: Config, name: str, *, num_classes: int, numbers: int) -> nn.Module:
    """A net of ``config`` that the tensors of a file should fill, refused early where it is much larger than they are.

    Args:
        name: ``generator``, ``discriminator`` or ``classifier``.
        numbers: how many there are in the file. Constraints may store fewer than the plain net has.

    Raises:
        UserError: as of ``build_generator``, or it is much larger.
    """
    build = {"generator": build_generator, "discriminator": build_discriminator, "classifier": build_classifier}[name]
    section = getattr(config.model, name)
    if ":" in section.kind:
        return build(config, num_classes=num_classes)
    message = f"model.{name}: {section.kind} with these sizes is much larger than the weights in the file"
    plain = section.model_copy(update={"norm": ConstraintConfig(), "whitening": WhiteningConfig()})
    trial = config.model_copy(update={"model": config.model.model_copy(update={name: plain})})
    try:
        with _at_most(8 * numbers + 1_000_000, message), torch.device("meta"):
            build(trial, num_classes=num_classes)  # takes no memory
    except (UserError, NotImplementedError) as error:  # some layers cannot be made without numbers
        if str(error) == message:
            raise
    with _at_most(8 * numbers + 1_000_000, message):
        return build(config, num_classes=num_classes)


@contextmanager
def _at_most(numbers: int, message: str) -> Iterator[None]:
    """Raise ``UserError(message)`` once the modules built in the block hold more than so many numbers."""

    def count(module: nn.Module, name: str, value: Tensor | None) -> None:
        nonlocal numbers
        numbers -= 0 if value is None else max(1, value.numel())
        if numbers < 0:
            raise UserError(message)

    with ExitStack() as hooks:
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook):
            hooks.callback(register(count).remove)
        yield


def _covariance_pooling(
    config: CovariancePoolingConfig, channels: int, *, batch_norm: bool = True
) -> CovariancePooling:
    return CovariancePooling(config.method, 5, config.dimension, channels, batch_norm=batch_norm)


def _build(
    kind: str,
    options: dict[str, Any],
    known: Registry[Callable[..., nn.Module]],
    arguments: dict[str, Any],
    key: str,
    seed: int,
    pool: Callable[[int], CovariancePooling] | None = None,
) -> nn.Module:
    make = known.get(kind, f"{key}.kind")
    arguments = (_accepted(make, arguments) if ":" in kind else arguments) | options
    # constructors draw from torch's global generator; lend them a seeded one and give the caller's back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", key))
        try:
            net = make(**arguments)
            if pool is not None:
                if not hasattr(net, "pool_by"):
                    raise UserError(f"{key}.pooling.kind: {kind} has no method pool_by, as Classifier has")
                net.pool_by(pool)  # pyright: ignore[reportCallIssue]
            return net
        except (UserError, NotImplementedError):
            raise
        except Exception as error:
            if out_of_memory(error):
                fit = f"{key}: {kind} with {arguments} does not fit into the memory; make it smaller"
                raise UserError(fit) from error
            if ":" not in kind and not isinstance(error, NOT_BUILT):  # in the user's own code anything may happen
                raise
            raise UserError(
                f"{key}: {kind} cannot be built with {arguments}: {type(error).__name__}: {error}"
            ) from error


def _accepted(make: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of ``arguments`` that a user's constructor takes: a wrapper of ten lines need not name them all."""
    parameters = inspect.signature(make).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(arguments)
    return {k: v for k, v in arguments.items() if k in parameters}


def apply_constraints(net: nn.Module, section: NetConfig, key: str, seed: int, start: Start | None = None) -> None:
    """Whitening in place of batch norms, given weights, then the constraint on them (some draw their own)."""
    norm, whitening = CONSTRAINT.resolved(section.norm), section.whitening
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "norm", key))
        try:
            if whitening.layers:
                decorrelate(net, **whitening.model_dump())
        except ValueError as error:
            raise UserError(f"{key}.whitening: {error}") from error
        if start is not None:
            with torch.random.fork_rng(devices=[]):  # whatever it draws, the constraints draw what they always do
                start(net)
        try:
            weights.apply(net, norm, **(norm.with_given_weights if start is not None else {}))
        except ValueError as error:
            raise UserError(f"{key}.norm: {error}") from error
