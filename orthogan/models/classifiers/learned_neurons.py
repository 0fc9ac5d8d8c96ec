"""CNN-6 and CNN-9 that learn their neurons as well as the matrix that rotates them: two rows of OPT's ablation.

The variants with fixed neurons are ``norm: {kind: rotation}``, by ``qr``, or ``relaxed`` with relaxation 0.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.linalg import rotations
from orthogan.linalg.precision import at_least_float32
from orthogan.models.classifiers.base import CLASSIFIERS
from orthogan.models.classifiers.cnn import CNN

Transform = Literal["qr", "free"]


class Turned(nn.Module):
    """A map W -> W R^T of a weight with one row per output; R, d x d on the fan-in, starts at the identity.

    ``qr``: R is the orthogonal factor of its parameter; ``free``: R is the parameter itself.
    """

    def __init__(self, columns: int, transform: Transform) -> None:
        super().__init__()
        self.transform: Transform = transform
        self.turn = nn.Parameter(torch.eye(columns))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the effective weight, in at least float32."""
        with torch.autocast(weight.device.type, enabled=False):
            turn = at_least_float32(self.turn)
            rotation = rotations.qr(turn) if self.transform == "qr" else turn
            return (at_least_float32(weight).flatten(1) @ rotation.mT).view(weight.shape)


@CLASSIFIERS.register("learned-neurons")
class LearnedNeurons(CNN):
    """A ``CNN`` with a learned R on every layer except the classifier; the weights are learned too.

    Raises:
        ValueError: the transform is unknown, or as for ``CNN``.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int = 64,
        num_classes: int,
        depth: int = 6,
        transform: Transform = "qr",
    ) -> None:
        super().__init__(
            resolution=resolution,
            image_channels=image_channels,
            channels=channels,
            num_classes=num_classes,
            depth=depth,
        )
        if transform not in get_args(Transform):
            raise ValueError(f"transform {transform!r}: choose {' or '.join(get_args(Transform))}")
        for layer in list(self.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer is not self.linear:
                turned = Turned(layer.weight.flatten(1).shape[1], transform)
                parametrize.register_parametrization(layer, "weight", turned)
