"""The web application behind the live page: what it answers, to whom, and the list of models to choose from."""

from __future__ import annotations

import ipaddress
import json
import re
import sys
import threading
import traceback
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from orthogan.errors import UserError
from orthogan.latent.directions import CHANGE, Directions
from orthogan.latent.explorer.opening import STEPS, Opening, read_picture
from orthogan.latent.explorer.session import Explorer, difference
from orthogan.latent.explorer.state import LARGEST_OFFSET, Sliders, View, motion, number, view_of, whole
from orthogan.latent.invert.project import Against
from orthogan.latent.latents import Latents
from orthogan.latent.render.animation import has_av
from orthogan.latent.render.html import strip_uri
from orthogan.latent.render.loop import LOOPS
from orthogan.latent.words import change_of, plain_name, strength
from orthogan.models.samples import format_ranges

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
EVERYWHERE = ("0.0.0.0", "::")
LARGEST_UPLOAD = 16_000_000  # bytes
LARGEST_PICTURE = 4096  # pixels
LARGEST_LOOP = 1024
MOST_VIEWS = 64  # pictures in one request
LEAST_MARKED, MOST_MARKED = 2, 1000  # pictures of each kind that make a direction
PLAYED = 72  # frames of a loop that is played on the page
LONGEST_LOOP = 10.0  # seconds
KEPT_SLIDERS = 32  # sets of directions that were loaded on the page
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".safetensors": "application/octet-stream",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Choice:
    """A model that can be chosen on the page.

    Args:
        name: shown in the list; different for each.
        open: gives the generator, its directions and the names of its classes; called when it is chosen first.
        latents: pictures to start from, such as projected ones.
    """

    name: str
    open: Callable[[], tuple[nn.Module, Directions, Sequence[str]]]
    latents: Latents | None = None


@dataclass
class _Opened:
    explorer: Explorer
    start: str
    warnings: list[str]
    sets: OrderedDict[str, Sliders] = field(default_factory=OrderedDict)

    def add(self, sliders: Sliders) -> str:
        """Keep a set, and forget the oldest loaded one if there are too many."""
        self.sets[sliders.key] = sliders
        self.sets.move_to_end(sliders.key)
        if len(self.sets) > KEPT_SLIDERS:
            del self.sets[next(key for key in self.sets if key != self.start)]
        return sliders.key


