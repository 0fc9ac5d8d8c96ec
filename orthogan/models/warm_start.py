"""Starting from given weights (``model.init``): trained networks with baked-in constraints fill new plain ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orthogan import weights
from orthogan.config.base import names_in
from orthogan.config.files import command_word, flatten
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.io.read import printable, user_path
from orthogan.layers import HouseholderProjector, SkewOrthogonalConv2d
from orthogan.models.adapt import Form, adapt
from orthogan.models.build import Start
from orthogan.models.label_table import TABLE, LabelTable, label_table
from orthogan.models.open import OpenedModel, open_model
from orthogan.named_code import Trust
from orthogan.weights.effective import Equalized

# what decides the names and sizes of a net's tensors
SHAPING = ("kind", "channels", "latent_dim", "options", "whitening", "pooling")
PLAIN = Equalized()  # the factors of weight and bias for any other layer


class WarmStart:
    """The networks behind ``config.model.init``, for ``build_generator(..., start=...)`` and the discriminator's.

    The averaged weights of the generator are used if there are any. A run, a checkpoint, a shipped model or the folder
    of a model also provides its discriminator; a single file does not. Other image channels and other classes are
    adapted as in ``orthogan.models.adapt``. Every tensor is used as the network applies it: constraints, projectors and
    equalized learning rates are baked in, so that the constraints of ``config`` start from plain weights. The basis
    among equal singular values of a projector is arbitrary: a new projector on such a weight keeps the space of its
    directions, but not each direction.

    Args:
        num_classes: number of classes of the networks to fill; ``class_names``, in label order.
        labels: the vectors that the classes stand for, if the labels are vectors.
        trust: classes outside orthogan that the file may name, besides those that ``config`` names.

    Raises:
        UserError: there is nothing to load, or weights cannot be baked in.
    """

    def __init__(
        self,
        config: Config,
        num_classes: int,
        *,
        class_names: Sequence[str] = (),
        labels: LabelTable | None = None,
        trust: Trust = False,
    ) -> None:
        self.labels = labels
        init = str(config.model.init)
        self.config, self.num_classes, self.class_names = config, num_classes, list(class_names)
        self.changes: list[str] = []
        if ":" in init and not os.path.lexists(user_path(init)):
            raise UserError(f"model.init: {printable(init)}: no such file; name a run, a file or a shipped model")
        try:
            trust = trust is True or {*names_in(config), *(trust or ())}
            self.saved = open_model(init, trust=trust)
            self._generator = _baked(self.saved.generator, self.saved)
            self._discriminator = _baked(self.saved.discriminator, self.saved) if self.saved.holds_both else None
        except UserError as error:
            raise UserError(f"model.init: {error}") from None

    def in_words(self) -> str:
        """Return what was loaded and from where, for the user."""
        if self._discriminator is not None:
            return "; ".join([f"generator and discriminator of {self.saved.title}", *self.changes])
        reason = "a file holds one net"
        if self.saved.from_folder:
            reason = "there is no discriminator.safetensors"
        elif self.saved.has_discriminator and self.saved.path is not None:
            reason = f"give {self.saved.path.parent} to start from its discriminator too"
        only = f"only the generator of {self.saved.path}; the discriminator starts from the random seed ({reason})"
        return "; ".join([only, *self.changes])

    def generator(self, net: nn.Module) -> None:
        """Fill a new generator.

        Raises:
            UserError: the two differ; the message names the keys of the config.
        """
        self._fill(net, self._generator, "generator", "")

    @property
    def discriminator(self) -> Start | None:
        """Return a function that fills a new discriminator, as ``generator`` does; None if there is none."""
        found = self._discriminator
        advice = f"\nTo start from the generator alone, set model.init={self.saved.path}"
        return None if found is None else lambda net: self._fill(net, found, "discriminator", advice)

    def _fill(
        self, net: nn.Module, source: nn.Module, name: Literal["generator", "discriminator"], advice: str
    ) -> None:
        self._check_labels()
        given = _fitted(net, source)
        there = Form(self.saved.config.data.channels, self.saved.about.num_classes, self.saved.class_names)
        here = Form(self.config.data.channels, self.num_classes, self.class_names if self.num_classes else ())
        if self.labels is not None:  # the tensors depend on the numbers of a vector, which are the same
            there, here = Form(there.channels), Form(here.channels)
        self.changes += adapt(given, net, name, there, here)
        wanted = net.state_dict()
        wrong = [key for key in {**wanted, **given} if _shape(wanted, key) != _shape(given, key)]
        if wrong:
            old, new = _shaping(self.saved.config, name), _shaping(self.config, name)
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            lines = [f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}" for key in keys]
            if self.saved.about.num_classes != self.num_classes:
                lines.append(f"number of classes (data.labels): {self.saved.about.num_classes} -> {self.num_classes}")
            first = f"{wrong[0]} is {_shape(given, wrong[0])} in the file and {_shape(wanted, wrong[0])} in the config"
            fix = " ".join(f"{key}={command_word(old[key])}" for key in keys if key in old)
            raise UserError(
                f"model.init: the {name} of {self.saved.path} differs from that of this config "
                f"(tensors that differ: {len(wrong)}; {first}). File -> config:\n  "
                + "\n  ".join(lines or ["all keys are equal"])
                + (f"\nTo use the net of the file, set {fix}" if fix else "")
                + advice
            )
        net.load_state_dict(given)

    def _check_labels(self) -> None:
        """Raise UserError if one of the two networks takes label vectors that the other does not take."""
        found = label_table(self.saved.generator)
        size, names = (0, []) if found is None else (found.vectors.shape[1], list(found.names))
        wanted = 0 if self.labels is None else self.labels.vectors.shape[1]
        if size != wanted or (self.labels is not None and names != list(self.labels.names)):
            there, here = (f"vectors of {k} numbers" if k else "classes, or none" for k in (size, wanted))
            raise UserError(
                f"model.init: the labels of {self.saved.path} are {there}{_listed(names)}, and those of the data are "
                f"{here}{_listed(() if self.labels is None else self.labels.names)}; choose images with the same kind "
                "of labels, or start without model.init"
            )


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:20])})" if names else ""


def _shaping(config: Config, name: str) -> dict[str, Any]:
    section = getattr(config.model, name).model_dump()
    sizes = {"data": {"resolution": config.data.resolution}}
    return flatten(sizes | {"model": {name: {key: section[key] for key in SHAPING if key in section}}})


def _baked(net: nn.Module, saved: OpenedModel) -> nn.Module:
    for name, part in net.named_modules():
        if isinstance(part, SkewOrthogonalConv2d):
            raise UserError(
                f"{saved.path}: {name} is a skew orthogonal convolution, which cannot be converted to a plain "
                "kernel; start from a network without one"
            )
    try:
        return weights.remove(net)
    except ValueError:  # no layer has a constraint
        return net


@torch.no_grad()
def _fitted(net: nn.Module, source: nn.Module) -> dict[str, Tensor]:
    """Return the state of ``source`` as ``net`` would hold it, with the gains and projectors of ``net``."""
    apart = ("recognition.", f"{TABLE}.")
    state = {key: value for key, value in source.state_dict().items() if not key.startswith(apart)}
    sources = dict(source.named_modules())
    for name, layer in net.named_modules():
        other = sources.get(name)
        if isinstance(layer, HouseholderProjector) and isinstance(other, nn.Linear):
            projector = HouseholderProjector.from_linear(other, layer.rank)
            del state[f"{name}.weight"]
            state |= {f"{name}.{key}": value for key, value in projector.state_dict().items()}
        elif other is not None:
            theirs, ours = (one if isinstance(one, Equalized) else PLAIN for one in (other, layer))
            for key, ratio in (("weight", theirs.gain / ours.gain), ("bias", theirs.rate / ours.rate)):
                if ratio != 1 and (full := f"{name}.{key}") in state:
                    state[full] = state[full] * ratio
    return state


def _shape(tensors: dict[str, Tensor], key: str) -> str:
    return str(tuple(tensors[key].shape)) if key in tensors else "absent"
