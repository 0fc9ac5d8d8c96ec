"""Export a generator: to ONNX, to a program of torch.export, or to one web page that is the generator.

Example: orthogan export faces-srngan --to page --out faces.html
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import (
    add_ema,
    add_options,
    add_subject,
    add_trust,
    check_directions,
    read_options,
    whole,
)
from orthogan.cli.subjects import check_subject

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser

OPTIONS = ("space", "opset", "directions", "method", "layers", "dims", "seed", "half")


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    parser.add_names("--to", required=True, names=lambda: styles(), help="style: {names}, or module:Style")
    parser.add_argument("--out", help="file to write (default: name of the model, with the suffix of the style)")
    parser.add_argument("--space", help="onnx, torch-export: latent space of the input: z, w, w+ or s (default: z)")
    parser.add_argument("--opset", type=whole(18, 25), help="onnx: version of the operators (default: 18)")
    parser.add_argument("--directions", help="page: Directions file for the sliders (default: those of --method)")
    parser.add_argument(
        "--method", help="page: methods that find the directions (default: those of the model, else sefa)"
    )
    parser.add_argument("--layers", help="page: in w space, styles that the directions change, such as 0-3")
    parser.add_argument("--dims", help="page: directions to show, such as 0-7 (default: the first 24)")
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), help="page: random seed of the first picture (default: 0)")
    parser.add_argument("--half", action="store_true", help="page: store float16 weights, in half the bytes")
    add_options(parser, "--option", "any option of the style, such as space=w; may be repeated")
    add_ema(parser)
    add_trust(parser)


def styles() -> list[str]:
    """List the styles of export, by their files, because importing them takes seconds."""
    folder = Path(__file__).parents[1] / "export" / "styles"
    return sorted(file.stem.replace("_", "-") for file in folder.glob("[a-z]*.py"))


def run(arguments: Namespace) -> None:
    """Write the files."""
    check_subject(arguments.subject)
    check_directions(arguments)
    from orthogan.export.export import export, make_style

    given = {key: value for key in OPTIONS if (value := vars(arguments).get(key)) not in (None, False)}
    given |= read_options("--option", arguments.option)
    make_style(arguments.to, given)  # refuse options of other styles before the model is opened
    from orthogan.models.open import open_model

    opened = open_model(arguments.subject, ema=not arguments.no_ema, trust=arguments.trust)
    out = Path(arguments.out) if arguments.out else None
    for line in export(opened, arguments.to, out, **given).lines:
        print(line)
