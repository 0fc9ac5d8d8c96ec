"""The DCGAN of pytorch_GAN_zoo, which torch.hub offers: ``netG``, ``avgG``, ``netD`` and a config object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthogan.io.pickles import Made
from orthogan.models.foreign.dcgan import read_discriminator, read_generator
from orthogan.models.foreign.layout import Foreign, layout, state_dict

SOURCE = "https://github.com/facebookresearch/pytorch_GAN_zoo"
LICENSE = "code: BSD-3-Clause; weights: ask the author of the file"
UNBOUNDED = ("WGANGP", "Logistic")  # losses under which the generator has no tanh


@layout(
    "pytorch-gan-zoo-dcgan",
    about="the DCGAN of pytorch_GAN_zoo (torch.hub)",
    source=SOURCE,
    license=LICENSE,
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize the networks; the averaged generator is used unless the user asks for the other one."""
    raw, averaged = state_dict(content["netG"]), state_dict(content.get("avgG"))
    if "formatLayer.weight" not in raw or "main.outlayer.weight" not in raw:
        return None
    tanh = config_of(content).get("lossCriterion") not in UNBOUNDED
    found = read_generator(raw, tanh=tanh)
    if found is None:
        return None
    part, latent_dim, resolution, image_channels = found
    best = read_generator(averaged, tanh=tanh) if averaged else None
    return Foreign(
        best[0] if best else part,
        resolution,
        image_channels,
        latent_dim,
        raw=part if best else None,
        discriminator=read_discriminator(state_dict(content.get("netD")), resolution, image_channels),
    )


def config_of(content: Any) -> Mapping[str, Any]:
    """Return the fields of the config object of a file."""
    config = content.get("config")
    config = config.state if isinstance(config, Made) else config
    return config if isinstance(config, Mapping) else {}
