"""The methods that find directions, by name, as accepted by ``--method`` in every command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from orthogan.arguments import checked, words
from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.merge import merge
from orthogan.registry import Registry

DirectionMethod = Callable[..., Directions]


def _adopt(thing: Any) -> Any:
    if not callable(thing):
        raise TypeError("expected a function that takes a generator and returns orthogan.Directions")
    return thing


# A method is a function (generator, *, options) -> Directions. Its keyword arguments are its options; ``y``, ``seed``
# and ``components`` are passed to methods that have them.
DIRECTION_METHODS: Registry[DirectionMethod] = Registry("direction method", "orthogan.latent.discovery", adopt=_adopt)


def options_of(method: str) -> list[str]:
    """Return the options of a direction method, which are its arguments after the generator.

    Example:
        >>> from orthogan.latent.discovery import options_of
        >>> options_of("sefa")
        ['layer', 'normalise', 'follow_norm', 'y']
    """
    return list(inspect.signature(DIRECTION_METHODS.get(method, "method")).parameters)[1:]


def names_of(methods: str | Sequence[str]) -> list[str]:
    """The names in a list, or in one string with commas. Raises ``UserError`` if there are none."""
    if not (names := words("method", methods)):
        raise UserError(f"method: name at least one of {', '.join(DIRECTION_METHODS)}")
    return names


@checked
def find_directions(
    generator: nn.Module,
    methods: str | Sequence[str] = "native",
    *,
    threshold: float = 0.9,
    y: int | None = None,
    seed: int = 0,
    components: int | None = None,
    **options: Any,
) -> Directions:
    """Find directions by one or several methods, and merge those of several.

    Args:
        methods: names of ``DIRECTION_METHODS`` or ``module:function``, as a list or one string with commas.
        threshold: a direction whose |cosine| with an earlier one is above this value is merged into it.
        y: class of a conditional generator; None cycles through all classes.
        components: the number of directions of each method, its first ones; None for all.
        options: passed to the methods that have them (layer, samples, steps, batch_size, …).

    Raises:
        UserError: unknown method, or an option that none of the methods has.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import find_directions
        >>> find_directions(orthogan.load("sprites-sngan"), "sefa", components=3).matrix.shape
        (3, 16)
    """
    names = names_of(methods)
    known = {name: options_of(name) for name in names}
    for option in options:
        if not any(option in parameters for parameters in known.values()):
            raise UserError(f"{option}: {', '.join(names)} has no such option")
    given = {"y": y, "seed": seed, "components": components, **options}
    found = []
    for name in names:
        chosen = {key: value for key, value in given.items() if key in known[name]}
        directions = DIRECTION_METHODS.get(name)(generator, **chosen)
        if not isinstance(directions, Directions):
            raise UserError(f"method {name}: returns a {type(directions).__name__}, expected orthogan.Directions")
        found.append(directions if components is None else directions.select(range(min(components, len(directions)))))
    return found[0] if len(found) == 1 else merge(found, threshold=threshold)