class App:
    """The WSGI application. A request under another name than the page's, or from another web page, gets a 403.

    The first stops a web page whose name was made to point at this machine (DNS rebinding), the second one that
    posts to the page's address. What cannot be done is answered with status 400 and ``{"error": "a sentence"}``.
    ``against``: device -> the distance of features that compares opened pictures, or None for pixels alone.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        host: str,
        *,
        against: Callable[[torch.device], Against | None] = lambda device: None,
    ) -> None:
        self._against = against
        self._opening_picture: Opening | None = None
        self._one_picture = threading.Lock()
        self.choices = {choice.name: choice for choice in choices}
        self.first = choices[0].name
        self.names = LOOPBACK | {host.strip("[]").lower()}
        self.open_to_all = host.strip("[]") in EVERYWHERE
        self._opened: dict[str, _Opened] = {}
        self._opening = threading.Lock()
        self._calls: dict[str, Callable[[Mapping[str, Any]], Response]] = {
            "/api/open": self._open,
            "/api/draw": self._draw,
            "/api/pictures": self._pictures,
            "/api/frames": self._frames,
            "/api/png": self._png,
            "/api/loop": self._loop,
            "/api/directions": self._directions,
            "/api/mark": self._mark,
            "/api/picture": self._picture,
            "/api/progress": self._progress,
            "/api/cancel": self._cancel,
        }
        self._parts = {part.name: part.read_bytes() for part in _parts()}

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        request.max_content_length = LARGEST_UPLOAD
        try:
            response = self._refused(request) or self._answer(request)
        except RequestEntityTooLarge:
            response = _said(f"this file is too large: at most {LARGEST_UPLOAD // 1_000_000} MB are accepted", 413)
        except HTTPException as error:
            response = Response(f"{error.code} {error.name}\n", error.code)
        except UserError as error:
            response = _said(str(error), 400)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            response = _said("an internal error of orthogan; its details are in the terminal", 500)
        response.headers.extend(HEADERS)
        return response(environ, start)

    def opened(self, name: object) -> _Opened:
        """The model of that name, opened if it is not yet. Raises ``UserError``."""
        choice = self.choices.get(str(name))
        if choice is None:
            raise UserError(f"there is no model {str(name)[:80]!r} here; this page has {', '.join(self.choices)}")
        with self._opening:
            if choice.name not in self._opened:
                generator, directions, class_names = choice.open()
                explorer = Explorer(generator, class_names=class_names, latents=choice.latents)
                sliders, warnings = explorer.sliders(directions)
                self._opened[choice.name] = _Opened(explorer, sliders.key, warnings)
                self._opened[choice.name].add(sliders)
            return self._opened[choice.name]

    def _refused(self, request: Request) -> Response | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self.knows(_name(f"//{host}")):
            return Response("This page answers only under the address that orthogan explore printed.\n", 403)
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return Response("This page takes no requests from other web pages.\n", 403)
        return None

    def knows(self, name: str) -> bool:
        """Whether the page is served under this name; open to the network, any address is, but no other name."""
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.open_to_all

    def _answer(self, request: Request) -> Response:
        path = request.path
        if request.method in ("GET", "HEAD"):
            name = path.removeprefix("/") or "index.html"
            if name not in self._parts:
                return Response("404 Not Found\n", 404)
            data = self._parts[name]
            if name == "index.html":
                data = data.replace(b"@TITLE@", escape(self.first).encode())
            return Response(data, mimetype=TYPES[f".{name.rsplit('.', 1)[1]}"])
        if request.method != "POST" or path not in {*self._calls, "/api/load", "/api/project"}:
            return Response("404 Not Found\n", 404)
        if path == "/api/load":
            opened = self.opened(request.args.get("model"))
            sliders, warnings = opened.explorer.load(request.args.get("name", "this file")[:200], request.get_data())
            opened.add(sliders)
            return _json(self._about_sliders(opened, sliders, warnings))
        if path == "/api/project":
            return self._project(request)
        try:
            body = request.get_json()  # a page of another origin may not send this type
        except RecursionError:
            body = None  # nested too deeply
        if not isinstance(body, dict):
            raise UserError("the request is not readable; reload the page")
        return self._calls[path](body)

    def _open(self, body: Mapping[str, Any]) -> Response:
        """A model (default: the first), the names of all, and its sliders: those of its own, or a set loaded before."""
        name = body.get("model") or self.first
        explorer, sliders = self._shown({**body, "model": name})
        opened = self.opened(name)
        return _json(
            {
                "models": list(self.choices),
                "model": name,
                "hash": explorer.hash[:12],
                "classes": explorer.class_names,
                "label": explorer.first_label(whole("the seed", body.get("seed", 7), 0, 2**62)),
                "side": explorer.side,
                "height": explorer.height,
                "pictures": [one.about() for one in explorer.given.values()],
                "video": has_av(),
                "sliders": self._about_sliders(opened, sliders, opened.warnings),
            }
        )

    def _about_sliders(self, opened: _Opened, sliders: Sliders, warnings: Sequence[str]) -> dict[str, Any]:
        found = sliders.found
        rows = []
        for part, control in ((found, False), (sliders.control, True)):
            for index, name in enumerate(part.names):
                row = len(rows)
                change = part.scores[CHANGE][index]
                rows.append(
                    {
                        "name": sliders.name(row),
                        "own": name,
                        "note": part.notes[index],
                        "words": "Picked at random, for comparison." if control else sliders.words[row],
                        "strength": strength(change),
                        "scores": {key: values[index] for key, values in part.scores.items()},
                        "control": control,
                    }
                )
        about = {
            "Found by": found.method,
            "Layer": found.layer,
            "Latent space": found.space,
            "Layers that move": format_ranges(found.layers),
            "Unit of the offsets": found.unit,
        }
        return {
            "key": sliders.key,
            "about": {key: value for key, value in about.items() if value},
            "rows": rows,
            "warnings": list(warnings),
            "start": sliders.key == opened.start,
        }

    def _shown(self, body: Mapping[str, Any]) -> tuple[Explorer, Sliders]:
        opened = self.opened(body.get("model"))
        key = body.get("set") or opened.start
        if not isinstance(key, str) or key not in opened.sets:
            raise UserError(
                f"the directions {str(key)[:20]} are not loaded here: load their file under Save, then try again"
            )
        return opened.explorer, opened.sets[key]

    def _draw(self, body: Mapping[str, Any]) -> Response:
        explorer, sliders = self._shown(body)
        view = view_of(_view(body))
        now = explorer.image(sliders, view)
        answer: dict[str, Any] = {"image": strip_uri(now[None])}
        if view.offsets:
            before = explorer.image(sliders, view.unedited)
            changed = change_of(before[None], before[None], now[None]) * 2
            answer |= {"before": strip_uri(before[None]), "difference": strip_uri(difference(before, now)[None])}
            answer |= {"changed": round(changed, 1)}
        return _json(answer)

    def _pictures(self, body: Mapping[str, Any]) -> Response:
        explorer, sliders = self._shown(body)
        views = body.get("views")
        if not isinstance(views, list) or not 1 <= len(views) <= MOST_VIEWS:
            raise UserError(f"from 1 to {MOST_VIEWS} pictures can be drawn at once; reload the page")
        images = explorer.images(sliders, [view_of(view if isinstance(view, dict) else {}) for view in views])
        return _json({"images": [strip_uri(image[None]) for image in images]})

    def _mark(self, body: Mapping[str, Any]) -> Response:
        """A new set of sliders with one that leads from the pictures marked as A to those marked as B."""
        explorer, sliders = self._shown(body)
        groups = [body.get(group) for group in ("a", "b")]
        views = []
        for group, name in zip(groups, "AB", strict=True):
            if not isinstance(group, list) or not LEAST_MARKED <= len(group) <= MOST_MARKED:
                raise UserError(f"mark from {LEAST_MARKED} to {MOST_MARKED} pictures as {name}")
            views.append([view_of(view if isinstance(view, dict) else {}) for view in group])
        made = explorer.mark(sliders, views[0], views[1], str(body.get("name", ""))[:80])
        opened = self.opened(body.get("model"))
        opened.add(made)
        return _json(self._about_sliders(opened, made, []))

    def _project(self, request: Request) -> Response:
        """Start to project an uploaded picture into the space of the sliders; it stays in memory."""
        explorer, sliders = self._shown(request.args)
        name = request.args.get("name", "this file")[:200]
        picture = read_picture(name, request.get_data(), explorer.generator)
        with self._one_picture:
            if (now := self._opening_picture) is not None and now.thread.is_alive() and not now.canceled:
                raise UserError("another picture is being opened: wait until it is done, then try again")
            if now is not None and now.thread.is_alive():
                now.thread.join()  # it ends after its present step
            net = explorer.twin()
            device = next((one.device for one in net.parameters()), torch.device("cpu"))
            opening = Opening(net, picture, name, sliders.found.space, lambda: self._against(device), explorer.add)
            self._opening_picture = opening
            opening.start()
        return _json({"job": opening.key, "steps": 0, "of": STEPS})

    def _job(self, body: Mapping[str, Any]) -> Opening:
        opening = self._opening_picture
        if opening is None or opening.key != body.get("job"):
            raise UserError("this picture is not being opened anymore: open its file again")
        return opening

    def _progress(self, body: Mapping[str, Any]) -> Response:
        opening = self._job(body)
        if opening.error:
            raise UserError(opening.error)
        found = opening.picture
        return _json({"steps": opening.steps, "of": STEPS, "picture": None if found is None else found.about()})

    def _cancel(self, body: Mapping[str, Any]) -> Response:
        self._job(body).cancel()
        return _json({})

    def _picture(self, body: Mapping[str, Any]) -> Response:
        """An opened picture, which a link names."""
        return _json(self.opened(body.get("model")).explorer.picture(str(body.get("picture"))).about())

    def _motion(self, body: Mapping[str, Any], sliders: Sliders, count: int) -> list[View]:
        row = whole("the slider", body.get("row", 0), 0, len(sliders.rows) - 1)
        reach = number("the reach of the sliders", body.get("reach", 3), 0.01, LARGEST_OFFSET)
        return motion(view_of(_view(body)), str(body.get("motion")), count, row=row, reach=reach)

    def _frames(self, body: Mapping[str, Any]) -> Response:
        explorer, sliders = self._shown(body)
        images, order = explorer.frames(sliders, self._motion(body, sliders, PLAYED))
        return _json({"images": [strip_uri(image[None]) for image in images], "order": order})

    def _png(self, body: Mapping[str, Any]) -> Response:
        explorer, sliders = self._shown(body)
        view = view_of(_view(body))
        side = whole("the size of the picture", body.get("side"), 1, LARGEST_PICTURE)
        made = explorer.png(sliders, view, side, bool(body.get("smooth")))
        return _file(made, f"{_start(view)}{'-edit' if view.offsets else ''}.png")

    def _loop(self, body: Mapping[str, Any]) -> Response:
        explorer, sliders = self._shown(body)
        seconds = number("the length of the loop", body.get("seconds"), 0.5, LONGEST_LOOP)
        side = whole("the size of the loop", body.get("side"), 1, LARGEST_LOOP)
        suffix = f".{body.get('format')}"
        if suffix not in LOOPS:
            raise UserError(f"a loop is written as {', '.join(LOOPS)}")
        views = self._motion(body, sliders, round(seconds * 25))
        about = {"motion": str(body["motion"])}
        if about["motion"] == "direction":
            about |= {"direction": sliders.name(body.get("row", 0)), "reach": f"{body.get('reach', 3):g}"}
        made = explorer.loop(sliders, views, side, bool(body.get("smooth")), suffix, about)
        return _file(made, f"{body['motion']}-{_start(views[0])}{suffix}")

    def _directions(self, body: Mapping[str, Any]) -> Response:
        explorer, sliders = self._shown(body)
        try:
            made = explorer.file(sliders, body)
        except (TypeError, ValueError, KeyError, AttributeError):
            raise UserError("the names of the directions are not readable; reload the page") from None
        return _file(made, f"{plain_file(str(body.get('model')))}-directions.safetensors")


def plain_file(name: str) -> str:
    """A name as part of a file name in ASCII, as HTTP headers are."""
    text = unicodedata.normalize("NFKD", plain_name(name)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]", "-", text).strip("-")[:60] or "model"


def _start(view: View) -> str:
    return "picture" if view.picture else f"seed{view.seed}"


def _parts() -> list[Any]:
    folder = resources.files("orthogan.latent.explorer").joinpath("parts")
    return [part for part in folder.iterdir() if part.is_file()]


def _view(body: Mapping[str, Any]) -> Mapping[str, Any]:
    view = body.get("view")
    return view if isinstance(view, dict) else {}


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _json(value: Mapping[str, Any]) -> Response:
    return Response(json.dumps(value), mimetype="application/json")


def _said(error: str, status: int) -> Response:
    return Response(json.dumps({"error": error}), status, mimetype="application/json")


def _file(data: bytes, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, mimetype=TYPES[f".{name.rsplit('.', 1)[1]}"], headers=headers)
