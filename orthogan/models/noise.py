"""Noise maps that a generator keeps as buffers, as StyleGAN2 does, and a view with other maps in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from orthogan.models.protocol import Generator


def noise_maps(generator: nn.Module) -> dict[str, Tensor]:
    """Return the noise maps (1, 1, s, s) of a generator, by the names of their buffers; empty if it has none.

    They are the buffers called ``noise…`` that hold one square map.

    Example:
        >>> import orthogan
        >>> noise_maps(orthogan.load("sprites-sngan"))
        {}
    """
    return {
        name: buffer.view(1, 1, *buffer.shape[-2:])
        for name, buffer in generator.named_buffers()
        if name.rpartition(".")[2].startswith("noise")
        and buffer.ndim in (2, 4)
        and buffer.shape[-1] == buffer.shape[-2] > 1
        and buffer.numel() == buffer.shape[-1] ** 2
    }


@contextmanager
def replaced(generator: nn.Module, maps: Mapping[str, Tensor]) -> Iterator[None]:
    """Context in which the buffers of ``generator`` named in ``maps`` are these maps (n, 1, s, s), one per image."""
    places = {name: generator.get_submodule(name.rpartition(".")[0]) for name in maps}
    before = {name: place._buffers[name.rpartition(".")[2]] for name, place in places.items()}
    try:
        for name, place in places.items():
            place._buffers[name.rpartition(".")[2]] = maps[name]
        yield
    finally:
        for name, place in places.items():
            place._buffers[name.rpartition(".")[2]] = before[name]


class WithNoise(Generator):
    """A generator, or a view of it, whose images all have the noise ``maps`` (1, 1, s, s).

    It adds nothing to the state dict, so its ``model_hash`` is that of the generator.

    Args:
        generator: the generator that has the buffers.
        maps: by the names of the buffers.
        view: what draws the images; the generator itself by default.
    """

    def __init__(self, generator: Generator, maps: Mapping[str, Tensor], view: Generator | None = None) -> None:
        super().__init__()
        self.view = generator if view is None else view
        self._owner = (generator,)  # in a tuple, so that it is not a submodule twice
        self._maps = dict(maps)
        self.latent_dim, self.num_classes = self.view.latent_dim, self.view.num_classes
        for name in ("spaces", "axis", "rows", "resolution", "image_channels"):  # a user's own net may lack them
            if hasattr(self.view, name):
                setattr(self, name, getattr(self.view, name))

    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        """Draw latents as the view does."""
        return self.view.sample_latent(n, seed=seed)

    def first_layer(self) -> nn.Module:
        """Return that of the view."""
        return self.view.first_layer()

    def native_directions(self) -> Tensor | None:
        """Return those of the view."""
        return self.view.native_directions()

    def latent_space(
        self, name: str, *, y: int | None = None, layers: Sequence[int] = (), base: Tensor | None = None
    ) -> Generator:
        """Return a view of the generator with the same noise."""
        view = self._owner[0].latent_space(name, y=y, layers=layers, base=base)
        return WithNoise(self._owner[0], self._maps, view)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the images of the view under this noise."""
        with replaced(self._owner[0], {name: noise.to(z) for name, noise in self._maps.items()}):
            return self.view(z) if y is None else self.view(z, y)
