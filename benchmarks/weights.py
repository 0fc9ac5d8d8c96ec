"""The cost of each tool of orthogan per training step, as a ratio to plain layers: ``python -m benchmarks.weights``.

There are two tables. Each is measured in one run; every round times each tool once. "weights": forward and backward of
all effective weights of a network, without data, in the form that the convolutions use (data type, channels last). The
cost of a penalty or a gradient rule is added to that of the plain copy. "step": a whole training step of the network.
A third table, "advance", is measured only if requested: a power iteration for all layers, batched and one by one.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import timing
from benchmarks.layers import NETS, Net, laid_out, planned, shapes
from orthogan import weights
from orthogan.data.augment import Augmentation
from orthogan.gradients import CayleyRetraction, GradientRule, NearestOrthogonalGradient, OptimalLearningRate
from orthogan.linalg import normalize
from orthogan.penalties import PENALTIES, Penalty
from orthogan.training.config import LossConfig
from orthogan.training.gan.phases import DiscriminatorBatch, GanLoss, discriminator_loss
from orthogan.training.precision import fast_bf16
from orthogan.weights.network import list_constrained, unconstrained
from orthogan.weights.orthogonal import OrthogonalMethod
from orthogan.weights.rotation import RotationMethod

ADVANCE = "advance"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
BLOCK_SIZE = 1024
C = 0.5  # target stable rank as a share; with this value, 3x3 kernels take the published branch from the start
HARD = [f"rotation-{method}" for method in get_args(RotationMethod) if method != "relaxed"]


class PublishedStableRankNorm(nn.Module):
    """Stable rank normalization in the published form: outer product, residual, a Python branch (our code)."""

    u: Tensor

    def __init__(self, weight: Tensor, c: float) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.c = c
        self.register_buffer("u", normalize(torch.randn(len(matrix))))

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight."""
        matrix = weight.flatten(1)
        with torch.no_grad():
            v = normalize(matrix.mT @ self.u)
            u = normalize(matrix @ v)
            self.u.copy_(u)
        whole = matrix / torch.dot(u, (matrix @ v).to(u))  # under autocast the product is bfloat16
        top = torch.outer(u, v)
        rest = whole - top
        # the published code fails if c * min(rows, columns) < 1
        wanted = (max(1.0, self.c * min(matrix.shape)) - 1) ** 0.5
        length = rest.norm()
        if float(length.detach()) > wanted:  # synchronizes with the device
            whole = top + rest * (wanted / length)
        return whole.view_as(weight)


@dataclass(frozen=True)
class Tool:
    """A change to a plain network: a constraint on its weights, a penalty in the loss, or a rule on the optimizer."""

    constrain: Callable[[nn.Module], object] = lambda _: None
    penalty: Callable[[nn.Module], Callable[[], Tensor]] | None = None
    rule: Callable[[torch.optim.Optimizer, nn.Module], GradientRule] | None = None


def _torch_spectral_norm(net: nn.Module) -> None:
    for found in weights.select(net):
        parametrizations.spectral_norm(found.layer, found.weight)


def _published_srn(net: nn.Module) -> None:
    for found in weights.select(net):
        published = PublishedStableRankNorm(found.value, C)
        parametrize.register_parametrization(found.layer, found.weight, published, unsafe=True)


def _rotation(method: RotationMethod) -> Tool:
    options: dict[str, Any] = {"method": method, "blocks": None, "block_size": BLOCK_SIZE}
    constrain = partial(weights.apply, kind="rotation", **options)
    if method == "ogd":
        return Tool(constrain, rule=CayleyRetraction)
    return Tool(constrain, (lambda net: partial(weights.relaxation, net)) if method == "relaxed" else None)


def _srn(k: int) -> Tool:
    return Tool(partial(weights.apply, kind="stable_rank", c=C, k=k))


