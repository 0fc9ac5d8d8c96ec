"""Opening a picture on the live page: it is projected in the background, and kept in memory only."""

from __future__ import annotations

import hashlib
import secrets
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from orthogan.data.formats.decode import UnreadableImage, decode
from orthogan.errors import Stopped, UserError
from orthogan.latent.invert.project import Against, project
from orthogan.latent.latents import Latents
from orthogan.latent.render.html import strip_uri
from orthogan.models.generate import image_size
from orthogan.models.protocol import Generator

STEPS, STARTS = 200, 4


@dataclass(frozen=True)
class Picture:
    """A picture from which the sliders start.

    ``latents``: its latent. ``image``: what the model shows there, uint8 (c, h, w). ``original``: the picture itself;
    None if only the latent is known.
    """

    latents: Latents
    image: np.ndarray
    original: np.ndarray | None = None

    @property
    def name(self) -> str:
        """What the page calls it."""
        return self.latents.names[0]

    @cached_property
    def key(self) -> str:
        """Names this picture in a link: 12 hex digits of a hash of its latent."""
        about = f"{self.name}\x1f{self.latents.space}\x1f{self.latents.labels}".encode()
        return hashlib.sha256(about + self.latents.matrix.tobytes()).hexdigest()[:12]

    def about(self) -> dict[str, Any]:
        """Describe the picture to the page."""
        scores = {key: round(values[0], 2) for key, values in self.latents.scores.items()}
        return {
            "key": self.key,
            "name": self.name,
            "label": self.latents.label(0),
            "scores": scores,
            "image": strip_uri(self.image[None]),
            "original": None if self.original is None else strip_uri(self.original[None]),
        }


def read_picture(name: str, data: bytes, net: Generator) -> np.ndarray:
    """Decode an uploaded file to uint8 (c, h, w) of the size of the model. Raises ``UserError`` naming the file."""
    channels, side = image_size(net)
    try:
        return decode(data, resolution=side, channels=channels).array.copy()
    except UnreadableImage as error:
        raise UserError(f"{name}: {error}") from error


class Opening:
    """The projection of one picture in a thread of its own.

    Args:
        net: a copy of the generator that nobody else uses.
        picture: uint8 (c, h, w).
        name: of the picture.
        space: latent space of the sliders.
        against: gives the distance of features, or None; called in the thread, since it may load weights.
        done: called in the thread with the projected picture, unless the work was canceled.
    """

    def __init__(
        self,
        net: Generator,
        picture: np.ndarray,
        name: str,
        space: str,
        against: Callable[[], Against | None],
        done: Callable[[Picture], None],
    ) -> None:
        self.key = secrets.token_hex(8)
        self.steps = 0
        self.picture: Picture | None = None
        self.error = ""
        self._stop = threading.Event()
        self._work = (net, picture, name, space, against, done)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def cancel(self) -> None:
        """End after the present step; the result is dropped."""
        self._stop.set()

    @property
    def canceled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._stop.is_set()

    def _run(self) -> None:
        net, picture, name, space, against, done = self._work

        def count(step: int) -> None:
            self.steps = step

        try:
            found = project(
                net,
                picture[None],
                space=space,
                names=[name],
                steps=STEPS,
                starts=STARTS,
                against=against(),
                progress=False,
                after=count,
                stopped=lambda: "Cancel" if self.canceled else None,
            )
            if not self.canceled:
                opened = Picture(found.latents, found.images[0], picture)
                done(opened)
                self.picture = opened
        except Stopped:
            pass
        except UserError as error:
            self.error = str(error)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self.error = "an internal error of orthogan; its details are in the terminal"
