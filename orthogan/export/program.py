"""A recorded network as a program for the web page: a list of steps on flat arrays, for a batch of one.

The steps are those that ``live/runtime.js`` runs. Reshapes disappear, batch norms become a gain and a shift per
channel, and sizes, strides and the places of resampling are computed here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from orthogan.errors import UserError
from orthogan.export.graph import attribute, evaluate, record

aten = torch.ops.aten
ALIASES = (
    "view",
    "_unsafe_view",
    "reshape",
    "unsqueeze",
    "squeeze",
    "clone",
    "alias",
    "detach",
    "_to_copy",
    "lift_fresh",
)
UNARY = ("relu", "tanh", "sigmoid", "rsqrt", "sqrt", "exp", "log", "neg", "abs", "sin", "cos", "reciprocal", "erf")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")


@dataclass
class Program:
    """Steps, and the numbers that they use: ``weights`` is one array, ``constants`` are (id, start, size) in it."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    constants: list[tuple[int, int, int]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    output: int = -1
    weights: list[Tensor] = field(default_factory=list)

    def tree(self) -> dict[str, Any]:
        """Return everything except the weights, for JSON."""
        names = ("steps", "sizes", "constants", "inputs", "output")
        return {name: getattr(self, name) for name in names}


def compile_program(module: nn.Module, inputs: Sequence[Tensor], start: int = 0) -> Program:
    """Compile ``module`` for inputs of these shapes, whose batch size is 1.

    Args:
        start: index of the first weight in the array that the page has.

    Raises:
        UserError: the network has an operation that the runtime does not have.
    """
    recorded = record(module, inputs, fixed_batch=True).run_decompositions().module()
    assert isinstance(recorded, fx.GraphModule)
    evaluate(recorded)
    return _Compiler(recorded, start).program


@dataclass(frozen=True, eq=False)
class Made:
    """The result of a step that no node of the recording has."""

    id: int
    sizes: list[int]


