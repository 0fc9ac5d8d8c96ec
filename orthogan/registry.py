"""Registries of extensible things: each thing registers itself by name in its own file.

    PENALTIES = Registry("penalty", "orthogan.penalties")

    @PENALTIES.register("srip")
    def srip(weight): ...

    PENALTIES.get("srip")              # or "my_module:my_penalty"

To add a thing, add one file to the package: the first lookup imports all modules of the package.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from orthogan.errors import UserError
from orthogan.io.read import printable, shown
from orthogan.named_code import import_named

T = TypeVar("T")
Registered = TypeVar("Registered")


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``; did you mean 'x'?``, with ``prefix`` before the known word x, or nothing if no word is similar.

    Example:
        >>> from orthogan.registry import did_you_mean
        >>> did_you_mean("sngna", ["sngan", "stylegan2"])
        "; did you mean 'sngan'?"
    """
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower()[:200], lower, 1)
    return f"; did you mean {prefix + lower[near[0]]!r}?" if near else ""


class Registry(Generic[T]):
    """The things of one kind, by name.

    Args:
        what: the kind of thing, for messages, such as "penalty".
        packages: packages with the built-in things.
        adopt: converts the object named by ``module:Name``, or raises ``TypeError`` saying what it should be.

    Example:
        >>> from orthogan.registry import Registry
        >>> shapes = Registry("shape")
        >>> @shapes.register("square", "box")  # "box" is another name for it
        ... def square(side):
        ...     return side * side
        ...
        >>> shapes.get("box")(3), list(shapes)
        (9, ['square'])
    """

    def __init__(self, what: str, *packages: str, adopt: Callable[[Any], T] | None = None) -> None:
        self.what = what
        self._packages = list(packages)
        self._adopt = adopt
        self._found: dict[str, T] = {}
        self._aliases: dict[str, str] = {}
        self._patterns: dict[str, Callable[..., T]] = {}

    def register(self, name: str, *aliases: str) -> Callable[[Registered], Registered]:
        """Return a decorator that registers a thing by name; ``aliases`` are further names, which are not listed."""

        def add(thing: Registered) -> Registered:
            if self._found.setdefault(name, thing) is not thing:  # pyright: ignore[reportArgumentType]
                raise ValueError(f"the {self.what} {name!r} is registered twice")
            self._aliases.update(dict.fromkeys(aliases, name))
            return thing

        return add

    def register_pattern(self, pattern: str, make: Callable[..., T]) -> None:
        """Register every name that matches a regular expression; ``make(*groups)`` returns the thing."""
        self._patterns[pattern] = make

    def get(self, name: str, key: str = "") -> T:
        """Return the thing called ``name``, or import the user's own ``module:Name``.

        Args:
            key: config key or command-line option to mention in messages.

        Raises:
            UserError: unknown name; lists the known names and the nearest one.
        """
        return self._imported(name, key) if ":" in name else self._find(name, key)[1]

    def _find(self, name: str, key: str = "") -> tuple[str, T]:
        """Return the listed name and the thing."""
        self._load()
        for pattern, make in self._patterns.items():
            if name not in self._found and (match := re.fullmatch(pattern, name)):
                return name, make(*match.groups())
        name_of = {other.lower().replace("-", "_"): other for other in [*self._aliases, *self._found]}
        found = name_of.get(name.lower().replace("-", "_"), name)
        found = self._aliases.get(found, found)
        if found not in self._found:
            blame = f"{key}: " if key else ""
            raise UserError(
                f"{blame}unknown {self.what} {shown(name)}{did_you_mean(name, name_of.values())}; known: "
                f"{', '.join(self)}, or module:Name for your own"
            )
        return found, self._found[found]

    def name_of(self, name: str) -> str:
        """Return the listed name of ``name``, which may be an alias; ``module:Name`` stays as it is."""
        return name if ":" in name else self._find(name)[0]

    def items(self) -> Iterable[tuple[str, T]]:
        """Return (name, thing) pairs, sorted by name."""
        self._load()
        return sorted(self._found.items())

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items())

    def __contains__(self, name: object) -> bool:
        return name in set(self)

    def _load(self) -> None:
        while self._packages:
            package = importlib.import_module(self._packages.pop())
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)

    def _imported(self, name: str, key: str) -> T:
        thing = import_named(name, key or f"the {self.what}")
        try:
            return self._adopt(thing) if self._adopt else thing
        except TypeError as error:
            raise UserError(f"{key or self.what} is {name!r}: {printable(str(error))}") from error
