"""Several methods at once, compared with random directions: the work of ``orthogan discover``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from orthogan.arguments import checked
from orthogan.drawing.notebook import html_table
from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.io.terminal import text_table
from orthogan.latent.clip import NEUTRAL, TextReader
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import find_directions, names_of, options_of
from orthogan.latent.discovery.probe import fit_probe
from orthogan.latent.discovery.random_basis import random_basis
from orthogan.latent.discovery.scores import rca, score
from orthogan.latent.factors import FactorReader, Features, describe_factors
from orthogan.models.generate import in_space, model_hash
from orthogan.words import counted


@dataclass(frozen=True, repr=False)
class Discovery:
    """Directions with their scores, and the scores of random directions for comparison.

    In a notebook, it shows itself as a table.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import discover
        >>> found = discover(orthogan.load("sprites-sngan"), "sefa", components=2, control=2)
        >>> found
        <2 directions, sefa, beside 2 random ones>
    """

    directions: Directions
    control: Directions

    def __len__(self) -> int:
        return len(self.directions)

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'direction')}, {self.directions.method}, beside {len(self.control)} random ones>"

    def _repr_html_(self) -> str:
        head, rows = self._cells(str)
        return html_table(rows, head, caption=f"Directions of {self.directions.method}")

    def table(self) -> str:
        """Format one line per direction, and the mean of the control last."""
        head, rows = self._cells(printable)
        return text_table(rows, f"l{'r' * (len(head) - 2)}l", head)

    def _cells(self, text: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
        """Return the head and the rows of the table."""
        scores = self.directions.scores
        rows = []
        for i, name in enumerate(self.directions.names):
            values = [f"{numbers[i]:.4g}" for numbers in scores.values()]
            rows.append([text(name), *values, text(self.directions.notes[i])])
        means = [f"{np.mean(self.control.scores[k]):.4g}" if k in self.control.scores else "" for k in scores]
        rows.append([f"random ({len(self.control)}, mean)", *means, ""])
        return ["direction", *scores, "note"], rows


@checked
def discover(
    generator: nn.Module | str | Path,
    method: str | Sequence[str] = "sefa",
    *,
    threshold: float = 0.9,
    control: int = 8,
    with_rca: bool = False,
    y: int | None = None,
    seed: int = 0,
    components: int | None = None,
    space: str = "z",
    layers: Sequence[int] = (),
    reader: FactorReader | None = None,
    features: Features | None = None,
    **options: Any,
) -> Discovery:
    """Find directions by one or several methods, merge near duplicates, and score them and random ones.

    Args:
        generator: a generator, or anything that ``orthogan.load`` accepts.
        method: names of ``DIRECTION_METHODS`` or ``module:function``, as a list or one string with commas.
        threshold: a direction whose |cosine| with an earlier one is above this value is merged into it.
        control: number of random orthonormal directions to score for comparison.
        with_rca: also train a small network to predict which direction moved (see ``rca``), minutes on a CPU; the
            control then has as many directions, since their number determines the chance level.
        y: class of a conditional generator; None cycles through all classes, in z.
        components: number of directions of each method, its first ones; None for all.
        space: latent space of the generator to search (``orthogan.models.generate.in_space``).
        layers: numbers of the layers that take the latent in this space; none for all. The others stay at the mean.
        reader: reads factors of images; it adds the scores "effect" and "leakage" and a caption for each direction
            (``orthogan.latent.describe_factors``), and is passed to ``oracle``.
        features: maps uint8 images to features; it is passed to ``marked`` and adds the score "feature distance". For
            ``labels`` and ``marked`` without a ``reader``, a linear probe of these features, fitted to the labeled
            pictures, is the reader; for ``text`` it is the similarity to each text.
        options: passed to the methods that have them (layer, samples, steps, batch_size, …).

    Raises:
        UserError: unknown method, space or layer, or an option that none of the methods has.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import discover
        >>> found = discover(orthogan.load("sprites-sngan"), ["sefa", "random"], components=2, control=2)
        >>> sorted(found.directions.scores), len(found.control)
        (['activeness', 'change'], 2)
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold}: must be a cosine above 0 and at most 1")
    if control < 1:
        raise UserError(f"control={control}: at least 1 random direction is needed for comparison")
    from orthogan.models.open import as_loaded  # only this function opens files

    generator = as_loaded(generator)
    net = in_space(generator, space, y=y, layers=layers)
    label = y if space == "z" else None  # a view of another space includes its class
    labels = options.get("table") or options.get("groups")
    known = {option for name in names_of(method) for option in options_of(name)}
    if features is not None and "features" in known:
        options["features"] = features
    if reader is not None and "reader" in known:
        options["reader"] = reader
    elif reader is None and labels is not None and features is not None:
        reader = fit_probe(net, labels, features)
    elif reader is None and options.get("prompts") and options.get("model"):
        reader = TextReader(options["model"], options["prompts"], options.get("neutral") or NEUTRAL)
    directions = find_directions(net, method, threshold=threshold, y=label, seed=seed, components=components, **options)
    size = len(directions) if with_rca else control
    chance = random_basis(net, components=min(size, directions.latent_dim), seed=seed)

    def scored(some: Directions) -> Directions:
        values = score(net, some, y=label)
        if with_rca:
            values = rca(net, values, y=label, seed=seed)
        if reader is not None or features is not None:
            told = not isinstance(reader, TextReader)  # similarities to texts are not factors
            values = describe_factors(net, values, reader, features, captions=told, y=label)
        if space == "z":
            return values
        unit = f"units of {space}"
        return replace(values, space=space, layers=layers, unit=unit, model_hash=model_hash(generator))

    return Discovery(scored(directions), scored(chance))
