"""One HTML file that is the generator: a page with sliders, which draws every picture in the browser.

The network is compiled to a list of steps (``export/program.py``), which a small runtime in JavaScript runs
(``live/runtime.js``). onnxruntime-web would do the same, but its WebAssembly file alone has 14 MB.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from orthogan.errors import UserError
from orthogan.export.graph import Call, Mapping, Restyled, examples, view
from orthogan.export.program import compile_program
from orthogan.export.style import STYLES, Exportable, Exported, Style
from orthogan.io.read import printable
from orthogan.io.write import write_text
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import find_directions
from orthogan.latent.traverse import traverse
from orthogan.latent.words import describe_effect, plain_name
from orthogan.models.families.style_based import StyleBased
from orthogan.models.generate import PERIOD, in_space, sample_label
from orthogan.models.label_table import label_table
from orthogan.models.protocol import Generator, standard_normal
from orthogan.models.samples import parse_layers, parse_seeds
from orthogan.words import counted, there_are

REACH = 3  # of a slider, in units of its direction
MOST = 24  # directions on a page
TABLE = 256  # latents of a prior that the page cannot compute
PARTS = ("runtime.js", "latents.js", "engine.js")


@STYLES.register("page")
class Page(Style):
    """One HTML file that contains the generator: sliders of directions, seed, class, truncation, blend of two seeds.

    It needs no network and opens from a file, also on a phone. A seed gives the picture of ``orthogan sample``: the
    page draws the latent of any seed as torch does. For a generator with a prior of its own, the latents of the seeds
    0 to 255 are in the page. With directions in w, truncation scales the difference from the mean of w.
    """

    suffix: ClassVar[str] = ".html"
    directions: Any = Field(default=None, description="Directions, or their file; by default those of the method")
    method: str | None = Field(default=None, description="finds directions; by default the model's own, else sefa")
    layers: str | None = Field(default=None, description="in w, styles that the directions change, such as 0-3")
    dims: str | None = Field(default=None, description="directions to show, such as 0-7; by default the first 24")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="random seed of the first picture")
    half: bool = Field(default=False, description="store float16 weights, in half the bytes; pixels change slightly")

    def write(self, model: Exportable, out: Path) -> Exported:
        """Write one HTML file."""
        net = model.generator
        found = self._directions(net)
        text = self._html(model, found)
        write_text(out, text)
        size = len(text.encode()) / 1e6
        shown = f"{counted(len(found), 'direction')} ({found.method})"
        return Exported([out], [f"{printable(out)}: {size:.2f} MB, {shown}; open it in a browser"])

    def _directions(self, net: Generator) -> Directions:
        """Return the directions that the page shows."""
        given = self.directions
        if isinstance(given, str | Path):
            given = Directions.load(given)
        if given is None:
            given = find_directions(net, self.method) if self.method else own_directions(net)
        if self.layers:
            given = replace(given, layers=parse_layers(self.layers, net))
        dims = parse_seeds(self.dims, "dims") if self.dims else range(min(len(given), MOST))
        if wrong := [dim for dim in dims if dim >= len(given)]:
            raise UserError(f"dims: {wrong[0]} is out of range; {there_are(len(given), 'direction')}, from 0")
        return given.select(dims)

    def _html(self, model: Exportable, directions: Directions) -> str:
        net, space = model.generator, directions.space
        fixed = 0 if net.num_classes and space != "z" else None
        seen = in_space(net, space, y=fixed, layers=directions.layers)
        directions.check(net)
        with torch.no_grad():
            inputs = examples(view(net, space), 1)
            layered = bool(directions.layers)
            image = compile_program(
                Restyled(seen) if layered else Call(seen), (*inputs, *([inputs[0].clone()] if layered else []))
            )
            weights, mapping = image.weights, None
            if space != "z":
                if not isinstance(net, StyleBased):
                    raise UserError(
                        f"{type(net).__name__}: the page needs a mapping network from z to {space}, as style-based "
                        "generators have; choose directions in z"
                    )
                used = sum(len(part) for part in weights)
                mapping = compile_program(Mapping(net, space), examples(net, 1), start=used)
                weights = [*weights, *mapping.weights]
            drawn = seen(*inputs)
        rows, table = [np.asarray(directions.matrix, np.float32).ravel()], None
        if not is_standard(net):
            table = [rows[0].size, TABLE]
            rows += [net.sample_latent(1, seed=seed).float().numpy().ravel() for seed in range(TABLE)]
        if table and self.seed >= TABLE:
            raise UserError(f"seed {self.seed}: a page of this generator has the seeds 0 to {TABLE - 1}")
        notes = [note or effect for note, effect in zip(directions.notes, effects(net, directions), strict=True)]
        data = {
            "name": model.name,
            "width": drawn.shape[3],
            "height": drawn.shape[2],
            "channels": drawn.shape[1],
            "classes": model.class_names or [str(label) for label in range(net.num_classes)],
            "order": None if label_table(net) is None else [sample_label(net, seed) for seed in range(PERIOD)],
            "space": space,
            "layered": layered,
            "latent": net.latent_dim,
            "table": table,
            "seed": str(self.seed),
            "reach": REACH,
            "directions": [
                {"name": plain_name(name), "note": note} for name, note in zip(directions.names, notes, strict=True)
            ],
            "image": image.tree(),
            "mapping": None if mapping is None else mapping.tree(),
            "half": self.half,
            "weights": encode(torch.cat(weights).numpy(), half=self.half),
            "rows": encode(np.concatenate(rows)),
        }
        about = {**model.about(), "directions": directions.method, "space": space}
        del about["class_names"]
        values = {
            "NAME": escape(model.name),
            "SOFTWARE": escape(about["software"]),
            "WIDTH": str(drawn.shape[3]),
            "HEIGHT": str(drawn.shape[2]),
            "PARAMETERS": f"{sum(p.numel() for p in net.parameters()):,}",
            "ABOUT": "".join(
                f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(value)}</dd>" for key, value in about.items()
            ),
            "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
            "ENGINE": "\n".join(part(name) for name in PARTS),
            "MAIN": part("main.js"),
        }
        return re.sub("@([A-Z]+)@", lambda match: values[match[1]], part("page.html"))


def part(name: str) -> str:
    """Return a file of the page."""
    return resources.files("orthogan.export").joinpath("live", name).read_text(encoding="utf-8")


def encode(values: np.ndarray, *, half: bool = False) -> str:
    """Return little-endian float32 or float16 numbers as base64."""
    return base64.b64encode(values.astype("<f2" if half else "<f4").tobytes()).decode("ascii")


def own_directions(net: Generator) -> Directions:
    """Return the directions that the generator declares, else those of its first layer, else of its Jacobian."""
    if (own := find_directions(net, "native")).method == "native":
        return own
    try:
        return find_directions(net, "sefa")
    except UserError:  # the first layer is not linear
        return find_directions(net, "jacobian")


def is_standard(net: Generator) -> bool:
    """Return whether the latents of ``net`` are those that the page can compute."""
    seeds = (0, 1, 123456789)
    return all(torch.equal(_latent(net, seed), standard_normal(1, net.latent_dim, seed=seed)) for seed in seeds)


@torch.no_grad()
def _latent(net: Generator, seed: int) -> Tensor:
    return net.sample_latent(1, seed=seed).float().cpu()


def effects(net: Generator, directions: Directions) -> list[str]:
    """Return a sentence per direction about what it changes."""
    frames = traverse(net, directions, steps=3, range=1.0).frames
    return [describe_effect(row[[0]], row[[1]], row[[2]]) for row in frames]
