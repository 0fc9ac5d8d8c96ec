"""ModelCentrality: choose a run without labels, as the one whose codes agree best with those of all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orthogan.arguments import checked
from orthogan.disentanglement.codes.recognizer import Recognizer
from orthogan.errors import UserError
from orthogan.models.codes import Codes, codes_of
from orthogan.models.generate import generate
from orthogan.models.label_table import classes_at
from orthogan.models.protocol import Generator
from orthogan.rng import derive

FEWEST = 3  # models; of two, both agree equally well with the other


@dataclass(frozen=True, eq=False)
class Centrality:
    """``scores`` (n,), the mean agreement of each model with the others; ``agreement`` (n, n), row i: encoder i.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import Centrality
        >>> Centrality(np.array([0.4, 0.9, 0.8]), np.eye(3)).best
        1
    """

    scores: np.ndarray
    agreement: np.ndarray

    @property
    def best(self) -> int:
        """The index of the model to choose."""
        return int(self.scores.argmax())


@checked
def model_centrality(
    models: Sequence[tuple[Generator, Recognizer]],
    *,
    groups: int = 500,
    batch: int = 100,
    reference: int = 2_000,
    seed: int = 0,
) -> Centrality:
    """Return how well the codes of each InfoGAN agree with those of the others; the highest is the medoid.

    The agreement A_ij is the FactorVAE score of encoder i with the codes of generator j as factors: ``groups`` times,
    one code of j is fixed in ``batch`` images, and the code that encoder i gives the smallest relative deviation votes
    for it; the score is the training accuracy of the majority vote. The score of model i is the mean over the others of
    (A_ij + A_ji) / 2.

    Args:
        models: (generator, Q) of three runs or more, Q from ``recognizer``, with any number of codes.
        reference: images of generator j for the deviation of each code; the released code uses a tenth of the data.

    Raises:
        UserError: too few models, a generator without codes, or images of different sizes.

    Source: Lin et al. 2020, arXiv:1906.06034, section 5, and their released code.

    Example:
        >>> from orthogan.disentanglement import model_centrality, recognizer
        >>> from orthogan.models import Codes, InfoGANDiscriminator, InfoGANGenerator, add_codes
        >>> from orthogan.models.recognition import add_recognition
        >>> codes, sizes = Codes(4, continuous=2), {"resolution": 16, "image_channels": 1, "channels": 4}
        >>> generator, critic = InfoGANGenerator(latent_dim=4, **sizes), InfoGANDiscriminator(**sizes)
        >>> add_codes(generator, codes)
        >>> add_recognition(critic, codes, width=8, channels=1, resolution=16)
        >>> q = recognizer(generator, critic, fresh=16)
        >>> found = model_centrality([(generator, q)] * 3, groups=4, batch=8, reference=16)
        >>> found.agreement.shape
        (3, 3)
    """
    if len(models) < FEWEST:
        raise UserError(f"ModelCentrality compares at least {FEWEST} models, not {len(models)}")
    if groups < 1 or batch < 2 or reference < 2:
        raise UserError(f"groups={groups}, batch={batch}, reference={reference}: must be at least 1, 2 and 2")
    agreement = np.empty((len(models), len(models)))
    for j, (generator, _) in enumerate(models):
        codes = codes_of(generator)
        if codes is None:
            raise UserError("ModelCentrality needs models with codes; train with model.generator.codes")
        plain = _images(generator, generator.sample_latent(reference, seed=derive(seed, "centrality", j)))
        deviations = [encoder(plain).std(0) for _, encoder in models]
        tables = [np.zeros((encoder.codes.size, codes.count), np.int64) for _, encoder in models]
        for group in range(groups):
            z = generator.sample_latent(batch, seed=derive(seed, "centrality", j, group))
            images = _images(generator, _fixed(z, codes, group % codes.count))
            for (_, encoder), deviation, table in zip(models, deviations, tables, strict=True):
                ratio = encoder(images).std(0) / np.where(deviation > 0, deviation, np.inf)
                ratio[deviation == 0] = np.inf
                table[ratio.argmin(), group % codes.count] += 1
        agreement[:, j] = [table.max(1).sum() / groups for table in tables]
    pairs = (agreement + agreement.T) / 2
    others = ~np.eye(len(models), dtype=bool)
    return Centrality((pairs * others).sum(1) / (len(models) - 1), agreement)


def _fixed(z: Tensor, codes: Codes, index: int) -> Tensor:
    """Return ``z`` with code ``index`` of the first row in all rows."""
    sizes = [1] * codes.continuous + list(codes.categorical)
    start = sum(sizes[:index])
    block = slice(start, start + sizes[index])
    z = z.clone()
    z[:, block] = z[0, block]
    return z


def _images(generator: Generator, z: Tensor) -> np.ndarray:
    labels = classes_at(generator, torch.arange(len(z))).numpy() if generator.num_classes else None
    with torch.no_grad():
        return generate(generator, z, labels, batch_size=256)
