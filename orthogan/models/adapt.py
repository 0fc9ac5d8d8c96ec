"""Adapting given weights to a network with other image channels or other classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.layers.batch_norm import BatchNorm2d, ConditionalBatchNorm2d
from orthogan.layers.decorrelated_batch_norm import DecorrelatedBatchNorm2d
from orthogan.models.families.stylegan2 import Mapping

LUMA = torch.tensor([0.299, 0.587, 0.114])  # luma of RGB (Rec. 601), as for grayscale images that are read


@dataclass(frozen=True)
class Form:
    """The properties, besides sizes, that determine the tensors of a network."""

    channels: int
    num_classes: int = 0
    class_names: Sequence[str] = ()


@torch.no_grad()
def adapt(
    given: dict[str, Tensor], net: nn.Module, role: Literal["generator", "discriminator"], there: Form, here: Form
) -> list[str]:
    """Change ``given``, the state of a network of the form ``there``, to fit ``net``, which has the form ``here``.

    Tensors that do not depend on channels or classes are not changed, even if they do not fit.

    - Grayscale to RGB: the generator draws the same gray image in three channels; the discriminator sees the luma of
      an RGB image. RGB to grayscale: the generator draws its luma; the discriminator sees the gray image in three
      channels.
    - Classes: a class of the same name keeps its weights. A new class starts as the mean of all classes. If there were
      no classes, the gains and biases of all classes start as the common ones, and the discriminator ignores the class
      at first. If the new network has no classes, the mean over classes is kept.

    Returns one line of text per change.

    Raises:
        UserError: other image channels than from gray to RGB or back.
    """
    done = []
    if there.channels != here.channels and {there.channels, here.channels} != {1, 3}:
        raise UserError(
            f"model.init: its images have {there.channels} channels, and data.channels is {here.channels}; only gray "
            f"(1) and RGB (3) are converted to each other, so set data.channels to {there.channels}"
        )
    if (there.num_classes, list(there.class_names)) != (here.num_classes, list(here.class_names)):
        done += _classes(given, net, role, there, here)
    if there.channels != here.channels:
        wanted = net.state_dict()
        changed = [key for key in given if key in wanted and _channels(given, wanted, key, role, there, here)]
        if changed:
            names = {1: "gray", 3: "RGB"}
            done.append(f"{role}: {names[there.channels]} to {names[here.channels]} in {', '.join(changed)}")
    return done


def _channels(
    given: dict[str, Tensor], wanted: dict[str, Tensor], key: str, role: str, there: Form, here: Form
) -> bool:
    """Change the one dimension in which a tensor has the image channels; return whether there is one."""
    old, new = given[key], wanted[key]
    if old.dim() != new.dim():
        return False
    differ = [i for i, (a, b) in enumerate(zip(old.shape, new.shape, strict=True)) if a != b]
    if len(differ) != 1 or (old.shape[differ[0]], new.shape[differ[0]]) != (there.channels, here.channels):
        return False
    axis = differ[0]
    weights = LUMA.to(old).view([-1 if i == axis else 1 for i in range(old.dim())])
    if there.channels == 1:
        given[key] = old.repeat_interleave(3, axis) if role == "generator" else old * weights
    else:
        given[key] = (old * weights if role == "generator" else old).sum(axis, keepdim=True)
    return True


def _classes(given: dict[str, Tensor], net: nn.Module, role: str, there: Form, here: Form) -> list[str]:
    kept = [name for name in here.class_names if name in there.class_names]
    rows = _rows(there, here)
    touched = False
    for name, module in net.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, ConditionalBatchNorm2d):
            touched = True
            _condition(given, prefix, here.num_classes, rows)
        elif isinstance(module, BatchNorm2d | DecorrelatedBatchNorm2d) and f"{prefix}gain" in given:
            touched = True
            given[f"{prefix}weight"] = given.pop(f"{prefix}gain").mean(0)
            given[f"{prefix}bias"] = given[f"{prefix}bias"].mean(0)
            _rename(given, f"{prefix}norm.", prefix)
        elif isinstance(module, nn.Embedding) and module.num_embeddings == here.num_classes:
            touched = True
            key = f"{prefix}weight"
            if key in given:
                given[key] = rows(given[key])
            else:
                # a mapping network scales the vector of a class to length 1, so it must not be 0
                fresh = isinstance(net.get_submodule(name.rpartition(".")[0]), Mapping)
                given[key] = module.weight.clone() if fresh else torch.zeros_like(module.weight)
    wanted = net.state_dict()
    touched |= role == "discriminator" and _head(given, wanted, there, here, rows)
    for key in [key for key in given if key.endswith("embedding.weight") and key not in wanted]:
        touched = True
        del given[key]
    if not touched:
        return []
    if not here.num_classes:
        return [f"{role}: without classes, as the mean of {there.num_classes}"]
    if not there.num_classes:
        return [f"{role}: {here.num_classes} classes, which start with equal weights"]
    same = f"the weights of {', '.join(kept)} are kept"
    what = same if kept else "none has the same name, so all start with equal weights"
    return [f"{role}: {there.num_classes} classes to {here.num_classes}, {what}"]


def _head(
    given: dict[str, Tensor], wanted: dict[str, Tensor], there: Form, here: Form, rows: Callable[[Tensor], Tensor]
) -> bool:
    """Change a last layer that has a row per class; return whether there is one."""
    key = "linear.weight"
    if key not in given or key not in wanted:
        return False
    sizes = given[key].shape[0], wanted[key].shape[0]
    if sizes == (1, 1) or sizes != (max(1, there.num_classes), max(1, here.num_classes)):
        return False
    mean = given[key].mean(0, keepdim=True)
    given[key] = rows(given[key]) if there.num_classes and here.num_classes else mean.expand(sizes[1], -1).clone()
    return True


def _condition(given: dict[str, Tensor], prefix: str, classes: int, rows: Callable[[Tensor], Tensor]) -> None:
    """Set gains and biases per class from those of other classes, or from common ones."""
    if f"{prefix}gain" in given:
        for key in (f"{prefix}gain", f"{prefix}bias"):
            given[key] = rows(given[key])
    elif f"{prefix}weight" in given:
        gain, bias = (given.pop(f"{prefix}{name}").expand(classes, -1).clone() for name in ("weight", "bias"))
        _rename(given, prefix, f"{prefix}norm.")  # the statistics, also those of whitening
        given |= {f"{prefix}gain": gain, f"{prefix}bias": bias}


def _rename(given: dict[str, Tensor], old: str, new: str) -> None:
    """Give the tensors directly below ``old`` the prefix ``new``."""
    for key in [key for key in given if key.startswith(old) and "." not in key[len(old) :]]:
        given[new + key[len(old) :]] = given.pop(key)


def _rows(there: Form, here: Form) -> Callable[[Tensor], Tensor]:
    """Return a function (classes there, ...) -> (classes here, ...)."""
    index = {name: i for i, name in enumerate(there.class_names)}
    if not index or not here.class_names:  # unknown names: match by number
        index = {str(i): i for i in range(there.num_classes)}
        names: Sequence[str] = [str(i) for i in range(here.num_classes)]
    else:
        names = here.class_names

    def choose(tensor: Tensor) -> Tensor:
        mean = tensor.mean(0)
        return torch.stack([tensor[index[name]] if name in index else mean for name in names])

    return choose
