"""Convert another project's checkpoint (.pkl, .pt, .pth, .bin, .tar) to a model folder, without running anything in it.

All commands also open such a file directly.

Example: orthogan import stylegan2-ada-ffhq.pkl --out models/ffhq
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orthogan.cli.subjects import check_file
from orthogan.io.terminal import shell_word

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    parser.add_names(
        "file", metavar="FILE", names=_layouts, complete=False, help="file of one of these layouts: {names}"
    )
    parser.add_argument(
        "--out",
        help="folder for generator, discriminator and model card, or .safetensors file for the generator alone "
        "(default: a folder with the name of FILE)",
    )
    parser.add_argument("--no-ema", action="store_true", help="take the weights without averaging, if FILE has both")
    parser.add_argument("--license", default="", help="license of the weights, for the model card")


def run(arguments: Namespace) -> None:
    """Convert the file."""
    check_file(arguments.file)
    from orthogan.models.imported import import_model

    out, opened = import_model(
        arguments.file, arguments.out, ema=not arguments.no_ema, license=arguments.license.strip()
    )
    assert opened.foreign is not None
    model, origin = opened.foreign.model, opened.foreign.origin
    classes = f", {model.num_classes} classes" if model.num_classes else ""
    print(
        f"{arguments.file}: {origin['project']}; {model.resolution} px{classes}, latent of {model.latent_dim} numbers"
    )
    print(f"License: {arguments.license.strip() or origin['license']}")
    if opened.has_discriminator and out.suffix == ".safetensors":
        print("The file also has a discriminator; to keep it, choose a folder with --out")
    print(f"Written to {out}. Look at it: orthogan sample {shell_word(out)}")


def _layouts() -> Iterable[str]:
    from orthogan.models.foreign.layout import LAYOUTS

    return LAYOUTS
