"""The factors of images by an oracle, as columns of numbers: what directions with names are found and scored with."""

from __future__ import annotations

import numpy as np
import torch

from orthogan.data.faces import NONE
from orthogan.data.source import ImageSource
from orthogan.disentanglement.codes.merging import KINDS
from orthogan.disentanglement.codes.oracle import LEAST_ACCURACY, ROWS, FactorClassifier, as_input, oracle_for
from orthogan.errors import UserError


class OracleReader:
    """The ``orthogan.latent.FactorReader`` of an oracle.

    An ordered factor is one column, its mean position from 0 to 1. A factor of two values is one column, the
    probability of the second value; a factor that may be absent is one column, the probability that it is present. Any
    other factor has one column for the probability of each value. The color of a part that may be absent is left out,
    because it changes with its presence, and so are factors that the oracle reads with less than ``least_accuracy``.

    Args:
        source: the images on which the oracle was trained, for the names of the values.

    Raises:
        UserError: no factor is left.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import OracleReader, train_oracle
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> oracle = train_oracle(sprites, steps=2, batch_size=8, held_out=20, precision="float32", progress=False)
        >>> reader = OracleReader(oracle, sprites, least_accuracy=0)
        >>> reader.names[:4]
        ('shape: 0', 'shape: 1', 'shape: 2', 'scale')
    """

    def __init__(
        self, oracle: FactorClassifier, source: ImageSource, *, least_accuracy: float = LEAST_ACCURACY
    ) -> None:
        self.oracle = oracle
        names, groups, weights = [], [], []
        kept = oracle.kept(least_accuracy)
        for factor, size in enumerate(oracle.merging.sizes):
            if factor not in kept:
                continue
            group = oracle.merging.names[factor]
            values = _values(oracle, source, factor)
            present = NONE in values and not any(word in group for word in ("color", "colour"))
            if NONE in values and not present:
                continue
            if present:
                columns = {group: np.array([float(value != NONE) for value in values])}
            elif not source.factor_values and not any(word in group for word in KINDS):
                columns = {group: np.linspace(0, 1, size)}
            elif size == 2:
                columns = {f"{group}: {values[1]}": np.array([0.0, 1.0])}
            else:
                columns = {f"{group}: {value}": row for value, row in zip(values, np.eye(size), strict=True)}
            for name, row in columns.items():
                names.append(name)
                groups.append(group)
                weights.append((factor, row))
        if not names:
            accuracy = ", ".join(f"{name} {value:.2f}" for name, value in oracle.accuracy.items())
            raise UserError(
                f"{source.name}: the oracle reads no factor with an accuracy of {least_accuracy:g} ({accuracy})"
            )
        self.names, self.groups = tuple(names), tuple(groups)
        self._weights = weights

    @torch.no_grad()
    def read(self, images: np.ndarray) -> np.ndarray:
        """Return (n, columns) float64 in [0, 1] for images uint8 (n, c, s, s).

        Raises ``UserError`` for images of another size.
        """
        want = (self.oracle.channels, self.oracle.resolution, self.oracle.resolution)
        if images.shape[1:] != want:
            raise UserError(
                f"images of shape {images.shape[1:]}: the oracle of {self.oracle.source} reads {want}; use data of the "
                "size of the generator"
            )
        place = next(self.oracle.net.parameters()).device
        found = []
        for start in range(0, len(images), ROWS):
            logits = self.oracle.net(as_input(torch.from_numpy(images[start : start + ROWS]).to(place)))
            shares = [part.double().softmax(1).cpu().numpy() for part in logits.split(self.oracle.merging.sizes, 1)]
            found.append(np.stack([shares[factor] @ row for factor, row in self._weights], axis=1))
        return np.concatenate(found)


def factor_reader(
    source: ImageSource,
    *,
    oracle: FactorClassifier | None = None,
    least_accuracy: float = LEAST_ACCURACY,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> OracleReader:
    """Return a reader of the factors of ``source``: of ``oracle``, or of the one trained on it now and cached.

    Args:
        source: images with known factors.
        oracle: the classifier of the factors; default: that of ``oracle_for``.
        least_accuracy: factors that the oracle reads less accurately than this on held-out images are not read.
        device: where the oracle is trained and run.
        progress: show a progress bar.

    Raises:
        UserError: the factors of the images are not known, or none is read well enough.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import factor_reader, train_oracle
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> oracle = train_oracle(sprites, steps=2, batch_size=8, held_out=20, precision="float32", progress=False)
        >>> factor_reader(sprites, oracle=oracle, least_accuracy=0).groups[-2:]
        ('x', 'y')
    """
    try:
        found = oracle_for(source, device=device, progress=progress) if oracle is None else oracle
    except ValueError as error:
        raise UserError(str(error)) from error
    return OracleReader(found, source, least_accuracy=least_accuracy)


def _values(oracle: FactorClassifier, source: ImageSource, factor: int) -> list[str]:
    """The name of each class of a factor: what the names of its values have in common, or its number."""
    table, column = oracle.merging.tables[factor], oracle.merging.columns[factor]
    if not source.factor_values:
        return [str(number) for number in range(oracle.merging.sizes[factor])]
    names = source.factor_values[column]
    merged = len(set(table)) < len(table)
    first = [names[table.index(number)] for number in range(oracle.merging.sizes[factor])]
    return [name.rstrip("0123456789") if merged and not name.startswith("#") else name for name in first]
