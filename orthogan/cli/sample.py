"""Generate images: one grid, or one file per seed; the same seed always gives the same image.

Example: orthogan sample runs/demo --seeds 0-63 --out samples.png
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from orthogan.cli.arguments import add_classes, add_latent, add_net, add_subject, add_truncation
from orthogan.cli.subjects import BATCH, check_file, check_subject, open_subject, read_latents
from orthogan.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    parser.add_argument("--seeds", help="one image per seed, such as 0-63,70 (default: 0-63)")
    add_latent(parser, "draw the images of the latents in this file (orthogan project) instead of seeds")
    add_classes(parser, "classes of a conditional model, such as 0-2,ship (default: cycle through all classes)")
    add_truncation(parser)
    parser.add_argument(
        "--out",
        default="samples.png",
        help=".png file for a grid, or folder for one file per image (default: samples.png)",
    )
    add_net(parser)


def run(arguments: Namespace) -> None:
    """Draw the images."""
    check_subject(arguments.subject)
    check_file(arguments.latent)
    if arguments.latent and (arguments.seeds is not None or arguments.classes is not None):
        raise UserError("--latent: the file has its own latents and classes; omit --seeds and --classes")
    from orthogan.latent import choose_classes, parse_seeds, sample_images, save_samples
    from orthogan.latent.latents import latent_images
    from orthogan.models.samples import check_place

    seeds = parse_seeds(arguments.seeds or "0-63")
    check_place(arguments.out, len(seeds))
    subject, net, device = open_subject(arguments.subject, arguments)
    classes = None
    if arguments.classes is not None:
        classes = choose_classes(net, arguments.classes, new=True)
    latents = read_latents(arguments.latent, net)
    if latents is not None:
        check_place(arguments.out, len(latents))
        images = latent_images(net, latents, arguments.truncation, batch_size=BATCH, device=device)
    else:
        images = sample_images(net, seeds, classes, arguments.truncation, batch_size=BATCH, device=device)
    written = save_samples(images, arguments.out, class_names=getattr(net, "class_names", ()))
    drawn = f"{len(images.seeds)} {'image' if len(images.seeds) == 1 else 'images'}"
    print(f"{drawn} of {subject.name}: {written[0] if len(written) == 1 else arguments.out}")
