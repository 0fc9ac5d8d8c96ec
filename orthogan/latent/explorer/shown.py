"""What the components of the live page are told, as plain data: the pictures, the list, the heading, a download."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Sequence
from typing import Any

from orthogan.latent.directions import CHANGE
from orthogan.latent.explorer.session import Explorer, change, difference
from orthogan.latent.explorer.state import ExplorerState, View, described
from orthogan.latent.render.html import strip_uri
from orthogan.latent.samples import format_ranges

REACH = 3.0  # of the sliders, to begin with
_KINDS = {"png": "image/png", "gif": "image/gif", "safetensors": "application/octet-stream"}


def stage(explorer: Explorer, bench: ExplorerState, view: View) -> dict[str, str]:
    """What the component of the pictures shows."""
    now, base = explorer.image(bench, view), explorer.image(bench, view.unedited)
    words = [f"seed {view.seed}"]
    if view.label is not None:
        words.append(explorer.class_names[view.label])
    if view.truncation != 1:
        words.append(f"truncation {view.truncation:g}")
    return {
        "now": strip_uri(now[None]),
        "base": strip_uri(base[None]),
        "difference": strip_uri(difference(base, now)[None]),
        "caption": ", ".join([*words, *(described(bench, view) or ["unedited"])]),
        "change": f"{change(base, now):.1f}",
    }


def listed(
    bench: ExplorerState, *, start_at: int, reach: float = REACH, offsets: Sequence[float] | None = None
) -> dict[str, Any]:
    """What the component of the list shows: a row for each of ``bench.rows``."""
    last = len(bench.every) - 1
    return {
        "rows": [
            {
                "name": part.names[index],
                "note": part.notes[index],
                "scores": {key: values[index] for key, values in part.scores.items()},
                "kind": "found" if place == 0 else "control" if place == last else "saved",
            }
            for place, part in enumerate(bench.every)
            for index in range(len(part))
        ],
        "offsets": list(offsets or [0.0] * len(bench.rows)),
        "current": start_at,
        "reach": reach,
        "dirty": False,
    }


def strongest(bench: ExplorerState) -> int:
    """The found direction that changes the picture most."""
    scores = bench.found.scores[CHANGE]
    return max(range(len(scores)), key=lambda index: scores[index])


def renamed(bench: ExplorerState, listed: dict[str, Any]) -> ExplorerState:
    """``bench`` under the names and notes that the list shows now."""
    rows = listed["rows"]
    return bench.renamed([row["name"] for row in rows], [row["note"] for row in rows])


def heading(explorer: Explorer, bench: ExplorerState, title: str) -> dict[str, str]:
    """What the component above all else shows."""
    found = bench.found
    layer = f", layer {found.layer}" if found.layer else ""
    layers = f", moving layers {format_ranges(found.layers)}" if found.layers else ""
    space = f" of space {found.space}" if found.space != "z" else ""
    about = f"{len(found)} directions{space} ({found.method}{layer}{layers}), offsets in {found.unit}"
    return {"title": title, "about": f"{about}, model {explorer.hash[:12]}"}


def sent(name: str, data: bytes) -> dict[str, str]:
    """What the download component hands to the browser; the stamp makes the same file new again."""
    kind = _KINDS[name.rsplit(".", 1)[1]]
    encoded = base64.b64encode(data).decode("ascii")
    return {"name": name, "uri": f"data:{kind};base64,{encoded}", "stamp": str(time.time_ns())}


def plain(name: str) -> str:
    """A direction's name as part of a file name."""
    return re.sub(r"\W+", "-", name).strip("-")[:60] or "direction"
