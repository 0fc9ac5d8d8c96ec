"""Find directions in the latent space, compare them with random ones, and write a Directions file.

Near-duplicate directions are merged.

Example: orthogan discover runs/demo --method sefa,jacobian --components 8 --out found.safetensors
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orthogan.cli.arguments import (
    add_classes,
    add_method,
    add_net,
    add_seed,
    add_subject,
    direction_methods,
    real,
    whole,
)
from orthogan.cli.subjects import check_subject, open_subject, read_class
from orthogan.errors import UserError

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    add_method(parser, "sefa")
    parser.add_argument("--out", default="directions.safetensors", help="(default: directions.safetensors)")
    _add_option(parser, "layer", None, "layer that {names} analyze (default: chosen automatically and reported)")
    parser.add_argument("--space", default="z", help="latent space: z, or w if the generator has it (default: z)")
    parser.add_argument("--layers", help="with --space w: styles that the directions change, such as 0-3 or blocks.0.*")
    parser.add_argument("--components", type=whole(1, 1 << 16), help="number of directions (default: all)")
    _add_option(parser, "samples", whole(1, 10**6), "number of latents for {names}")
    _add_option(parser, "steps", whole(1, 10**6), "number of optimization steps of {names}")
    parser.add_argument(
        "--rca",
        action="store_true",
        help="also train a small network to tell the directions apart and report its accuracy (takes minutes)",
    )
    parser.add_argument(
        "--threshold",
        type=real(0, 1),
        default=0.9,
        help="merge directions whose |cosine| is above this value (default: 0.9)",
    )
    add_classes(parser)
    add_seed(parser)
    add_net(parser)


def _add_option(parser: Parser, name: str, kind: Callable[[str], Any] | None, help: str) -> None:
    """Add an option that only some methods have; its help names them."""
    names = functools.partial(direction_methods, name)
    parser.add_names(f"--{name}", names=names, help=help, complete=False, type=kind)


def run(arguments: Namespace) -> None:
    """Find and write the directions."""
    if not arguments.out.endswith(".safetensors"):
        raise UserError(f"--out {arguments.out}: the name of a Directions file must end in .safetensors")
    check_subject(arguments.subject)
    from orthogan.latent import parse_layers
    from orthogan.latent.discovery import discover

    subject, net, _ = open_subject(arguments.subject, arguments)
    options = {name: vars(arguments)[name] for name in ("layer", "components", "samples", "steps")}
    found = discover(
        net,
        arguments.method,
        threshold=arguments.threshold,
        with_rca=arguments.rca,
        y=read_class(arguments, subject),
        seed=arguments.seed,
        space=arguments.space,
        layers=parse_layers(arguments.layers, net) if arguments.layers else (),
        **{name: value for name, value in options.items() if value is not None},
    )
    print(found.table())
    layer = f" of layer {found.directions.layer}" if found.directions.layer else ""
    print(f"{len(found.directions)} directions{layer} of {subject.name}: {found.directions.save(arguments.out)}")
