"""All GPU benchmarks in one call of less than ten minutes: ``python -m benchmarks.gpu --out DIR``.

It measures the peak rates of the machine (copy, matrix products, convolution), the operations and bytes of a step and
its minimum time (floor), the step table at two batch sizes with the variants, the effect of bf16 and compilation on the
losses, and the arithmetic of evaluation. ``DIR/gpu-DATE.json`` is written after each part; a short table is printed at
the end. ``--rehearse`` runs all parts on the CPU, at a size at which the numbers are meaningless.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import timing
from benchmarks.floor import ceilings, count
from benchmarks.ours import config_of
from benchmarks.peers import PEERS
from benchmarks.rivals import Contender, race
from benchmarks.run import OURS, PLAIN, VARIANTS, ours, recorded, step_table, step_targets, variant_targets
from benchmarks.setting import Setting, source_of
from orthogan.training.gan.task import GanTask
from orthogan.training.loop import update
from orthogan.training.precision import make_accelerator
from orthogan.training.watch import FiniteWatch

FLOOR_SHARE = 0.6  # share of the floor that a step at the larger batch must reach
NOISE = 0.1  # mean difference of the losses, divided by the larger of 1 and the loss
SMALL = ("orthogan", "orthogan not compiled", "orthogan CUDA graphs", "orthogan fp32", "orthogan fakes at once")
LARGE = ("orthogan", "orthogan not compiled", "orthogan CUDA graphs")


@dataclass(frozen=True)
class Scale:
    """Sizes of the benchmarks, and number of measurements."""

    device: str
    batches: tuple[int, int]
    channels: int
    rounds: int
    steps: int | None  # per measurement
    matrix: int  # side of the matrices for the peak rates
    copied: int  # bytes
    losses: int  # steps in the comparison of losses
    keys: tuple[str, ...]  # keys of orthogan's config, for all contenders
    evaluation: tuple[str, ...]  # options of benchmarks.evaluation

    def setting(self, batch: int) -> Setting:
        """SN-GAN at this size."""
        return Setting(
            channels=self.channels,
            generator_channels=2 * self.channels,
            batch=batch,
            generator_batch=2 * batch,
            images=50_000 if self.device == "cuda" else 256,
            device=self.device,
        )


WHOLE = Scale("cuda", (64, 512), 128, 4, None, 8192, 1 << 31, 50, (), ("--tables", "arithmetic,neighbours"))
REHEARSAL = Scale(
    device="cpu",
    batches=(2, 4),
    channels=4,
    rounds=1,
    steps=1,
    matrix=64,
    copied=1 << 16,
    losses=2,
    keys=("training.compile=none",),
    evaluation=("--tables", "arithmetic", "--length", "8", "--rows", "64"),
)


def limits(scale: Scale) -> dict[str, float]:
    """Peak bytes/s of a copy and FLOP/s of products in fp32, tf32, and bf16, and of the widest bf16 convolution."""
    device = torch.device(scale.device)
    found = ceilings(device, scale.matrix, scale.copied)
    torch.backends.cuda.matmul.allow_tf32, before = True, torch.backends.cuda.matmul.allow_tf32
    found["tf32"] = ceilings(device, scale.matrix, scale.copied)["fp32"]
    torch.backends.cuda.matmul.allow_tf32 = before
    width, batch, side = 2 * scale.channels, 2 * scale.batches[1], 32
    layout = {"memory_format": torch.channels_last}
    layer = nn.Conv2d(width, width, 3, padding=1, device=device, dtype=torch.bfloat16).to(**layout)  # pyright: ignore
    x = torch.randn(batch, width, side, side, device=device, dtype=torch.bfloat16).contiguous(**layout)

    def convolve() -> None:
        with torch.no_grad():
            layer(x)

    readings = timing.measure({"convolution": convolve}, 5, device, "ceilings")
    found["bf16 convolution"] = 2 * batch * side**2 * 9 * width**2 / min(readings.seconds["convolution"])
    return found


def work(scale: Scale, batch: int, found: Mapping[str, float]) -> dict[str, Any]:
    """Operations and bytes of a step, and its minimum time at the best rate and at the rate of convolutions."""
    with tempfile.TemporaryDirectory() as folder:
        # operations inside compiled functions are not visible
        config = config_of(scale.setting(batch), [*scale.keys, "training.compile=none"], folder)
        accelerator = make_accelerator(config.training)
        task = GanTask(config, source_of(scale.setting(batch)), accelerator)
        phases = count(task, accelerator)
        task.close()
    precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    by_convolutions = {**found, precision: found["bf16 convolution"] if precision == "bf16" else found[precision]}
    return {
        "batch": batch,
        "precision": precision,
        "phases": {name: asdict(one) for name, one in phases.items()},
        "flops": sum(one.flops for one in phases.values()),
        "bytes": sum(one.bytes for one in phases.values()),
        "floor": sum(one.seconds(dict(found), precision) for one in phases.values()),
        "floor by convolutions": sum(one.seconds(by_convolutions, precision) for one in phases.values()),
    }


def step(scale: Scale, batch: int, names: Sequence[str], peers: Mapping[str, str], logs: Path) -> dict[str, Any]:
    """The step table at ``batch``; for the smaller batch, it includes the variants."""
    entered: dict[str, Contender] = {name: ours([*OURS[name], *scale.keys]) for name in names}
    entered |= {name: {"kind": "plain", **PLAIN[name]} for name in ("plain", "plain bf16 channels_last")}
    entered |= {name: {"kind": name, "path": path} for name, path in peers.items()}
    if batch == scale.batches[0]:
        entered |= {name: ours([*keys, *scale.keys]) for name, keys in VARIANTS.items()}
    found = race(
        entered,
        scale.setting(batch),
        rounds=scale.rounds,
        steps=scale.steps,
        warm_up=3 if scale.steps is None else 1,
        logs=logs,
        title=f"step, batch {batch}",
        least=1.0,
    )
    text = step_table(found, scale.setting(batch))
    targets = [*step_targets(found, scale.device), *variant_targets(found)]
    return {"batch": batch, **asdict(found), "contenders": recorded(entered), "text": text, "targets": targets}


def losses(scale: Scale) -> dict[str, Any]:
    """The losses of D and G in fp32 (no TF32, not compiled) and by default, with the same random seed and data."""
    plain = ["training.precision=fp32", "training.compile=none"]
    cudnn: Any = torch.backends.cudnn
    cudnn.allow_tf32, before = False, cudnn.allow_tf32
    exact = _curve(scale, [*scale.keys, *plain])
    cudnn.allow_tf32 = before
    default = _curve(scale, scale.keys)
    pairs = [pair for key in exact for pair in zip(default[key], exact[key], strict=True)]
    gaps = [abs(a - b) / max(1.0, abs(b)) for a, b in pairs]
    gap = statistics.mean(gaps)
    asked = f"losses by default and in fp32, mean difference over {scale.losses} steps: at most {NOISE}"
    target = {"target": asked, "median": gap, "min": min(gaps), "max": max(gaps)}
    return {"fp32": exact, "default": default, "target": target | {"met": gap <= NOISE}}


def _curve(scale: Scale, keys: Sequence[str]) -> dict[str, list[float]]:
    setting = scale.setting(scale.batches[0])
    found: dict[str, list[torch.Tensor]] = {"D/loss": [], "G/loss": []}
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(setting, keys, folder)
        accelerator = make_accelerator(config.training)
        task, watch = GanTask(config, source_of(setting), accelerator), FiniteWatch()
        for number in range(scale.losses):
            for phase in task.phases(number):
                logs = update(phase, task, accelerator, watch, number)
                for key in found:
                    if key in logs:
                        found[key].append(logs[key].detach().clone())
            task.finish_step(number)
        watch.check(task.nets)
        task.close()
    return {key: torch.stack(values).tolist() for key, values in found.items()}


def evaluation(scale: Scale) -> dict[str, Any]:
    """The tables of ``benchmarks.evaluation``."""
    from benchmarks.evaluation import main as tables

    return tables([*scale.evaluation, "--rounds", str(min(2, scale.rounds)), "--device", scale.device])


def floor_target(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How close orthogan's best step at the larger batch comes to its floor."""
    targets = []
    for key in ("floor", "floor by convolutions"):
        large, seconds = found["work"][-1], found["steps"]["large"]["readings"]["seconds"]
        mine = {name: values for name, values in seconds.items() if name in LARGE}
        if not mine:
            continue
        name = min(mine, key=lambda name: statistics.median(mine[name]))
        spread = timing.Spread.of([large[key] / value for value in mine[name]])
        asked = f"{name}, batch {large['batch']}: share of its {key} at least {FLOOR_SHARE}"
        targets.append({"target": asked, **asdict(spread), "met": spread.median >= FLOOR_SHARE})
    return targets


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure each section, write the results after each, and print the tables; returns the same data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu-DATE.json")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--minutes", type=float, default=8.5, help="start no section after this many minutes")
    parser.add_argument("--rehearse", action="store_true", help="run on the CPU at a tiny size")
    asked = parser.parse_args(arguments)
    if not asked.rehearse and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --rehearse runs all parts on the CPU")
    scale = REHEARSAL if asked.rehearse else WHOLE
    peers = dict(word.partition("=")[::2] for word in asked.peer)
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peer: there is no {', '.join(unknown)}; choose out of {', '.join(PEERS)}")
    began = time.monotonic()
    now = datetime.now(UTC)
    result: dict[str, Any] = {"date": now.isoformat(timespec="seconds"), "rehearsal": asked.rehearse}
    result |= {"machine": timing.machine(torch.device(scale.device)), "scale": asdict(scale)}
    result |= {"ceilings": {}, "work": [], "steps": {}, "seconds": {}, "failed": {}}
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / f"gpu-{now:%Y-%m-%d}.json"

    def section(name: str, do: Callable[[], Any]) -> Any:
        """The result of a section, or None if it failed or there was no time; the other sections still run."""
        start = time.monotonic()
        value = None
        if start - began > 60 * asked.minutes:
            result["failed"][name] = f"not begun after {asked.minutes:g} minutes"
        else:
            try:
                value = do()
            except Exception as error:
                traceback.print_exc()
                result["failed"][name] = f"{type(error).__name__}: {str(error).strip()}"
        if scale.device == "cuda":
            torch.cuda.empty_cache()
        result["seconds"][name] = round(time.monotonic() - start, 1)
        return value

    def keep() -> None:
        timing.write(result, path)

    result["ceilings"] = section("ceilings", partial(limits, scale)) or {}
    keep()
    for batch in scale.batches:
        one = section(f"work {batch}", partial(work, scale, batch, result["ceilings"]))
        result["work"] += [one] if one else []
    keep()
    for name, batch, names in (("large", scale.batches[1], LARGE), ("small", scale.batches[0], SMALL)):
        with tempfile.TemporaryDirectory() as logs:
            one = section(f"step {batch}", partial(step, scale, batch, names, peers, Path(logs)))
        if one:
            result["steps"][name] = one
        keep()
    result["losses"] = section("losses", partial(losses, scale))
    keep()
    result["evaluation"] = section("evaluation", partial(evaluation, scale))
    result["targets"] = _targets(result)
    keep()
    _show(result, path)
    return result


