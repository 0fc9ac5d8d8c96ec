"""Captions of traversals, the same in pictures, animations and pages."""

from __future__ import annotations

from collections.abc import Mapping

from orthogan.drawing.text import signed
from orthogan.latent.directions import CHANGE
from orthogan.latent.traverse import ContactSheet, Traversal

MOST_PARTS = 4  # lines of a note beside a row
TITLE = "What each direction changes"


def _found_by(about: Mapping[str, str]) -> list[str]:
    """Describe how the directions were found, in which layer, and in which space and layers they act."""
    parts = [f"method: {about['method']}"] if about.get("method") else []
    if about.get("layer"):
        parts.append(f"layer {about['layer']}")
    if about.get("space", "z") != "z":
        parts.append(f"space {about['space']}")
    if about.get("layers"):
        parts.append(f"moving layers {about['layers']}")
    return parts


def subtitle(traversal: Traversal) -> str:
    """The base image, how the directions were found, the unit of the offsets, the walk and the truncation."""
    about = traversal.metadata
    if about.get("base") == "zero":
        base = ["from the average latent" if about.get("space", "z") == "z" else f"from the mean of {about['space']}"]
    else:
        base = [f"from {kind} {about[kind]}" for kind in ("seed", "latent") if kind in about]
    return _described(traversal.unit, about, base)


def sheet_subtitle(sheet: ContactSheet) -> str:
    """Like ``subtitle``, for all seeds."""
    count = len(sheet)
    return _described(sheet.traversals[0].unit, sheet.metadata, [f"from {count} {sheet.starts}s"] if count > 1 else [])


def _described(unit: str, about: Mapping[str, str], base: list[str]) -> str:
    parts = list(base)
    if about.get("class", "none") != "none" and "," not in about["class"]:
        parts.append(f"class {about['class']}")
    if about.get("truncation", "1") != "1":
        parts.append(f"truncation {about['truncation']}")
    if about.get("walk", "line") == "sphere":
        parts.append("walk on the sphere")
    if about.get("centred") == "true":
        parts.append("centered on each direction")
    parts.append(f"offsets in {unit}")
    parts += _found_by(about)
    if about.get("model_hash"):
        parts.append(f"model {about['model_hash'][:12]}")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def score_lines(traversal: Traversal, row: int) -> list[str]:
    """Return one string per score of this row; the change in gray levels comes last."""
    return _lines(traversal.scores[row])


def row_lines(traversal: Traversal, row: int) -> list[str]:
    """Return the note of this row, one line per part of it, and the change; without a note, all scores."""
    note, scores = traversal.notes[row], score_lines(traversal, row)
    return [*note.split(", ")[:MOST_PARTS], *scores[-1:]] if note else scores


def sheet_text(note: str, scores: Mapping[str, float]) -> str:
    """Return the note of a direction and its change on one line; without a note, all scores."""
    return ", ".join([note, *_lines(scores)[-1:]] if note else _lines(scores))


def _lines(scores: Mapping[str, float]) -> list[str]:
    lines = [f"{name} {value:.3g}" for name, value in scores.items() if name != CHANGE]
    return lines + ([f"change {scores[CHANGE]:.1f}"] if CHANGE in scores else [])


def column_labels(traversal: Traversal) -> list[str]:
    """-3 … 0 … +3."""
    return [signed(float(offset)) for offset in traversal.offsets]
