"""A watch for NaN and infinite values that does not make the device wait: one flag, fetched at the end."""

from __future__ import annotations

from torch import Tensor

from orthogan.distributed import all_true
from orthogan.drawing.grid import DAMAGED
from orthogan.errors import UserError

IMAGES = DAMAGED
FEATURES = "the features hold NaN or infinite values; the images or the extractor are damaged"
LOGITS = "the logits hold NaN or infinite values; the classifier is damaged"


class NotFinite(UserError):
    """Something that is measured holds NaN or infinite values, so there is no number."""


class Finite:
    """Whether every tensor seen so far is finite; ``message`` says what is wrong otherwise.

    Example:
        >>> import torch
        >>> finite = Finite(IMAGES)
        >>> for images in torch.rand(4, 2, 3, 8, 8):
        ...     finite.watch(images)
        >>> finite.check()
        >>> finite.holds
        True
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self._flag: Tensor | None = None

    def watch(self, tensor: Tensor) -> None:
        """Take in one tensor; its device is not waited for."""
        found = tensor.detach().isfinite().all()
        self._flag = found if self._flag is None else self._flag & found.to(self._flag.device)

    @property
    def holds(self) -> bool:
        """Whether all that this process has seen is finite; this waits for the device."""
        return self._flag is None or bool(self._flag)

    def check(self) -> None:
        """Raises ``NotFinite`` unless all that any process has seen is finite; all processes call this together."""
        if not all_true(self.holds):
            raise NotFinite(self.message)
