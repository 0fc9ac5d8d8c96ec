"""Find directions in the latent space, compare them with random ones, and write a Directions file.

Near-duplicate directions are merged. Four methods find directions for attributes that you name: from labels of pictures
(--method labels), two groups of marked pictures (marked), images with known factors (oracle), or descriptions (text).

Example: orthogan discover runs/demo --method sefa,jacobian --components 8 --out found.safetensors
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from orthogan.cli.arguments import (
    add_classes,
    add_factors,
    add_method,
    add_net,
    add_options,
    add_seed,
    add_subject,
    direction_methods,
    read_options,
    real,
    refuse_unused,
    whole,
)
from orthogan.cli.subjects import (
    check_factors,
    check_file,
    check_subject,
    open_subject,
    read_class,
    read_factors,
)
from orthogan.errors import UserError
from orthogan.registry import did_you_mean
from orthogan.words import counted

if TYPE_CHECKING:
    import torch

    from orthogan.cli.parser import Parser
    from orthogan.models.protocol import Generator


# option of the command -> option of the methods
SOURCES = {name: name for name in ("layer", "samples", "steps", "attributes", "conditional", "neutral")} | {
    "labels": "table",
    "marked": "groups",
    "name": "groups",
    "text": "prompts",
    "clip": "model",
}


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    add_method(parser, "sefa")
    parser.add_argument(
        "--out",
        default="directions.safetensors",
        help=".safetensors file to write (default: directions.safetensors)",
    )
    _add_option(parser, "layer", None, "layer that {names} analyze (default: chosen automatically and reported)")
    parser.add_argument("--space", default="z", help="latent space: z, or w if the generator has it (default: z)")
    parser.add_argument("--layers", help="with --space w: styles that the directions change, such as 0-3 or blocks.0.*")
    parser.add_argument("--components", type=whole(1, 1 << 16), help="number of directions (default: all)")
    _add_option(parser, "samples", whole(1, 10**6), "number of latents for {names}")
    _add_option(parser, "steps", whole(1, 10**6), "number of optimization steps of {names}")
    parser.add_argument(
        "--rca",
        action="store_true",
        help="also train a small network to distinguish the directions, and report its accuracy (takes minutes)",
    )
    parser.add_argument(
        "--threshold",
        type=real(0, 1),
        default=0.9,
        help="merge directions whose |cosine| is above this value (default: 0.9)",
    )
    add_factors(parser, ", for --method oracle, and to describe what each direction changes")
    parser.add_argument("--labels", metavar="FILE.csv", help="for --method labels: columns seed and one per attribute")
    parser.add_argument(
        "--marked",
        nargs=2,
        metavar=("A", "B"),
        help="for --method marked: pictures without the attribute, and pictures with it: folders written by 'orthogan "
        "sample' or the page of 'orthogan explore', or seeds such as 3,8,20-24",
    )
    parser.add_argument("--name", default="", help="for --method marked: name of the direction (default: the folder B)")
    parser.add_argument("--text", action="append", default=[], help="for --method text: a description; may be repeated")
    parser.add_argument("--neutral", help="for --method text: neutral description to compare with (default: a picture)")
    parser.add_argument("--clip", metavar="FOLDER", help="for --method text: local folder of a CLIP model")
    parser.add_argument("--clip-sha256", default="", help="expected SHA-256 of the model.safetensors of CLIP")
    _add_option(parser, "attributes", None, "for {names}: attributes or factors to use, comma-separated (default: all)")
    add_options(parser, "--option", "any option of the methods, such as batch_size=16; may be repeated")
    parser.add_argument(
        "--conditional",
        action="store_true",
        default=None,
        help="for methods with attributes or factors: make each direction orthogonal to those of all the others",
    )
    parser.add_argument(
        "--features",
        help="extractor whose features measure how much a picture changes, or none (default: efficientnet-lite0 for "
        "methods with attributes or factors, else none)",
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
    check_file(arguments.labels)
    check_factors(arguments)
    given = read_options("--option", arguments.option)
    _check_options(arguments, given)
    from orthogan.latent import parse_layers
    from orthogan.latent.discovery import discover

    subject, net, device = open_subject(arguments.subject, arguments)
    names = ("layer", "components", "samples", "steps", "conditional", "neutral")
    options = {name: vars(arguments)[name] for name in names} | _sources(arguments, net, device) | given
    found = discover(
        net,
        arguments.method,
        threshold=arguments.threshold,
        with_rca=arguments.rca,
        y=read_class(arguments, subject),
        seed=arguments.seed,
        space=arguments.space,
        layers=parse_layers(arguments.layers, net) if arguments.layers else (),
        reader=read_factors(arguments, net, device),
        features=_features(arguments, device),
        **{name: value for name, value in options.items() if value is not None},
    )
    print(found.table())
    layer = f" of layer {found.directions.layer}" if found.directions.layer else ""
    written = found.directions.save(arguments.out)
    print(f"{counted(len(found.directions), 'direction')}{layer} of {subject.name}: {written}")


def _check_options(arguments: Namespace, given: Iterable[str]) -> None:
    """Refuse options, those of ``--option`` in ``given``, that the methods do not have, before the model is opened."""
    from orthogan.latent.discovery import options_of
    from orthogan.latent.discovery.methods import names_of

    methods = names_of(arguments.method)
    known = {option for method in methods for option in options_of(method)}
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f"; choose from {', '.join(sorted(known))}"
            raise UserError(f"--option {name}: not an option of --method {arguments.method}{hint}")
    unused = [option for option, source in SOURCES.items() if source not in known]
    refuse_unused(arguments, unused, f"does not apply to --method {arguments.method}")
    if not arguments.clip:
        refuse_unused(arguments, ["clip_sha256"], "applies only with --clip")
    if len(methods) == 1:
        refuse_unused(arguments, ["threshold"], "applies only to several methods, whose near duplicates it merges")


def _sources(arguments: Namespace, net: Generator, device: torch.device) -> dict[str, Any]:
    """What the methods with names find directions from, by option; None for what is not given."""
    from orthogan.latent import Labels, load_clip

    first, second = arguments.marked or ("", None)
    words = [word.strip() for word in (arguments.attributes or "").split(",") if word.strip()]
    return {
        "attributes": words or None,
        "table": Labels.from_table(arguments.labels) if arguments.labels else None,
        "groups": None if second is None else Labels.from_groups(first, second, net, name=arguments.name),
        "prompts": arguments.text or None,
        "model": load_clip(arguments.clip, sha256=arguments.clip_sha256, device=device) if arguments.clip else None,
    }


def _features(arguments: Namespace, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The features of --features."""
    named = arguments.labels or arguments.marked or arguments.text or "oracle" in arguments.method.split(",")
    name = arguments.features or ("efficientnet-lite0" if named else "none")
    if name == "none":
        return None
    from orthogan.evaluation import load_extractor

    extractor = load_extractor(name, device=device)
    return lambda images: extractor(images.to(device))[0]
