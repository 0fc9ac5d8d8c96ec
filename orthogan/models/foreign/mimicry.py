"""Checkpoints of mimicry: ``netG_STEP_steps.pth``, and the discriminator in the folder ``netD`` beside."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from orthogan.models.foreign._resnet import read_discriminator, read_generator, sibling_state
from orthogan.models.foreign.layout import Foreign, layout, state_dict

STATE = "model_state_dict"


@layout(
    "mimicry",
    about="mimicry (SN-GAN, SSGAN, InfoMax-GAN, cGAN-PD, WGAN-GP)",
    source="https://github.com/kwotsin/mimicry",
    license="code: MIT; weights: ask the author of the file",
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize the generator in ``model_state_dict``."""
    state = state_dict(content[STATE])
    if "l1.weight" not in state or "block2.c1.weight" not in state:
        return None
    last = 1 + max(int(match[1]) for key in state if (match := re.match(r"block(\d+)\.", key)))
    blocks = [
        (rf"block{i}\.{theirs}", f"blocks.{i - 2}.{ours}")
        for i in range(2, last)
        for theirs, ours in (("c([12])", r"conv\1"), ("c_sc", "shortcut"), (r"b([12])((?:\.\w+)?)", r"norm\1\2"))
    ]
    names = [("l1", "linear"), *blocks, (f"b{last}", "norm"), (f"c{last}", "conv")]
    model = read_generator(state, names, eps=1e-5, upsample="bilinear")
    step = content.get("global_step")
    beside = path.parent.parent / "netD" / path.name.replace("netG", "netD")
    critic = sibling_state(beside, STATE) if beside != path and beside.is_file() else {}
    if critic:
        part = read_discriminator(critic, _critic_names(), model, in_place=True)
        notes = [f"The discriminator is read from {beside.name}."] if part else []
        model = replace(model, discriminator=part, notes=notes)
    return replace(model, step=step if isinstance(step, int) else None)


def _critic_names() -> list[tuple[str, str]]:
    names = [("l[5-7]", "linear"), ("l_y", "embedding")]
    for i in range(1, 7):
        names += [(rf"block{i}\.c([12])", rf"blocks.{i - 1}.conv\1"), (rf"block{i}\.c_sc", f"blocks.{i - 1}.shortcut")]
    return names
