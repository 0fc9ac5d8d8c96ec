"""Generators with styles: z -> w -> one style per layer -> image, and their spaces W, W+ and S."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orthogan.arguments import shown
from orthogan.errors import UserError
from orthogan.models.families.modulation import Style, style_of
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from orthogan.recompute import is_repeated
from orthogan.weights.effective import effective_weight

MEAN_DECAY = 0.998  # of w_mean, per training forward


class StyleBased(Generator):
    """Base class of generators whose layers take w, one row of ws each, and turn it into a style by ``affine``.

    A class defines ``style_parts`` and ``render``, and sets ``mapper`` (or defines ``map_latent``), ``w_dim``,
    ``num_ws`` and the buffer ``w_mean``. Spaces: "w"; "w+", with one w per row; "s", the styles themselves (Wu et al.
    2021, arXiv:2011.12799).
    """

    spaces = ("z", "w", "w+", "s")
    mapper: Any  # (z, y) -> w
    w_mean: Tensor  # (w_dim,), mean of w
    w_dim: int
    num_ws: int

    def mapping(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map z (n, latent_dim), labels (n,) to w (n, w_dim), in at least float32. Training updates ``w_mean``."""
        self.check(z, y)
        w = self.map_latent(z, y)
        if self.training and not is_repeated():
            with torch.no_grad():
                self.w_mean.lerp_(w.detach().mean(0).to(self.w_mean.dtype), 1 - MEAN_DECAY)
        return w

    def map_latent(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Map z (n, latent_dim), labels (n,) to w (n, w_dim), in at least float32, by the network ``mapper``."""
        return self.mapper(z, y)

    def style_parts(self) -> list[tuple[str, nn.Module, int]]:
        """Return (dotted name, layer with an ``affine``, row of ws) of every style, in the order of use."""
        raise NotImplementedError

    def render(self, takes: Sequence[Tensor | Style], seeds: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of a w (n, w_dim) or a ``Style`` per entry of ``style_parts``."""
        raise NotImplementedError

    def synthesis(self, w: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of w (n, w_dim), or of ws (n, num_ws, w_dim) with one w per style.

        Args:
            seeds: (n,) int64, seeds of the noise of each image; if None, all images share one fixed noise.

        Raises:
            ValueError: w has another shape.
        """
        ws = self._rows(w)
        return self.render([ws[:, row] for _, _, row in self.style_parts()], seeds)

    def styles(self, w: Tensor) -> list[Tensor]:
        """Return the styles (n, k) of w (n, w_dim) or ws (n, num_ws, w_dim), per entry of ``style_parts``."""
        ws = self._rows(w)
        return [style_of(layer, ws[:, row]) for _, layer, row in self.style_parts()]

    def _rows(self, w: Tensor) -> Tensor:
        ws = w[:, None].expand(-1, self.num_ws, -1) if w.dim() == 2 else w
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(
                f"w has shape {tuple(w.shape)}: must be (n, {self.w_dim}) or (n, {self.num_ws}, {self.w_dim})"
            )
        return ws

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Return w_mean + psi * (w - w_mean), the truncation trick (2019, section B): psi 0 is the mean image, 1 is w.

        Args:
            w: (n, w_dim) or (n, num_ws, w_dim).
            cutoff: truncate only the first N styles; then the result is (n, num_ws, w_dim).
        """
        moved = torch.lerp(self.w_mean.to(w.dtype).expand_as(w), w, psi)
        if cutoff is None:
            return moved
        if not 0 <= cutoff <= self.num_ws:
            raise ValueError(f"cutoff is {cutoff}: this generator has {self.num_ws} styles")
        moved, rest = (v[:, None].expand(-1, self.num_ws, -1) if v.dim() == 2 else v for v in (moved, w))
        return torch.cat([moved[:, :cutoff], rest[:, cutoff:]], 1)

    def style_layers(self) -> list[tuple[str, nn.Module]]:
        """Return (dotted name, affine layer w -> style) of every style, in the order of use."""
        return [(f"{name}.affine", layer.affine) for name, layer, _ in self.style_parts()]  # pyright: ignore

    def style_rows(self) -> dict[str, int]:
        """Return the row of ws that each of ``style_layers`` takes."""
        return {f"{name}.affine": row for name, _, row in self.style_parts()}

    def latent_space(
        self, name: str, *, y: int | None = None, layers: Sequence[int] = (), base: Tensor | None = None
    ) -> Generator:
        """Return "w" as a ``WSpace``, "w+" as a ``WPlusSpace``, "s" as a ``StyleSpace``.

        The ``layers`` of "w" are the rows of ws, 0 to num_ws - 1; those of "s" are entries of ``style_layers``.
        """
        if name == "w":
            return WSpace(self, y, layers=layers, base=base)
        if name == "w+" and not layers:
            return WPlusSpace(self, y)
        if name == "w+":
            raise UserError(
                f"layers {shown(list(layers))}: w+ has coordinates of its own for each style; omit the layers"
            )
        if name == "s":
            return StyleSpace(self, y, layers=layers, base=base)
        return super().latent_space(name, y=y, layers=layers, base=base)


class WSpace(Generator):
    """A generator seen from W, with the mean at zero: v (n, w_dim) -> the image of w_mean + v.

    Code that works on a latent thus works on W: ``sefa(WSpace(g), normalise=True)`` is SeFa as its authors run it on
    StyleGAN, over all style layers at once. The view shares the weights of ``generator``, and ``model_hash`` is the
    same for both.

    Args:
        y: the class whose latents are drawn, for a conditional generator; W itself has no classes.
        layers: the styles (rows of ws, 0 to num_ws - 1) that take v; empty for all. ``first_layer`` is that of these.
        base: (w_dim,), the v that the other styles keep; zero, the mean, by default.

    Raises:
        UserError: a conditional generator without a class, or with a class that it does not have; a style that does not
            exist; a base of another shape.
    """

    axis = "w"
    base: Tensor
    taken: Tensor

    def __init__(
        self,
        generator: StyleBased,
        y: int | None = None,
        *,
        layers: Sequence[int] = (),
        base: Tensor | None = None,
    ) -> None:
        super().__init__()
        if y not in (range(generator.num_classes) if generator.num_classes else (None,)):
            count = generator.num_classes
            raise UserError(
                f"y is {y}: must be one of the {count} classes of this generator, 0 to {count - 1}"
                if count
                else f"y is {y}: this generator has no classes; omit it"
            )
        wrong = [layer for layer in layers if layer not in range(generator.num_ws)]
        if wrong:
            raise UserError(f"layers {shown(wrong)}: the styles of this generator are 0 to {generator.num_ws - 1}")
        if base is not None and base.shape != (generator.w_dim,):
            raise UserError(f"base has shape {tuple(base.shape)}: must be ({generator.w_dim},), one latent of W")
        self.generator, self.y = generator, y
        self.layers = tuple(sorted(set(layers)))
        self.styles = StackedStyles(generator, self.layers)
        self.latent_dim, self.num_classes = generator.w_dim, 0
        self.resolution, self.image_channels = generator.resolution, generator.image_channels
        mean = generator.w_mean
        rows = torch.arange(generator.num_ws, device=mean.device)[:, None]
        # Not in the state dict: these define the view of the generator, not the generator.
        self.register_buffer("taken", torch.isin(rows, rows[list(self.layers)]), persistent=False)
        self.register_buffer("base", torch.zeros_like(mean) if base is None else base.to(mean), persistent=False)

    @torch.no_grad()
    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        """Draw w - w_mean (n, w_dim), on the CPU, from the generator's own latents."""
        return self.from_z(self.generator.sample_latent(n, seed=seed))

    @torch.no_grad()
    def from_z(self, z: Tensor) -> Tensor:
        """Return w - w_mean (n, w_dim) of z (n, latent_dim), on the CPU."""
        mean = self.generator.w_mean
        y = None if self.y is None else torch.full((len(z),), self.y, device=mean.device)
        with eval_mode(self.generator):
            return (self.generator.mapping(z.to(mean), y) - mean).float().cpu()

    def first_layer(self) -> nn.Module:
        """Return all style layers that take v, as one layer."""
        return self.styles

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of v (n, w_dim), always with the fixed noise."""
        self.check(z, y)
        mean = self.generator.w_mean
        w = mean + z
        if not self.layers:
            return self.generator.synthesis(w)
        return self.generator.synthesis(torch.where(self.taken, w[:, None], mean + self.base))


class WPlusSpace(Generator):
    """A generator seen from W+, with one w per style and the mean at zero: v (n, num_ws * w_dim) -> images.

    Coordinates ``i * w_dim`` to ``(i + 1) * w_dim - 1`` belong to style i. Real pictures are usually matched better
    here than in W (Abdal et al. 2019, arXiv:1904.03189). The view shares the weights of ``generator``.

    Args:
        y: the class whose latents are drawn, for a conditional generator; W+ itself has no classes.

    Raises:
        UserError: a conditional generator without a class, or with a class that it does not have.
    """

    axis = "w"

    def __init__(self, generator: StyleBased, y: int | None = None) -> None:
        super().__init__()
        self.w_space = WSpace(generator, y)
        self.rows = generator.num_ws
        self.latent_dim, self.num_classes = self.rows * generator.w_dim, 0
        self.resolution, self.image_channels = generator.resolution, generator.image_channels

    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        """Draw latents (n, num_ws * w_dim) of W, on the CPU: all styles of an image have the same w."""
        return self.w_space.sample_latent(n, seed=seed).repeat(1, self.rows)

    def from_z(self, z: Tensor) -> Tensor:
        """Return the latents (n, num_ws * w_dim) of z (n, latent_dim), on the CPU."""
        return self.w_space.from_z(z).repeat(1, self.rows)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of v (n, num_ws * w_dim), always with the fixed noise."""
        self.check(z, y)
        generator = self.w_space.generator
        return generator.synthesis(generator.w_mean + z.unflatten(1, (self.rows, -1)))


class StyleSpace(Generator):
    """A generator seen from S, the styles of all layers, with the styles of the mean w at zero: v (n, dim) -> images.

    Coordinates are in the order of ``style_parts``; ``sizes`` says how many belong to each. A single one is a channel
    of a layer, and often changes one thing alone (Wu et al. 2021, arXiv:2011.12799).

    Args:
        y: the class whose latents are drawn, for a conditional generator; S itself has no classes.
        layers: numbers of the styles, in that order, whose coordinates of v count; empty for all.
        base: (dim,), the v that the other styles keep; zero by default.

    Raises:
        UserError: as for ``WSpace``.
    """

    axis = "s"
    base: Tensor
    taken: Tensor
    mean: Tensor

    def __init__(
        self, generator: StyleBased, y: int | None = None, *, layers: Sequence[int] = (), base: Tensor | None = None
    ) -> None:
        super().__init__()
        self.w_space = WSpace(generator, y)
        with torch.no_grad():
            means = generator.styles(generator.w_mean[None])
        self.sizes = [part.shape[1] for part in means]
        self.latent_dim, self.num_classes = sum(self.sizes), 0
        self.resolution, self.image_channels = generator.resolution, generator.image_channels
        if wrong := [layer for layer in layers if layer not in range(len(means))]:
            raise UserError(f"layers {shown(wrong)}: the styles of this generator are 0 to {len(means) - 1}")
        if base is not None and base.shape != (self.latent_dim,):
            raise UserError(f"base has shape {tuple(base.shape)}: must be ({self.latent_dim},), one latent of S")
        mean = torch.cat(means, 1)[0].detach()
        number = torch.arange(len(means), device=mean.device).repeat_interleave(
            torch.tensor(self.sizes, device=mean.device)
        )
        chosen = torch.tensor(sorted(set(layers)) or range(len(means)), device=mean.device)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("taken", torch.isin(number, chosen), persistent=False)
        self.register_buffer("base", torch.zeros_like(mean) if base is None else base.to(mean), persistent=False)

    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        """Draw latents (n, dim), on the CPU, from the generator's own latents."""
        return self.from_z(self.w_space.generator.sample_latent(n, seed=seed))

    @torch.no_grad()
    def from_z(self, z: Tensor) -> Tensor:
        """Return the styles less those of the mean, (n, dim), of z (n, latent_dim), on the CPU."""
        generator = self.w_space.generator
        w = generator.w_mean + self.w_space.from_z(z).to(generator.w_mean)
        return (torch.cat(generator.styles(w), 1) - self.mean).float().cpu()

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of v (n, dim), always with the fixed noise."""
        self.check(z, y)
        parts = (self.mean + torch.where(self.taken, z, self.base)).split(self.sizes, 1)
        return self.w_space.generator.render([Style(part) for part in parts])


class StackedStyles(nn.Module):
    """The weights of the style layers of ``generator``, stacked to one matrix (number of styles, w_dim).

    ``rows``: only layers that take these rows of ws; empty for all.
    """

    def __init__(self, generator: StyleBased, rows: Sequence[int] = ()) -> None:
        super().__init__()
        self._owner = (generator,)  # in a tuple, so that it is not a submodule of this module too
        self._rows = rows

    @property
    def weight(self) -> Tensor:
        """Return the weights as the layers apply them."""
        (generator,), row_of = self._owner, self._owner[0].style_rows()
        chosen = [layer for name, layer in generator.style_layers() if not self._rows or row_of[name] in self._rows]
        return torch.cat([effective_weight(layer) for layer in chosen])
