"""Views of a source: a subset of its images, or the same images with some random labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orthogan.data.order import subset
from orthogan.data.source import BadFile, ImageSource
from orthogan.errors import UserError
from orthogan.io.hashing import ContentHash
from orthogan.rng import derive
from orthogan.words import counted

HOLDOUT_SEED = 0  # the held-out images belong to the data, not to a run: they do not depend on the seed of the run


class View(ImageSource):
    """A view of another source; its attributes are those of the source."""

    def __init__(self, source: ImageSource, name: str) -> None:
        self.source, self.name = source, name
        self.resolution, self.channels, self.in_memory = source.resolution, source.channels, source.in_memory
        self.num_classes, self.class_names = source.num_classes, source.class_names
        self.why_unlabeled = source.why_unlabeled
        self.factor_names, self.factor_sizes = source.factor_names, source.factor_sizes
        self.factor_values = source.factor_values
        self.label_vectors, self.label_names = source.label_vectors, source.label_names

    def __len__(self) -> int:
        return len(self.source)

    def take_bad(self) -> list[BadFile]:
        """Return the unreadable files of the images behind this view."""
        return self.source.take_bad()

    def report_bad(self, files: Sequence[BadFile]) -> None:
        """Count unreadable files at the images behind this view."""
        self.source.report_bad(files)


class Part(View):
    """The images of ``source`` at ``indices``, int (n,)."""

    def __init__(self, source: ImageSource, indices: np.ndarray, name: str) -> None:
        super().__init__(source, name)
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels at ``indices``, counted within the part."""
        return self.source.read(self.indices[indices])

    @property
    def factors(self) -> np.ndarray | None:
        """Return the factors of the images of this part, or None."""
        factors = self.source.factors
        return None if factors is None else factors[self.indices]

    def fingerprint(self) -> str:
        """Return a hash of the whole set and of the chosen indices."""
        return ContentHash().text(self.source.fingerprint()).array(self.indices).hexdigest()


class NoisyLabels(View):
    """A source in which a random ``share`` of the labels is replaced by uniformly random ones (Zhang et al. 2017).

    Each image is selected independently, once and for all: the selection and the label depend on ``seed`` and the index
    of the image alone. A random label may be the true one.

    Raises:
        UserError: the source has no classes.
    """

    def __init__(self, source: ImageSource, share: float, seed: int) -> None:
        super().__init__(source, source.name)
        if source.num_classes < 2:
            raise UserError(f"data.label_noise: {source.name} has {source.num_classes} classes, so no labels to change")
        self.share, self.seed = share, seed
        count = len(source)
        drawn = np.asarray(np.random.Philox(key=derive(seed, "label noise")).random_raw(2 * count)).reshape(count, 2)
        struck = (drawn[:, 0] >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
        labels = (drawn[:, 1] % np.uint64(source.num_classes)).astype(np.int64)
        self.replaced = np.where(struck, labels, -1)  # -1: as it is

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images at ``indices``, with the replaced labels."""
        images, labels = self.source.read(indices)
        replaced = self.replaced[indices]
        return images, np.where(replaced < 0, labels, replaced)

    @property
    def factors(self) -> np.ndarray | None:
        """Return the true factors: only labels are replaced."""
        return self.source.factors

    def fingerprint(self) -> str:
        """Return a hash of the images, the share and the random seed."""
        return ContentHash().text(self.source.fingerprint(), self.share, self.seed).hexdigest()


def hold_out(source: ImageSource, share: float) -> tuple[Part, Part]:
    """Split off a random ``share`` of the images (at least one): returns (the rest, the share), the same in every run.

    Raises:
        UserError: nothing would be left of one of them.
    """
    count = max(1, round(share * len(source)))
    if not 0 < share < 1 or count >= len(source):
        raise UserError(
            f"data.holdout is {share}: it must select some, but not all, of {counted(len(source), 'image')}"
        )
    held = np.zeros(len(source), bool)
    held[subset(derive(HOLDOUT_SEED, "holdout"), len(source), count)] = True
    return (
        Part(source, np.flatnonzero(~held), f"{source.name} but {share:g}"),
        Part(source, np.flatnonzero(held), f"{share:g} of {source.name}"),
    )
