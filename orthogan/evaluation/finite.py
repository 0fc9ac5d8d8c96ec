"""Detection of NaN, infinite values and images of another range without synchronizing with the device at each batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.distributed import all_true
from orthogan.drawing.grid import DAMAGED
from orthogan.errors import UserError

IMAGES = DAMAGED
FEATURES = "the features contain NaN or infinite values; the images or the extractor are damaged"
LOGITS = "the logits contain NaN or infinite values; the classifier is damaged"


class NoScore(UserError):
    """The images or the values computed from them cannot be measured, so there is no result."""


class NotFinite(NoScore):
    """The measured values contain NaN or infinity."""


class WrongRange(NoScore):
    """The images are not in [-1, 1]."""


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


class Images(Finite):
    """``Finite`` for the images of ``net``, which also refuses images that are in [0, 1] or [0, 255], not in [-1, 1].

    These are recognized by the lack of any negative value in all images, which a generator with the range [-1, 1] does
    not produce unless all its images are equal. The networks of this package have the right range by construction.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.evaluation.finite import Images
        >>> watch = Images(nn.Sigmoid())
        >>> watch.watch(torch.rand(4, 3, 8, 8))
        >>> watch.check()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        orthogan.evaluation.finite.WrongRange: Sigmoid: its images have no negative value (...
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(IMAGES)
        self.name = type(net).__name__
        self._trusted = type(net).__module__.partition(".")[0] == "orthogan"
        self._range: Tensor | None = None  # lowest and highest value

    def watch(self, tensor: Tensor) -> None:
        """Check one batch without synchronizing with its device."""
        super().watch(tensor)
        if self._trusted or not tensor.numel():
            return
        low, high = tensor.detach().float().aminmax()
        if self._range is not None:
            before = self._range.to(low.device)
            low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
        self._range = torch.stack([low, high])

    @property
    def problem(self) -> str:
        """What is wrong with the range of the images of this process, or ""; synchronizes with the device."""
        low, high = (0.0, 0.0) if self._range is None else self._range.tolist()
        if not 0 <= low < high:
            return ""
        return (
            f"{self.name}: its images have no negative value ({low:.3g} to {high:.3g}), but a generator must return "
            f"images in [-1, 1]; {'divide them by 127.5 and subtract 1' if high > 1.5 else 'return 2 * x - 1'}"
        )

    def check(self) -> None:
        """Raise ``NotFinite`` or ``WrongRange``; all processes must call this together."""
        super().check()
        problem = self.problem
        if not self._trusted and all_true(bool(problem) or self._range is None) and problem:
            raise WrongRange(problem)
