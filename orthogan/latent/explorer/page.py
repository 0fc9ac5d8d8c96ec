"""``orthogan explore``: serving the live page on this machine."""

from __future__ import annotations

import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.latent.directions import Directions
from orthogan.latent.explorer.app import App, Choice
from orthogan.latent.invert.project import Against
from orthogan.latent.latents import Latents

TITLE = "Model"
HOST = "127.0.0.1"
PORT = 7860


@dataclass(frozen=True)
class Served:
    """A page being served: its ``url``, and how to end it."""

    url: str
    server: BaseWSGIServer
    thread: threading.Thread

    def close(self) -> None:
        """Stop serving and free the port."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class _Handler(WSGIRequestHandler):
    """Keeps connections open, and prints no line per request."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


def explore(
    generator: nn.Module,
    directions: Directions,
    *,
    class_names: Sequence[str] = (),
    title: str = TITLE,
    models: Sequence[Choice] = (),
    latents: Latents | None = None,
    against: Callable[[torch.device], Against | None] = lambda device: None,
    host: str = HOST,
    port: int = PORT,
    open_browser: bool = False,
    block: bool = True,
) -> Served:
    """Serve a page on which ``directions`` of ``generator`` are tried out, and print its address.

    Nothing leaves the machine: the page loads no font, script or picture from elsewhere, and requests that another
    web page makes are refused.

    Args:
        generator: see ``orthogan.Generator``.
        directions: one slider for each of them.
        class_names: of a conditional generator, in label order.
        title: what the model is called on the page.
        models: further ones to choose from; opened when they are chosen.
        latents: pictures of this generator to start from, such as projected ones.
        against: device -> the distance of features that compares pictures opened on the page, as for
            ``orthogan.project``; None for pixels alone. Called when a picture is opened.
        host: the default lets only this machine in; "0.0.0.0" opens the page to the whole network, by its address and
            not by a name.
        port: 0 for any free one.
        open_browser: show the page in the browser of this machine.
        block: serve until Ctrl-C, then return. Otherwise return at once, and ``close()`` ends it.

    Raises:
        UserError: directions that do not fit, or a port or host that cannot be had.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: between 0 (any free one) and 65535")
    listening = _listen(host, port)
    try:
        app = App(
            [Choice(title, lambda: (generator, directions, class_names), latents), *models], host, against=against
        )
        for line in app.opened(title).warnings:
            print(f"warning: {line}")
    except BaseException:
        listening.close()
        raise
    number = listening.getsockname()[1]
    with listening:  # the server has a copy of its own
        server = make_server(host, number, app, threaded=True, request_handler=_Handler, fd=listening.fileno())
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/"
    served = Served(address, server, thread)
    print(f"{title}: {served.url}" + ("  (Ctrl-C ends it)" if block else ""), flush=True)
    if open_browser:
        webbrowser.open(served.url)
    if block:
        try:
            while True:
                time.sleep(0.2)
        except KeyboardInterrupt:
            print()
        finally:
            served.close()
    return served


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; ``port`` 0: at a free one. Raises ``UserError`` where it cannot."""
    made = None
    try:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host.strip("[]"), port))
        made.listen(128)
        return made
    except (OSError, TypeError, ValueError) as error:  # the last two: a name that no host can have
        if made is not None:
            made.close()
        reason = getattr(error, "strerror", None) or printable(error)
        raise UserError(f"cannot serve on {printable(host)}:{port}: {reason}; try another --port or --host") from error
