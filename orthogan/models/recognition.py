"""Networks that recognize codes: Q, which shares the trunk of the discriminator, and the classifier of pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan import weights
from orthogan.errors import UserError
from orthogan.models.codes import Codes
from orthogan.models.modes import eval_mode
from orthogan.size import sides
from orthogan.weights.network import ConstraintConfig

SLOPE = 0.2
STD = 0.02
BOTTOM = 4  # side of the last map


class Recognition(nn.Module):
    """Q: the features of a discriminator, the input of its last layer -> predictions of the codes (n, codes.size).

    A linear layer, leaky ReLU of slope 0.2, and a linear layer: a mean per continuous code, logits per categorical one.
    It is a part of the discriminator (``discriminator.recognition``), is trained and stored with it, and is read with
    ``logits_and_codes``.
    """

    def __init__(self, features: int, width: int, codes: Codes) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, width)
        self.out = nn.Linear(width, codes.size)
        for layer in (self.hidden, self.out):
            nn.init.normal_(layer.weight, 0.0, STD)
            nn.init.zeros_(layer.bias)
        self.codes = codes
        self._listens, self._heard = False, None

    def forward(self, features: Tensor) -> Tensor:
        """Predict the codes (n, codes.size) from features (n, ...)."""
        return self.out(functional.leaky_relu(self.hidden(features.flatten(1)), SLOPE))

    def listen(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A forward pre-hook on the last layer of the discriminator."""
        if self._listens:
            self._heard = arguments[0]

    def around(self, discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits and predictions in one pass."""
        self._listens = True
        try:
            logits = discriminator(images, labels)
            features = self._heard
        finally:
            self._listens, self._heard = False, None
        assert isinstance(features, Tensor)
        return logits, self(features)


def add_recognition(
    discriminator: nn.Module,
    codes: Codes,
    *,
    width: int,
    channels: int,
    resolution: Any,
    num_classes: int = 0,
    norm: ConstraintConfig | None = None,
) -> None:
    """Add Q to ``discriminator``; it reads the input of the layer that computes the logit.

    This holds for any discriminator whose last module with parameters, of those that run on an image, returns one
    number per image. If ``norm``, the constraint of the discriminator, bounds singular values, the hidden layer of Q
    gets it too, as in InfoGAN-CR.

    Raises:
        UserError: there is no such layer.
    """
    found: list[tuple[nn.Module, int]] = []
    device = next(discriminator.parameters()).device
    images = torch.zeros(2, channels, *sides(resolution), device=device)

    def note(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        given = arguments[0] if arguments else None
        if not (isinstance(output, Tensor) and isinstance(given, Tensor) and given.is_floating_point()):
            return
        if output.numel() == 2 < given.numel() and len(given) == 2:
            found.append((module, given[0].numel()))

    leaves = [
        module
        for name, module in discriminator.named_modules()
        if name and "parametrizations" not in name and any(True for _ in module.parameters())
    ]
    handles = [module.register_forward_hook(note) for module in leaves]
    try:
        with eval_mode(discriminator), torch.no_grad():
            labels = torch.zeros(2, dtype=torch.int64, device=device) if num_classes else None
            discriminator(images, labels)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise UserError(
            f"loss.information.weight: {type(discriminator).__name__} has no last layer that returns one number per "
            "image, from whose input the codes could be predicted; choose another model.discriminator.kind"
        )
    head, features = found[0] if len(found) == 1 else min(found, key=lambda one: one[1])
    net = Recognition(features, width, codes).to(device)
    if norm is not None and norm.lipschitz and not norm.replaces:
        weights.apply(net, norm, layers="hidden")
    discriminator.recognition = net
    head.register_forward_pre_hook(net.listen)


def logits_and_codes(discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the logits (n,) and the predicted codes (n, size), in one pass.

    Raises ``UserError`` if the discriminator has no Q.
    """
    net = getattr(discriminator, "recognition", None)
    if not isinstance(net, Recognition):
        raise UserError("this discriminator predicts no codes; train with loss.information.weight above 0")
    return net.around(discriminator, images, labels)


class PairClassifier(nn.Module):
    """Two images (n, c, h, w) -> logits (n, codes): which code they share.

    conv4x4 of stride 2 down to 4x4, of widths w, w, 2w, 2w, ...; a linear layer of 4w, all with leaky ReLU of slope 0.2
    and spectral normalization; a linear layer. The images are stacked along the channels.

    Source: the released code of Lin et al. 2020, arXiv:1906.06034 (at 64 px).
    """

    def __init__(self, *, resolution: int, image_channels: int, channels: int, codes: int) -> None:
        super().__init__()
        sizes = halvings(resolution)
        widths = [2 * image_channels, *(channels * (1 if i < 2 else 2) for i in range(sizes))]
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 4, stride=2, padding=1) for i in range(len(widths) - 1)
        )
        self.hidden = nn.Linear(widths[-1] * (resolution >> sizes) ** 2, 4 * channels)
        self.out = nn.Linear(4 * channels, codes)
        initialise(self)
        for layer in (*self.convs, self.hidden):
            weights.spectral_norm(layer)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return logits (n, codes)."""
        x = torch.cat([first, second], 1)
        for conv in self.convs:
            x = functional.leaky_relu(conv(x), SLOPE)
        return self.out(functional.leaky_relu(self.hidden(x.flatten(1)), SLOPE))


def halvings(resolution: int) -> int:
    """How often ``resolution`` can be halved down to 4 (rounded down for sizes that are not powers of two)."""
    count = 0
    while resolution >= 2 * BOTTOM and resolution % 2 == 0:
        resolution, count = resolution // 2, count + 1
    return count


def initialise(net: nn.Module) -> None:
    """Draw weights of standard deviation 0.02 (convolutions truncated at two deviations) and set biases to 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, 0.0, STD, -2 * STD, 2 * STD)
        elif isinstance(layer, nn.Linear | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, STD)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
