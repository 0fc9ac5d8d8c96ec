"""Residual networks for small images: ResNet-18, 34, 50 with a 3x3 stem, and ResNet-20, 32, 44, 56, 110."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.batch_norm import BatchNorm2d
from orthogan.models.classifiers.base import CLASSIFIERS, Classifier, check_size, convolution, initialise

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
BOTTLENECKS = (50,)


class Projection(nn.Sequential):
    """A shortcut between different shapes: conv1x1 with the stride, batch norm (He et al. 2016, option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, 1, stride)
        self.norm = BatchNorm2d(outputs)


class Padding(nn.Module):
    """A shortcut without parameters: every other pixel, and new channels of zeros on both sides (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        before = (outputs - inputs) // 2
        self.stride, self.pad = stride, (0, 0, 0, 0, before, outputs - inputs - before)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h/stride, w/stride)."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], self.pad)


class BasicBlock(nn.Module):
    """A basic block: conv3x3, norm, ReLU, conv3x3, norm; the shortcut is added, then ReLU."""

    growth = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: type[nn.Module] = Projection) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 3, stride)
        self.norm1 = BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.norm2 = BatchNorm2d(width)
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, width, h/stride, w/stride)."""
        h = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A bottleneck: conv1x1, conv3x3 (with the stride), conv1x1 to 4x the width, each with norm; shortcut; ReLU."""

    growth = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.growth * width
        self.conv1 = convolution(inputs, width, 1)
        self.norm1 = BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.norm2 = BatchNorm2d(width)
        self.conv3 = convolution(width, outputs, 1)
        self.norm3 = BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else Projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, 4 width, h/stride, w/stride)."""
        h = functional.relu(self.norm1(self.conv1(x)))
        h = functional.relu(self.norm2(self.conv2(h)))
        return functional.relu(self.norm3(self.conv3(h)) + self.shortcut(x))


class _Stages(Classifier):
    """A residual network of stages of blocks.

    conv3x3, batch norm, ReLU; stages of blocks, each twice as wide and (except the first) half as high as the one
    before; mean over the map; a linear layer.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int,
        channels: int,
        num_classes: int,
        counts: Sequence[int],
        make: Callable[[int, int, int], nn.Module],
        growth: int,
        stem: int | None = None,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        inputs = channels if stem is None else stem
        self.conv = convolution(image_channels, inputs, 3)
        self.norm = BatchNorm2d(inputs)
        self.stages = nn.ModuleList()
        for stage, count in enumerate(counts):
            width = channels << stage
            blocks = nn.Sequential()
            for i in range(count):
                blocks.append(make(inputs, width, 2 if stage and i == 0 else 1))
                inputs = growth * width
            self.stages.append(blocks)
        self.linear = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, c, h, w)."""
        h = functional.relu(self.norm(self.conv(x)))
        for stage in self.stages:
            h = stage(h)
        return self.linear(self.pooled(h))


class ResNet(_Stages):
    """ResNet-18, 34 or 50 (He et al. 2016) in its usual form for CIFAR: conv3x3 replaces conv7x7 and pooling.

    Four stages of ``channels`` (64) times 1, 2, 4 and 8.

    Args:
        stem: number of channels of the first convolution, if not ``channels``.

    Raises:
        UserError: the resolution is not a multiple of 8.
        ValueError: the depth is not one of these.

    Source: He et al. 2016, arXiv:1512.03385.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import ResNet
        >>> net = ResNet(resolution=32, image_channels=3, channels=4, num_classes=10, depth=18)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int = 64,
        num_classes: int,
        depth: int = 18,
        stem: int | None = None,
    ) -> None:
        if depth not in STAGES:
            raise ValueError(f"depth is {depth}: choose {', '.join(map(str, STAGES))}")
        check_size(f"resnet{depth}", resolution, 8)
        make = Bottleneck if depth in BOTTLENECKS else BasicBlock
        super().__init__(resolution, image_channels, channels, num_classes, STAGES[depth], make, make.growth, stem)


class SmallResNet(_Stages):
    """The network of 6n + 2 layers that He et al. (2016, section 4.2) use for CIFAR: ResNet-20, 32, 44, 56, 110.

    Three stages of n basic blocks with ``channels`` (16) times 1, 2 and 4; shortcuts without parameters.

    Raises:
        UserError: the resolution is not a multiple of 4.
        ValueError: the depth is not 6n + 2.

    Source: He et al. 2016, arXiv:1512.03385.

    Example:
        >>> import torch
        >>> from orthogan.models.classifiers import SmallResNet
        >>> net = SmallResNet(resolution=32, image_channels=3, channels=4, num_classes=10, depth=20)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int = 16, num_classes: int, depth: int = 20
    ) -> None:
        count, rest = divmod(depth - 2, 6)
        if rest or count < 1:
            raise ValueError(f"depth is {depth}: it must be 6n + 2, such as 20")
        check_size(f"resnet{depth}", resolution, 4)
        make = partial(BasicBlock, shortcut=Padding)
        super().__init__(resolution, image_channels, channels, num_classes, [count] * 3, make, 1)


for _depth in STAGES:
    CLASSIFIERS.register(f"resnet{_depth}")(partial(ResNet, depth=_depth))
for _depth in (20, 32, 44, 56, 110):
    CLASSIFIERS.register(f"resnet{_depth}")(partial(SmallResNet, depth=_depth))
