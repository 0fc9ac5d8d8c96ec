"""Merge directions of several methods without duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orthogan.errors import UserError
from orthogan.latent.directions import Directions


def merge(found: Sequence[Directions], *, threshold: float = 0.9) -> Directions:
    """Concatenate directions of several methods, without those nearly parallel to an earlier one.

    Names begin with the method. Only scores that all have are kept. Rows keep their length and sign.

    Args:
        found: directions of one latent space and one model.
        threshold: a row whose |cosine| with an earlier one is above this value is dropped, and mentioned in the note of
            the nearest one that is kept.

    Raises:
        UserError: no directions, a threshold outside 0 to 1, or different latents, spaces, layers, units or models.

    Example:
        >>> import numpy as np
        >>> from orthogan import Directions
        >>> from orthogan.latent.discovery import merge
        >>> first = Directions(np.eye(2, 4, dtype=np.float32), method="first")
        >>> second = Directions(np.eye(3, 4, dtype=np.float32)[1:], method="second")
        >>> merge([first, second]).matrix.shape  # one row is in both
        (3, 4)
    """
    if not found:
        raise UserError("nothing to merge: pass at least one Directions object")
    if not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold}: must be a cosine above 0 and at most 1")
    for what in ("latent_dim", "space", "layers", "unit", "model_hash"):
        values = {str(getattr(one, what)) for one in found} - {""}
        if len(values) > 1:
            raise UserError(f"these directions differ in {what} ({', '.join(sorted(values))}): they cannot be merged")

    rows = np.concatenate([one.matrix for one in found]).astype(np.float64)
    names = [_named(one.method, name) for one in found for name in one.names]
    notes = [[note] if note else [] for one in found for note in one.notes]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = np.abs(units @ units.T)
    kept: list[int] = []
    for row, name in enumerate(names):
        nearest = max(kept, key=lambda other: cosines[row, other], default=row)
        if nearest != row and cosines[row, nearest] > threshold:
            notes[nearest].append(f"also {name} (cosine {cosines[row, nearest]:.2f})")
        else:
            kept.append(row)
    common = [key for key in found[0].scores if all(key in one.scores for one in found)]
    methods = list(dict.fromkeys(one.method for one in found))
    layers = {one.layer for one in found}
    return Directions(
        rows,
        method=" + ".join(methods),
        space=found[0].space,
        layers=found[0].layers,
        layer=layers.pop() if len(layers) == 1 else "",
        unit=found[0].unit,
        scores={key: [value for one in found for value in one.scores[key]] for key in common},
        names=names,
        notes=["; ".join(note) for note in notes],
        model_hash=next((one.model_hash for one in found if one.model_hash), ""),
        seed=found[0].seed,
    ).select(kept)


def _named(method: str, name: str) -> str:
    return name if name.startswith(method) else f"{method} {name}"
