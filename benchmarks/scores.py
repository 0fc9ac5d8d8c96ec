"""The same scores by orthogan, torchmetrics, torch-fidelity and clean-fid: value, time, memory.

python -m benchmarks.scores --images 2000

All get the same uint8 images and the same feature network, a fixed random one that needs no weights. KID is that of all
images at once, so that no tool draws subsets. Each score is computed in a separate process, after a call on 64 images
that imports what the tool needs. The memory is the peak of the process minus its peak before. The tools take turns, and
ratios are computed within a round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Subset
from tqdm import tqdm

from benchmarks import timing
from benchmarks.gate import peak_rss
from benchmarks.rivals import ROOT
from benchmarks.timing import Spread
from orthogan.evaluation.fidelity.precision_recall import NEIGHBOURHOOD

SIDE, LENGTH, BATCH, WARM_UP = 32, 512, 64, 64
Values = dict[str, float]


class Features(nn.Module):
    """Images uint8 (n, 3, 32, 32) -> features (n, LENGTH): a random layer with ReLU on 8 x 8 means."""

    resize = "none"

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.weight = nn.Buffer(torch.randn(3 * 64, LENGTH, generator=rng) / 8)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, float32."""
        means = functional.avg_pool2d(images.float() / 255 - 0.5, SIDE // 8)
        return functional.relu(means.flatten(1) @ self.weight)


def pictures(count: int, seed: int) -> Tensor:
    """Smooth random images uint8 (count, 3, 32, 32); another seed has another contrast, so that distances are not 0."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=rng) * (40 + 4 * seed)
    images = functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return (images + 128).clamp(0, 255).to(torch.uint8)


def one_by_one(images: Tensor) -> Subset[Tensor]:
    """The images as a data set, which torch-fidelity reads."""
    data: Any = images  # it has a length and items
    return Subset(data, range(len(images)))


def orthogan_scores(metric: str, fakes: Tensor, reals: Tensor) -> Values:
    """orthogan.evaluate."""
    import orthogan

    names = {"FID": "fid", "KID": "kid_full", "precision and recall": "prc"}
    (found,) = orthogan.evaluate(
        fakes,
        reals,
        metrics=[names[metric]],
        extractor="benchmarks.scores:Features",
        samples=len(fakes),
        reference_samples=None,
        batch_size=BATCH,
        device="cpu",
        progress=False,
    )
    return {part: found.parts[part] for part in ("precision", "recall")} if found.parts else {metric: found.value}


def torchmetrics_scores(metric: str, fakes: Tensor, reals: Tensor) -> Values:
    """torchmetrics' metric objects, updated in batches."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    if metric == "FID":
        score: Any = FrechetInceptionDistance(Features(), input_img_size=(3, SIDE, SIDE))
    else:
        score = KernelInceptionDistance(Features(), subsets=1, subset_size=len(fakes))
    for images, real in ((reals, True), (fakes, False)):
        for batch in images.split(BATCH):
            score.update(batch, real=real)
    found = score.compute()
    return {metric: float(found if metric == "FID" else found[0])}


def torch_fidelity_scores(metric: str, fakes: Tensor, reals: Tensor) -> Values:
    """torch_fidelity.calculate_metrics with a registered feature extractor."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Registered(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.net = Features()

        def forward(self, input: Tensor) -> tuple[Tensor, ...]:
            return (self.net(input),)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

    if "orthogan-benchmark" not in FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor("orthogan-benchmark", Registered)
    options: dict[str, Any]
    options, names = {
        "FID": ({"fid": True}, {"FID": "frechet_inception_distance"}),
        "KID": (
            {"kid": True, "kid_subsets": 1, "kid_subset_size": len(fakes)},
            {"KID": "kernel_inception_distance_mean"},
        ),
        "precision and recall": (
            {"prc": True, "prc_neighborhood": NEIGHBOURHOOD},
            {"precision": "precision", "recall": "recall"},
        ),
    }[metric]
    found = torch_fidelity.calculate_metrics(
        input1=one_by_one(fakes),
        input2=one_by_one(reals),
        feature_extractor="orthogan-benchmark",
        batch_size=BATCH,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        **options,
    )
    return {part: float(found[name]) for part, name in names.items()}


def clean_fid_scores(metric: str, fakes: Tensor, reals: Tensor) -> Values:
    """clean-fid's batch features and distances; it has no reader of images in memory."""
    from cleanfid import fid

    net = Features()
    rows = [
        np.concatenate([fid.get_batch_features(batch, net, torch.device("cpu")) for batch in images.split(BATCH)])
        for images in (fakes, reals)
    ]
    if metric == "KID":
        return {metric: float(fid.kernel_distance(*rows, num_subsets=1, max_subset_size=len(fakes)))}
    (mean, spread), (other, others) = ((side.mean(0), np.cov(side, rowvar=False)) for side in rows)
    return {metric: float(fid.frechet_distance(mean, spread, other, others))}


TOOLS: Mapping[str, Callable[[str, Tensor, Tensor], Values]] = {
    "orthogan": orthogan_scores,
    "torchmetrics": torchmetrics_scores,
    "torch-fidelity": torch_fidelity_scores,
    "clean-fid": clean_fid_scores,
}
METRICS: Mapping[str, Sequence[str]] = {
    "FID": tuple(TOOLS),
    "KID": tuple(TOOLS),
    "precision and recall": ("orthogan", "torch-fidelity"),
}


def one(metric: str, tool: str, images: int) -> dict[str, Any]:
    """The score of one tool in this process: values, seconds, and MiB above the peak of a small call."""
    fakes, reals = pictures(images, 0), pictures(images, 1)
    with torch.inference_mode():
        TOOLS[tool](metric, fakes[:WARM_UP], reals[:WARM_UP])
        before, began = peak_rss(), time.perf_counter()
        values = TOOLS[tool](metric, fakes, reals)
    return {"values": values, "seconds": time.perf_counter() - began, "mib": (peak_rss() - before) / 2**20}


def measured(images: int, rounds: int) -> list[dict[str, Any]]:
    """One table per metric; every second round runs in reverse order."""
    tables = []
    total = rounds * sum(map(len, METRICS.values()))
    with tqdm(total=total, desc="scores", dynamic_ncols=True) as bar:
        for metric, tools in METRICS.items():
            found: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
            for turn in range(rounds):
                for tool in tools if turn % 2 == 0 else reversed(tools):
                    found[tool].append(_in_a_process(metric, tool, images))
                    bar.update()
            tables.append({"metric": metric, "found": found, "text": table(found)})
    return tables


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: values, relative difference from orthogan, times as ratios within a round, and memory."""
    base = found["orthogan"]
    parts = list(base[0]["values"])
    lines = [["", *parts, "relative difference", "s", "time over orthogan", "peak MiB"]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for tool, calls in found.items():
        values = calls[0]["values"]
        apart = max(abs(values[part] / base[0]["values"][part] - 1) for part in parts)
        ratio = Spread.of([call["seconds"] / mine["seconds"] for call, mine in zip(calls, base, strict=True)])
        seconds = Spread.of([call["seconds"] for call in calls])
        memory = Spread.of([call["mib"] for call in calls])
        shown = [f"{values[part]:.6g}" for part in parts]
        lines.append(
            [
                tool,
                *shown,
                f"{apart:.1g}" if apart else "0",
                f"{seconds.median:.2f}",
                ratio.in_words(),
                f"{memory.median:.0f}",
            ]
        )
    return timing.joined(lines)


def _in_a_process(metric: str, tool: str, images: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scores", "--images", str(images), "--one", metric, tool]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Measure, print the tables, and write the raw numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scores", description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="images per side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    parser.add_argument("--one", nargs=2, metavar=("METRIC", "TOOL"), help="only this one, in this process")
    asked = parser.parse_args(arguments)
    if asked.one:
        metric, tool = asked.one
        print(json.dumps(one(metric, tool, asked.images)))
        return None
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": timing.machine(torch.device("cpu"))}
    result |= {"images": asked.images, "rounds": asked.rounds, "tables": measured(asked.images, asked.rounds)}
    for each in result["tables"]:
        print(f"\n### {each['metric']}, {asked.images:,} images per side\n\n{each['text']}")
    timing.write(result, asked.json)
    return result


if __name__ == "__main__":
    main()
