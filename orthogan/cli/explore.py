"""Serve a live page with one slider per latent direction, seeds, classes and export; Ctrl-C ends it.

It runs on this machine and needs gradio, which the extra `explore` installs.

Example: orthogan explore runs/demo --directions found.safetensors --open
"""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_directions, add_net, add_subject
from orthogan.cli.subjects import check_file, check_subject, find_run, open_subject, read_directions
from orthogan.errors import UserError, install

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    add_directions(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="port to serve at; 0: any free port (default: 7860)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    add_net(parser)


def run(arguments: Namespace) -> None:
    """Serve the page until Ctrl-C."""
    check_subject(arguments.subject)
    check_file(arguments.directions)
    if importlib.util.find_spec("gradio") is None:
        raise UserError(f"the live page needs gradio: {install('explore')}")
    from orthogan.latent.explorer.page import explore

    subject, net, _ = open_subject(arguments.subject, arguments)
    explore(
        net,
        read_directions(arguments, net),
        class_names=subject.class_names,
        title=f"orthogan: {(find_run(subject.name) or Path(subject.name)).name}",
        host=arguments.host,
        port=arguments.port,
        open_browser=arguments.open,
    )
