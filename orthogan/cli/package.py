"""Write a model folder from a run, ready to share: both networks, a model card, samples and a traversal.

Example: orthogan package runs/demo --out models/portraits --summary "Pixel-art portraits at 32 px"
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_device, add_seed, add_trust, refuse_unused, samples
from orthogan.cli.subjects import check_config, check_file, check_subject

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("subject", metavar="RUN", help="run of a GAN, or a checkpoint of it, such as runs/demo/best")
    parser.add_argument("--out", required=True, help="folder to write; its last part is the name of the model")
    add_card(parser)


def add_card(parser: Parser) -> None:
    """Declare what ``write`` needs besides the run and the folder."""
    parser.add_argument("--summary", default="", help="one sentence about the model, for the card")
    parser.add_argument("--config", help="config file of the run, or its name, for the command on the card")
    parser.add_argument("--machine", default="", help="machine of the training, such as '2 cores of a Xeon 6430'")
    parser.add_argument("--license", default="mit", help="license of the weights (default: mit)")
    parser.add_argument("--data-license", default="", help="license of the images, if the data source names none")
    parser.add_argument("--data-origin", default="", help="origin of the images, if the data source names none")
    parser.add_argument("--tags", default="", help="further tags, comma-separated")
    parser.add_argument("--codes", default="", help="names of the latent codes, by what they change, comma-separated")
    parser.add_argument("--notes", help="Markdown file to add to the card")
    parser.add_argument("--directions", help="Directions file for the traversal (default: the axes of the model)")
    parser.add_argument("--dims", help="directions to show, such as 0-7 (default: the 8 strongest)")
    add_seed(parser, "random seed of the base image of the traversal", default=7)
    parser.add_argument("--metrics", default="", help="metrics to measure now, such as fid,kid,prc (default: none)")
    parser.add_argument("--samples", type=samples, default=10_000, help="generated images per score (default: 10000)")
    parser.add_argument("--half", action="store_true", help="store float16 weights in a smaller file; needs --metrics")
    add_device(parser)
    add_trust(parser)


def run(arguments: Namespace) -> None:
    """Write the folder."""
    check_subject(arguments.subject)
    out = write(arguments, arguments.out)
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    print(f"{out}: {size / 1e6:.1f} MB of weights, card in {out / 'README.md'}")


def write(arguments: Namespace, folder: str | Path, *, name: str = "") -> Path:
    """Write the folder of the model, with ``name`` on its card, and return it."""
    if not arguments.metrics:
        refuse_unused(arguments, ["samples"], "applies only with --metrics")
    check_config(arguments.config)
    check_file(arguments.notes)
    check_file(arguments.directions)
    from orthogan.export.package import Description, package
    from orthogan.io.read import read_regular
    from orthogan.latent import Directions, parse_seeds

    about = Description(
        summary=arguments.summary,
        config=arguments.config or "",
        license=arguments.license,
        machine=arguments.machine,
        data_license=arguments.data_license,
        data_origin=arguments.data_origin,
        notes=read_regular(arguments.notes).decode("utf-8", "replace") if arguments.notes else "",
        tags=_words(arguments.tags),
        codes=_words(arguments.codes),
    )
    return package(
        arguments.subject,
        folder,
        about,
        directions=Directions.load(arguments.directions) if arguments.directions else None,
        dims=parse_seeds(arguments.dims, "dims") if arguments.dims else None,
        seed=arguments.seed,
        metrics=_words(arguments.metrics),
        samples=arguments.samples,
        half=arguments.half,
        name=name,
        device=arguments.device,
        trust=arguments.trust,
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
