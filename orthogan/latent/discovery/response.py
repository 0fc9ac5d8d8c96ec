"""The generator as a function of its latent, as analyzed or differentiated by the methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from orthogan.errors import UserError
from orthogan.models.generate import sample_label
from orthogan.models.label_table import classes_at
from orthogan.models.modes import eval_mode, get_device
from orthogan.models.protocol import Generator, as_generator


class GeneratorFunction:
    """z (n, latent_dim) -> images (n, c, h, w), or the output (n, ...) of one layer; made by ``trace_generator``."""

    def __init__(self, net: Generator, layer: str | None, resolution: int | None, y: int | None) -> None:
        self.net, self.layer, self.resolution = net, layer, resolution
        self.y = None if y is None else sample_label(net, 0, [y])
        self.device = get_device(net)
        self._module = _submodule(net, layer) if layer else None

    @property
    def dim(self) -> int:
        """Dimension of the latent."""
        return int(self.net.latent_dim)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Draw ``n`` latents of the prior and their classes: the fixed one, else all in turn; None if unconditional."""
        z = self.net.sample_latent(n, seed=seed).to(self.device)
        if not self.net.num_classes:
            return z, None
        labels = classes_at(self.net, torch.arange(n)) if self.y is None else torch.full((n,), self.y)
        return z, labels.to(self.device)

    def __call__(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Return the features of latents (n, latent_dim), float32, at a reduced resolution if one was set."""
        with torch.autocast(self.device.type, enabled=False):
            out = self._run(z) if labels is None else self._run(z, labels)
            if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(z):
                raise UserError(f"layer '{self.layer or 'output'}': does not return one array of numbers per latent")
            out = out.float()
            return out if self.resolution is None else _reduced(out, self.resolution)

    def _run(self, *inputs: Tensor) -> object:
        if self._module is None:
            return self.net(*inputs)
        handle = self._module.register_forward_hook(_stop)
        try:
            self.net(*inputs)
        except _Reached as reached:
            return reached.output
        finally:
            handle.remove()
        raise UserError(f"layer '{self.layer}' is not used when the generator computes an image; choose another layer")


@contextmanager
def trace_generator(
    generator: nn.Module, *, layer: str | None = None, resolution: int | None = None, y: int | None = None
) -> Iterator[GeneratorFunction]:
    """Context with the frozen generator and cached constrained weights, after a trial on one latent.

    ``layer``: a dotted submodule name whose output is used (the rest of the network is not run); None or "" for the
    image. ``resolution``: outputs (n, c, h, w) are averaged down to this side. ``y``: the class of a conditional
    generator; None cycles through all classes. Raises ``UserError`` for an unknown or unsuitable layer, resolution or
    class, and for non-finite output.
    """
    net = as_generator(generator)
    found = GeneratorFunction(net, layer, resolution, y)
    # Weights are cached from the trial on: some constraints have no forward derivative, and none is needed.
    with eval_mode(net), parametrize.cached():
        if not bool(torch.isfinite(found(*found.draw(1, seed=0))).all()):
            raise UserError(f"layer '{layer or 'output'}': contains NaN or infinite values; the generator is damaged")
        yield found


class _Reached(Exception):
    """Carries the output of a layer out of the network, so that later layers are not run."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


def _stop(module: nn.Module, inputs: object, output: object) -> None:
    raise _Reached(output)


def _submodule(net: nn.Module, layer: str) -> nn.Module:
    try:
        return net.get_submodule(layer)
    except AttributeError as error:
        names = [name for name, _ in net.named_modules() if name]
        raise UserError(
            f"no layer '{layer}' in {type(net).__name__}; available: {', '.join(names) or 'none'}"
        ) from error


def _reduced(out: Tensor, side: int) -> Tensor:
    if out.ndim != 4 or not 1 <= side <= min(out.shape[2:]):
        raise UserError(
            f"resolution={side}: must be between 1 and the side of the map; this output is {tuple(out.shape[1:])}"
        )
    return functional.adaptive_avg_pool2d(out, side)
