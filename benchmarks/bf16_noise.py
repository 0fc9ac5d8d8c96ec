"""The effect of bfloat16 on scores of the same images, compared with the spread over random seeds of sampling."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from orthogan import load
from orthogan.data import ImageSource, open_configured
from orthogan.evaluation.extractors.extractor import Extractor, load_extractor
from orthogan.evaluation.fidelity.features import Features, extract
from orthogan.evaluation.fidelity.frechet import frechet_distance
from orthogan.evaluation.fidelity.kid import SUBSET_SIZE, Subsets, kernel_distance
from orthogan.evaluation.fidelity.precision_recall import precision_recall
from orthogan.evaluation.images import generate_images, real
from orthogan.evaluation.precision import Precision, prepare_net
from orthogan.models.modes import eval_mode
from orthogan.models.open import open_model
from orthogan.models.protocol import Generator

VARIANTS = {
    "fp32": Precision(False, False),
    "bf16 sampling": Precision(True, False),
    "bf16 features": Precision(False, True),
    "bf16 both": Precision(True, True),
}
BATCH = 64


def noise(subject: Path, extractor: str, images: int, seeds: int, device: torch.device) -> dict[str, Any]:
    """Each metric by variant and seed, with ``images`` fakes and as many reals; printed as a table.

    "shift": mean over seeds of the score minus the fp32 score of the same latents; "spread": standard deviation of the
    fp32 score over the seeds. bf16 features are compared with bf16 features of the real images.
    """
    generator = load(subject, device=device)
    source = open_configured(open_model(subject).config.data)
    nets = {bf16: load_extractor(extractor, device=device, bf16=bf16) for bf16 in (False, True)}
    reals = {bf16: _of_source(source, net, images, device) for bf16, net in nets.items()}
    found: dict[str, dict[str, list[float]]] = {variant: {} for variant in VARIANTS}
    with tqdm(total=seeds * len(VARIANTS), desc=f"bf16 on {subject.name}") as bar:
        for seed in range(seeds):
            for variant, precision in VARIANTS.items():
                drawn = _draw(generator, images, seed, precision.sampling, device)
                fakes = _extract(drawn, nets[precision.features], images, device)
                for metric, value in scores(fakes, reals[precision.features], device).items():
                    found[variant].setdefault(metric, []).append(value)
                bar.update()
    rows = [summary(metric, found) for metric in found["fp32"]]
    text = _markdown(rows)
    print(f"\n### {subject.stem}, {extractor}, {images} images per side, {seeds} seeds\n\n{text}\n")
    facts = {"subject": str(subject), "extractor": extractor, "images": images, "seeds": seeds}
    return {"table": "noise", **facts, "scores": found, "summary": rows, "text": text}


def scores(fakes: Features, reals: Features, device: torch.device) -> dict[str, float]:
    """FD, KD (if there are enough images for its subsets), precision, and recall."""
    found = {"FD": frechet_distance(fakes.gaussian, reals.gaussian, device=device)}
    counts = [len(side.rows) for side in (fakes, reals)]
    if min(counts) >= SUBSET_SIZE:
        found["KD"] = kernel_distance(Subsets.of(*counts), *((side.numbers, side.rows) for side in (fakes, reals)))[0]
    parts = precision_recall(fakes.rows, reals.rows, device=device)
    return found | {name: parts[name] for name in ("precision", "recall")}


def summary(metric: str, found: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Mean and spread of fp32; for each variant, the mean shift, and the rms shift divided by that spread."""
    plain = found["fp32"][metric]
    spread = statistics.stdev(plain) if len(plain) > 1 else 0.0
    shifts = {}
    for variant in list(found)[1:]:
        moved = [a - b for a, b in zip(found[variant][metric], plain, strict=True)]
        size = statistics.fmean(x**2 for x in moved) ** 0.5
        shifts[variant] = {"mean": statistics.fmean(moved), "rms": size, "rms / spread": size / max(spread, 1e-30)}
    return {"metric": metric, "mean": statistics.fmean(plain), "spread": spread, "shifts": shifts}


def _markdown(rows: list[dict[str, Any]]) -> str:
    variants = list(rows[0]["shifts"])
    lines = [["", "fp32 ± spread over seeds", *(f"{v}: mean shift (rms / spread)" for v in variants)]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        cells = [f"{s['mean']:+.2g} ({s['rms / spread']:.2f})" for s in row["shifts"].values()]
        lines.append([row["metric"], f"{row['mean']:.4g} ± {row['spread']:.2g}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _draw(generator: Generator, images: int, seed: int, bf16: bool, device: torch.device) -> list[Tensor]:
    with eval_mode(generator), prepare_net(generator):
        options = {"seed": seed, "batch_size": BATCH, "truncation": 1.0, "device": device, "bf16": bf16}
        return list(generate_images(generator, images, **options))


def _of_source(source: ImageSource, net: Extractor, images: int, device: torch.device) -> Features:
    return _extract(list(real(source, images, batch_size=BATCH)), net, min(images, len(source)), device)


def _extract(batches: list[Tensor], net: Extractor, images: int, device: torch.device) -> Features:
    options = {"device": device, "total": images, "progress": False, "what": "features"}
    return extract(batches, net, keep=np.arange(images), **options)
