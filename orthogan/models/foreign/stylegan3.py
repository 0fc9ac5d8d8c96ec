"""StyleGAN3 as NVIDIA's code pickles it: a dict with G, D and G_ema, persistent objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from orthogan.errors import UserError
from orthogan.models.foreign.layout import Foreign, Part, layout
from orthogan.models.foreign.objects import PickledModule, mapping
from orthogan.models.foreign.stylegan2_ada import (
    LICENSE,
    discriminator,
    mapper_name,
    mapper_options,
    networks,
    sizes,
)

# options of ours, and their names in the arguments of NVIDIA's class
OPTIONS = {
    "widest": "channel_max",
    "layers": "num_layers",
    "critical": "num_critical",
    "kernel": "conv_kernel",
    "radial": "use_radial_filters",
    "margin": "margin_size",
    "first_cutoff": "first_cutoff",
    "first_stopband": "first_stopband",
    "last_stopband": "last_stopband_rel",
    "taps": "filter_size",
    "oversampling": "lrelu_upsampling",
    "clamp": "conv_clamp",
    "scale": "output_scale",
}


@layout("stylegan3", about="StyleGAN3 (NVIDIA)", source="https://github.com/NVlabs/stylegan3", license=LICENSE)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize a pickle with a generator whose input has Fourier features."""
    if (nets := networks(content)) is None or "synthesis.input.freqs" not in nets["G_ema"].state():
        return None
    return Foreign(
        generator=generator(nets["G_ema"]),
        raw=generator(nets["G"]) if "G" in nets else None,
        discriminator=discriminator(nets["D"]) if "D" in nets else None,
        **sizes(nets["G_ema"]),
    )


def generator(net: PickledModule) -> Part:
    """Return a generator of ours from theirs."""
    given, resolution = mapping(net.options), int(net.fields["img_resolution"])
    given |= mapping(given.pop("synthesis_kwargs", None) or {})
    base = int(given.get("channel_base", 32768))
    if base % resolution:
        raise UserError(f"channel_base is {base}: must be a multiple of the resolution, {resolution}")
    tensors: dict[str, Tensor] = {}
    for name, value in net.state().items():
        if name.startswith("mapping."):
            tensors[mapper_name(name)] = value
        else:
            tensors[re.sub(r"^synthesis\.(input|L(\d+)_\d+_\d+)\.", _part, name)] = value
    options = {ours: given[theirs] for ours, theirs in OPTIONS.items() if theirs in given}
    options |= mapper_options(net.child("mapping"), tensors)
    for fixed in ("mapping_width", "label_width"):  # always w_dim in StyleGAN3
        options.pop(fixed, None)
    return Part("stylegan3", tensors, base // resolution, options)


def _part(match: re.Match[str]) -> str:
    return "input." if match[1] == "input" else f"layers.{match[2]}."
