"""The cost of evaluation in addition to the feature network, and bfloat16: ``python -m benchmarks.evaluation``.

Each table is measured in one run, in alternation. "arithmetic": the Fréchet distance of two Gaussians, compared with
scipy's matrix square root and torch-fidelity's eigenvalues of the product. "streaming": mean and covariance of
features, compared with a float64 merge of every batch. "neighbours": precision and recall, compared with
torch-fidelity. "loop": the score of a generator, compared with its feature network only. ``--noise`` instead measures
the effect of bf16 on each metric, compared with its spread over random seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from benchmarks import timing
from benchmarks.bf16_noise import noise
from orthogan import load
from orthogan.device import fast_bf16
from orthogan.evaluation.extractors.extractor import load_extractor
from orthogan.evaluation.fidelity.features import extract
from orthogan.evaluation.fidelity.frechet import frechet_distance
from orthogan.evaluation.fidelity.inception_score import InceptionScore
from orthogan.evaluation.fidelity.neighbors import CHUNK
from orthogan.evaluation.fidelity.precision_recall import NEIGHBOURHOOD, precision_recall
from orthogan.evaluation.fidelity.statistics import Gaussian, Moments
from orthogan.evaluation.images import generate_images
from orthogan.evaluation.precision import prepare_net
from orthogan.models.modes import eval_mode

TABLES = ("arithmetic", "streaming", "neighbours", "loop")
DECAY = 3.0  # decades over which the spread of synthetic features decreases, about as for Inception
Steps = Mapping[str, Callable[[], object]]


def features(rows: int, length: int, seed: int, device: torch.device) -> Tensor:
    """Correlated synthetic features (rows, length) float32 with spreads over three decades."""
    rng = torch.Generator(device).manual_seed(seed)
    spread = torch.logspace(0, -DECAY, length, device=device)
    mixing = torch.linalg.qr(torch.randn(length, length, generator=rng, device=device))[0]
    return torch.randn(rows, length, generator=rng, device=device) * spread @ mixing


def gaussian_of(x: Tensor, batch: int) -> Gaussian:
    """orthogan: features are streamed in batches."""
    moments = Moments()
    for part in x.split(batch):
        moments.add(part)
    return moments.gathered().gaussian()


def merged_each_batch(x: Tensor, batch: int) -> Tensor:
    """The simple method: Chan's float64 merge for every batch, with a new matrix each time."""
    count, mean, scatter = 0, None, None
    for part in x.split(batch):
        rows = part.double()
        centre = rows.mean(0)
        centred = rows - centre
        product = centred.T @ centred
        if mean is None or scatter is None:
            count, mean, scatter = len(rows), centre, product
            continue
        total = count + len(rows)
        delta = centre - mean
        scatter = scatter + product + torch.outer(delta, delta) * (count * len(rows) / total)
        mean = mean + delta * (len(rows) / total)
        count = total
    assert scatter is not None
    return scatter / (count - 1)


def arithmetic(rows: int, length: int, device: torch.device) -> Steps:
    """Two Gaussians of ``rows`` features each."""
    a, b = (gaussian_of(features(rows, length, seed, device), 1024) for seed in (0, 1))
    theirs = [{"mu": g.mean, "sigma": g.covariance} for g in (a, b)]
    steps: dict[str, Callable[[], object]] = {
        "ours": lambda: frechet_distance(a, b, device=device),
        "torch-fidelity": lambda: fid_statistics_to_metric(*theirs, verbose=False),
    }
    if device.type == "cuda":
        steps["ours, on the CPU"] = lambda: frechet_distance(a, b)
    return steps | {"scipy sqrtm": lambda: _by_square_root(a, b)}


def _by_square_root(a: Gaussian, b: Gaussian) -> float:
    root = np.real(np.asarray(scipy.linalg.sqrtm(a.covariance @ b.covariance)))
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root))


def streaming(rows: int, length: int, device: torch.device, batch: int = 64) -> Steps:
    """``rows`` features in batches."""
    x = features(rows, length, 0, device)
    return {"ours": lambda: gaussian_of(x, batch), "merge of every batch": lambda: merged_each_batch(x, batch)}


def neighbours(rows: int, length: int, device: torch.device) -> Steps:
    """``rows`` features per side."""
    a, b = (features(rows, length, seed, device) for seed in (0, 1))
    options = {"prc_neighborhood": NEIGHBOURHOOD, "prc_batch_size": CHUNK, "verbose": False}
    return {
        "ours": lambda: precision_recall(a, b),
        "torch-fidelity, chunked": lambda: prc_features_to_metric(a, b, save_cpu_ram=True, **options),
        "torch-fidelity, whole matrix": lambda: prc_features_to_metric(a, b, save_cpu_ram=False, **options),
    }


