"""Measure how disentangled the latent directions are (VP, MIG, DCI, …), compared with random directions.

For several models, the mean and its confidence interval are also printed.

Example: orthogan disentangle runs/sprites/eigengan --metrics vp,mig,dci --data sprites
"""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from orthogan.cli.arguments import (
    add_classes,
    add_directions,
    add_factors,
    add_json,
    add_net,
    add_subject,
    check_directions,
    refuse_unused,
    samples,
)
from orthogan.cli.subjects import (
    check_factors,
    check_subject,
    find_run,
    open_factors,
    open_subject,
    read_class,
    read_directions,
)
from orthogan.errors import CannotWrite, UserError

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser
    from orthogan.disentanglement import Recognizer
    from orthogan.models.open import OpenedModel
    from orthogan.models.protocol import Generator


# options that --centrality does not use
OF_METRICS = (
    *("metrics", "data", "method", "directions", "layers", "samples", "seeds", "set", "encoder", "no_controls"),
)


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser, nargs="+")
    parser.add_names(
        "--metrics",
        names=_metric_names,
        default="vp,activeness",
        help="comma-separated: {names}, or module:function; most need --data (default: vp,activeness)",
    )
    add_factors(parser)
    add_directions(parser)
    parser.add_argument("--samples", type=samples, default=10_000, help="images per metric (default: 10000)")
    parser.add_argument("--seeds", default="0-2", help="random seeds of the metrics, such as 0-4 (default: 0-2)")
    add_classes(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METRIC.KEY=VALUE",
        help="set an option of a metric, for example vp.protocol=published",
    )
    parser.add_argument(
        "--encoder",
        choices=["trained", "q"],
        default="trained",
        help="network that predicts the codes of real images for the encoder: metrics: one trained for this purpose, "
        "or Q of an InfoGAN (default: trained)",
    )
    parser.add_argument(
        "--centrality",
        action="store_true",
        help="instead of measuring --metrics, rank at least three InfoGANs by how well their codes agree, without "
        "labels (ModelCentrality)",
    )
    parser.add_argument("--no-controls", action="store_true", help="do not measure random directions for comparison")
    add_json(parser)
    add_net(parser)


def _metric_names() -> list[str]:
    from orthogan.disentanglement.registry import metric_names

    return metric_names()


def run(arguments: Namespace) -> None:
    """Measure the directions of each subject."""
    for path in arguments.subject:
        check_subject(path)
        if arguments.subject.count(path) > 1:
            raise UserError(f"{path}: is given twice; intervals over models need different ones")
    check_directions(arguments)
    check_factors(arguments)
    options = read_set(arguments.set)
    if arguments.centrality:
        refuse_unused(arguments, OF_METRICS, "does not apply with --centrality")
        if len(arguments.subject) < 3:
            raise UserError("--centrality: name at least three models to compare")
    from orthogan import disentanglement
    from orthogan.disentanglement.registry import ENCODER, find_metric
    from orthogan.evaluation import append_jsonl
    from orthogan.latent import parse_seeds

    if arguments.centrality:
        _rank(arguments)
        return
    metrics = [name.strip() for name in arguments.metrics.split(",")]
    metrics = [name if ":" in name.removeprefix("encoder:") else name.lower() for name in metrics]
    given = disentanglement.read_options(metrics, options)
    seeds = parse_seeds(arguments.seeds)
    if not any(name.startswith(ENCODER) for name in metrics):
        refuse_unused(arguments, ["encoder"], f"applies only to metrics whose name starts with {ENCODER}")
    if all(find_metric(name).needs == "generator" for name in metrics):
        refuse_unused(arguments, ["data"], f"does not apply to --metrics {arguments.metrics}")
    runs, unwritten, alone = [], [], len(arguments.subject) == 1
    for path in arguments.subject:
        subject, net, _ = open_subject(path, arguments)
        try:
            results = disentanglement.disentangle(
                net,
                metrics,
                source=None if arguments.data is None else open_factors(arguments.data, net, arguments.trust),
                directions=read_directions(arguments, net),
                seeds=seeds,
                samples=arguments.samples,
                controls=not arguments.no_controls,
                y=read_class(arguments, subject),
                options=given,
                encoder=_recognizer(subject, net, arguments) if arguments.encoder == "q" else None,
                info={"subject": path},
            )
        except (ValueError, TypeError) as error:  # a metric refuses the input
            raise UserError(f"{path}: {error}") from error
        runs.append(results)
        if arguments.json:
            _print_json(results)
        else:
            lines = [path, *("  " + result.one_line() for result in results)]
            print(disentanglement.table(results) if alone else "\n".join(lines), flush=True)
        folder = find_run(path)
        try:
            if folder is not None:
                append_jsonl(folder / "disentanglement.jsonl", results)
        except CannotWrite as error:  # the other subjects are still measured
            unwritten.append(error)
    try:
        over = disentanglement.across(runs) if len(runs) > 1 else []
    except ValueError as error:
        raise UserError(str(error)) from error
    if over and arguments.json:
        _print_json(over)
    elif over:
        print("\n".join([f"over {len(runs)} runs", *map(str, over)]))
    if unwritten:
        raise unwritten[0]


def _rank(arguments: Namespace) -> None:
    """Print the subjects by ModelCentrality, best first."""
    from orthogan.disentanglement import model_centrality

    models = []
    for path in arguments.subject:
        subject, net, _ = open_subject(path, arguments)
        models.append((net, _recognizer(subject, net, arguments)))
    found = model_centrality(models, seed=0)
    order = found.scores.argsort()[::-1]
    if arguments.json:
        rows = [{"subject": arguments.subject[i], "centrality": float(found.scores[i])} for i in order]
        print(*map(json.dumps, rows), sep="\n")
    else:
        print(*(f"{found.scores[i]:.3f}  {arguments.subject[i]}" for i in order), sep="\n")


def _recognizer(subject: OpenedModel, net: Generator, arguments: Namespace) -> Recognizer:
    """Return Q of the run or checkpoint."""
    from orthogan.disentanglement import recognizer

    return recognizer(net, subject.discriminator, y=read_class(arguments, subject))


def _print_json(results: list[Any]) -> None:
    print(*(json.dumps(result.as_dict(), allow_nan=False) for result in results), sep="\n", flush=True)


def read_set(texts: list[str]) -> dict[str, dict[str, Any]]:
    """Parse ``["METRIC.KEY=VALUE"]`` into ``{METRIC: {KEY: VALUE}}``. Raises ``UserError``."""
    from orthogan.io.yaml_text import parse_yaml

    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        metric, dot, key = name.rpartition(".")
        if not (metric and dot and key and sign):
            raise UserError(f"--set {text}: write METRIC.KEY=VALUE, for example vp.protocol=published")
        found.setdefault(metric, {})[key] = parse_yaml(value, f"--set {text}")
    return found
