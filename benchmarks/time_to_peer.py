"""The time in which orthogan's quick recipe reaches the distance that a peer's own recipe reaches in a time limit.

Unlike ``benchmarks.time_to_fd``, each trains its own networks with its own hyperparameters on the same images. The two
alternate in one run, and their distances are measured on the same number of samples with the same reference; this time
is not counted. Samples of the last score of each are left in the folder of the logs. orthogan gets a third of the
peer's time. The level is the best distance that the peer has reached at any of its scores.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import timing
from benchmarks.rivals import ROOT, AbsentError, Contender, started
from benchmarks.setting import Setting
from benchmarks.time_to_fd import Budget, Run, score_of
from benchmarks.timing import Spread

CONFIGS = {"faces": "demo.yaml", "fashion-mnist": "fashion-mnist/3-minutes.yaml"}  # orthogan's recipe per data set
RECIPES = {
    "pytorch-gan-collections": "configs/SNGAN_CIFAR10_CNN.txt",  # the fastest of its own
    "mimicry": "examples/sngan_example.py",
}
SHARE = 1 / 3  # orthogan's time, as a share of the peer's
PEER_SCORES = 4
MOST = 0.2  # the target


def time_to_peer(
    data: str, peer: Contender, budget: Budget, *, device: str, logs: Path, images: int = 50_000
) -> dict[str, Any]:
    """The table of one data set and one peer, over random seeds; ready for JSON.

    Args:
        data: a key of ``CONFIGS``.
        peer: its kind and path.
        budget: ``seconds`` is the time limit of the peer.
    """
    name = str(peer["kind"])
    own = dict(peer) | ({"recipe": RECIPES[name]} if name in RECIPES else {})
    config = str(ROOT / "configs" / CONFIGS[data])
    one: dict[str, Any] = {"table": "time-to-peer", "data": data, "peer": name, "budget": asdict(budget)}
    one |= {"recipes": {name: RECIPES.get(name, "its defaults"), "orthogan": CONFIGS[data]}, "absent": {}}
    one |= {"targets": [], "text": ""}
    pairs: list[dict[str, Run]] = []
    try:
        for seed in range(budget.seeds):
            setting = Setting(data=data, images=images, seed=seed, device=device)
            ours: Contender = {"kind": "orthogan", "config": config, "overrides": ["data.channels=3"]}
            pairs.append(_alternate({"orthogan": ours, name: own}, name, setting, budget, logs))
    except AbsentError as error:
        one["absent"][name] = str(error)
        return one
    one["runs"] = [{who: asdict(run) for who, run in pair.items()} for pair in pairs]
    ratios = [reached(pair["orthogan"], pair[name]) for pair in pairs]
    one["ratios"] = ratios
    one["text"] = table(pairs, name, ratios)
    there = [ratio for ratio in ratios if ratio is not None]
    if there:
        spread = Spread.of(there)
        asked = f"seconds to the distance of {name} over its seconds, {data}: at most {MOST:g} in every run"
        met = len(there) == len(ratios) and max(there) <= MOST
        one["targets"] = [{"target": asked, **asdict(spread), "met": met}]
    return one


def reached(ours: Run, peer: Run) -> float | None:
    """orthogan's seconds to the best distance of the peer, divided by the peer's seconds to it; None: not reached."""
    seconds, _, level = min(peer.curve, key=lambda point: point[2])
    again = Run(ours.seed)
    for point in ours.curve:
        again.add(*point, level)
    return None if again.seconds is None else again.seconds / seconds


def table(pairs: Sequence[Mapping[str, Run]], peer: str, ratios: Sequence[float | None]) -> str:
    """Markdown: one row per random seed."""
    lines = [
        ["seed", f"{peer}: seconds, reals, FD", "orthogan: seconds, reals, FD at its end", "time to the peer's FD"]
    ]
    lines.append(["---", "---:", "---:", "---:"])
    for pair, ratio in zip(pairs, ratios, strict=True):
        best = min(pair[peer].curve, key=lambda point: point[2])
        ends = [f"{s:,.0f}, {reals:,}, {fd:.1f}" for s, reals, fd in (best, pair["orthogan"].curve[-1])]
        lines.append([str(pair[peer].seed), *ends, "not reached" if ratio is None else f"{ratio:.3f}"])
    there = [ratio for ratio in ratios if ratio is not None]
    if there:
        lines.append(["median", "", "", f"{statistics.median(there):.3f}"])
    return timing.joined(lines)


def _alternate(
    contenders: Mapping[str, Contender], peer: str, setting: Setting, budget: Budget, logs: Path
) -> dict[str, Run]:
    runs = {name: Run(setting.seed) for name in contenders}
    title = f"{setting.data}, {peer}, seed {setting.seed}"
    with (
        started(contenders, dict.fromkeys(contenders, setting), logs) as rivals,
        tqdm(total=round(budget.seconds), desc=title, unit="s", dynamic_ncols=True) as bar,
    ):
        reals = {}
        for name, rival in rivals.items():
            reals[name] = rival.hear()["ready"]["reals per step"]
        spent, steps = dict.fromkeys(contenders, 0.0), dict.fromkeys(contenders, 0)
        scores = 0

        def train(name: str, count: int) -> None:
            spent[name] += rivals[name].ask({"steps": count})["seconds"] * count
            steps[name] += count

        def score(name: str) -> None:
            picture = logs / f"{setting.data}-{name}-{setting.seed}.png"  # of the last score
            found = rivals[name].ask({"score": score_of(budget) | {"picture": str(picture.absolute())}})["fd"]
            runs[name].curve.append((spent[name], steps[name] * reals[name], found))
            bar.set_postfix_str(f"{name} {found:.1f}")

        while spent[peer] < budget.seconds:
            before = spent[peer]
            train(peer, 1)
            while spent["orthogan"] < SHARE * spent[peer]:
                train("orthogan", max(1, budget.every // reals["orthogan"]))
                score("orthogan")
            if spent[peer] >= budget.seconds * (scores + 1) / PEER_SCORES:
                scores += 1
                score(peer)
            bar.update(min(round(spent[peer]), bar.total) - min(round(before), bar.total))
    return runs
