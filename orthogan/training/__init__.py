"""Training: the loop, its phases and checkpoints; the entry points are ``train`` and ``dry_run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orthogan.training.run import dry_run, train

__all__ = ["dry_run", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use: reading a config only needs the sections."""
    if name in __all__:
        from orthogan.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What tab completion and ``help()`` show."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