def _targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [target for one in result["steps"].values() for target in one["targets"]]
    if result["losses"]:
        found.append(result["losses"]["target"])
    if result["work"] and "large" in result["steps"]:
        found += floor_target(result)
    return found


def _show(result: Mapping[str, Any], path: Path) -> None:
    rates = ", ".join(f"{name} {value / 1e12:,.2f}" for name, value in result["ceilings"].items())
    print(f"\n## {result['machine']['gpu'] or result['machine']['processor']}\n\nPeak rates [10^12 / s]: {rates}\n")
    lines = [["batch", "10^12 FLOP", "GB", "floor ms", "by convolutions ms"], ["---:"] * 5]
    for one in result["work"]:
        floors = [f"{1e3 * one[key]:,.2f}" for key in ("floor", "floor by convolutions")]
        lines.append([str(one["batch"]), f"{one['flops'] / 1e12:,.2f}", f"{one['bytes'] / 1e9:,.1f}", *floors])
    print(timing.joined(lines))
    absent = dict(result["failed"])
    for one in result["steps"].values():
        print(f"\n### batch {one['batch']}\n\n{one['text']}\n")
        absent |= {f"{name}, batch {one['batch']}": reason for name, reason in one["absent"].items()}
    timing.show_outcome(absent, result["targets"])
    print(f"\nIn {sum(result['seconds'].values()):.0f} s; raw numbers in {path}")


if __name__ == "__main__":
    main()
