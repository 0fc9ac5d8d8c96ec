"""Score a generator, a folder of images, a GAN or a classifier, and print each score with its protocol.

Generators and images: FID, Inception Score, KID, precision, recall and path lengths. GANs: neural divergence and the
Lipschitz constant of the discriminator. Classifiers: accuracy, also on corrupted and attacked images, and complexity.
The scores of a run are also appended to its metrics.jsonl.

Example: orthogan evaluate runs/cifar10/resnet18 --metrics accuracy,corruptions,pgd --samples 1000
"""

from __future__ import annotations

import json
import os
from argparse import SUPPRESS, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orthogan.cli.arguments import (
    add_json,
    add_net,
    add_overrides,
    add_seed,
    add_subject,
    add_truncation,
    samples,
    whole,
)
from orthogan.cli.subjects import check_data, check_file, check_subject, find_run
from orthogan.errors import UserError

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser, "run, checkpoint, .safetensors file, name of a shipped model, or folder/.zip of images")
    add_overrides(parser, "values that replace those of the config of --data")
    parser.add_names(
        "--metrics",
        names=metric_names,
        default="fid",
        help="comma-separated: {names}, or module:Class; scorecard: all metrics of images that can be computed here; "
        "metrics of generators, GANs and classifiers cannot be mixed (default: fid)",
    )
    parser.add_argument(
        "--samples",
        type=samples,
        help="number of generated images, or of pairs for path lengths (default: 50000) and lipschitz (default: "
        "10000); for a classifier, the size of a random subset of the images (default: all)",
    )
    parser.add_names(
        "--extractor",
        names=_extractors,
        default="auto",
        help="network that computes the features: {names}, or module:Class; auto: inception if its weights are "
        "available, else efficientnet-lite0 (default: auto)",
    )
    parser.add_argument("--weights", help="weights file of the extractor (default: search the usual folders)")
    parser.add_argument("--reference", help="statistics (.safetensors, .npz) or images (folder, .zip) to compare with")
    parser.add_argument(
        "--reference-samples", type=samples, help="compare with a random subset of the real images (default: all)"
    )
    parser.add_argument(
        "--kid-subset-size",
        type=whole(2, 10**6),
        help="images per subset of KID; scores of different sizes are not comparable (default: 1000, as published)",
    )
    parser.add_argument(
        "--nearest",
        help="draw the generated images that are closest to real images, with their nearest real images, to this PNG "
        "file; with the metric authenticity",
    )
    parser.add_argument("--save-reference", help="write the reference statistics to this .safetensors file")
    parser.add_argument(
        "--data",
        help="config whose data are the reference, or the name of a data source, such as faces (default: the training "
        "data of the subject)",
    )
    parser.add_argument(
        "--split",
        help="split of the data to compare with (default: the training split) or to classify (default: the test split)",
    )
    add_truncation(parser)
    parser.add_argument(
        "--attack-norm", choices=["inf", "2"], default="inf", help="norm that fgsm and pgd bound (default: inf)"
    )
    parser.add_argument("--norm", dest="attack_norm", choices=["inf", "2"], default="inf", help=SUPPRESS)  # 0.1
    parser.add_argument(
        "--eps",
        help="size of fgsm and pgd in units of 1/255, one score per value, such as 2,8 (default: 2,8; 32,128 with "
        "--attack-norm 2)",
    )
    parser.add_argument("--steps", type=whole(1, 100_000), default=20, help="steps of pgd (default: 20)")
    parser.add_argument(
        "--restarts",
        type=whole(0, 1000),
        default=1,
        help="random restarts of pgd; 0 starts from the clean image (default: 1)",
    )
    parser.add_argument(
        "--critic",
        metavar="KEY=VALUE,…",
        help="override the published recipe of neural_divergence (steps, batch_size, width, lr, penalty, average), "
        "such as steps=2000,width=16 (default: 100000 steps with batches of 256)",
    )
    add_seed(parser, "random seed of latents, subsets, noise and attacks")
    parser.add_argument("--batch-size", type=whole(1, 1 << 16), default=64, help="images per batch (default: 64)")
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "auto"],
        default="fp32",
        help="precision of sampling and features; auto: sample in bf16 if it is fast (default: fp32, as published)",
    )
    add_json(parser)
    add_net(parser)


def metric_names() -> Iterable[str]:
    """The metrics that there are."""
    from orthogan.evaluation.metric import METRICS, SCORECARD

    return [*METRICS, SCORECARD]


def _extractors() -> Iterable[str]:
    from orthogan.evaluation.extractors.extractor import EXTRACTORS

    return EXTRACTORS


def run(arguments: Namespace) -> None:
    """Compute, print and store the scores."""
    check_subject(arguments.subject)
    check_file(arguments.weights)
    check_data(arguments.data)
    if arguments.reference and not os.path.lexists(arguments.reference):
        raise UserError(f"--reference {arguments.reference}: no such file or folder")
    from orthogan.evaluation.extractors.extractor import EXTRACTORS
    from orthogan.evaluation.metric import find_metrics

    metrics = find_metrics(arguments.metrics, "--metrics")
    if arguments.extractor != "auto":
        EXTRACTORS.get(arguments.extractor, "--extractor")
    from accelerate.state import PartialState

    from orthogan.cli._scores import compute
    from orthogan.evaluation import Incomplete, append_jsonl, table
    from orthogan.process_group import fail_together

    incomplete: UserError | None = None
    try:
        with fail_together("start all of them again"):
            results = compute(arguments, metrics)
    except Incomplete as error:
        results, incomplete = error.results, error
    main = PartialState().is_main_process
    if PartialState().num_processes > 1:
        PartialState().destroy_process_group()
    if not main:
        return
    # print the results first, even if they cannot be stored
    if arguments.json:
        print("".join(json.dumps(result.as_dict(), allow_nan=False) + "\n" for result in results), end="", flush=True)
    elif results:
        print(table(results), flush=True)
    folder = find_run(arguments.subject)
    if folder is not None and results:
        append_jsonl(folder / "metrics.jsonl", results)
    if incomplete is not None:
        raise incomplete
