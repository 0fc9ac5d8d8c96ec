"""What can be audited: orthogan's runs and files, a class or function by name, and other people's weight files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from orthogan.drawing.plots import check_suffix, plot_spectra
from orthogan.errors import UserError
from orthogan.evaluation.spectrum import layer_spectrum as measuring
from orthogan.io.read import printable, user_path
from orthogan.io.weights import read_metadata, read_tensors, read_weights
from orthogan.models import saved
from orthogan.models.named import instantiate
from orthogan.models.saved_discriminator import FILE as DISCRIMINATOR
from orthogan.models.saved_discriminator import load_discriminator
from orthogan.models.shipped import find_shipped
from orthogan.named_code import Trust

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
    trust: Trust = False,
) -> str:
    """The audit of ``subject`` as a text to print: a table, or one JSON object; and a picture, if ``plot`` names one.

    Args:
        layers: which ones, in the words of ``orthogan.weights.select``; all by default.
        size: side of the map on which convolutions are linear maps.
        ema: a run's averaged generator where there is one.
        trust: which classes that are not orthogan's own a file may name, see ``orthogan.load``.

    Raises:
        UserError: nothing to measure, or no such layer; it names the file or the word and what would do.
    """
    if plot is not None:
        check_suffix(plot)
    name, module = open_subject(subject, ema=ema, trust=trust)
    try:
        rows = measuring.spectrum(module, layers, size)
    except ValueError as error:
        raise UserError(f"{subject}: {error}") from error
    product, others = measuring.log10_product_of_norms(rows), measuring.list_unmeasured(module)
    written = plot_spectra(rows, plot, title=name) if plot is not None else None
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
        layers: dict[str, nn.Module] = {}
        for key, tensor in tensors.items():
            if tensor.dim() < 2 or not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
                continue
            name = key.removesuffix(".weight")
            layers[key if name in layers else name] = _layer(tensor.detach())
        self._modules.update(layers)  # add_module would refuse the dots

    def __setattr__(self, name: str, value: Any) -> None:
        """The flag ``training`` is not a layer of that name."""
        if name == "training":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def open_subject(subject: str | Path, *, ema: bool = True, trust: Trust = False) -> tuple[str, nn.Module]:
    """(name, module) of what ``subject`` names; nothing is downloaded and no foreign code is unpickled.

    A run or checkpoint folder gives ``G`` (averaged, if ``ema`` and it is there) and ``D``, or its classifier; one of
    its files gives that net alone; another ``.safetensors`` or ``.pth`` file its tensors as layers; ``module:Class`` or
    ``module:function`` what it makes without arguments, under a fixed seed; ``module:net`` the net itself.

    Raises:
        UserError: there is nothing of the kind; it names the file and the remedy.
    """
    text, path = str(subject), user_path(subject)
    if not os.path.exists(path) and find_shipped(text) is None:
        module, _, attribute = text.partition(":")
        if module and attribute and path.suffix not in (".safetensors", *PICKLED):
            return text, instantiate(text)
        raise UserError(f"{printable(text)}: no such file or folder; name {ACCEPTED}")
    file = saved.resolve_checkpoint(path, ema=ema)
    beside = file.with_name(DISCRIMINATOR)
    if file.suffix == ".safetensors":
        if file.name == DISCRIMINATOR and file.with_name(f"{saved.RAW}.safetensors").is_file():
            return str(file), load_discriminator(file, trust=trust)
        form = read_metadata(file).get("format")
        if form == saved.CLASSIFIER_FORMAT:
            return str(file.parent if path.is_dir() else file), saved.load_classifier(file, trust=trust)
        if form != saved.FORMAT:
            return str(file), _tensors(file, read_tensors(file))
        if path.is_dir() and beside.is_file():
            nets = {"G": saved.load_generator(file, trust=trust), "D": load_discriminator(beside, trust=trust)}
            return str(file.parent), nn.ModuleDict(nets)
        return str(file), saved.load_generator(file, trust=trust)
    if file.suffix in PICKLED:
        return str(file), _tensors(file, read_weights(file))
    raise UserError(f"{printable(file)}: a file of this kind holds no weights that can be read; name {ACCEPTED}")


def _tensors(file: Path, tensors: Mapping[str, Tensor]) -> Tensors:
    found = Tensors(tensors)
    if not found._modules:
        raise UserError(
            f"{printable(file)}: no matrix or kernel among its {len(tensors)} tensors; name a file of weights"
        )
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
