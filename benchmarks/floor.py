"""The minimum work of a training step: operations and bytes of each phase, and the minimum time on this machine.

The operations are those of all matrix products and convolutions, forward and backward, as counted by torch. The bytes
are what these operations read and write once, in their own data type, if everything between them is fused. The peak
rates are measured with a large copy and large matrix products in float32 and bfloat16. They change with the load of the
machine, so ``python -m benchmarks.run --tables floor`` measures them in turns with the step.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm

from benchmarks import timing
from benchmarks.ours import config_of
from benchmarks.rivals import LEAST, Contender, started
from benchmarks.setting import Setting, source_of
from benchmarks.side_by_side import OURS, at_once
from benchmarks.timing import machine, synchronize, write
from orthogan.training.gan.task import GanTask
from orthogan.training.loop import update
from orthogan.training.precision import make_accelerator
from orthogan.training.task import Task
from orthogan.training.watch import FiniteWatch

FLOOR = "minimum"
LEAST_SHARE = 0.6  # of the minimum time in that of a step, at Chainer widths


@dataclass(frozen=True)
class Least:
    """Floating-point operations and bytes."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Least) -> Least:
        return Least(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, ceilings: dict[str, float], precision: str) -> float:
        """The minimum time: that of the arithmetic or of the memory traffic, whichever is longer."""
        return max(self.flops / ceilings[precision], self.bytes / ceilings["copy"])


