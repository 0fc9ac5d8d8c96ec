"""Mix pictures: a grid in which each picture takes some layers from its column, and the rest from its row.

For generators without style layers, the subspaces (EigenGAN) or the coordinates of z are mixed instead.

Example: orthogan mix faces-eigengan --rows 1-4 --columns 5-9 --layers 2 --out mix.png
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_classes, add_net, add_subject, add_truncation, refuse_unused
from orthogan.cli.subjects import BATCH, check_file, check_subject, open_subject, read_latents
from orthogan.errors import UserError

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    parser.add_argument("--rows", default="0-4", help="random seeds of the rows, such as 0-4 (default: 0-4)")
    parser.add_argument("--columns", default="5-10", help="random seeds of the columns (default: 5-10)")
    parser.add_argument(
        "--latent", metavar="FILE", help="take the rows from the latents in this file, written by 'orthogan project'"
    )
    parser.add_argument(
        "--layers",
        help="layers, subspaces or coordinates that come from the column, such as 4-7 (default: the second half)",
    )
    add_classes(parser, "classes of the seeds, such as 0-2,ship; each picture has the class of its row (default: all)")
    add_truncation(parser)
    parser.add_argument("--out", default="mix.png", help=".png file (default: mix.png)")
    add_net(parser)


def run(arguments: Namespace) -> None:
    """Draw the grid."""
    if not arguments.out.lower().endswith(".png"):
        raise UserError(f"--out {arguments.out}: the name of the grid must end in .png")
    check_subject(arguments.subject)
    check_file(arguments.latent)
    if arguments.latent:
        refuse_unused(arguments, ["rows"], "does not apply with --latent, whose latents are the rows")
    from orthogan.latent import choose_classes, parse_seeds, save_png
    from orthogan.latent.mixing import mix
    from orthogan.models.samples import format_ranges

    rows, columns = parse_seeds(arguments.rows, "rows"), parse_seeds(arguments.columns, "columns")
    layers = parse_seeds(arguments.layers, "layers") if arguments.layers else None
    subject, net, _ = open_subject(arguments.subject, arguments)
    classes = None
    if arguments.classes is not None:
        classes = choose_classes(net, arguments.classes, new=True)
    mixed = mix(
        net,
        read_latents(arguments.latent, net) or rows,
        columns,
        layers=layers,
        classes=classes,
        truncation=arguments.truncation,
        batch_size=BATCH,
    )
    written = save_png(mixed.draw(), arguments.out, mixed.metadata)
    print(f"{len(mixed.rows)} x {len(mixed.columns)} pictures of {subject.name}: {written}")
    taken = f"{format_ranges(mixed.layers)} of 0-{mixed.count - 1}"
    print(f"parts {taken} come from the columns; the parts are {mixed.parts}")
