"""What can be audited: orthogan's runs and files, a class or function by name, and other people's weight files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.evaluation import spectrum as measuring
from orthogan.evaluation.spectrum_plot import check_suffix
from orthogan.evaluation.spectrum_plot import plot as draw
from orthogan.models import saved
from orthogan.models.build import build_discriminator
from orthogan.models.named import made_by

DISCRIMINATOR = "discriminator.safetensors"
PICKLED = (".pt", ".pth", ".bin", ".ckpt")
CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
ACCEPTED = "a run, a checkpoint, a .safetensors or .pth file, or module:Class"


def spectrum(
    subject: str,
    *,
    layers: str | Sequence[str] = (),
    size: int = 8,
    plot: str | Path | None = None,
    as_json: bool = False,
    ema: bool = True,
) -> str:
    """The audit of ``subject`` as a text to print: a table, or one JSON object; and a picture, if ``plot`` names one.

    Args:
        layers: which ones, in the words of ``orthogan.weights.select``; all by default.
        size: side of the map on which convolutions are linear maps.
        ema: a run's averaged generator where there is one.

    Raises:
        UserError: nothing to measure, or no such layer; it names the file or the word and what would do.
    """
    if plot is not None:
        check_suffix(plot)
    name, module = open_subject(subject, ema=ema)
    try:
        rows = measuring.spectrum(module, layers, size)
    except ValueError as error:
        raise UserError(f"{subject}: {error}") from error
    product, others = measuring.log10_product_of_norms(rows), measuring.not_measured(module)
    written = draw(rows, plot, title=name) if plot is not None else None
    if as_json:
        finite = {key: value if value > float("-inf") else None for key, value in product.items()}
        facts = {"subject": name, "size": size, "log10_product_of_norms": finite, "not_measured": others}
        return json.dumps(facts | {"layers": [row.as_dict() for row in rows]}, allow_nan=False)
    lines = [name, "", measuring.table(rows), ""]
    lines.append(
        f"log10 of the product of all norms (a heuristic): {product['operator']:.2f} as linear maps, "
        f"{product['reshaped']:.2f} as matrices"
    )
    if isinstance(module, Tensors):
        lines.append("taken for convolutions of stride 1 without groups: the file says nothing else")
    if others:
        lines.append(f"not measured, in no linear, embedding or convolution layer: {', '.join(others)}")
    if written is not None:
        lines.append(f"picture: {written}")
    return "\n".join(lines)


class Tensors(nn.Module):
    """The matrices and kernels of a state dict as bare layers under their own names; it has no forward.

    Two dimensions become ``nn.Linear``, three to five a convolution of stride 1 in one group (a state dict does not
    tell), six or more a flattened ``nn.Linear``. Vectors and tensors of integers are left out. A tensor behind a
    parametrization is taken as it is stored.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for key, tensor in tensors.items():
            if tensor.dim() < 2 or not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            name = key.removesuffix(".weight")
            # add_module would refuse the dots
            self._modules[key if name in self._modules else name] = _layer(tensor.detach())


def open_subject(subject: str | Path, *, ema: bool = True) -> tuple[str, nn.Module]:
    """(name, module) of what ``subject`` names; nothing is downloaded and no foreign code is unpickled.

    A run or checkpoint folder gives ``G`` (averaged, if ``ema`` and it is there) and ``D``, or its classifier; one of
    its files gives that net alone; another ``.safetensors`` or ``.pth`` file its tensors as layers; ``module:Class`` or
    ``module:function`` what it makes without arguments, under a fixed seed; ``module:net`` the net itself.

    Raises:
        UserError: there is nothing of the kind; it names the file and the remedy.
    """
    text, path = str(subject), Path(subject)
    if not path.exists():
        module, _, attribute = text.partition(":")
        if module and attribute and path.suffix != ".safetensors":
            return text, made_by(text)
        raise UserError(f"{text}: no such file or folder; name {ACCEPTED}")
    file = saved.find(path, ema=ema)
    beside = file.with_name(DISCRIMINATOR)
    generator = file.with_name(f"{saved.RAW}.safetensors")
    if file.suffix == ".safetensors":
        if file.name == DISCRIMINATOR and generator.is_file():
            return str(file), _discriminator(file, generator)
        form = _format(file)
        if form == saved.CLASSIFIER_FORMAT:
            return str(file.parent if path.is_dir() else file), saved.load_classifier(file)
        if form != saved.FORMAT:
            return str(file), _tensors(file, load_file(file))
        if path.is_dir() and beside.is_file():
            nets = {"G": saved.load(file, ema=ema), "D": _discriminator(beside, file)}
            return str(file.parent), nn.ModuleDict(nets)
        return str(file), saved.load(file)
    if file.suffix in PICKLED:
        return str(file), _tensors(file, _unpickled(file))
    raise UserError(f"{file}: a file of this kind holds no weights that can be read; name {ACCEPTED}")


def _format(file: Path) -> str | None:
    try:
        with safe_open(file, "pt") as stream:
            return (stream.metadata() or {}).get("format")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a readable safetensors file: {error}; copy or write it again") from None


def _discriminator(file: Path, generator: Path) -> nn.Module:
    """The discriminator of a checkpoint; the config is in the generator's file."""
    about = saved.describe(generator)
    net = build_discriminator(about.config, num_classes=about.num_classes)
    try:
        net.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{file}: does not fit the config in {generator.name}: {error}; choose a checkpoint whose files belong "
            "together"
        ) from None
    return net.eval()


def _unpickled(file: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file does to the reader
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            f"{file}: holds more than tensors, or is damaged ({reason[0]}); "
            "write torch.save(model.state_dict(), file) where the model's code is, or a .safetensors file"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(
            f"{file}: holds a {type(content).__name__}; a state dict, {{name: tensor}}, is needed: "
            "write torch.save(model.state_dict(), file)"
        )
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        inner = [str(key) for key, value in content.items() if isinstance(value, Mapping)]
        remedy = f"such as torch.save(torch.load(file, weights_only=True)[{inner[0]!r}], other)" if inner else "alone"
        raise UserError(f"{file}: {', '.join(others[:5])} are no tensors; write the state dict alone, {remedy}")
    return {str(key): value for key, value in content.items()}


def _tensors(file: Path, tensors: Mapping[str, Tensor]) -> Tensors:
    found = Tensors(tensors)
    if not found._modules:
        raise UserError(f"{file}: no matrix or kernel among its {len(tensors)} tensors; name a file of weights")
    return found


def _layer(tensor: Tensor) -> nn.Module:
    kind = CONVOLUTIONS.get(tensor.dim())
    if kind is None:
        tensor = tensor.flatten(1)
        layer = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False, device="meta")
    else:
        layer = kind(tensor.shape[1], tensor.shape[0], tuple(tensor.shape[2:]), bias=False, device="meta")
    layer.weight = nn.Parameter(tensor, requires_grad=False)
    return layer
