"""Training: the loop, its phases, its checkpoints; ``train`` and ``dry_run`` are what others call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orthogan.training.run import dry_run, train

__all__ = ["dry_run", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use: reading a config needs the sections alone."""
    if name in __all__:
        from orthogan.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What tab completion and ``help()`` show."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