class Work(TorchDispatchMode):
    """Within the block, counts the work of matrix products and convolutions, forward and backward.

    ``flops``: floating-point operations (a multiplication and an addition are two). ``bytes``: what they read and
    write, each tensor once per call, in its own data type. Operations inside compiled functions are not visible.
    """

    # torch's FlopCounterMode also tracks the current module, and fails if a module gets a bare parameter as input

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += count(*args, **kwargs, out_val=out)
            tensors = [t for t in [*args, *(out if isinstance(out, tuple | list) else [out])] if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def count(task: Task, accelerator: Any, step: int = 0) -> dict[str, Least]:
    """The work of each phase of ``step``, by name, including the preparation of its batch; this runs the step."""
    found: dict[str, Least] = {}
    phases, watch = iter(task.phases(step)), FiniteWatch()
    while True:
        with Work() as work:
            phase = next(phases, None)  # the fakes of a D update are made here
            if phase is None:
                return found
            update(phase, task, accelerator, watch, step)
        found[phase.name] = found.get(phase.name, Least()) + Least(work.flops, work.bytes)


def ceilings(device: torch.device, size: int = 2048, copied: int = 1 << 28) -> dict[str, float]:
    """Bytes per second of a copy (read and written), and operations per second of ``size``-square matrix products."""
    source = torch.randn(copied // 4, device=device)
    target = torch.empty_like(source)
    found = {"copy": 2 * copied / _least(lambda: target.copy_(source), device)}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        found[name] = 2 * size**3 / _least(lambda a=a, b=b: a @ b, device)
        x = torch.randn(64, 128, 16, 16, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
        layer = nn.Conv2d(128, 128, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)  # pyright: ignore
        with torch.no_grad():
            rate = 2 * 64 * 256 * 9 * 128 * 128 / _least(lambda x=x, layer=layer: layer(x), device)
        found[name] = max(found[name], rate)  # the peak rate is the best one measured
    return found


def _least(call: Callable[[], Any], device: torch.device, times: int = 7) -> float:
    best = float("inf")
    for _ in range(times):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(5):
            call()
        synchronize(device)
        best = min(best, (time.perf_counter() - start) / 5)
    return best


def table(work: dict[str, Least], limits: dict[str, float], precision: str) -> str:
    """Markdown: each phase (phases with the same name are added up) and the whole step."""
    lines = ["| phase | 10^12 operations | 10^9 bytes | least ms |", "| --- | ---: | ---: | ---: |"]
    for name, one in [*work.items(), ("step", sum(work.values(), Least()))]:
        least = 1e3 * one.seconds(limits, precision)
        lines.append(f"| {name} | {one.flops / 1e12:.3f} | {one.bytes / 1e9:.2f} | {least:,.1f} |")
    return "\n".join(lines)


def counted(setting: Setting, overrides: Sequence[str] = ()) -> tuple[dict[str, Least], str]:
    """The work of each phase of a step, and its precision; it is not compiled, which would hide operations."""
    with tempfile.TemporaryDirectory(prefix="orthogan-floor-") as folder:
        config = config_of(setting, [*overrides, "training.compile=none"], folder)
        accelerator = make_accelerator(config.training)
        task = GanTask(config, source_of(setting), accelerator)
        try:
            return count(task, accelerator), "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
        finally:
            task.close()


def floor_in_turns(
    contender: Contender, setting: Setting, *, rounds: int, steps: int | None, warm_up: int, logs: Path
) -> dict[str, Any]:
    """The table: in each round the peak rates, then the step of orthogan, and their ratio.

    Args:
        steps: steps per measurement; None: as many as take ``LEAST`` seconds.

    Raises:
        AbsentError: the process of orthogan ended.
    """
    device = torch.device(setting.device)
    work, precision = counted(setting, contender["overrides"])
    readings, rates = timing.Readings(seconds={OURS: [], FLOOR: []}), []
    with started({OURS: contender}, {OURS: setting}, logs) as rivals:
        rival = rivals[OURS]
        rival.hear()
        once = 0.0
        for _ in range(warm_up):
            once = at_once([rival], 1)
        readings.repeats[OURS] = steps or max(1, math.ceil(LEAST / once))
        for _ in tqdm(range(rounds), "floor", dynamic_ncols=True):
            readings.load.append(timing.load_average())
            rates.append(ceilings(device))
            least = sum(one.seconds(rates[-1], precision) for one in work.values())
            readings.seconds[FLOOR].append(least)
            readings.seconds[OURS].append(at_once([rival], readings.repeats[OURS]))
        readings.load.append(timing.load_average())
    share = readings.ratio(FLOOR, OURS)
    targets = []
    if torch.cpu._is_amx_tile_supported() and setting.device == "cpu":
        asked = f"minimum time over time of a step, with AMX: at least {LEAST_SHARE}"
        targets = [{"target": asked, **asdict(share), "met": share.median >= LEAST_SHARE}]
    middle = {name: statistics.median(one[name] for one in rates) for name in rates[0]}
    lines = [
        ", ".join(f"{name} {value / 1e9:,.0f} G/s" for name, value in middle.items()),
        "",
        table(work, middle, precision),
        "",
        f"step: {1e3 * statistics.median(readings.seconds[OURS]):,.1f} ms; minimum over step: {share.in_words()}",
    ]
    return {
        "table": "floor",
        "setting": asdict(setting),
        "precision": precision,
        "phases": {name: vars(one) for name, one in work.items()},
        "rates": rates,
        "readings": asdict(readings),
        "absent": {},
        "targets": targets,
        "text": "\n".join(lines),
    }


def main() -> None:
    """Count the work, measure the peak rates, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64, help="reals per D update; a G update has twice as many fakes")
    parser.add_argument("--channels", type=int, default=128, help="feature maps of D; G has twice as many")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    limits = ceilings(torch.device(args.device))
    setting = Setting(
        channels=args.channels,
        generator_channels=2 * args.channels,
        batch=args.batch,
        generator_batch=2 * args.batch,
        images=max(1000, args.batch),
        device=args.device,
    )
    work, precision = counted(setting)
    print(", ".join(f"{name} {value / 1e9:,.0f} G/s" for name, value in limits.items()))
    print(table(work, limits, precision))
    if args.json:
        content = {
            "machine": machine(torch.device(args.device)),
            "ceilings": limits,
            "precision": precision,
            "batch": args.batch,
        }
        content["phases"] = {name: vars(one) for name, one in work.items()}
        write(content, args.json)


if __name__ == "__main__":
    main()
