"""Images as other training loops read them: one by one, as PIL pictures with a transform."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms


class Pictures(Dataset[tuple[Tensor, int]]):
    """Like torchvision's CIFAR-10: bytes in memory, one PIL picture per image, then the transform."""

    def __init__(self, images: np.ndarray, transform: Any) -> None:
        self.pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.pixels[index]
        return self.transform(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)), 0


def normalising(channels: int) -> transforms.Compose:
    """A PIL picture -> float in [-1, 1]."""
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.5,) * channels)])
