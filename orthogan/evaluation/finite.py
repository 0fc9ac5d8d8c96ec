"""Detection of NaN and infinite values without synchronizing with the device: one flag, read at the end."""

from __future__ import annotations

from torch import Tensor

from orthogan.distributed import all_true
from orthogan.drawing.grid import DAMAGED
from orthogan.errors import UserError

IMAGES = DAMAGED
FEATURES = "the features contain NaN or infinite values; the images or the extractor are damaged"
LOGITS = "the logits contain NaN or infinite values; the classifier is damaged"


class NotFinite(UserError):
    """The measured values contain NaN or infinity, so there is no result."""


class Finite:
    """Records whether all tensors so far are finite; ``message`` says what is wrong otherwise.

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
        """Check one tensor without synchronizing with its device."""
        found = tensor.detach().isfinite().all()
        self._flag = found if self._flag is None else self._flag & found.to(self._flag.device)

    @property
    def holds(self) -> bool:
        """Whether all tensors of this process are finite; synchronizes with the device."""
        return self._flag is None or bool(self._flag)

    def check(self) -> None:
        """Raise ``NotFinite`` unless all tensors of all processes are finite; all processes must call this together."""
        if not all_true(self.holds):
            raise NotFinite(self.message)