class _Compiler:
    def __init__(self, module: fx.GraphModule, start: int) -> None:
        self.module, self.program, self.next, self.at = module, Program(), 0, start
        self.ids: dict[fx.Node, Any] = {}  # an id, a list of ids, or a constant that is not stored yet
        self.stored: dict[int, int] = {}
        for node in module.graph.nodes:
            self._node(node)

    def _node(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.ids[node] = self._new()
            self.program.inputs.append(self.ids[node])
        elif node.op == "get_attr":
            self.ids[node] = attribute(self.module, node.target)
        elif node.op == "output":
            (result,) = node.args[0]  # pyright: ignore
            self.program.output = self.id(result)
        elif node.op == "call_function":
            self.ids[node] = self._call(node)

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self.ids[node.args[0]][node.args[1]]  # pyright: ignore
        name = str(node.target).removeprefix("aten.").split(".")[0]
        if name in ALIASES and _dtype(node) == _dtype(node.args[0]):
            return self.ids[node.args[0]]  # pyright: ignore
        if name in UNARY:
            return self.step("unary", node, [node.args[0]], fn=name, args=[])
        if name in BINARY:
            alpha: Any = node.kwargs.get("alpha", 1)
            if node.kwargs.get("rounding_mode"):
                raise _missing(node)
            return self._binary(name, node, *node.args, alpha=alpha)
        handler: Callable[..., Any] | None = getattr(self, f"_{name.lstrip('_')}", None)
        if handler is None:
            raise _missing(node)
        return handler(node, *node.args, **node.kwargs)

    # arrays

    def _new(self, size: int | None = None) -> int:
        self.next += 1
        if size is not None:
            self.program.sizes.append((self.next, size))
        return self.next

    def constant(self, tensor: Tensor) -> int:
        """Store a tensor among the weights; return its id."""
        values = tensor.detach().float().contiguous().flatten()
        found = self._new()
        self.program.constants.append((found, self.at, values.numel()))
        self.program.weights.append(values)
        self.at += values.numel()
        return found

    def id(self, value: Any) -> int:
        """Return the id of a node, a result, a tensor or a number."""
        if isinstance(value, Made):
            return value.id
        if isinstance(value, fx.Node):
            known = self.ids[value]
            if isinstance(known, Tensor):
                if id(known) not in self.stored:
                    self.stored[id(known)] = self.constant(known)
                return self.stored[id(known)]
            return known
        return self.constant(torch.as_tensor(value))

    def step(self, op: str, out: fx.Node | Made | int, inputs: Sequence[Any], **more: Any) -> int:
        """Add a step whose result has the size of ``out``; return the id of the result."""
        size = out if isinstance(out, int) else math.prod(shape(out))
        ids = [self.id(one) for one in inputs]
        result = self._new(size)
        self.program.steps.append({"op": op, "in": ids, "out": result, **more})
        return result

    def known(self, value: Any) -> Tensor | None:
        """Return the tensor of a node that is a constant."""
        found = self.ids.get(value) if isinstance(value, fx.Node) else None
        return found if isinstance(found, Tensor) else None

    def copied(self, x: Any, dims: Sequence[int], strides: Sequence[int], offset: int = 0) -> int:
        """Add a copy of a strided view of ``x``."""
        sizes = [size for size, _ in zip(dims, strides, strict=True)]
        return self.step("copy", math.prod(dims), [x], shape=sizes, strides=list(strides), offset=offset)

    # operations, by the name that they have in aten

    def _binary(self, name: str, node: fx.Node | Made, a: Any, b: Any, *, alpha: float = 1) -> int:
        out = shape(node)
        if alpha != 1:
            b = Made(self._binary("mul", b, b, alpha), shape(b)) if isinstance(b, fx.Node) else b * alpha
        return self.step("binary", node, [a, b], fn=name, shape=out, first=spread(a, out), second=spread(b, out))

    def _addmm(self, node: fx.Node, bias: Any, x: Any, weight: Any) -> int:
        return self._linear(node, x, weight, bias)

    def _mm(self, node: fx.Node, x: Any, weight: Any) -> int:
        return self._linear(node, x, weight, None)

    def _linear(self, node: fx.Node, x: Any, weight: Any, bias: Any) -> int:
        (m, k), n = shape(x), shape(node)[1]
        matrix = self.known(weight)
        if matrix is None:
            found = self.step("product", node, [x, weight], batch=1, m=m, k=k, n=n)
            return found if bias is None else self._binary("add", node, Made(found, shape(node)), bias)
        inputs = [x, matrix.mT.contiguous(), *([] if bias is None else [bias])]
        return self.step("linear", node, inputs, m=m, k=k, n=n)

    def _bmm(self, node: fx.Node, a: Any, b: Any) -> int:
        (batch, m, k), n = shape(a), shape(b)[2]
        return self.step("product", node, [a, b], batch=batch, m=m, k=k, n=n)

    def _convolution(
        self,
        node: fx.Node,
        x: Any,
        weight: Any,
        bias: Any,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],
        groups: int,
    ) -> int:
        kernel = self.known(weight)
        if kernel is None or kernel.dim() != 4:
            raise UserError("to page: convolutions must be 2D with a fixed kernel; for this network choose --to onnx")
        (_, c, h, w), (_, o, oh, ow) = shape(x), shape(node)
        two = [list(values) * (2 // len(values)) for values in (stride, padding, dilation)]
        sizes = {"C": c, "H": h, "W": w, "O": o, "OH": oh, "OW": ow, "kh": kernel.shape[2], "kw": kernel.shape[3]}
        rest = {"stride": two[0], "pad": two[1], "dilation": two[2], "groups": groups, "transposed": transposed}
        return self.step("convolution", node, [x, weight, *([] if bias is None else [bias])], **sizes, **rest)

    def _native_batch_norm_legit_no_training(
        self, node: fx.Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any, _: float, eps: float
    ) -> list[int]:
        parts = [self.known(one) for one in (weight, bias, mean, var)]
        assert parts[2] is not None
        assert parts[3] is not None
        gain = torch.rsqrt(parts[3].double() + eps) * (1 if parts[0] is None else parts[0].double())
        shift = (0 if parts[1] is None else parts[1].double()) - parts[2].double() * gain
        return [self._scaled(x, gain, shift)]

    def _scaled(self, x: Any, gain: Tensor, shift: Tensor) -> int:
        size = math.prod(shape(x))
        ids = [self.constant(gain), self.constant(shift)]
        result = self.step("scale", size, [x], inner=size // len(gain))
        self.program.steps[-1]["in"] += ids
        return result

    def _native_batch_norm_legit(self, node: fx.Node, x: Any, weight: Any, bias: Any, *rest: Any) -> list[int]:
        found = self.step("normalize", node_size(x), [x], rows=shape(x)[1], eps=rest[-1])  # an instance norm
        return [self._affine(found, x, weight, bias)]

    def _native_group_norm(
        self, node: fx.Node, x: Any, weight: Any, bias: Any, n: int, c: int, area: int, groups: int, eps: float
    ) -> list[int]:
        found = self.step("normalize", node_size(x), [x], rows=groups, eps=eps)
        return [self._affine(found, x, weight, bias)]

    def _affine(self, found: int, like: fx.Node, weight: Any, bias: Any) -> int:
        gain, shift = self.known(weight), self.known(bias)
        if gain is None and shift is None:
            return found
        channels = shape(like)[1]
        gain = torch.ones(channels) if gain is None else gain
        return self._scaled(Made(found, shape(like)), gain, torch.zeros(channels) if shift is None else shift)

    def _native_layer_norm(
        self, node: fx.Node, x: Any, normalized: list[int], weight: Any, bias: Any, eps: float
    ) -> list[int]:
        width = math.prod(normalized)
        found = Made(self.step("normalize", node_size(x), [x], rows=node_size(x) // width, eps=eps), shape(x))
        for name, part in (("mul", weight), ("add", bias)):
            if part is not None:
                found = Made(self._binary(name, found, found, part), shape(x))
        return [found.id]

    def _leaky_relu(self, node: fx.Node, x: Any, slope: float = 0.01) -> int:
        return self.step("unary", node, [x], fn="leaky_relu", args=[slope])

    def _elu(self, node: fx.Node, x: Any, alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0) -> int:
        if (scale, inner) != (1, 1):
            raise _missing(node)
        return self.step("unary", node, [x], fn="elu", args=[alpha])

    def _clamp(self, node: fx.Node, x: Any, low: Any = None, high: Any = None) -> int:
        if isinstance(low, fx.Node) or isinstance(high, fx.Node):
            raise _missing(node)
        return self.step("unary", node, [x], fn="clamp", args=[low, high])

    _hardtanh = _clamp

    def _pow(self, node: fx.Node, x: Any, exponent: Any) -> int:
        if isinstance(exponent, fx.Node):
            raise _missing(node)
        return self.step("unary", node, [x], fn="pow", args=[exponent])

    def _softmax(self, node: fx.Node, x: Any, dim: int, _: bool) -> int:
        sizes = shape(x)
        if dim % len(sizes) != len(sizes) - 1:
            raise UserError("to page: a softmax must be over the last axis; for this network choose --to onnx")
        return self.step("softmax", node, [x], rows=math.prod(sizes[:-1]))

    def _where(self, node: fx.Node, condition: Any, a: Any, b: Any) -> int:
        chosen = self.known(condition)
        if chosen is None:
            raise UserError("to page: a condition must not depend on the latent; for this network choose --to onnx")
        out, sizes, halves = shape(node), list(chosen.shape), []
        for mask, value in ((chosen, a), (~chosen, b)):
            product = self._binary("mul", node, Made(self.constant(mask), sizes), value)
            halves.append(Made(product, out))
        return self._binary("add", node, *halves)

    def _expand(self, node: fx.Node, x: Any, _: list[int], **__: Any) -> int:
        return self.copied(x, shape(node), spread(x, shape(node)))

    def _permute(self, node: fx.Node, x: Any, order: list[int]) -> int:
        strides = contiguous(shape(x))
        return self.copied(x, shape(node), [strides[d] for d in order])

    def _slice(self, node: fx.Node, x: Any, dim: int = 0, start: int = 0, end: int = 0, step: int = 1) -> Any:
        if shape(node) == shape(x):
            return self.ids[x]
        strides = contiguous(shape(x))
        offset = (start + shape(x)[dim] if start < 0 else start) * strides[dim]
        strides[dim] *= step
        return self.copied(x, shape(node), strides, max(0, offset))

    def _select(self, node: fx.Node, x: Any, dim: int, index: int) -> int:
        strides, dim = contiguous(shape(x)), dim % len(shape(x))
        offset = (index % shape(x)[dim]) * strides[dim]
        return self.copied(x, shape(node), [s for d, s in enumerate(strides) if d != dim], offset)

    def _flip(self, node: fx.Node, x: Any, dims: list[int]) -> int:
        sizes, strides = shape(x), contiguous(shape(x))
        flipped = {d % len(sizes) for d in dims}
        offset = sum((sizes[d] - 1) * strides[d] for d in flipped)
        return self.copied(x, sizes, [-s if d in flipped else s for d, s in enumerate(strides)], offset)

    def _split_with_sizes(self, node: fx.Node, x: Any, sizes: list[int], dim: int = 0) -> list[int]:
        strides, found, at = contiguous(shape(x)), [], 0
        for size in sizes:
            part = [size if d == dim % len(strides) else n for d, n in enumerate(shape(x))]
            found.append(self.copied(x, part, strides, at * strides[dim]))
            at += size
        return found

    def _cat(self, node: fx.Node, parts: list[Any], dim: int = 0) -> int:
        outer = math.prod(shape(node)[: dim % len(shape(node))])
        return self.step("cat", node, parts, outer=outer, sizes=[math.prod(shape(part)) // outer for part in parts])

    def _constant_pad_nd(self, node: fx.Node, x: Any, pad: list[int], value: float = 0.0) -> int:
        sizes, strides = shape(x), contiguous(shape(node))
        edges = [(0, 0)] * (len(sizes) - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
        if min(pad) < 0:  # it crops
            start = sum(max(0, -first) * step for (first, _), step in zip(edges, contiguous(sizes), strict=True))
            kept = [n + min(0, a) + min(0, b) for n, (a, b) in zip(sizes, edges, strict=True)]
            x, sizes = Made(self.copied(x, kept, contiguous(sizes), start), kept), kept
        offset = sum(max(0, first) * step for (first, _), step in zip(edges, strides, strict=True))
        return self.step("pad", node, [x], shape=sizes, strides=strides, offset=offset, value=value)

    def _index(self, node: fx.Node, table: Any, index: list[Any]) -> int:
        if len(index) != 1 or index[0] is None:
            raise UserError(
                "to page: indexing with several tensors is not supported; for this network choose --to onnx"
            )
        return self.step("row", node, [table, index[0]])

    def _embedding(self, node: fx.Node, table: Any, index: Any, *_: Any) -> int:
        return self.step("row", node, [table, index])

    def _upsample_nearest2d(self, node: fx.Node, x: Any, _: Any, *scales: Any) -> int:
        sizes = zip(shape(x)[2:], shape(node)[2:], given_scales(scales), strict=True)
        return self._resized(node, x, [nearest(*one) for one in sizes])

    def _upsample_bilinear2d(self, node: fx.Node, x: Any, _: Any, corners: bool, *scales: Any) -> int:
        sizes = zip(shape(x)[2:], shape(node)[2:], given_scales(scales), strict=True)
        return self._resized(node, x, [linear(a, b, corners, scale) for a, b, scale in sizes])

    def _resized(self, node: fx.Node, x: Any, axes: list[Any]) -> int:
        _, c, h, w = shape(x)
        return self.step("resize", node, [x], C=c, H=h, W=w, rows=axes[0], cols=axes[1])

    def _mean(self, node: fx.Node, x: Any, dims: list[int] | None = None, keep: bool = False, **_: Any) -> int:
        return self._reduced(node, x, dims, mean=True)

    def _sum(self, node: fx.Node, x: Any, dims: list[int] | None = None, keep: bool = False, **_: Any) -> int:
        return self._reduced(node, x, dims, mean=False)

    def _reduced(self, node: fx.Node, x: Any, dims: list[int] | None, *, mean: bool) -> int:
        sizes = shape(x)
        gone = {d % len(sizes) for d in (dims if dims else range(len(sizes)))}
        kept = contiguous([1 if d in gone else n for d, n in enumerate(sizes)])
        strides = [0 if d in gone else s for d, s in enumerate(kept)]
        count = math.prod(sizes[d] for d in gone) if mean else 1
        return self.step("reduce", node, [x], shape=sizes, strides=strides, count=count)


def shape(value: Any) -> list[int]:
    """Return the sizes of a node, a result or a number."""
    if isinstance(value, Made):
        return value.sizes
    return [int(size) for size in value.meta["val"].shape] if isinstance(value, fx.Node) else []


def node_size(value: Any) -> int:
    """Return how many numbers a node or result has."""
    return math.prod(shape(value))


def contiguous(sizes: Sequence[int]) -> list[int]:
    """Return the strides of an array without gaps."""
    return [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]


def spread(value: Any, out: Sequence[int]) -> list[int]:
    """Return the strides with which ``value`` is broadcast to the sizes ``out``."""
    return spread_sizes(shape(value), out)


def spread_sizes(sizes: Sequence[int], out: Sequence[int]) -> list[int]:
    """Return the strides with which an array of ``sizes`` is broadcast to the sizes ``out``."""
    strides = [0 if n == 1 else s for n, s in zip(sizes, contiguous(sizes), strict=True)]
    return [0] * (len(out) - len(sizes)) + strides


def given_scales(given: Sequence[Any]) -> list[float | None]:
    """Return the scale factors of height and width, from one list or two arguments; None if a size was given."""
    if len(given) == 1:
        given = given[0] or ()
    return list(given) or [None, None]


def nearest(small: int, large: int, scale: float | None = None) -> tuple[list[int], list[int], list[float]]:
    """Return, per output position, the input position twice and the weight of the second.

    ``scale``: the factor that was given instead of the size ``large``; they differ if the size was rounded.
    """
    places = [min(small - 1, math.floor(i / scale if scale else i * small / large)) for i in range(large)]
    return places, places, [0.0] * large


def linear(
    small: int, large: int, corners: bool, scale: float | None = None
) -> tuple[list[int], list[int], list[float]]:
    """Return, per output position, two input positions and the weight of the second; ``scale`` as for ``nearest``."""
    ratio = 1 / scale if scale else small / large
    first, second, weights = [], [], []
    for i in range(large):
        place = i * (small - 1) / max(1, large - 1) if corners else max(0.0, (i + 0.5) * ratio - 0.5)
        low = min(small - 1, math.floor(place))
        first.append(low)
        second.append(min(small - 1, low + 1))
        weights.append(place - low)
    return first, second, weights


def _missing(node: fx.Node) -> UserError:
    return UserError(
        f"to page: the operation {node.target} of this network is not supported; choose --to onnx or --to torch-export"
    )


def _dtype(node: Any) -> torch.dtype:
    return node.meta["val"].dtype
