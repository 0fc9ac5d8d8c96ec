"""What a traversal says about itself in words; the same words in the picture, the animation and the page."""

from __future__ import annotations

from orthogan.latent.text import signed
from orthogan.latent.traverse import CHANGE, Traversal


def title(traversal: Traversal) -> str:
    """How the directions were found, and in which layer."""
    about = traversal.metadata
    layer = f", layer {about['layer']}" if about.get("layer") else ""
    return f"Traversal: {about.get('method', 'directions')}{layer}"


def subtitle(traversal: Traversal) -> str:
    """The base image, the unit of the offsets, and the truncation."""
    about = traversal.metadata
    parts = [f"offset in {traversal.unit}"]
    if about.get("base") == "zero":
        parts.append("base: mode of the prior")
    elif "seed" in about:
        parts.append(f"base: seed {about['seed']}")
    if about.get("class", "none") != "none":
        parts.append(f"class {about['class']}")
    if about.get("truncation", "1") != "1":
        parts.append(f"truncation {about['truncation']}")
    if about.get("centred") == "true":
        parts.append("centred on each direction")
    if about.get("model_hash"):
        parts.append(f"model {about['model_hash'][:12]}")
    return ", ".join(parts)


def score_lines(traversal: Traversal, row: int) -> list[str]:
    """One text a score of this row; the change in grey levels last."""
    scores = traversal.scores[row]
    lines = [f"{name} {value:.3g}" for name, value in scores.items() if name != CHANGE]
    return lines + ([f"change {scores[CHANGE]:.1f}"] if CHANGE in scores else [])


def column_labels(traversal: Traversal) -> list[str]:
    """-3 … 0 … +3."""
    return [signed(float(offset)) for offset in traversal.offsets]
