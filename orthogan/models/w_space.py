"""The space W of a style-based generator as a latent space of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.models.modes import frozen
from orthogan.models.modulation import effective_weight
from orthogan.models.protocol import Generator
from orthogan.models.stylegan2 import StyleGAN2Generator


class WSpace(Generator):
    """A generator seen from W, with the mean at zero: v (n, w_dim) -> the image of w_mean + v.

    So everything that looks at a latent looks at W: ``sefa(WSpace(g), normalise=True)`` is SeFa as its authors run it
    on StyleGAN, over all style layers at once. Its weights are those of ``generator``, not a copy.

    Args:
        y: the class whose latents are drawn, for a conditional generator; W itself has none.

    Raises:
        UserError: no class of a conditional generator, or one that it does not have.
    """

    def __init__(self, generator: StyleGAN2Generator, y: int | None = None) -> None:
        super().__init__()
        if y not in (range(generator.num_classes) if generator.num_classes else (None,)):
            raise UserError(f"y is {y}: this generator has {generator.num_classes} classes; give one of them, or None")
        self.generator, self.y = generator, y
        self.styles = StackedStyles(generator)
        self.latent_dim, self.num_classes = generator.w_dim, 0
        self.resolution, self.image_channels = generator.resolution, generator.image_channels

    @torch.no_grad()
    def sample_latent(self, n: int, *, seed: int) -> Tensor:
        """w - w_mean (n, w_dim), on the CPU, of the generator's own latents."""
        mean = self.generator.w_mean
        z = self.generator.sample_latent(n, seed=seed).to(mean.device)
        y = None if self.y is None else torch.full((n,), self.y, device=mean.device)
        with frozen(self.generator):
            return (self.generator.mapping(z, y) - mean).cpu()

    def first_layer(self) -> nn.Module:
        """All style layers as one."""
        return self.styles

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """v (n, w_dim) -> images (n, c, h, w), always with the fixed noise."""
        return self.generator.synthesis(self.generator.w_mean + z)


class StackedStyles(nn.Module):
    """The weights of all style layers of ``generator``, one above the other: (numbers of styles, w_dim)."""

    def __init__(self, generator: StyleGAN2Generator) -> None:
        super().__init__()
        self._owner = (generator,)  # in a tuple, so that it is not a part of this module too

    @property
    def weight(self) -> Tensor:
        """As the layers apply them."""
        return torch.cat([effective_weight(layer) for _, layer in self._owner[0].style_layers()])
