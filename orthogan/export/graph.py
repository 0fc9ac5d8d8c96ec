"""A generator as a plain graph: its operations alone, with everything that does not depend on the input computed.

``torch.export`` records the operations. What depends only on the weights is then evaluated once and stored: the
effective weights of constraints and parametrizations, the kernels of resampling layers, and fixed noise. The graph
therefore contains no power iteration, rotation or Householder reflection, only the layers with their final weights.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from orthogan.errors import UserError
from orthogan.models.families.style_based import StyleBased
from orthogan.models.generate import in_space, sample_label
from orthogan.models.modes import need_numbers
from orthogan.models.protocol import Generator, as_generator


class Call(nn.Module):
    """``generator`` as a function of latents (n, latent_dim), and of labels (n,) if it is conditional, in float32."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w)."""
        images = self.generator(z) if y is None else self.generator(z, y)
        if not isinstance(images, Tensor):
            raise UserError(
                f"{type(self.generator).__name__}: returns a {type(images).__name__}, not a tensor of images; wrap it "
                "so that it only returns the images"
            )
        return images if images.dtype == torch.float32 else images.float()


class Mapping(nn.Module):
    """The way from z to another space of a style-based generator: latents (n, latent_dim), labels (n,) -> (n, dim).

    The result is what the view of the generator from that space takes.
    """

    def __init__(self, generator: StyleBased, space: str) -> None:
        super().__init__()
        self.generator, self.space = generator, space
        self.view: Any = view(generator, space)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return latents of the space."""
        net = self.generator
        w = net.mapping(z, y)
        if self.space == "s":
            return torch.cat(net.styles(w), 1) - self.view.mean
        v = w - net.w_mean
        return v.repeat(1, net.num_ws) if self.space == "w+" else v


class Restyled(nn.Module):
    """A view of a generator from a space that enters layer by layer, with the latent of the other layers as an input.

    v (n, dim) enters the chosen layers of ``view``, and ``base`` (1, dim) the others.
    """

    def __init__(self, view: Generator) -> None:
        super().__init__()
        self.view = view

    def forward(self, z: Tensor, base: Tensor) -> Tensor:
        """Return images (n, c, h, w)."""
        return torch.func.functional_call(self.view, {"base": base[0]}, (z,)).float()


def plain(generator: nn.Module) -> Generator:
    """Return ``generator`` in float32 on the CPU and in eval mode, as a copy if it is none of these."""
    net = as_generator(generator)
    need_numbers(net)
    tensors = [*net.parameters(), *net.buffers()]
    fits = all(t.device.type == "cpu" and (t.dtype == torch.float32 or not t.is_floating_point()) for t in tensors)
    if fits and not any(part.training for part in net.modules()):
        return net
    return as_generator(copy.deepcopy(net).cpu().float().eval())


def view(generator: Generator, space: str) -> Generator:
    """Return ``generator`` seen from ``space``, for a conditional one without fixing the class of the view.

    Only the latents that the view draws depend on its class, not its images.
    """
    fixed = 0 if generator.num_classes and space != "z" else None
    return in_space(generator, space, y=fixed)


def examples(generator: Generator, count: int, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Return the inputs for ``count`` images: latents (count, latent_dim) and, if conditional, labels (count,)."""
    z = generator.sample_latent(count, seed=seed).float()
    if not generator.num_classes:
        return (z,)
    return z, torch.tensor([sample_label(generator, seed + i) for i in range(count)])


def record(module: nn.Module, inputs: Sequence[Tensor], *, fixed_batch: bool = False) -> ExportedProgram:
    """Record ``module`` on ``inputs`` and evaluate what does not depend on them.

    Args:
        fixed_batch: only for the batch size of ``inputs``; otherwise for any.

    Raises:
        UserError: ``torch.export`` cannot record the network.
    """
    names = list(inspect.signature(module.forward).parameters)[: len(inputs)]
    batch = Dim("batch", min=1)
    shapes = None if fixed_batch else {name: {0: batch} for name in names}
    with warnings.catch_warnings(), torch.no_grad(), mock.patch.object(torch, "autocast", _no_autocast):
        warnings.simplefilter("ignore")
        try:
            graph = _record(module, inputs, shapes)
            evaluate(graph)
            return torch.export.export(graph, tuple(inputs), dynamic_shapes=shapes)
        except UserError:
            raise
        except Exception as error:  # the user's own network may use anything
            inner = type(getattr(module, "generator", getattr(module, "view", module))).__name__
            reason = " ".join(str(error).split())
            if "specialized" in reason:
                raise UserError(
                    f"{inner}: its forward pass works only for the batch size of the recording; use x.shape[0] instead "
                    "of len(x), and no fixed batch size"
                ) from error
            raise UserError(
                f"{inner}: torch.export cannot record its operations: {type(error).__name__}: {reason[:300]}"
            ) from error


def _record(module: nn.Module, inputs: Sequence[Tensor], shapes: Any) -> fx.GraphModule:
    found = torch.export.export(module, tuple(inputs), dynamic_shapes=shapes).module()
    assert isinstance(found, fx.GraphModule)
    aten = torch.ops.aten
    for node in list(found.graph.nodes):
        if node.target == aten.to.dtype and node.args[0].meta["val"].dtype == node.args[1]:
            node.replace_all_uses_with(node.args[0])  # converts nothing
            found.graph.erase_node(node)
        elif not node.users and node.target in ("_guards_fn", aten._assert_tensor_metadata.default):
            found.graph.erase_node(node)  # a check of types and shapes; the second recording makes those it needs
    return found


@contextmanager
def _no_autocast(*_: Any, **__: Any) -> Iterator[None]:
    """Replace ``torch.autocast``, which is off anyway, and which would put a part of the graph into a subgraph."""
    yield


def evaluate(module: fx.GraphModule) -> None:
    """Replace operations whose inputs are all weights or numbers by their results, in place."""
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = attribute(module, node.target)
            node.meta.setdefault("val", values[node])
        elif node.op == "call_function" and all(one in values for one in node.all_input_nodes):
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                continue
            arguments = fx.map_arg(node.args, values.__getitem__), fx.map_arg(node.kwargs, values.__getitem__)
            values[node] = node.target(*arguments[0], **arguments[1])
    names = (name for number in itertools.count() if not hasattr(module, name := f"evaluated_{number}"))
    for node, value in list(values.items()):
        used = any(user not in values for user in node.users)
        if node.op == "get_attr" or not used or not isinstance(value, Tensor):
            continue
        name = next(names)
        module.register_buffer(name, value.detach().clone().contiguous())
        with module.graph.inserting_before(node):
            new = module.graph.get_attr(name)
        new.meta["val"] = node.meta.get("val")
        node.replace_all_uses_with(new)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    used_names = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name in [n for n, _ in (*module.named_parameters(), *module.named_buffers()) if n not in used_names]:
        owner, _, last = name.rpartition(".")
        delattr(module.get_submodule(owner), last)
    module.recompile()


def attribute(module: nn.Module, target: Any) -> Any:
    """Return the parameter or buffer of a dotted name."""
    owner, _, last = str(target).rpartition(".")
    return getattr(module.get_submodule(owner), last)
