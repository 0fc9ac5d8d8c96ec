"""Wide residual networks (Zagoruyko & Komodakis 2016): WRN-depth-width."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import BatchNorm2d
from orthogan.models.classifiers.base import CLASSIFIERS, Preactivated, check_size, convolution, initialise


class PreactivationBlock(nn.Module):
    """A preactivation block: norm, ReLU, conv3x3, norm, ReLU, conv3x3, and the shortcut.

    The shortcut is the identity, or conv1x1 of the output of the first ReLU if the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.norm2 = BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h/stride, w/stride)."""
        h = functional.relu(self.norm1(x))
        beside = x if self.shortcut is None else self.shortcut(h)
        h = functional.relu(self.norm2(self.conv1(h)))
        return beside + self.conv2(h)


class WideResNet(Preactivated):
    """WRN-``depth``-``widen``: three stages of (depth - 4) / 6 blocks, ``widen`` * ``channels`` * (1, 2, 4) wide.

    ``channels`` is the width of the stem, 16 in the paper. There is no dropout.

    Raises:
        UserError: the resolution is not a multiple of 4.
        ValueError: the depth is not 6n + 4, or the width is not valid.

    Source: Zagoruyko & Komodakis 2016, arXiv:1605.07146.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import WideResNet
        >>> net = WideResNet(resolution=32, image_channels=3, channels=4, num_classes=10, depth=10, widen=2)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int = 16,
        num_classes: int,
        depth: int = 28,
        widen: int = 10,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        count, rest = divmod(depth - 4, 6)
        if rest or count < 1 or not 1 <= widen <= 1000 or depth > 1000:
            raise ValueError(
                f"wrn-{depth}-{widen}: the depth must be 6n + 4, such as 28, the width at least 1, both at most 1000"
            )
        check_size(f"wrn-{depth}-{widen}", resolution, 4)
        self.conv = convolution(image_channels, channels, 3)
        self.stages = nn.ModuleList()
        inputs = channels
        for stage in range(3):
            width = (channels * widen) << stage
            blocks = nn.Sequential()
            for i in range(count):
                blocks.append(PreactivationBlock(inputs, width, 2 if stage and i == 0 else 1))
                inputs = width
            self.stages.append(blocks)
        self.norm = BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, num_classes)
        initialise(self)


CLASSIFIERS.register("wrn-28-10")(partial(WideResNet, depth=28, widen=10))
CLASSIFIERS.register_pattern(
    r"wrn-(\d{1,6})-(\d{1,6})", lambda depth, widen: partial(WideResNet, depth=int(depth), widen=int(widen))
)
