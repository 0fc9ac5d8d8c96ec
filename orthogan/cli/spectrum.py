"""Show the singular values, stable rank, condition number and orthogonality of every layer of a network.

Example: orthogan spectrum torchvision.models:resnet18 --layers conv --plot spectrum.png
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from orthogan.cli.arguments import add_ema, add_json, add_subject, add_trust, whole
from orthogan.cli.subjects import check_subject


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser, "run, checkpoint, .safetensors or .pth file, name of a shipped model, or module:Class")
    parser.add_argument("--layers", default="", help="layers to show, such as conv,tall or G.blocks.* (default: all)")
    parser.add_argument(
        "--size",
        type=whole(1, 128),
        default=8,
        help="height and width of the feature map for the operator norm of a convolution (default: 8)",
    )
    parser.add_argument("--plot", help="plot the singular values to this .png")
    add_json(parser, "the report as JSON, including all singular values")
    add_ema(parser)
    add_trust(parser)


def run(arguments: Namespace) -> None:
    """Print the report on the weights."""
    check_subject(arguments.subject)
    from orthogan.evaluation.spectrum.audit import spectrum

    print(
        spectrum(
            arguments.subject,
            layers=arguments.layers,
            size=arguments.size,
            plot=arguments.plot,
            as_json=arguments.json,
            ema=not arguments.no_ema,
            trust=arguments.trust,
        )
    )
