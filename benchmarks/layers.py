"""The networks whose weights are measured: their layers, with shapes and strides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn

from orthogan import weights
from orthogan.models.families.sngan import SNGANDiscriminator

TABLES = ("weights", "step")


@dataclass(frozen=True)
class Net:
    """A network, newly initialized by each ``build``.

    Args:
        side: of its square images [pixels]; None: only the layers, without a whole training step.
        adversarial: its step is that of a GAN's discriminator; otherwise, of a classifier.
        heavy: on a CPU, its training step is measured only if requested.
    """

    build: Callable[[], nn.Module]
    side: int | None = None
    adversarial: bool = False
    heavy: bool = False


def sngan_32() -> nn.Module:
    """D of SN-GAN at 32 px: 3x3 and 1x1 convolutions of 128 channels, and 128 -> 1 (Miyato et al. 2018)."""
    return SNGANDiscriminator(resolution=32, image_channels=3, channels=128)


def resnet_50() -> nn.Module:
    """torchvision's ResNet-50 for 1,000 classes."""
    return torchvision.models.resnet50()


def wrn_28_10() -> nn.Module:
    """The layers of WRN-28-10 for 100 classes in a list, without a forward (Zagoruyko & Komodakis 2016, table 1)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    inputs = 16
    for width, first_stride in ((160, 1), (320, 2), (640, 2)):
        for block in range(4):
            stride = first_stride if block == 0 else 1
            layers.append(nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False))
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
            if inputs != width:
                layers.append(nn.Conv2d(inputs, width, 1, stride, bias=False))
            inputs = width
    return nn.ModuleList([*layers, nn.Linear(inputs, 100)])


NETS = {
    "sngan-32": Net(sngan_32, side=32, adversarial=True),
    "resnet-50": Net(resnet_50, side=224, heavy=True),
    "wrn-28-10": Net(wrn_28_10),
}


def shapes(net: nn.Module) -> list[dict[str, Any]]:
    """Name, shape, and stride of each measured weight of ``net``, in order."""
    found = []
    for selected in weights.select(net):
        stride = getattr(selected.layer, "stride", ())
        found.append({"name": selected.name, "shape": list(selected.value.shape), "stride": list(stride)})
    return found


def laid_out(net: nn.Module, device: torch.device) -> nn.Module:
    """``net`` on ``device`` in training mode, with 4-d parameters in channels last, as in orthogan's training."""
    net.to(device)
    return net.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


def planned(net: Net, asked: str, device: torch.device) -> list[str]:
    """The tables to measure: those in ``asked``, or all that are feasible on ``device``.

    Raises:
        ValueError: an unknown table.
    """
    kinds = [word.strip() for word in asked.split(",") if word.strip()]
    if unknown := set(kinds) - set(TABLES):
        raise ValueError(f"--tables: no table {', '.join(sorted(unknown))}; choose {' or '.join(TABLES)}")
    feasible = [k for k in TABLES if k == "weights" or (net.side and (kinds or not net.heavy or device.type == "cuda"))]
    return [kind for kind in feasible if not kinds or kind in kinds]
