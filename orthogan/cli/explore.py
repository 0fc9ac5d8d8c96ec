"""Serve an interactive page for a model: sliders, pictures by seed, blends, loops and files; Ctrl-C ends it.

Everything runs on this machine; the page opens your own pictures too. The shipped models and all SUBJECTs can be chosen
on the page.

Example: orthogan explore runs/demo --directions found.safetensors --open
"""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import (
    add_directions,
    add_factors,
    add_features,
    add_latent,
    add_net,
    add_subject,
    check_directions,
    whole,
)
from orthogan.cli.subjects import (
    add_captions,
    check_factors,
    check_file,
    check_subject,
    find_run,
    open_subject,
    read_directions,
    read_distance,
    read_latents,
)
from orthogan.errors import UserError
from orthogan.models.shipped import find_shipped, shipped_models

LATENT_AXES = "latent axes"  # the method of directions that no method found

if TYPE_CHECKING:
    import torch

    from orthogan.cli.parser import Parser
    from orthogan.latent import Directions, Latents
    from orthogan.latent.invert.project import Against
    from orthogan.models.protocol import Generator


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(
        parser,
        "runs, checkpoints, .safetensors files, names of shipped models, or module:Class; the first one is shown first "
        "(default: the shipped models)",
        nargs="*",
    )
    add_directions(parser, None, "native, or sefa for a model without directions of its own")
    add_factors(parser, ", to describe what each direction of the first model changes")
    add_latent(parser, "start from the latents in this file, written by 'orthogan project', with the first model")
    add_features(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0, 65535), default=7860, help="port to serve on; 0: any free port (default: 7860)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    add_net(parser)


def run(arguments: Namespace) -> None:
    """Serve the page until Ctrl-C."""
    subjects = list(dict.fromkeys(arguments.subject))
    for subject in subjects:
        check_subject(subject)
    check_directions(arguments)
    check_file(arguments.latent)
    check_factors(arguments)
    given = {find_shipped(subject) for subject in subjects}
    subjects += [name for name, path in shipped_models().items() if path not in given]
    if not subjects:
        raise UserError("no model given, and none ships with this installation; give one, such as runs/demo")
    from orthogan.latent.explorer.app import Choice
    from orthogan.latent.explorer.page import explore

    names = _names(subjects)
    net, directions, class_names, latents = _open_first(arguments, subjects[0])
    others = zip(names[1:], subjects[1:], strict=True)
    plain = _for_others(arguments)
    explore(
        net,
        directions,
        class_names=class_names,
        title=names[0],
        latents=latents,
        against=partial(_against, arguments.features),
        models=[Choice(name, partial(_open, plain, subject)) for name, subject in others],
        host=arguments.host,
        port=arguments.port,
        open_browser=arguments.open,
    )


def _for_others(arguments: Namespace) -> Namespace:
    """For further models: --directions, --layers, --data and --latent belong to the first one alone."""
    return Namespace(**{**vars(arguments), "directions": None, "layers": None, "data": None, "latent": None})


def _against(features: str, device: torch.device) -> Against | None:
    distance = read_distance(features, device)
    return None if distance is None else distance.against


def _open(arguments: Namespace, name: str) -> tuple[Generator, Directions, Sequence[str]]:
    """A model, its directions, and its classes; without --method its own directions, or sefa if it has none."""
    return _open_first(arguments, name)[:3]


def _open_first(arguments: Namespace, name: str) -> tuple[Generator, Directions, Sequence[str], Latents | None]:
    """As ``_open``, with the latents of --latent, in whose space the directions of a method are found."""
    subject, net, device = open_subject(name, arguments)
    latents = read_latents(arguments.latent, net)
    method = arguments.method or "native"
    directions = read_directions(Namespace(**{**vars(arguments), "method": method}), net, latents)
    if arguments.method is None and directions.method == LATENT_AXES:
        with contextlib.suppress(UserError):  # its first layer may not be linear
            directions = read_directions(Namespace(**{**vars(arguments), "method": "sefa"}), net, latents)
    return net, add_captions(directions, arguments, net, device), subject.class_names, latents


def _names(subjects: Sequence[str]) -> list[str]:
    """What the page calls them: the run's or model's name, or the whole path where two have the same."""
    short = []
    for subject in subjects:
        path = find_shipped(subject) or find_run(subject) or Path(subject)
        short.append(path.name.removesuffix(".safetensors"))
    return [name if short.count(name) == 1 else subject for name, subject in zip(short, subjects, strict=True)]
