"""The latent spaces of a generator: its input z, and whatever others it offers, each seen as a generator of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.truncation import truncate
from orthogan.models.protocol import Generator, as_generator


def list_spaces(generator: nn.Module) -> tuple[str, ...]:
    """Names of the spaces that ``in_space`` knows for this generator: "z", then those of its attribute ``spaces``."""
    return tuple(dict.fromkeys(("z", *getattr(generator, "spaces", ()))))


def in_space(
    generator: nn.Module, space: str, *, y: int | None = None, layers: Sequence[int] = (), base: Tensor | None = None
) -> Generator:
    """``generator`` with its latent in ``space``: for "z" itself, for another one its own ``latent_space``.

    A generator, or a user's wrapper of one, offers W by an attribute ``spaces = ("z", "w")`` and a method
    ``latent_space(name, *, y=None, layers=(), base=None)`` as in ``orthogan.models.protocol.Generator``.

    ``y``: the class whose latents the view draws (a view other than "z" has no classes). ``layers``: numbers of the
    layers that take the latent, none for all; the others keep ``base`` (latent_dim,), zero by default.
    Raises ``UserError`` for a space that the generator does not offer, and for layers of z, which has none.
    """
    net = as_generator(generator)
    if space not in list_spaces(net):
        offered = ", ".join(map(repr, list_spaces(net)))
        raise UserError(
            f"space '{space}': {type(net).__name__} has {offered}; a generator offers more by an attribute 'spaces' "
            "and a method 'latent_space'"
        )
    if space != "z":
        return as_generator(net.latent_space(space, y=y, layers=tuple(layers), base=base))
    if layers:
        raise UserError(f"layers {list(layers)}: 'z' enters the generator at one place; choose layers of another space")
    return net


def truncate_in_space(latents: Tensor, truncation: float, space: str) -> Tensor:
    """Latents of ``space`` towards its mean: in z by ``truncate``; elsewhere times ``truncation``, StyleGAN's psi.

    Raises ``UserError`` unless 0 <= truncation <= 1.
    """
    if space == "z":
        return truncate(latents, truncation)
    if not 0 <= truncation <= 1:
        raise UserError(f"truncation={truncation}: between 0 (the mean of {space}) and 1 (none)")
    return latents * truncation
