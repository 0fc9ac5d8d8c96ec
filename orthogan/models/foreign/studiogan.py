"""Checkpoints of PyTorch-StudioGAN: ``model=G-best-weights-step=N.pth``, with D and the averaged G beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from orthogan.models.foreign._resnet import read_discriminator, read_generator, sibling_state
from orthogan.models.foreign.layout import Foreign, layout, state_dict

GENERATOR = [
    ("linear0", "linear"),
    (r"blocks\.(\d)\.0\.bn([12])((?:\.\w+)?)", r"blocks.\1.norm\2\3"),
    (r"blocks\.(\d)\.0\.conv2d([12])", r"blocks.\1.conv\2"),
    (r"blocks\.(\d)\.0\.conv2d0", r"blocks.\1.shortcut"),
    ("bn4", "norm"),
    ("conv2d5", "conv"),
]
DISCRIMINATOR = [
    (r"blocks\.(\d)\.0\.conv2d([12])", r"blocks.\1.conv\2"),
    (r"blocks\.(\d)\.0\.conv2d0", r"blocks.\1.shortcut"),
    ("linear1", "linear"),
    ("embedding", "embedding"),
]
EPSILON = 1e-4
STATE = "state_dict"


@layout(
    "studiogan",
    about="PyTorch-StudioGAN (the ResNets of SN-GAN)",
    source="https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
    license="code: MIT; weights: see the model card of the author",
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize the generator in ``state_dict``; networks in the same folder are read too."""
    state = state_dict(content[STATE])
    if not state.keys() >= {"linear0.weight", "bn4.weight", "conv2d5.weight"}:  # BigGAN has a spectral norm there
        return None
    model = read_generator(state, GENERATOR, eps=EPSILON)
    notes = ["StudioGAN scores many of its models with the statistics of the batch; here the stored ones are used."]
    kind = next((kind for kind in ("G_ema", "G") if path.name.startswith(f"model={kind}-")), "")
    if kind:
        beside = path.with_name(path.name.replace(f"model={kind}-", "model=D-", 1))
        if critic := sibling_state(beside, STATE) if beside.is_file() else {}:
            part = read_discriminator(critic, DISCRIMINATOR, model, in_place=True)
            notes += [f"The discriminator is read from {beside.name}."] if part else []
            model = replace(model, discriminator=part)
    return replace(model, notes=notes)
