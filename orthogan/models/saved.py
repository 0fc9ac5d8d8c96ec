"""Nets on disk: one ``.safetensors`` file that carries its own config, and how to find and open it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from orthogan import checkpoint
from orthogan.config import Config
from orthogan.config_file import validate
from orthogan.errors import UserError
from orthogan.io.write import write_tensors
from orthogan.models.build import build_classifier, build_generator
from orthogan.models.protocol import Generator
from orthogan.models.shipped import no_such, shipped

FORMAT = "orthogan-generator-1"
CLASSIFIER_FORMAT = "orthogan-classifier-1"
RAW, AVERAGED = "generator", "generator-ema"
CLASSIFIER = "classifier"


@dataclass(frozen=True)
class Saved:
    """What the file of a generator or classifier says of itself."""

    path: Path
    config: Config
    num_classes: int
    extra: dict[str, str] = field(default_factory=dict)  # step, images, weights ("ema" | "raw"), class_names (JSON)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in label order; empty for an unconditional generator."""
        return json.loads(self.extra.get("class_names", "[]"))


def metadata(
    config: Config | Mapping[str, Any], num_classes: int, extra: Mapping[str, str], *, form: str = FORMAT
) -> dict[str, str]:
    """The safetensors metadata that makes the file of a generator (or what ``form`` says) self-describing."""
    tree = config.model_dump() if isinstance(config, Config) else dict(config)
    return {"format": form, "config": json.dumps(tree), "num_classes": str(num_classes), **extra}


def save_generator(
    path: str | Path, module: nn.Module, *, config: Config | Mapping[str, Any], extra: Mapping[str, str] | None = None
) -> None:
    """Write ``module`` with its config to one ``.safetensors`` file. Raises ``CannotWrite``."""
    about = metadata(config, int(getattr(module, "num_classes", 0)), extra or {})
    write_tensors(path, module.state_dict(), about)


def find(path: str | Path, *, ema: bool = True) -> Path:
    """The file of the generator or classifier behind ``path``: a file, a checkpoint folder, a run (its newest whole
    checkpoint), or the name of a shipped model.

    Raises:
        UserError: there is none, or the checkpoint is damaged.
    """
    path = Path(path)
    if os.path.isfile(path):
        return path
    if not os.path.exists(path):
        if (file := shipped(str(path))) is not None:
            return file
        raise no_such(path)
    folder = path
    if checkpoint.is_checkpoint(folder):
        try:
            checkpoint.verify(folder)
        except checkpoint.Damaged as damage:
            raise UserError(f"{damage}; choose another checkpoint of the run") from None
    else:
        found = checkpoint.newest(path)
        if found is None:
            singles = sorted(path.glob("*.safetensors"))
            if len(singles) == 1:
                return singles[0]
            raise UserError(f"{path}: neither a run with checkpoints, nor a checkpoint, nor a .safetensors file")
        folder = found[0]
    classifier = folder / f"{CLASSIFIER}.safetensors"
    if classifier.is_file():
        return classifier
    averaged = folder / f"{AVERAGED}.safetensors"
    return averaged if ema and averaged.is_file() else folder / f"{RAW}.safetensors"


def describe(path: str | Path, *, ema: bool = True, form: str = FORMAT) -> Saved:
    """What the file behind ``path`` says of itself, without building the net.

    Raises:
        UserError: it is not of the ``form`` (a generator's, by default).
    """
    file = find(path, ema=ema)
    try:
        with safe_open(file, "pt") as stream:
            header = stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a readable safetensors file: {error}") from None
    found, wanted = header.get("format"), form.split("-")[1]
    if found != form and found in (FORMAT, CLASSIFIER_FORMAT):
        raise UserError(f"{file}: carries a {found.split('-')[1]}, and a {wanted} is needed here")
    if found != form:
        raise UserError(
            f"{file}: carries no orthogan {wanted} (format {found!r}); "
            "files written by orthogan hold their config in the metadata"
        )
    config = validate(json.loads(header["config"]), {}, default_origin=str(file))
    extra = {k: v for k, v in header.items() if k not in ("format", "config", "num_classes")}
    return Saved(file, config, int(header["num_classes"]), extra)


def load(path: str | Path, *, device: torch.device | str = "cpu", ema: bool = True) -> Generator:
    """A generator, ready to draw from: eval mode, on ``device``.

    Args:
        path: a run folder (its newest whole checkpoint), a checkpoint folder or a ``.safetensors`` file.
        ema: take the averaged weights where the checkpoint has them.

    Raises:
        UserError: nothing to load there, or the tensors do not fit the config they came with.
    """
    saved = describe(path, ema=ema)
    net = build_generator(saved.config, num_classes=saved.num_classes)
    _fill(net, saved)
    return net.to(device).eval()


def load_classifier(path: str | Path, *, device: torch.device | str = "cpu") -> nn.Module:
    """A classifier in eval mode on ``device``: images (n, c, h, w) in [-1, 1] -> logits (n, classes).

    Args, errors: as ``load``; ``describe(path, form=CLASSIFIER_FORMAT)`` tells the names of the classes.
    """
    saved = describe(path, form=CLASSIFIER_FORMAT)
    net = build_classifier(saved.config, num_classes=saved.num_classes)
    _fill(net, saved)
    return net.to(device).eval()


def _fill(net: nn.Module, saved: Saved) -> None:
    with safe_open(saved.path, "pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (no mapping)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{saved.path}: its tensors do not fit its config: {error}") from None
