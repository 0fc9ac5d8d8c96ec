"""Feature extractors by name: each kind registers itself in its file, and your own network is ``module:Class``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from orthogan.distributed import broadcast_json, rank_and_world
from orthogan.errors import UserError
from orthogan.evaluation.extractors.weights_files import find_weights, get_weights
from orthogan.evaluation.images import rgb
from orthogan.evaluation.precision import autocast
from orthogan.io.hashing import tensors_sha256
from orthogan.io.read import printable, user_path
from orthogan.named_code import describe
from orthogan.registry import Registry

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Extractor:
    """Maps uint8 images to features; its identity and preprocessing are part of the protocol.

    Example:
        >>> import torch
        >>> from orthogan.evaluation import load_extractor
        >>> extractor = load_extractor("efficientnet-lite0")
        >>> features, logits = extractor(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> features.shape
        torch.Size([2, 1280])
    """

    name: str
    weights: str  # SHA-256, or their origin
    resize: str
    net: nn.Module
    output: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]
    bf16: bool = False  # under autocast; resizing stays float32

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (n, 1 or 3, h, w), gray repeated -> features (n, d) and class logits (n, k) or None; float32.

        Raises:
            UserError: the output is something else (for example from a user's class).
        """
        with autocast(images.device, self.bf16):
            features, logits = self.output(self.net, rgb(images))
        self._check("features", features, len(images))
        if logits is None:
            return features.float(), None
        self._check("logits", logits, len(images))
        return features.float(), logits.float()

    def _check(self, what: str, found: object, count: int) -> None:
        if not isinstance(found, Tensor):
            raise UserError(f"extractor {self.name}: must return a tensor of {what}, returned a {type(found).__name__}")
        if found.ndim != 2 or len(found) != count or not found.shape[1] or found.is_complex():
            gave = f"{found.dtype} {tuple(found.shape)}"
            raise UserError(f"extractor {self.name}: must return (n, d) {what}, returned {gave} for n = {count}")

    def probe(self, device: torch.device) -> tuple[int, bool]:
        """Return the length of the features and whether there are logits, by running two black images.

        Raises:
            UserError: the output is not one row of features per image.
        """
        features, logits = self(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device))
        return features.shape[1], logits is not None


def run(net: nn.Module, images: Tensor) -> Any:
    """Return ``net(images)``: the ``output`` of an ``Extractor`` whose network returns features and logits.

    It is not a lambda, because extractors are pickled with a torchmetrics metric.
    """
    return net(images)


class Published(NamedTuple):
    """A published file of weights: its address, and the name under which it is searched and kept."""

    url: str
    name: str
    sha256: str  # or its first characters; empty: not known to orthogan, so it is not downloaded


