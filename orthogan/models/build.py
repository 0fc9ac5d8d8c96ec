"""Building networks from a config: built-in families by name, or a user's ``module:Class``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
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
from orthogan.models.codes import add_codes
from orthogan.models.config import ClassifierConfig, CovariancePoolingConfig, NetConfig, WhiteningConfig
from orthogan.models.label_table import LabelTable, add_label_table
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Generator, as_generator
from orthogan.models.recognition import add_recognition
from orthogan.registry import Registry
from orthogan.rng import derive
from orthogan.size import UnsupportedSize, size_in_words
from orthogan.weights.network import CONSTRAINT, ConstraintConfig

Start = Callable[[nn.Module], None]  # fills a network with given weights
# errors that invalid options and sizes lead to
NOT_BUILT = (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError)


def build_generator(
    config: Config, *, num_classes: int, start: Start | None = None, labels: LabelTable | None = None
) -> Generator:
    """Build the generator of ``config``; the initialization depends only on ``config.seed``.

    Args:
        labels: the vectors that the ``num_classes`` classes stand for, if the labels are vectors.
        start: called with the network before any constraint is applied, to fill its weights; constraints are then
            fitted to these weights. ``config.model.init`` is not read here (see ``orthogan.models.warm_start``).

    Raises:
        UserError: unknown kind, a class that cannot be imported or created, or an unsupported resolution.
    """
    section = config.model.generator
    more = {"latent_dim": section.latent_dim}
    net = as_generator(_build(config, "generator", GENERATORS, num_classes, start, more, labels))
    if (codes := section.codes.of(net.latent_dim)) is not None:
        add_codes(net, codes)
    return net


def build_discriminator(
    config: Config, *, num_classes: int, start: Start | None = None, labels: LabelTable | None = None
) -> nn.Module:
    """Build the discriminator of ``config``; the initialization depends only on ``config.seed`` (all as above)."""
    section, more = config.model.discriminator, {}
    if section.pooling.kind == "covariance":
        make = DISCRIMINATORS.get(section.kind, "model.discriminator.kind")
        if "pooling" not in inspect.signature(make).parameters:
            raise UserError(
                f"model.discriminator.pooling.kind: {section.kind!r} does not support covariance pooling; use sngan"
            )
        more = {"pooling": partial(_covariance_pooling, section.pooling, batch_norm=False)}
    net = _build(config, "discriminator", DISCRIMINATORS, num_classes, start, more, labels)
    codes = config.model.generator.codes.of(config.model.generator.latent_dim)
    if codes is not None and config.loss.information.weight > 0:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(config.seed, "init", "recognition"))
            add_recognition(
                net,
                codes,
                width=config.loss.information.width,
                channels=config.data.channels,
                resolution=config.data.resolution,
                num_classes=num_classes,
                norm=section.norm,
            )
    return net


def build_classifier(config: Config, *, num_classes: int) -> nn.Module:
    """Build the classifier of ``config``; the initialization depends only on ``config.seed`` (errors as above)."""
    return _build(config, "classifier", CLASSIFIERS, num_classes)


def build_for_file(
    config: Config, name: str, *, num_classes: int, numbers: int, labels: LabelTable | None = None
) -> nn.Module:
    """Build a network of ``config`` to be filled from a file; refuse it early if it is much larger than the file.

    Args:
        labels: as for ``build_generator``.
        name: ``generator``, ``discriminator`` or ``classifier``.
        numbers: how many numbers the file holds. Constraints may store fewer than the plain network has.

    Raises:
        UserError: as for ``build_generator``, or the network is much larger.
    """
    build: Callable[..., nn.Module] = {
        "generator": partial(build_generator, labels=labels),
        "discriminator": partial(build_discriminator, labels=labels),
        "classifier": build_classifier,
    }[name]
    section = getattr(config.model, name)
    if ":" in section.kind:
        return build(config, num_classes=num_classes)
    message = f"model.{name}: {section.kind} with these sizes is much larger than the weights in the file"
    plain = section.model_copy(update={"norm": ConstraintConfig(), "whitening": WhiteningConfig()})
    trial = config.model_copy(update={"model": config.model.model_copy(update={name: plain})})
    try:
        with _at_most(8 * numbers + 1_000_000, message), torch.device("meta"):
            build(trial, num_classes=num_classes)  # takes no memory
    except (UserError, NotImplementedError) as error:  # some layers cannot be built without values
        if str(error) == message:
            raise
    with _at_most(8 * numbers + 1_000_000, message):
        return build(config, num_classes=num_classes)


@contextmanager
def _at_most(numbers: int, message: str) -> Iterator[None]:
    """Raise ``UserError(message)`` once the modules built in the block hold more numbers than allowed."""

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
    config: Config,
    name: str,
    known: Registry[Callable[..., nn.Module]],
    num_classes: int,
    start: Start | None = None,
    more: Mapping[str, Any] | None = None,
    labels: LabelTable | None = None,
) -> nn.Module:
    section: NetConfig = getattr(config.model, name)
    key, kind = f"model.{name}", section.kind
    arguments: dict[str, Any] = {
        "resolution": config.data.resolution,
        "image_channels": config.data.channels,
        "channels": section.channels,
        "num_classes": num_classes if labels is None else labels.vectors.shape[1],
        **(more or {}),
    }
    make = known.get(kind, f"{key}.kind")
    if not isinstance(config.data.resolution, int) and ":" not in kind and not getattr(make, "rectangles", False):
        able = [name for name, net in known.items() if getattr(net, "rectangles", False)]
        raise UserError(
            f"data.resolution is {size_in_words(config.data.resolution)}: {key}.kind {kind!r} supports square images "
            f"only; choose {', '.join(able[:-1])} or {able[-1]}, or one number, to which images are cropped"
        )
    arguments = (_accepted(make, arguments) if ":" in kind else arguments) | section.options
    # constructors draw from torch's global generator: seed it here, and restore the caller's state afterward
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "init", key))
        try:
            net = make(**arguments)
            if isinstance(section, ClassifierConfig) and section.pooling.kind == "covariance":
                if not hasattr(net, "pool_by"):
                    raise UserError(f"{key}.pooling.kind: {kind} has no method pool_by, as Classifier has")
                net.pool_by(partial(_covariance_pooling, section.pooling))  # pyright: ignore[reportCallIssue]
        except UnsupportedSize as error:
            raise UserError(f"{error}; choose another size, or another {key}.kind") from None
        except (UserError, NotImplementedError):
            raise
        except Exception as error:
            if out_of_memory(error):
                fit = f"{key}: {kind} with {arguments} does not fit into memory; choose a smaller network"
                raise UserError(fit) from error
            if ":" not in kind and not isinstance(error, NOT_BUILT):  # the user's own code may raise anything
                raise
            raise UserError(
                f"{key}: {kind} cannot be created with {arguments}: {type(error).__name__}: {error}"
            ) from error
    _apply_constraints(net, section, key, config.seed, start)
    if labels is not None:
        add_label_table(net, LabelTable(labels.vectors.clone(), labels.counts.clone(), labels.names))
    return net


def _accepted(make: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of ``arguments`` that a user's constructor takes: a short wrapper need not name them all."""
    parameters = inspect.signature(make).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(arguments)
    return {k: v for k, v in arguments.items() if k in parameters}


def _apply_constraints(net: nn.Module, section: NetConfig, key: str, seed: int, start: Start | None) -> None:
    """Replace batch norms by whitening, fill in given weights, then constrain the weights (some draw theirs)."""
    norm, whitening = CONSTRAINT.resolved(section.norm), section.whitening
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "norm", key))
        try:
            if whitening.layers:
                decorrelate(net, **whitening.model_dump())
        except ValueError as error:
            raise UserError(f"{key}.whitening: {error}") from error
        if start is not None:
            with torch.random.fork_rng(devices=[]):  # the constraints draw the same numbers, whatever ``start`` draws
                start(net)
        try:
            weights.apply(net, norm, **(norm.with_given_weights if start is not None else {}))
        except ValueError as error:
            raise UserError(f"{key}.norm: {error}") from error
