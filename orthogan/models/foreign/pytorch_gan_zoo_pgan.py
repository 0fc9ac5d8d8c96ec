"""The progressive GAN of pytorch_GAN_zoo, which torch.hub offers as PGAN: ``netG``, ``avgG``, ``netD`` and a config."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.models.families.pgan import widths_of
from orthogan.models.foreign.layout import Foreign, Part, layout, state_dict
from orthogan.models.foreign.pytorch_gan_zoo import LICENSE, SOURCE, UNBOUNDED, config_of

MOST_CLASSES = 10_000


@layout("pytorch-gan-zoo-pgan", about="the PGAN of pytorch_GAN_zoo (torch.hub)", source=SOURCE, license=LICENSE)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize the networks; the averaged generator is used unless the user asks for the other one."""
    config = config_of(content)
    raw, averaged, critic = (_layers(content.get(key), config) for key in ("netG", "avgG", "netD"))
    if not {"formatLayer.weight", "groupScale0.0.weight", "toRGBLayers.1.weight"} <= set(raw):
        return None
    attributes = _attributes(config)
    sizes = [len(values) for _, values in attributes]
    classes = math.prod(sizes) if sizes else 0
    if classes > MOST_CLASSES:
        raise UserError(
            f"{printable(path)}: this PGAN has {len(sizes)} attributes with {classes:,} combinations of values; "
            f"orthogan supports up to {MOST_CLASSES:,}, one class for each"
        )
    part = _generator(raw, config, sizes)
    resolution = 4 << _scales(raw, "toRGBLayers")
    image_channels = raw["toRGBLayers.1.weight"].shape[0]
    many = len(sizes) > 1
    labels = itertools.product(*([f"{name} {v}" if many else str(v) for v in values] for name, values in attributes))
    notes = []
    if classes and critic:
        notes.append("The discriminator of the file also classifies its images. It was left out.")
    return Foreign(
        _generator(averaged, config, sizes) if averaged else part,
        resolution,
        image_channels,
        raw["formatLayer.weight"].shape[1] - sum(sizes),
        num_classes=classes,
        class_names=[", ".join(label) for label in labels] if classes else (),
        raw=part if averaged else None,
        discriminator=_discriminator(critic, config) if critic and not classes else None,
        notes=notes,
    )


def _layers(content: Any, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a network without ``module.`` of the newer files, scaled as our layers apply them."""
    state = {key.replace(".module.", "."): value for key, value in state_dict(content).items()}
    equalized = config.get("equalizedlR", True)
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        place, _, name = key.rpartition(".")
        gain = math.sqrt(2 / state[f"{place}.weight"][0].numel())
        # theirs multiply the output, and so also the bias; ours multiply only the weight
        found[key] = (value * gain if equalized else value) if name == "bias" else value if equalized else value / gain
    return found


def _attributes(config: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """Return (name, values) of the attributes on which the networks are conditional, in the order of their codes."""
    known = config.get("attribKeysOrder") or {}
    return [(str(key), list(one["values"])) for key, one in sorted(known.items(), key=lambda item: item[1]["order"])]


def _scales(state: Mapping[str, Tensor], layers: str) -> int:
    """Return the number of the last of ``layers``, which is how often the size doubles."""
    return max(int(key.split(".")[1]) for key in state if key.startswith(f"{layers}."))


def _generator(state: Mapping[str, Tensor], config: Mapping[str, Any], sizes: list[int]) -> Part:
    last = _scales(state, "toRGBLayers")
    places = {"formatLayer": "linear", "groupScale0.0": "convs.0"}
    places |= {f"scaleLayers.{i}.{j}": f"convs.{2 * i + j + 1}" for i in range(last) for j in range(2)}
    widths = [state[f"toRGBLayers.{i}.weight"].shape[1] for i in range(last + 1)]
    options: dict[str, Any] = {"attributes": sizes} if len(sizes) > 1 else {}
    if config.get("lossCriterion", UNBOUNDED[0]) not in UNBOUNDED:
        options["tanh"] = True
    return _part(state, config, places, "toRGBLayers", widths, options)


def _discriminator(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Part:
    last = _scales(state, "fromRGBLayers")
    places = {"groupScaleZero.0": "conv", "groupScaleZero.1": "hidden", "decisionLayer": "linear"}
    places |= {f"scaleLayers.{i}.{j}": f"convs.{2 * (last - 1 - i) + j}" for i in range(last) for j in range(2)}
    widths = [state[f"fromRGBLayers.{i}.weight"].shape[0] for i in range(last + 1)]
    deviation = state["groupScaleZero.0.weight"].shape[1] > widths[0]
    return _part(state, config, places, "fromRGBLayers", widths, {} if deviation else {"deviation": False})


def _part(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    places: Mapping[str, str],
    images: str,
    widths: list[int],
    options: dict[str, Any],
) -> Part:
    """Return a network: the layers ``places`` (theirs: ours), and of the layers ``images`` those that are in use."""
    last = len(widths) - 1
    alpha, slope = float(config.get("alpha", 0.0)), float(config.get("leakyReluLeak", 0.2))
    places = {**places, f"{images}.{last}": "image"}
    if alpha and (last > 1 or images == "toRGBLayers"):  # their discriminator blends only from 16 pixels on
        places[f"{images}.{last - 1}"] = "half_image"
        options["alpha"] = alpha
    if slope != 0.2:
        options["slope"] = slope
    if widths != widths_of(4 << last, widths[-1]):
        options["widths"] = widths
    names = ((f"{a}.{name}", f"{b}.{name}") for a, b in places.items() for name in ("weight", "bias"))
    return Part("pgan", {ours: state[theirs] for theirs, ours in names}, widths[-1], options)
