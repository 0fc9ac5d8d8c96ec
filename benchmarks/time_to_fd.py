"""The training time of orthogan and the plain loop until the fakes are within a fixed Fréchet distance of the reals.

Both use the same networks, hyperparameters, weight average, and images. They alternate after the same number of reals.
In between, the distance is measured on the same number of samples with the same reference; this time is not counted.
The time starts with the first step, so it includes compilation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import timing
from benchmarks.rivals import AbsentError, Contender, Rival, started
from benchmarks.setting import Setting
from benchmarks.timing import Spread

DATA = ("sprites", "fashion-mnist")
PILOT_SEED, PILOT_SCORES = 1000, 4
SLACK = 1.05  # the level, as a multiple of the distance that the pilot reached


@dataclass(frozen=True)
class Budget:
    """The limits of the runs.

    Args:
        seconds: time limit of a run, without scoring.
        seeds: runs of each.
        level: the distance to reach; None: a pilot run of the plain loop sets it.
        samples: fakes per score; the reference has twice as many reals.
        every: reals between two scores.
        width: of both networks.
    """

    seconds: float = 240.0
    seeds: int = 3
    level: float | None = None
    samples: int = 1000
    every: int = 2560
    width: int = 32


@dataclass
class Run:
    """One run: its scores as (seconds, reals, distance), and the point where it reached the level, if it did."""

    seed: int
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    seconds: float | None = None
    reals: float | None = None

    def add(self, seconds: float, reals: int, distance: float, level: float) -> None:
        """Add a score; between two scores, an exponential decrease of the distance is assumed."""
        before = self.curve[-1] if self.curve else None
        self.curve.append((seconds, reals, distance))
        if self.seconds is not None or not distance <= level:
            return
        share = 1.0
        if before is not None and before[2] > distance > 0:
            share = math.log(before[2] / level) / math.log(before[2] / distance)
        start = before or (0.0, 0, math.nan)
        self.seconds = start[0] + share * (seconds - start[0])
        self.reals = start[1] + share * (reals - start[1])


def small_setting(data: str, width: int, seed: int, device: str) -> Setting:
    """Small networks with spectral normalization of D, and learning rates that suit both loops."""
    return Setting(
        channels=width,
        generator_channels=width,
        batch=64,
        generator_batch=64,
        n_dis=2,
        latent_dim=16,
        lr=1e-3,
        generator_lr=5e-4,
        data=data,
        images=20_000,
        image_channels=1,
        half_life=3000,
        averages=True,
        steps=10_000,
        dequantize=False,
        device=device,
        seed=seed,
    )


def time_to_fd(data: str, budget: Budget, *, device: str, keys: Sequence[str], logs: Path) -> dict[str, Any]:
    """The table of one data set: seconds and reals to the level for both loops, over seeds; ready for JSON.

    Args:
        keys: keys of orthogan's config, ``key=value``.
    """
    contenders: dict[str, Contender] = {
        "orthogan": {"kind": "orthogan", "overrides": list(keys)},
        "plain": {"kind": "plain", "bf16": False, "channels_last": False},
    }
    first = small_setting(data, budget.width, 0, device)
    one: dict[str, Any] = {"table": "time-to-fd", "data": data, "budget": asdict(budget), "setting": asdict(first)}
    one |= {"contenders": contenders, "absent": {}, "targets": [], "text": ""}
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    try:
        level, one["chosen"] = _level(contenders["plain"], data, budget, device, logs)
        for seed in range(budget.seeds):
            setting = small_setting(data, budget.width, seed, device)
            for name, run in _side_by_side(contenders, setting, budget, level, logs).items():
                runs[name].append(run)
    except AbsentError as error:
        one["absent"][data] = str(error)
        return one
    one |= {"level": level, "runs": {name: [asdict(run) for run in of] for name, of in runs.items()}}
    one["text"] = f"FD[efficientnet-lite0] of {budget.samples:,} fakes at most {level:.1f}: {one['chosen']}.\n\n"
    one["text"] += table(runs, budget)
    one["targets"] = targets(runs)
    return one


def table(runs: Mapping[str, Sequence[Run]], budget: Budget) -> str:
    """Markdown: mean and standard deviation over the runs that reached the level."""
    lines = [["", "seconds", "reals", "reached"], ["---", "---:", "---:", "---:"]]
    for name, of in runs.items():
        there = [run for run in of if run.seconds is not None]
        seconds = _mean([run.seconds for run in there if run.seconds is not None])
        reals = _mean([run.reals for run in there if run.reals is not None])
        reached = f"{len(there)} of {len(of)}"
        if len(there) < len(of):
            reached += f", the others not within {budget.seconds:g} s"
        lines.append([name, seconds, reals, reached])
    return timing.joined(lines)


def targets(runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """The ratio of orthogan to the plain loop for each seed, if both reached the level."""
    pairs = zip(runs["orthogan"], runs["plain"], strict=True)
    ratios = [a.seconds / b.seconds for a, b in pairs if a.seconds is not None and b.seconds]
    if not ratios:
        return []
    spread = Spread.of(ratios)
    asked = "seconds to the level over those of the plain loop: at most 1"
    return [{"target": asked, **asdict(spread), "met": spread.median <= 1}]


def _level(plain: Contender, data: str, budget: Budget, device: str, logs: Path) -> tuple[float, str]:
    """The distance to reach, and a description of how it was set."""
    if budget.level is not None:
        return budget.level, "given by --level"
    setting = small_setting(data, budget.width, PILOT_SEED, device)
    run = Run(PILOT_SEED)
    with started({"pilot": plain}, {"pilot": setting}, logs) as rivals:
        rivals["pilot"].hear()
        for _ in tqdm(range(PILOT_SCORES), desc=f"{data}, pilot", dynamic_ncols=True):
            _train_and_score(rivals["pilot"], run, setting, budget, level=0.0)
    best = min(distance for _, _, distance in run.curve)
    what = f"{SLACK} times the best of {PILOT_SCORES} scores ({best:.1f}) of the plain loop with seed {PILOT_SEED}"
    return SLACK * best, f"{what} on {run.curve[-1][1]:,} reals, a pilot"


def _side_by_side(
    contenders: Mapping[str, Contender], setting: Setting, budget: Budget, level: float, logs: Path
) -> dict[str, Run]:
    """One run of each loop with one seed; the two alternate."""
    runs = {name: Run(setting.seed) for name in contenders}
    with (
        started(contenders, dict.fromkeys(contenders, setting), logs) as rivals,
        tqdm(desc=f"{setting.data}, seed {setting.seed}", unit="score", dynamic_ncols=True) as bar,
    ):
        for rival in rivals.values():
            rival.hear()
        while going := [name for name, run in runs.items() if _goes_on(run, budget)]:
            for name in going:
                _train_and_score(rivals[name], runs[name], setting, budget, level)
                bar.set_postfix_str(f"{name} {runs[name].curve[-1][2]:.1f}, level {level:.1f}")
                bar.update()
    return runs


def _goes_on(run: Run, budget: Budget) -> bool:
    return run.seconds is None and (not run.curve or run.curve[-1][0] < budget.seconds)


def _train_and_score(rival: Rival, run: Run, setting: Setting, budget: Budget, level: float) -> None:
    steps = max(1, budget.every // setting.reals)
    spent = rival.ask({"steps": steps})["seconds"] * steps
    scored = rival.ask({"score": score_of(budget)})["fd"]
    seconds, reals, _ = run.curve[-1] if run.curve else (0.0, 0, 0.0)
    run.add(seconds + spent, reals + steps * setting.reals, scored, level)


def score_of(budget: Budget) -> dict[str, Any]:
    """Arguments of ``orthogan.evaluation.evaluate``, the same for both loops."""
    reference = 2 * budget.samples
    return {"samples": budget.samples, "reference_samples": reference, "extractor": "efficientnet-lite0", "seed": 0}


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):,.0f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):,.0f}{spread}"
