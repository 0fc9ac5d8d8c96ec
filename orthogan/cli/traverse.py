"""Show the effect of each latent direction in a row of images, as a picture, an animation or a web page.

Example: orthogan traverse runs/demo --method sefa --dims 0-7 --control 2 --out traversal.html
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from orthogan.cli.arguments import (
    add_classes,
    add_directions,
    add_factors,
    add_latent,
    add_net,
    add_seed,
    add_subject,
    add_truncation,
    check_directions,
    real,
    refuse_unused,
    whole,
)
from orthogan.cli.subjects import (
    BATCH,
    add_captions,
    check_factors,
    check_file,
    check_subject,
    open_subject,
    read_class,
    read_directions,
    read_latents,
)
from orthogan.errors import UserError
from orthogan.words import counted

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    add_directions(parser)
    add_factors(parser, ", to describe what each direction changes")
    parser.add_argument("--save-directions", help="write the directions to this .safetensors file")
    parser.add_argument("--dims", default="all", help="directions to show: all, or numbers such as 0-7 (default: all)")
    parser.add_argument(
        "--range", type=real(1e-9, 1e9), default=3.0, help="largest offset in either direction (default: 3)"
    )
    parser.add_argument(
        "--steps", type=whole(1, 1001), default=11, help="number of images per row, an odd number (default: 11)"
    )
    add_seed(parser, "random seed of the base image", default=7)
    parser.add_argument("--seeds", help="several base images, such as 0-4, in a contact sheet (.png)")
    add_latent(
        parser,
        "start from the latents in this file, written by 'orthogan project'; several latents give a contact sheet "
        "(.png)",
    )
    add_classes(parser)
    add_truncation(parser)
    parser.add_argument(
        "--base",
        choices=("sample", "zero"),
        default="sample",
        help="latent in the middle of each row: that of --seed, or the mean of the latents (default: sample)",
    )
    parser.add_argument(
        "--centred",
        action="store_true",
        help="set the coordinate along each direction to the offset, instead of adding the offset",
    )
    parser.add_argument(
        "--walk",
        choices=("line", "sphere"),
        default="line",
        help="path of the latent: line, or a great circle that keeps its norm (default: line)",
    )
    parser.add_argument("--heatmap", action="store_true", help="show where the images of each row change (.png, .html)")
    parser.add_argument("--plain", action="store_true", help="images alone, without captions (not for .html)")
    parser.add_argument("--size", type=whole(1, 2048), help="width in pixels, with --plain")
    parser.add_argument("--smooth", action="store_true", help="resample smoothly, with --plain (default: sharp pixels)")
    parser.add_argument(
        "--control",
        type=whole(0, 1 << 16),
        default=0,
        help="number of rows along random directions, for comparison (default: 0)",
    )
    parser.add_argument(
        "--out", default="traversal.png", help=".png, .gif, .webp, .mp4 or .html (default: traversal.png)"
    )
    add_net(parser)


def run(arguments: Namespace) -> None:
    """Draw the traversal."""
    check_subject(arguments.subject)
    check_directions(arguments)
    check_file(arguments.latent)
    check_factors(arguments)
    from orthogan.latent import parse_seeds, render
    from orthogan.latent import traverse as walk
    from orthogan.latent.render import check_suffix
    from orthogan.latent.traverse import contact_sheet

    seeds = parse_seeds(arguments.seeds) if arguments.seeds else []
    if seeds and arguments.base != "sample":
        raise UserError(f"--base {arguments.base}: a contact sheet starts from the samples of --seeds; omit --base")
    if not arguments.plain and (arguments.size is not None or arguments.smooth):
        raise UserError("--size and --smooth are for pictures without captions: add --plain")
    if arguments.latent and (seeds or arguments.base != "sample"):
        raise UserError("--latent: the latents in the file are the base; omit --seeds and --base")
    for given, option in ((seeds, "--seeds"), (arguments.latent, "--latent")):
        if given and not (arguments.latent and arguments.control):  # which draws random directions
            refuse_unused(arguments, ["seed"], f"does not apply with {option}")
    if arguments.latent:
        refuse_unused(arguments, ["classes"], "does not apply with --latent: the file has its own classes")
    if arguments.base == "zero":
        refuse_unused(arguments, ["truncation"], "does not apply with --base zero")
    if arguments.save_directions and not arguments.save_directions.endswith(".safetensors"):
        raise UserError(f"--save-directions {arguments.save_directions}: the name must end in .safetensors")
    dims = "all" if arguments.dims == "all" else parse_seeds(arguments.dims, "dims")
    check_suffix(arguments.out, heatmap=arguments.heatmap, sheet=bool(seeds), plain=arguments.plain)
    subject, net, device = open_subject(arguments.subject, arguments)
    latents = read_latents(arguments.latent, net)
    if latents is not None and len(latents) > 1:
        check_suffix(arguments.out, heatmap=arguments.heatmap, sheet=True, plain=arguments.plain)
    directions = add_captions(read_directions(arguments, net, latents), arguments, net, device)
    if arguments.save_directions:
        directions.save(arguments.save_directions)
        print(f"{counted(len(directions), 'direction')}: {arguments.save_directions}")
    options: dict[str, Any] = {
        name: vars(arguments)[name] for name in ("range", "steps", "truncation", "centred", "walk", "control")
    }
    options |= {
        "latents": latents,
        "dims": dims,
        "y": read_class(arguments, subject, new=True),
        "batch_size": BATCH,
        "device": device,
    }
    if seeds or (latents is not None and len(latents) > 1):
        walked = contact_sheet(net, directions, seeds=seeds or [0], **options)
    else:
        walked = walk(net, directions, seed=arguments.seed, base=arguments.base, **options)
    made = render(
        walked,
        arguments.out,
        heatmap=arguments.heatmap,
        plain=arguments.plain,
        side=arguments.size,
        smooth=arguments.smooth,
    )
    count = len(directions) if dims == "all" else len(dims)
    print(f"{count} {'direction' if count == 1 else 'directions'} of {subject.name}: {made}")
