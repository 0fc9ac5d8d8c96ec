"""Names of a package that are imported on first use, so that ``import orthogan`` and ``--help`` do not wait for torch.

    __getattr__, __dir__ = lazy_names(__name__, {"open": ("open_model",)})

A type checker reads the same names from imports below ``if TYPE_CHECKING:``, and ``__all__`` lists them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

SHOWN = ("__all__", "__doc__", "__file__", "__name__", "__path__", "__version__")


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: for each module of the package, the names that the package takes from it; "name=other" offers the
            module's ``other`` as ``name``.
        modules: modules of the package that are names themselves.

    Example:
        >>> from orthogan.lazy import lazy_names
        >>> get, names = lazy_names("orthogan", {"errors": ("UserError", "Bad=UserError")})
        >>> get("Bad").__name__, names()[:2]
        ('UserError', ['Bad', 'UserError'])
    """
    found = {name.partition("=")[0]: (home, name) for home, names in homes.items() for name in names}
    found |= dict.fromkeys(modules, ("", ""))

    def get(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, source = found[name]
        module = importlib.import_module(f"{package}.{home or name}")
        return getattr(module, source.rpartition("=")[2]) if home else module

    def names() -> list[str]:
        return sorted({*found, *(name for name in SHOWN if hasattr(sys.modules[package], name))})

    return get, names