SPECTRAL: dict[str, Tool] = {
    "torch-sn": Tool(_torch_spectral_norm),
    "sn": Tool(partial(weights.apply, kind="spectral")),
    "srn-k1": _srn(1),
    "published-srn": Tool(_published_srn),
}
WEIGHTS: dict[str, Tool] = {
    "plain": Tool(),
    **SPECTRAL,
    "srn-k0": _srn(0),
    "srn-k2": _srn(2),
    **{f"rotation-{method}": _rotation(method) for method in get_args(RotationMethod)},
    **{
        f"orthogonal-{method}": Tool(partial(weights.apply, kind="orthogonal", method=method))
        for method in get_args(OrthogonalMethod)
    },
    **{f"penalty-{name}": Tool(penalty=partial(Penalty, name=name)) for name in PENALTIES},
    "nog-eigh": Tool(rule=partial(NearestOrthogonalGradient, method="eigh")),
    "nog-polar_express": Tool(rule=partial(NearestOrthogonalGradient, method="polar_express")),
    "olr": Tool(rule=OptimalLearningRate),
}
PEERS = {"geotorch-expm": "expm", "geotorch-cayley": "cayley"}  # geotorch.orthogonal's maps; expm is its default
STEP: dict[str, Tool] = {
    "plain": Tool(),
    **SPECTRAL,
    "rotation-qr": _rotation("qr"),
    "nog-first": Tool(rule=partial(NearestOrthogonalGradient, layers="first")),
}


def _adam(net: nn.Module, lr: float = 2e-4) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.9), fused=True)


