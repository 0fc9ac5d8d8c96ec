"""The space W of a style-based generator as a latent space of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from orthogan.models.stylegan2 import StyleGAN2Generator
from orthogan.weights.effective import effective_weight


class WSpace(Generator):
    """A generator seen from W, with the mean at zero: v (n, w_dim) -> the image of w_mean + v.

    So everything that looks at a latent looks at W: ``sefa(WSpace(g), normalise=True)`` is SeFa as its authors run it
    on StyleGAN, over all style layers at once. Its weights are those of ``generator``, not a copy, and ``model_hash``
    gives the same for both.

    Args:
        y: the class whose latents are drawn, for a conditional generator; W itself has none.
        layers: the styles (rows of ws, 0 to num_ws - 1) that take v; none for all. ``first_layer`` is then theirs.
        base: (w_dim,), the v that the other styles keep; zero, the mean, by default.

    Raises:
        UserError: no class of a conditional generator, or one that it does not have; a style that does not exist; a
            base of another shape.
    """

    axis = "w"
    base: Tensor
    taken: Tensor

    def __init__(
        self,
        generator: StyleGAN2Generator,
        y: int | None = None,
        *,
        layers: Sequence[int] = (),
        base: Tensor | None = None,
    ) -> None:
        super().__init__()
        if y not in (range(generator.num_classes) if generator.num_classes else (None,)):
            raise UserError(f"y is {y}: this generator has {generator.num_classes} classes; give one of them, or None")
        wrong = [layer for layer in layers if layer not in range(generator.num_ws)]
        if wrong:
            raise UserError(f"layers {wrong}: the styles of this generator are 0 to {generator.num_ws - 1}")
        if base is not None and base.shape != (generator.w_dim,):
            raise UserError(f"base has shape {tuple(base.shape)}: one latent of W is ({generator.w_dim},)")
        self.generator, self.y = generator, y
        self.layers = tuple(sorted(set(layers)))
        self.styles = StackedStyles(generator, self.layers)
        self.latent_dim, self.num_classes = generator.w_dim, 0
        self.resolution, self.image_channels = generator.resolution, generator.image_channels
        mean = generator.w_mean
        rows = torch.arange(generator.num_ws, device=mean.device)[:, None]
        # Not in the state dict: they say how the generator is looked at, not what it is.
        self.register_buffer("taken", torch.isin(rows, rows[list(self.layers)]), persistent=False)
        self.register_buffer("base", torch.zeros_like(mean) if base is None else base.to(mean), persistent=False)

    @torch.no_grad()
    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        """w - w_mean (n, w_dim), on the CPU, of the generator's own latents."""
        mean = self.generator.w_mean
        z = self.generator.sample_latent(n, seed=seed).to(mean)
        y = None if self.y is None else torch.full((n,), self.y, device=mean.device)
        with eval_mode(self.generator):
            return (self.generator.mapping(z, y) - mean).float().cpu()

    def first_layer(self) -> nn.Module:
        """All style layers that take v, as one."""
        return self.styles

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """v (n, w_dim) -> images (n, c, h, w), always with the fixed noise."""
        self.check(z, y)
        mean = self.generator.w_mean
        w = mean + z
        if not self.layers:
            return self.generator.synthesis(w)
        return self.generator.synthesis(torch.where(self.taken, w[:, None], mean + self.base))


class StackedStyles(nn.Module):
    """The weights of the style layers of ``generator``, one above the other: (numbers of styles, w_dim).

    ``rows``: only of the layers that take these rows of ws; none for all.
    """

    def __init__(self, generator: StyleGAN2Generator, rows: Sequence[int] = ()) -> None:
        super().__init__()
        self._owner = (generator,)  # in a tuple, so that it is not a part of this module too
        self._rows = rows

    @property
    def weight(self) -> Tensor:
        """As the layers apply them."""
        (generator,), row_of = self._owner, self._owner[0].style_rows()
        chosen = [layer for name, layer in generator.style_layers() if not self._rows or row_of[name] in self._rows]
        return torch.cat([effective_weight(layer) for layer in chosen])
