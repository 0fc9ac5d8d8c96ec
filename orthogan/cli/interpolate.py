"""Make a film that goes from one picture to the next: MP4, WebP, GIF, or a folder of frames, without captions.

Example: orthogan interpolate faces-srngan --seeds 3,8,15 --out film.webp
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from orthogan.cli.arguments import (
    add_classes,
    add_net,
    add_seed,
    add_subject,
    add_truncation,
    real,
    refuse_unused,
    whole,
)
from orthogan.cli.subjects import BATCH, check_file, check_subject, open_subject, read_latents
from orthogan.errors import UserError
from orthogan.words import counted

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    parser.add_argument("--seeds", help="keyframes by random seed, in this order, such as 3,8,15 (default: 0-3)")
    parser.add_argument(
        "--latent",
        metavar="FILE",
        action="append",
        default=[],
        help="keyframes from the latents in this file, written by 'orthogan project', after those of --seeds; may be "
        "repeated",
    )
    parser.add_argument("--space", default="z", help="latent space of the walk: z, or w or w+ (default: z)")
    parser.add_argument(
        "--walk",
        choices=("line", "sphere", "path"),
        help="path between keyframes: line; sphere, which keeps the norm of z; path, a smooth curve (default: sphere "
        "in z, else line)",
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=2.0,
        help="time from one keyframe to the next, or one number per transition, such as 1,2,0.5 (default: 2)",
    )
    parser.add_argument("--fps", type=whole(1, 100), default=25, help="frames per second (default: 25)")
    parser.add_argument(
        "--speed",
        choices=("latent", "pixels", "features"),
        default="latent",
        help="what changes at constant speed: the latent, the pixels, or the features of LPIPS or EfficientNet-Lite0 "
        "(default: latent)",
    )
    parser.add_argument(
        "--once", action="store_true", help="end at the last keyframe instead of returning to the first"
    )
    parser.add_argument(
        "--noise",
        choices=("fixed", "varied"),
        default="fixed",
        help="noise maps of a generator that has them: the same in all frames, or new in each (default: fixed)",
    )
    parser.add_argument("--size", type=whole(1, 2048), help="width in pixels (default: small images are magnified)")
    parser.add_argument("--smooth", action="store_true", help="resample smoothly (default: sharp pixels)")
    add_classes(parser, "classes of the keyframes, such as 0-2,ship, which fade into each other (default: all in turn)")
    add_truncation(parser)
    add_seed(parser, "random seed of --noise varied")
    parser.add_argument(
        "--out", default="film.webp", help=".mp4, .webp, .gif, or a folder for the frames (default: film.webp)"
    )
    add_net(parser)


def seconds(text: str) -> float | list[float]:
    """Parse a number, or several with commas."""
    found = [real(0.04, 600)(word) for word in text.split(",")]
    return found[0] if len(found) == 1 else found


def run(arguments: Namespace) -> None:
    """Make the film."""
    check_subject(arguments.subject)
    for path in arguments.latent:
        check_file(path)
    from orthogan.latent import choose_classes, parse_seeds
    from orthogan.latent.films import check_film, film, keyframes, save_film

    text = arguments.seeds or ("" if arguments.latent else "0-3")
    seeds = parse_seeds(text, repeats=True) if text else []
    if not seeds:
        refuse_unused(arguments, ["classes", "truncation"], "applies only to --seeds")
    if arguments.noise == "fixed":
        refuse_unused(arguments, ["seed"], "applies only to --noise varied")
    check_film(arguments.out, arguments.size)
    subject, net, device = open_subject(arguments.subject, arguments)
    classes = None
    if arguments.classes is not None:
        classes = choose_classes(net, arguments.classes, new=True)
    latents = [found for path in arguments.latent if (found := read_latents(path, net)) is not None]
    if any(found.noise for found in latents):
        raise UserError(
            "--latent: these latents have their own noise maps, and a film cannot interpolate noise maps; project the "
            "pictures again without --noise"
        )
    keys = keyframes(net, seeds, latents, space=arguments.space, classes=classes, truncation=arguments.truncation)
    even = None
    if arguments.speed != "latent":
        from orthogan.evaluation.paths.distances import PIXEL, load_distance, nearest_to_perception

        even = load_distance(PIXEL if arguments.speed == "pixels" else nearest_to_perception(), device=device).against
    made = film(
        net,
        keys,
        seconds=arguments.seconds,
        fps=arguments.fps,
        walk=arguments.walk,
        loop=not arguments.once,
        even=even,
        noise=arguments.noise,
        seed=arguments.seed,
        batch_size=BATCH,
    )
    written = save_film(made, arguments.out, side=arguments.size, smooth=arguments.smooth)
    length = len(made.frames) / made.fps
    stops = counted(len(keys), "keyframe")
    print(f"{stops} of {subject.name}, {len(made.frames)} frames, {length:.1f} s: {written}")
