"""Choose the length of the generator's weight average after training (post-hoc EMA, Karras et al. 2024).

The run must have been trained with training.ema={kind: power}, which stores averages of several lengths at intervals.
The length is the standard deviation of the average's profile as a share of the training: 0.05 is a short average and
0.2 a long one. --search scores a range of lengths and writes the best one.

Example: orthogan ema runs/faces --search 0.02-0.2 --metrics fid --samples 10000 --out faces.safetensors
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthogan.cli.arguments import add_device, add_json, add_trust, real, refuse_unused, samples, whole
from orthogan.errors import UserError

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--length", type=real(0, 0.28), help="relative length of the average, such as 0.08")
    parser.add_argument("--search", metavar="FROM-TO", help="score lengths in this range, such as 0.02-0.2")
    parser.add_argument("--points", type=whole(2, 100), default=7, help="lengths that --search scores (default: 7)")
    parser.add_names(
        "--metrics",
        names=_metric_names,
        default="fid",
        help="metrics of generated images that --search measures, comma-separated: {names}; the first one decides "
        "(default: fid)",
    )
    parser.add_argument("--samples", type=samples, help="images per score (default: evaluation.samples of the run)")
    parser.add_argument("--out", help=".safetensors file of the model (default: RUN/ema-LENGTH.safetensors)")
    add_device(parser)
    add_json(parser)
    add_trust(parser)


def _metric_names() -> list[str]:
    from orthogan.evaluation.metric import METRICS, OF_GENERATORS

    return [name for name, metric in METRICS.items() if metric.needs <= OF_GENERATORS]


def run(arguments: Namespace) -> None:
    """Reconstruct, score and write."""
    if (arguments.length is None) == (arguments.search is None):
        raise UserError("give either --length, such as --length 0.08, or --search, such as --search 0.02-0.2")
    if arguments.length is not None:
        refuse_unused(arguments, ("points", "metrics", "samples", "json"), "applies only to --search")
    lengths = _lengths(arguments.search, arguments.points) if arguments.search else []
    folder = Path(arguments.run)
    if not os.path.isfile(folder / "config.yaml"):
        raise UserError(f"{folder}: is not a run folder (there is no config.yaml)")
    if arguments.out and Path(arguments.out).suffix != ".safetensors":
        raise UserError(f"--out {arguments.out}: a model is written as .safetensors")
    from orthogan.device import chosen_device
    from orthogan.models.open import open_model
    from orthogan.training.post_hoc_ema import PostHocEma, save_average

    averages = PostHocEma.open(folder)
    model = open_model(folder, device=chosen_device(arguments.device), trust=arguments.trust)
    net = model.generator
    length = _search(arguments, averages, model, lengths) if arguments.length is None else float(arguments.length)
    _, error = averages.coefficients(length)
    averages.generator(length, net)
    out = Path(arguments.out or folder / f"ema-{length:g}.safetensors")
    extra = {key: text for key, text in model.about.extra.items() if key not in ("step", "images")}
    save_average(out, net, model.config, length, {**extra, "images": str(averages.images)})
    if not arguments.json:
        print(f"{out}: average of length {length:g} at {averages.images:,} images; its profile is off by {error:.2%}")


def _lengths(text: str, count: int) -> list[float]:
    """The lengths of --search, in equal ratios."""
    try:
        low, high = map(float, text.split("-"))
    except ValueError:
        raise UserError(f"--search {text}: give two lengths, such as 0.02-0.2") from None
    if not 0 < low < high:
        raise UserError(f"--search {text}: the first length must be greater than 0 and less than the second")
    import numpy as np

    lengths = [float(f"{length:.3g}") for length in np.geomspace(low, high, count)]
    if len(set(lengths)) < count:
        raise UserError(f"--search {text}: this range is too narrow for {count} different lengths; widen it")
    return lengths


def _search(arguments: Namespace, averages: Any, model: Any, lengths: list[float]) -> float:
    """The length with the best score; all scores are printed, and appended to the run's metrics.jsonl."""
    import json

    from orthogan.data import open_configured
    from orthogan.evaluation import append_jsonl
    from orthogan.evaluation.metric import find_metrics
    from orthogan.io.terminal import text_table
    from orthogan.training.measure import score_generator

    metrics = find_metrics(arguments.metrics, "--metrics")
    for length in (lengths[0], lengths[-1]):
        averages.coefficients(length)  # refuses what the snapshots cannot represent
    scored = {"metrics": [metric.name for metric in metrics]}
    scored |= {"samples": arguments.samples} if arguments.samples else {}
    config = model.config.model_copy(update={"evaluation": model.config.evaluation.model_copy(update=scored)})
    source = open_configured(model.config.data)
    rows: list[list[str]] = []
    head = ["length"]
    best: tuple[float, Any] | None = None
    for length in lengths:
        net = averages.generator(length, model.generator)
        info = {"subject": str(averages.run), "weights": f"ema of length {length:g}"}
        results = score_generator(config, net, source, device=model.device, info=info)
        if arguments.json:
            print("".join(json.dumps(r.as_dict(), allow_nan=False) + "\n" for r in results), end="", flush=True)
        append_jsonl(averages.run / "metrics.jsonl", results)
        if best is None or results[0].is_better(best[1].value):
            best = length, results[0]
        rows.append([f"{length:g}", *(f"{result.value:.4g}" for result in results)])
        head = ["length", *(result.label for result in results)]
    assert best is not None
    if not arguments.json:
        print(text_table(rows, "r" * len(head), head))
    if best[0] in (lengths[0], lengths[-1]):
        advice = "a wider --search may find a better one"
        print(f"orthogan: the best length, {best[0]:g}, is at the end of the range; {advice}", file=sys.stderr)
    return best[0]