class ExtractorKind:
    """How the extractor called ``name`` is loaded. Register an instance: ``EXTRACTORS.register(name)(Kind(name))``.

    Example:
        >>> from orthogan.evaluation.extractors.extractor import EXTRACTORS
        >>> EXTRACTORS.get("inception").published().name
        'weights-inception-2015-12-05-6726825d.pth'
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def published(self) -> Published | None:
        """Return its file of weights; None if none needs to be downloaded, or none is known."""
        return None

    def load(self, weights: Path | None) -> Extractor:
        """Load the network with a file of weights, or with the published ones (None).

        Raises:
            UserError: they are not available or readable.
        """
        raise NotImplementedError

    def file(self, weights: Path | None) -> Path:
        """Return the weights file given by the user, or the published one, found or downloaded."""
        if weights is not None:
            return weights
        found = self.published()
        if found is None or not found.sha256:
            where = found.url if found else "the weights"
            raise UserError(
                f"extractor {self.name}: download {where} and name the file with --weights (in Python weights=); its "
                "SHA-256 is not known to orthogan, so it is not downloaded"
            )
        return get_weights(found.url, self.name, found.name, found.sha256)

    def at_hand(self) -> bool:
        """Whether it can be loaded without a download; a file with another hash is an error."""
        file = self.published()
        return file is None or (bool(file.sha256) and find_weights(file.url, file.name, file.sha256) is not None)

    def missing(self) -> UserError | None:
        """Return which weights it lacks and how to get them, or None if they are here; nothing is downloaded.

        Example:
            >>> from orthogan.evaluation.extractors.extractor import EXTRACTORS
            >>> EXTRACTORS.get("efficientnet-lite0").missing() is None
            True
        """
        file = self.published()
        if file is None or self.at_hand():
            return None
        checked = f" (SHA-256 {file.sha256})" if len(file.sha256) == 64 else ""
        return UserError(
            f"the weights of {self.name} are not here: put {file.name}{checked} from {file.url} into pretrained/ or a "
            "folder of $ORTHOGAN_PRETRAINED"
        )


class OwnExtractor(ExtractorKind):
    """The user's class, built without arguments (or with the weights file) and called with uint8 RGB images.

    It is identified by its code and tensors, so cached references of a changed class are not reused.
    """

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__(f"{kind.__module__}:{kind.__qualname__}")
        self.kind = kind

    def load(self, weights: Path | None) -> Extractor:
        """Create the network; ``weights``: its only argument, as text."""
        try:
            net = self.kind() if weights is None else self.kind(str(weights))
        except Exception as error:  # user code may raise anything
            raise UserError(f"extractor {self.name!r}: cannot be created: {type(error).__name__}: {error}") from error
        digest = f"code and tensors {tensors_sha256(net.state_dict(), _source(self.kind))}"
        return Extractor(self.kind.__name__, digest, str(getattr(net, "resize", "its own")), net, _features_or_both)


def _adopt(thing: Any) -> ExtractorKind:
    if not (inspect.isclass(thing) and issubclass(thing, nn.Module)):
        raise TypeError(f"{describe(thing)}; it must name a subclass of torch.nn.Module")
    return OwnExtractor(thing)


EXTRACTORS: Registry[ExtractorKind] = Registry("extractor", "orthogan.evaluation.extractors", adopt=_adopt)


def resolve_extractor(name: str) -> str:
    """Resolve "auto" to inception if its weights are available, else efficientnet-lite0, and log the choice.

    All processes follow the first one, so they must call this together.

    Example:
        >>> from orthogan.evaluation import resolve_extractor
        >>> resolve_extractor("efficientnet-lite0")
        'efficientnet-lite0'
    """
    if name != "auto":
        return name
    if broadcast_json(EXTRACTORS.get("inception").at_hand()):
        return "inception"
    if rank_and_world()[0] == 0:
        _say_fallback()
    return "efficientnet-lite0"


@cache
def _say_fallback() -> None:
    """Warn once per process."""
    print(
        "orthogan: the weights of Inception are not available, so EfficientNet-Lite0 computes the features: the "
        "distance is FD[efficientnet-lite0], not FID",
        file=sys.stderr,
    )


def load_extractor(
    name: str, *, device: torch.device | str = "cpu", weights: str | Path | None = None, bf16: bool = False
) -> Extractor:
    """Load the extractor called ``name`` on ``device``.

    Args:
        weights: a file of weights instead of the published one: a state dict (``.pth``) or ``.safetensors`` of plain
            tensors, or a copy of the published file. No code in it is executed. A user's class gets its path.
        bf16: run it under bfloat16 autocast.

    Raises:
        UserError: there is no such extractor, or its weights are not available or readable.

    Example:
        >>> from orthogan.evaluation import load_extractor
        >>> load_extractor("efficientnet-lite0").name
        'efficientnet-lite0'
    """
    if not isinstance(name, str):
        raise TypeError(
            f"extractor is a {type(name).__name__}: must be a name, such as 'inception', or 'module:Class' for your own"
        )
    kind = EXTRACTORS.get(name, "extractor")
    extractor = kind.load(user_path(weights) if weights is not None else None)
    extractor.net.to(device).eval().requires_grad_(False)
    if not isinstance(kind, OwnExtractor):  # which may need another layout
        extractor.net.to(memory_format=torch.channels_last)
    return replace(extractor, bf16=bf16)


def _source(kind: type) -> str:
    """Return the source file of a class; for one without (defined in a shell), its name."""
    try:
        return inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def _features_or_both(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    out = net(images)
    if not isinstance(out, tuple):
        return out, None
    if len(out) != 2:
        raise UserError(
            f"extractor {type(net).__name__}: must return features, or features and logits, not {len(out)} outputs"
        )
    return out


def built(path: Path, make: Callable[[], Net]) -> Net:
    """Return ``make()``, which loads the tensors of ``path`` into a network of another project.

    Raises:
        UserError: they are those of another network.
    """
    try:
        return make()
    except Exception as error:  # unexpected tensors in foreign code
        raise UserError(f"{printable(path)}: not the weights of this extractor: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return the first line of an error, without torch's advice to load files unsafely."""
    line = next(iter(str(error).splitlines()), "")
    return type(error).__name__ if not line or "weights_only" in line else printable(line)
