"""Model files: ``.safetensors`` files that contain their config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orthogan.arguments import checked, is_whole_number
from orthogan.config.files import validate
from orthogan.config.schema import Config, code_of_nets
from orthogan.errors import UserError
from orthogan.io.read import exists, parse_json, printable
from orthogan.io.weights import HASH, compute_seal, read_metadata
from orthogan.io.write import write_tensors
from orthogan.named_code import Trust, require_trust

FORMAT = "orthogan-generator-1"
CLASSIFIER_FORMAT = "orthogan-classifier-1"
DISCRIMINATOR_FORMAT = "orthogan-discriminator-1"
# stems of the files in a checkpoint
RAW, EMA, DISCRIMINATOR = "generator", "generator-ema", "discriminator"
CLASSIFIER = "classifier"
FORM = "orthogan-format"  # key in the metadata; older files have it as "format", which other tools expect to be "pt"
MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Saved:
    """What the file of a generator or classifier says about itself."""

    config: Config
    num_classes: int
    # step, images, weights ("ema" | "raw"), class_names (JSON)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in label order; empty for an unconditional generator."""
        return json.loads(self.extra.get("class_names", "[]"))

    @property
    def label_names(self) -> list[str]:
        """Names of the numbers of the label vectors; empty if the labels are no vectors, or have no names."""
        return json.loads(self.extra.get("label_names", "[]"))


def metadata(
    config: Config | Mapping[str, Any],
    num_classes: int,
    extra: Mapping[str, str],
    *,
    form: str = FORMAT,
    tensors: Mapping[str, Tensor] | None = None,
) -> dict[str, str]:
    """Return the safetensors metadata that describes the file of a generator (or of another ``form``).

    ``tensors``: those of the file; a hash of them and of the metadata is stored, and checked when the file is loaded.
    """
    tree = config.model_dump() if isinstance(config, Config) else dict(config)
    about = {"format": "pt", FORM: form, "config": json.dumps(tree), "num_classes": str(num_classes), **extra}
    return about if tensors is None else about | {HASH: compute_seal(tensors, about)}


def form_of(header: Mapping[str, str]) -> str:
    """Return the format of a file that orthogan wrote, such as ``FORMAT``; for another file, what it states."""
    return header.get(FORM, header.get("format", ""))


@checked
def save_generator(
    path: str | Path,
    module: nn.Module,
    *,
    config: Config | Mapping[str, Any] | None = None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write a generator and its config to one ``.safetensors`` file, which ``orthogan.load`` and every command open.

    Args:
        path: the file to write.
        module: the generator.
        config: the config that it was built from.
        extra: further metadata, such as ``{"step": "1000"}``.

    Raises:
        CannotWrite: the file cannot be written.
        TypeError: the arguments are in another order, or there is no config.

    Example:
        >>> import orthogan
        >>> from orthogan.models.build import build_generator
        >>> config = orthogan.load_config(None, ["model.generator.channels=4", "model.generator.latent_dim=8"])
        >>> generator = build_generator(config, num_classes=0)
        >>> orthogan.save_generator("mine.safetensors", generator, config=config)
        >>> orthogan.load("mine.safetensors").latent_dim
        8
    """
    if not isinstance(module, nn.Module) or config is None:
        raise TypeError("save_generator needs the path, the generator and config=, the config that it was built from")
    tensors = module.state_dict()
    about = metadata(config, int(getattr(module, "num_classes", 0)), extra or {}, tensors=tensors)
    write_tensors(path, tensors, about)


def check_partner(folder: Path, extra: Mapping[str, str]) -> None:
    """Refuse to write a generator without a discriminator beside the discriminator of another model.

    The two would be opened as one model. ``extra``: further metadata of the generator; its name may differ.

    Raises:
        UserError: the discriminator in ``folder`` has other metadata, or is damaged.
    """
    file = folder / f"{DISCRIMINATOR}.safetensors"
    if not exists(file, "file"):
        return
    ours = {"format", FORM, "config", "num_classes", HASH, "name"}
    if {k: v for k, v in read_metadata(file).items() if k not in ours} != {
        k: v for k, v in extra.items() if k != "name"
    }:
        raise UserError(
            f"{printable(file)}: belongs to another model, and would be opened together with this generator; "
            "name another folder, or move this file away"
        )


def read_header(file: Path, header: Mapping[str, str], trust: Trust = False) -> Saved:
    """Read and check the metadata of a file.

    Args:
        trust: classes outside orthogan that the file may name.

    Raises:
        UserError: the metadata are not valid, or name other code.
    """
    source = printable(file)
    if missing := [key for key in ("config", "num_classes") if key not in header]:
        raise UserError(
            f"{source}: its metadata do not contain {' and '.join(missing)}; copy or download the file again"
        )
    tree = parse_json(header["config"], f"{source}, metadata config")
    if not isinstance(tree, dict):
        raise UserError(f"{source}: the config in its metadata is a {type(tree).__name__}, not a mapping")
    config = validate(tree, {}, default_origin=source)
    require_trust(code_of_nets(config), file, trust)
    extra = {k: v for k, v in header.items() if k not in ("format", FORM, "config", "num_classes", HASH)}
    return Saved(config, _classes(header["num_classes"], extra, source), extra)


def _classes(text: str, extra: Mapping[str, str], source: str) -> int:
    """Return the number of classes, if it and the names of the classes are valid."""
    if not (is_whole_number(text) and int(text) <= MOST_CLASSES):
        raise UserError(
            f"{source}: num_classes is {text[:40]!r} in its metadata; it must be a number from 0 to {MOST_CLASSES}"
        )
    for key in ("label_names", "class_names"):
        names = parse_json(extra.get(key, "[]"), f"{source}, metadata {key}")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"{source}: {key} in its metadata must be a JSON list of names")
    if len(names) not in (0, int(text)):
        raise UserError(f"{source}: its metadata have {len(names)} class_names for num_classes = {text}")
    return int(text)


def fill(net: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Load the tensors of ``file`` into ``net``. Raises ``UserError`` if names, shapes or types do not fit."""
    state = net.state_dict()
    for name, tensor in tensors.items():
        if name in state and not _converts(tensor, state[name]):
            raise UserError(
                f"{printable(file)}: {printable(name)} is {tensor.dtype} but must be {state[name].dtype}; the file "
                "is damaged or was converted incorrectly"
            )
    try:
        net.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))
        reason = reason if len(reason) < 400 else f"{reason[:400]} …"  # the message lists every tensor
        raise UserError(f"{printable(file)}: its tensors do not match its config: {reason}") from None


def count(tensors: Mapping[str, Tensor]) -> int:
    """Return the total number of elements."""
    return sum(tensor.numel() for tensor in tensors.values())


def _converts(tensor: Tensor, wanted: Tensor) -> bool:
    """Return whether ``load_state_dict`` keeps the meaning: precision may change, but not the kind of number.

    Counts can also be read from a file whose tensors were all converted to floating point.
    """
    if _sort(tensor) == _sort(wanted):
        return True
    return _sort(tensor) == "floating" and _sort(wanted) == "integer" and bool((tensor.double() % 1 == 0).all())


def _sort(tensor: Tensor) -> str:
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        return "floating" if tensor.is_floating_point() else str(tensor.dtype)
    return "integer"