def _backward_of(
    read: Callable[[], list[Tensor]], net: nn.Module, dtype: torch.dtype, device: torch.device, tool: Tool
):
    """Forward and backward of the weights from ``read``, as a convolution in ``dtype`` takes and returns them."""
    optimizer = _adam(net, lr=5e-3)
    penalty = None if tool.penalty is None else tool.penalty(net)
    rule = None if tool.rule is None else tool.rule(optimizer, net)
    for _ in range(2):  # move away from the initial values, because decompositions of the identity are cheap
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    optimizer.zero_grad()

    def delivered() -> list[Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return [_deliver(value, dtype) for value in read()]

    slopes: list[Tensor | None] = [torch.randn_like(value) for value in delivered()]

    def step() -> None:
        values = delivered()
        extra = [] if penalty is None else [penalty()]
        torch.autograd.backward([*values, *extra], [*slopes, *[None] * len(extra)])
        if rule is not None:
            rule.before_step()
            rule.after_step()
        optimizer.zero_grad()

    return step


def _deliver(value: Tensor, dtype: torch.dtype) -> Tensor:
    layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
    given = value.to(dtype=dtype, memory_format=layout)
    return given.clone() if given is value and value.is_leaf else given  # plain layers: a copy


def weights_step(net: Net, tool: Tool, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Forward and backward of all effective weights of ``net`` under ``tool``, without data."""
    module = net.build()
    tool.constrain(module)
    found = weights.select(laid_out(module, device))
    # as in a forward pass in training, which updates a constraint
    return _backward_of(lambda: [getattr(one.layer, one.weight) for one in found], module, dtype, device, tool)


def geotorch_step(net: Net, triv: str, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """The same with ``geotorch.orthogonal`` on flattened kernels (on 4-d kernels, it is a different constraint)."""
    import geotorch  # pyright: ignore[reportMissingImports]

    plain = [one.value for one in weights.select(net.build())]
    matrices = [nn.Linear(value[0].numel(), len(value), bias=False) for value in plain]
    for matrix in matrices:
        geotorch.orthogonal(matrix, "weight", triv=triv)
    module = laid_out(nn.ModuleList(matrices), device)
    sizes = [value.shape for value in plain]

    def read() -> list[Tensor]:
        return [matrix.weight.reshape(size) for matrix, size in zip(matrices, sizes, strict=True)]

    return _backward_of(read, module, dtype, device, Tool())


def training_step(net: Net, tool: Tool, batch: int, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Forward, backward, and Adam on ``batch`` random images; a discriminator gets equal numbers of reals and fakes."""
    module = net.build()
    tool.constrain(module)
    laid_out(module, device)
    optimizer = _adam(module)
    if tool.rule is not None:
        tool.rule(optimizer, module)
    assert net.side is not None
    size = (batch, 3, net.side, net.side)
    images, fakes = (torch.randn(size, device=device).contiguous(memory_format=torch.channels_last) for _ in (0, 1))
    labels = torch.randint(1000, (batch,), device=device)
    examples = DiscriminatorBatch(images, None, fakes, None, labels.float(), torch.zeros((), device=device))
    one_round = weights.PowerIterationScheduler(module)

    def loss() -> Tensor:
        if net.adversarial:
            return discriminator_loss(module, examples, GanLoss.of(LossConfig()), Augmentation(), ((), ()))[0]
        return nn.functional.cross_entropy(module(images), labels)

    def step() -> None:
        optimizer.zero_grad()
        with one_round.hold():
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                value = loss()
            value.backward()
        optimizer.step()

    return step


def advance_steps(net: Net, device: torch.device) -> dict[str, Callable[[], None]]:
    """One power iteration for every weight of ``net``: batched, and one weight after the other."""

    def built(kind: str, **options: Any) -> nn.Module:
        module = net.build()
        weights.apply(module, kind, **options)
        return laid_out(module, device)

    theirs = net.build()
    _torch_spectral_norm(theirs)
    others: list[tuple[Any, Any]] = [
        (constraint, module.original)
        for module in laid_out(theirs, device).modules()
        if isinstance(module, parametrize.ParametrizationList)
        for constraint in module
    ]
    one_by_one = built("spectral")

    def loop() -> None:
        for _, layer, weight, constraint in list_constrained(one_by_one):
            constraint.advance(unconstrained(layer, weight))

    def torch_loop() -> None:
        for constraint, weight in others:
            constraint._power_method(constraint._reshape_weight_to_matrix(weight.detach()), 1)

    def held(step: weights.PowerIterationScheduler) -> None:
        with step.hold():
            pass

    one_round = weights.PowerIterationScheduler(built("spectral"))
    return {
        "loop": loop,
        "torch-sn": torch_loop,
        "round": one_round,
        "round, then held, sn": partial(held, one_round),
        "round, then held, srn-k1": partial(held, weights.PowerIterationScheduler(built("stable_rank", c=C))),
    }


class Operations(TorchDispatchMode):
    """Counts the operations in the block, about as many as a GPU launches; views and allocations do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        free = func.is_view or func.overloadpacket.__name__ in ("detach", "_unsafe_view", "empty", "new_empty")
        self.count += not free
        return func(*args, **(kwargs or {}))


def advance_table(net: Net, rounds: int, device: torch.device) -> dict[str, Any]:
    """The table "advance": ratios to "loop", and the number of operations of each."""
    torch.manual_seed(0)
    steps = advance_steps(net, device)
    readings = timing.measure(steps, rounds, device, ADVANCE)
    operations = {}
    for name, step in steps.items():
        with Operations() as found:
            step()
        operations[name] = found.count
    counted = "\n".join(f"- {name}: {count} operations" for name, count in operations.items())
    return {
        "table": ADVANCE,
        "layers": shapes(net.build()),
        "readings": asdict(readings),
        "ratios": {name: asdict(readings.ratio(name, "loop")) for name in steps},
        "operations": operations,
        "text": f"{timing.markdown(readings, 'loop')}\n\n{counted}",
    }


def table(
    net: Net, kind: str, names: Sequence[str], *, precision: str, batch: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    """One measured table: raw measurements, ratios to "plain", the text, and the tools that could not be measured."""
    torch.manual_seed(0)
    dtype = PRECISIONS[precision]
    steps: dict[str, Callable[[], None]] = {}
    absent: dict[str, str] = {}
    for name in names:
        if kind == "step":
            steps[name] = training_step(net, STEP[name], batch, dtype, device)
        elif name in WEIGHTS:
            steps[name] = weights_step(net, WEIGHTS[name], dtype, device)
        else:
            try:
                steps[name] = geotorch_step(net, PEERS[name], dtype, device)
            except ImportError as error:
                absent[name] = f"not measured: {error} (pip install geotorch)"
    readings = timing.measure(steps, rounds, device, f"{kind}, {precision}")
    return {
        "table": kind,
        "precision": precision,
        "batch": batch if kind == "step" else None,
        "layers": shapes(net.build()),
        "readings": asdict(readings),
        "ratios": {name: asdict(readings.ratio(name, "plain")) for name in steps},
        "absent": absent,
        "targets": targets(readings, kind),
        "text": timing.markdown(readings, "plain"),
    }


def targets(readings: timing.Readings, kind: str) -> list[dict[str, Any]]:
    """The targets, the measured values, and whether each target is met (by the median over the rounds)."""
    found: list[dict[str, Any]] = []
    if kind == "step":
        for name, to, limit in (("srn-k1", "sn", 1.05), ("sn", "plain", 1.15), ("srn-k1", "plain", 1.15)):
            if {name, to} <= set(readings.seconds):
                spread = readings.ratio(name, to)
                asked = f"{name} over {to}, whole step: at most {limit}"
                found.append({"target": asked, **asdict(spread), "met": spread.median <= limit})
        return found
    measured = [name for name in HARD if name in readings.seconds]
    if "rotation-qr" in measured and len(measured) > 1:
        others = [name for name in measured if name != "rotation-qr"]
        nearest = min(others, key=lambda name: readings.ratio(name, "rotation-qr").median)
        spread = readings.ratio("rotation-qr", nearest)
        asked = f"rotation-qr is the cheapest hard rotation: over the next one, {nearest}, at most 1"
        found.append({"target": asked, **asdict(spread), "met": spread.median <= 1})
    return found


def chosen(only: str, known: Iterable[str]) -> list[str]:
    """The tools in ``known`` that match the comma-separated patterns of ``only``, and "plain"; ``!`` excludes.

    Raises:
        ValueError: a pattern does not match anything in any table.
    """
    words = [word.strip() for word in only.split(",") if word.strip()]
    everywhere = list(dict.fromkeys([*WEIGHTS, *PEERS, *STEP]))
    for word in words:
        if not fnmatch.filter(everywhere, word.removeprefix("!")):
            raise ValueError(f"--only: {word!r} matches no tool; there are {', '.join(everywhere)}")
    wanted = [w for w in words if w[0] != "!"] or ["*"]
    unwanted = [w[1:] for w in words if w[0] == "!"]

    def fits(name: str, patterns: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return [name for name in known if name == "plain" or (fits(name, wanted) and not fits(name, unwanted))]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and write the raw numbers; returns the same data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights", description=__doc__)
    parser.add_argument("--net", choices=[*NETS, "all"], default="sngan-32")
    parser.add_argument("--batch", type=int, default=64, help="images per whole step (reals, and as many fakes)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto", help="auto: cuda if available, else cpu")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="auto: both if bf16 is fast")
    parser.add_argument(
        "--tables", default="", help="weights, step, advance; by default, those of the first two that are feasible"
    )
    parser.add_argument("--only", default="", help="names or patterns of tools, comma-separated; ! excludes")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    asked = parser.parse_args(arguments)
    if asked.rounds < 1 or asked.batch < 1:
        parser.error(f"--rounds is {asked.rounds} and --batch is {asked.batch}: both are at least 1")
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(automatic if asked.device == "auto" else asked.device)
    nets = list(NETS) if asked.net == "all" else [asked.net]
    fast = [p for p in PRECISIONS if p == "fp32" or fast_bf16(device.type)]
    found: list[dict[str, Any]] = []
    options = {"batch": asked.batch, "rounds": asked.rounds, "device": device}
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": timing.machine(device)}
    result |= {"rounds": asked.rounds, "c": C, "block_size": BLOCK_SIZE, "tables": found}
    try:
        words = [word.strip() for word in asked.tables.split(",") if word.strip()]
        others = ",".join(word for word in words if word != ADVANCE)
        plan = [(n, kind) for n in nets if others or not words for kind in planned(NETS[n], others, device)]
        tools = {"weights": chosen(asked.only, [*WEIGHTS, *PEERS]), "step": chosen(asked.only, STEP)}
    except ValueError as error:
        parser.error(str(error))
    if not plan and ADVANCE not in words:
        parser.error(f"--tables is {asked.tables}: {asked.net} has only layers and no training step; choose weights")

    for name, kind in plan:
        for precision in fast if asked.precision == "auto" else [asked.precision]:
            found.append({"net": name} | table(NETS[name], kind, tools[kind], precision=precision, **options))
            timing.show(found[-1])
            timing.write(result, asked.json)
    for name in nets if ADVANCE in words else []:
        found.append({"net": name} | advance_table(NETS[name], asked.rounds, device))
        print(f"\n### {name}, one power iteration for all layers\n\n{found[-1]['text']}\n")
        timing.write(result, asked.json)
    return result


if __name__ == "__main__":
    main()
