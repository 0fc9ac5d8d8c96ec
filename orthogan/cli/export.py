"""Export a generator: to ONNX, or to a program of torch.export.

Example: orthogan export faces-srngan --to onnx --out faces.onnx
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_ema, add_subject, add_trust, whole
from orthogan.cli.subjects import check_subject

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser

OPTIONS = ("space", "opset")


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    parser.add_names("--to", required=True, names=lambda: styles(), help="style: {names}, or module:Style")
    parser.add_argument("--out", help="file to write (default: name of the model, with the suffix of the style)")
    parser.add_argument("--space", help="onnx, torch-export: latent space of the input: z, w, w+ or s (default: z)")
    parser.add_argument("--opset", type=whole(18, 25), help="onnx: version of the operators (default: 18)")
    add_ema(parser)
    add_trust(parser)


def styles() -> list[str]:
    """List the styles of export."""
    from orthogan.export.style import STYLES

    return list(STYLES)


def run(arguments: Namespace) -> None:
    """Write the files."""
    check_subject(arguments.subject)
    from orthogan.export.export import export, make_style

    given = {key: value for key in OPTIONS if (value := vars(arguments).get(key)) not in (None, False)}
    make_style(arguments.to, given)  # refuse options of other styles before the model is opened
    from orthogan.models.open import open_model

    opened = open_model(arguments.subject, ema=not arguments.no_ema, trust=arguments.trust)
    out = Path(arguments.out) if arguments.out else None
    for line in export(opened, arguments.to, out, **given).lines:
        print(line)
