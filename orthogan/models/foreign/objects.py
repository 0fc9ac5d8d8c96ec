"""Networks that were pickled whole: their class, arguments and tensors, from the records of the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.io.pickles import Made, Named

# torch_utils.persistence of NVIDIA's code: the object is stored beside its source code, which is not looked at
PERSISTENT = "_reconstruct_persistent_obj"
DEEPEST = 64


@dataclass(frozen=True)
class PickledModule:
    """A pickled module.

    Attributes:
        name: of its class, without the module.
        options: keyword arguments of its constructor, where the file has them.
        fields: its attributes.
    """

    name: str
    options: Mapping[str, Any]
    fields: Mapping[str, Any]

    def state(self) -> dict[str, Tensor]:
        """Return its state dict."""
        found: dict[str, Tensor] = {}
        _collect(self, "", found, 0)
        return found

    def child(self, name: str) -> PickledModule:
        """Return a submodule. Raises ValueError if there is none."""
        return pickled_module(mapping(self.fields["_modules"])[name])


def mapping(value: Any) -> dict[Any, Any]:
    """Return a dict, or the content of an object that is a kind of dict. Raises ValueError."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Made):
        state = value.state if isinstance(value.state, Mapping) else {}
        first = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else {}
        return {**(first if isinstance(first, Mapping) else {}), **state, **dict(value.items)}
    raise ValueError("no mapping")


def pickled_module(value: Any) -> PickledModule:
    """Return the module that a record describes. Raises ValueError for anything else."""
    if not isinstance(value, Made):
        raise ValueError("no module")
    if isinstance(value.what, Named) and value.what.name == PERSISTENT:
        meta = mapping(value.arguments[0])
        fields, name = mapping(meta["state"]), str(meta["class_name"])
    else:
        what = value.arguments[0] if isinstance(value.what, Named) and value.what.name == "_reconstructor" else None
        what = value.what if what is None else what
        if not isinstance(what, Named):
            raise ValueError("no class")
        fields, name = mapping(value.state), what.name
    if "_modules" not in fields:
        raise ValueError("no module")
    options = mapping(fields["_init_kwargs"]) if "_init_kwargs" in fields else {}
    return PickledModule(name, options, fields)


def _collect(module: PickledModule, prefix: str, found: dict[str, Tensor], depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("modules nested too deeply")
    skipped = module.fields.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in mapping(module.fields.get(kind) or {}).items():
            if isinstance(value, Tensor) and name not in skipped:
                found[f"{prefix}{name}"] = value.detach()
    for name, value in mapping(module.fields["_modules"]).items():
        if value is not None:
            _collect(pickled_module(value), f"{prefix}{name}.", found, depth + 1)


def as_tensor(value: Any) -> Tensor:
    """Return a tensor or an array of numbers as a float32 tensor of its own. Raises ValueError."""
    if isinstance(value, np.ndarray | int | float | np.number):
        return torch.from_numpy(np.array(value, dtype=np.float32, order="C"))
    if isinstance(value, Tensor):
        return value.detach().float()
    raise ValueError("no numbers")


def refuse(what: str, value: Any, known: str) -> UserError:
    """Return the error for a variant of a network that is not supported."""
    return UserError(f"this network has {what} {value!r}, which orthogan does not support; it supports {known}")


def check(what: str, value: Any, *known: Any) -> None:
    """Raise ``UserError`` if an option has a value that is not supported; None, the authors' default, always is."""
    if value is not None and value not in known:
        raise refuse(what, value, ", ".join(map(repr, known)))