def loop(images: int, subject: Path, extractor: str, bf16: bool, device: torch.device, batch: int = 64) -> Steps:
    """``images`` fakes: only the feature network, all work per image, only sampling, and the distance at the end.

    The distance is computed once per score: it is negligible at 50,000 images, but visible at a few hundred.
    """
    generator = load(subject, device=device)
    net = load_extractor(extractor, device=device, bf16=bf16)
    length, classifies = net.probe(device)
    reference = Gaussian(np.zeros(length), np.eye(length), images)

    def drawn() -> list[Tensor]:
        options = {"seed": 0, "batch_size": batch, "truncation": 1.0, "device": device, "bf16": bf16}
        with eval_mode(generator), prepare_net(generator):
            return list(generate_images(generator, images, **options))

    def seen() -> Gaussian:
        streams = {("isc", "logits"): InceptionScore(images)} if classifies else {}
        options = {"device": device, "total": images, "streams": streams, "progress": False}
        return extract(drawn(), net, what="", **options).gaussian

    batches, found = drawn(), seen()
    return {
        "feature net": lambda: [net(part) for part in batches],
        "drawing, feature net, streaming": seen,
        "drawing": drawn,
        "distance": lambda: frechet_distance(found, reference, device=device),
    }


def table(kind: str, steps: Steps, base: str, rounds: int, device: torch.device, facts: dict[str, Any]):
    """Measure and print a table with ratios to ``base``."""
    readings = timing.measure({name: _silent(step) for name, step in steps.items()}, rounds, device, kind)
    ratios = {name: asdict(readings.ratio(name, base)) for name in steps}
    text = timing.markdown(readings, base)
    print(f"\n### {kind}: {', '.join(f'{name} {value}' for name, value in facts.items())}\n\n{text}\n")
    return {"table": kind, **facts, "readings": asdict(readings), "ratios": ratios, "text": text}


def _silent(step: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        step()

    return call


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and write the raw numbers; returns the same data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--tables", default=",".join(TABLES), help="tables, comma-separated (default: all)")
    parser.add_argument("--length", type=int, default=2048, help="length of the features")
    parser.add_argument("--rows", type=int, default=50_000, help="features per Gaussian in the arithmetic table")
    parser.add_argument("--streamed", type=int, default=8192, help="features to stream; time is linear in it")
    parser.add_argument("--neighbours", type=int, default=5000, help="features per side for precision and recall")
    parser.add_argument("--images", type=int, default=512, help="fakes in the loop table, and per seed of --noise")
    parser.add_argument("--subject", type=Path, default=Path("pretrained/sprites-sngan/generator.safetensors"))
    parser.add_argument("--extractor", default="efficientnet-lite0")
    parser.add_argument("--noise", action="store_true", help="bf16 and the spread over seeds, instead of times")
    parser.add_argument("--seeds", type=int, default=5, help="random seeds of --noise")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto", help="auto: cuda if available, else cpu")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    asked = parser.parse_args(arguments)
    kinds = [kind.strip() for kind in asked.tables.split(",")]
    if unknown := set(kinds) - set(TABLES):
        parser.error(f"--tables: {', '.join(unknown)} unknown; there are {', '.join(TABLES)}")
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(automatic if asked.device == "auto" else asked.device)
    found: list[dict[str, Any]] = []
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": timing.machine(device)}
    result |= {"rounds": asked.rounds, "tables": found}
    if asked.noise:
        found.append(noise(asked.subject, asked.extractor, asked.images, asked.seeds, device))
        timing.write(result, asked.json)
        return result
    for kind in kinds:
        facts: dict[str, Any] = {"length": asked.length}
        if kind == "loop":
            for bf16 in (False, True) if fast_bf16(device.type) else (False,):
                facts = {"images": asked.images, "extractor": asked.extractor, "bf16": bf16}
                steps = loop(asked.images, asked.subject, asked.extractor, bf16, device)
                found.append(table(kind, steps, "feature net", asked.rounds, device, facts))
        else:
            make, rows = {
                "arithmetic": (arithmetic, asked.rows),
                "streaming": (streaming, asked.streamed),
                "neighbours": (neighbours, asked.neighbours),
            }[kind]
            steps = make(rows, asked.length, device)
            found.append(table(kind, steps, "ours", asked.rounds, device, facts | {"rows": rows}))
        timing.write(result, asked.json)  # after each table, so that earlier results are kept if a later table fails
    return result


if __name__ == "__main__":
    main()
