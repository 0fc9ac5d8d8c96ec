"""Vectors as the labels of a conditional network: several attributes per image, or numbers such as a pose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TABLE = "label_table"  # name of the submodule
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, spread evenly


class ClassEmbedding(nn.Embedding):
    """A learned vector per class; a label may also be a vector (n, num_classes) of how much of each class there is.

    Example:
        >>> import torch
        >>> from orthogan.models import ClassEmbedding
        >>> embedding = ClassEmbedding(3, 4)
        >>> both = embedding(torch.tensor([[1.0, 0.0, 1.0]]))
        >>> torch.equal(both[0], embedding.weight[0] + embedding.weight[2])
        True
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the vectors (n, d) of labels (n,), or the weighted sums (n, d) for labels (n, num_classes)."""
        if input.is_floating_point():
            return functional.linear(input.to(self.weight.dtype), self.weight.T)
        return super().forward(input)


class LabelTable(nn.Module):
    """The label vectors of a network: class y stands for row y of ``vectors``.

    Args:
        vectors: float (m, k), the different label vectors of the training images.
        counts: int (m,), how many training images have each (default: one).
        names: of the k numbers, if known.

    Example:
        >>> import torch
        >>> from orthogan.models import LabelTable
        >>> table = LabelTable(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
        >>> table(torch.tensor([1, 0]))
        tensor([[1., 1.],
                [0., 1.]])
    """

    vectors: Tensor
    counts: Tensor

    def __init__(self, vectors: Tensor, counts: Tensor | None = None, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors.to(torch.float32))
        self.register_buffer("counts", vectors.new_ones(len(vectors), dtype=torch.int64) if counts is None else counts)
        self.names = tuple(names)

    def forward(self, y: Tensor) -> Tensor:
        """Return the vectors (n, k) of classes (n,); vectors are returned as they are."""
        if y.is_floating_point():
            return y
        check_classes(y, len(self.vectors))
        return self.vectors[y]

    def hook(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A forward pre-hook that replaces the labels, the second argument or ``y``, by their vectors."""
        if len(arguments) > 1 and arguments[1] is not None:
            arguments = (arguments[0], self(arguments[1]), *arguments[2:])
        elif keywords.get("y") is not None:
            keywords = {**keywords, "y": self(keywords["y"])}
        return arguments, keywords

    def draw(self, share: Tensor) -> Tensor:
        """Return the classes (n,) at ``share`` (n,) from 0 to 1 of the training images, in the order of the table.

        Uniform shares thus give each class as often as the training images have it.
        """
        ends = (self.counts.double().cumsum(0) / self.counts.sum()).to(share.device)
        return torch.searchsorted(ends, share.double(), right=True).clamp(max=len(ends) - 1)

    def spread(self, places: Tensor) -> Tensor:
        """Return the class of each of ``places`` (n,), integers; consecutive ones follow the shares of the classes."""
        return self.draw((places.double() + 0.5) * GOLDEN % 1)

    def find(self, vector: Sequence[float]) -> int | None:
        """Return the class of a vector of k numbers; None if it is not in the table."""
        equal = (self.vectors == self.vectors.new_tensor(vector)).all(1).nonzero()
        return int(equal[0]) if len(equal) else None

    def add(self, vector: Sequence[float]) -> int:
        """Append a vector of k numbers, which no training image has, and return its class."""
        self.vectors = torch.cat([self.vectors, self.vectors.new_tensor(vector)[None]])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(1)])
        return len(self.vectors) - 1


def check_classes(y: Tensor, count: int) -> None:
    """Raise ValueError if classes (n,) are not from 0 to ``count`` - 1; a negative one would pass for another class.

    Label vectors, other devices than the CPU, which would have to wait, and recorded or transformed calls are not
    checked.
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()  # pyright: ignore[reportPrivateImportUsage]
    if recorded or type(y) is not Tensor or y.device.type != "cpu" or y.is_floating_point() or not y.numel():
        return
    low, high = (int(end) for end in y.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"labels are from {low} to {high}, but the classes are 0 to {count - 1}")


def add_label_table(net: nn.Module, table: LabelTable) -> None:
    """Make ``net``, built for ``num_classes`` = k numbers, take the classes of ``table``; vectors (n, k) work too.

    ``net.num_classes`` becomes the number of rows. A generator with a mapping network, a submodule ``mapper`` or
    ``mapping``, gets the vectors there, also if its W is computed alone.

    Raises:
        ValueError: the net was built for another number of classes.

    Example:
        >>> import torch
        >>> from orthogan.models import LabelTable, SNGANGenerator, add_label_table
        >>> net = SNGANGenerator(resolution=32, image_channels=1, channels=4, latent_dim=6, num_classes=2)
        >>> add_label_table(net, LabelTable(torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.3, 0.0]])))
        >>> net(net.sample_latent(1), torch.tensor([[0.3, 0.0]])).shape, net.num_classes
        (torch.Size([1, 1, 32, 32]), 3)
    """
    whole: Any = net
    if whole.num_classes != table.vectors.shape[1]:
        raise ValueError(f"vectors of {table.vectors.shape[1]} numbers for a net of {whole.num_classes} classes")
    inner = dict(net.named_children())
    target = (inner.get("mapper") or inner.get("mapping")) if hasattr(net, "latent_dim") else None
    net.add_module(TABLE, table)
    (target or net).register_forward_pre_hook(table.hook, with_kwargs=True)
    whole.num_classes = len(table.vectors)


def label_table(net: nn.Module) -> LabelTable | None:
    """Return the label vectors of ``net``; None if its labels are classes, or it has none."""
    found = getattr(net, TABLE, None)
    return found if isinstance(found, LabelTable) else None


@contextmanager
def unchanged_classes(net: nn.Module) -> Iterator[None]:
    """Context after which ``net`` has the same label vectors and classes as before."""
    table, whole = label_table(net), net.__dict__
    if table is None:
        yield
        return
    before = {name: whole[name] for name in ("num_classes", "class_names") if name in whole}
    rows = len(table.vectors)
    try:
        yield
    finally:
        if len(table.vectors) > rows:  # new vectors come last
            table.vectors, table.counts = table.vectors[:rows].clone(), table.counts[:rows].clone()
        for name in ("num_classes", "class_names"):
            whole.pop(name, None)
        whole.update(before)


def draw_classes(net: nn.Module, n: int, *, rng: torch.Generator) -> Tensor:
    """Draw the classes (n,) of fakes of a conditional ``net``, on the device of ``rng``.

    Classes are equally probable; label vectors are as probable as among the training images.
    """
    table = label_table(net)
    if table is None:
        return torch.randint(int(getattr(net, "num_classes", 0)), (n,), generator=rng, device=rng.device)
    return table.draw(torch.rand(n, generator=rng, device=rng.device))


def classes_at(net: nn.Module, places: Tensor) -> Tensor:
    """Return the class of each of ``places`` (n,), integers, such as numbers of images, of a conditional ``net``.

    Classes take turns, so that they are equally frequent; label vectors are as frequent as among the training images.
    """
    table = label_table(net)
    return places % int(getattr(net, "num_classes", 0)) if table is None else table.spread(places)
