"""The network Q of an InfoGAN as encoder: codes of real images without training another network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.disentanglement.codes.coordinates import Coordinates
from orthogan.disentanglement.codes.oracle import ROWS, as_input
from orthogan.disentanglement.codes.trunk import prepare_images
from orthogan.errors import UserError
from orthogan.models.codes import Codes, codes_of
from orthogan.models.generate import generate
from orthogan.models.label_table import classes_at
from orthogan.models.modes import eval_mode, get_device
from orthogan.models.protocol import Generator
from orthogan.models.recognition import Recognition, logits_and_codes
from orthogan.rng import derive

IN_SPAN = 1e-4


@dataclass(frozen=True, eq=False)
class Recognizer:
    """Maps uint8 images (n, c, s, s) to predicted codes float64 (n, k); made by ``recognizer``.

    A continuous code is its predicted mean; a categorical one is the probability of each category. ``r2`` (k,): 1 -
    squared error / variance of each on fresh images of the generator.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import recognizer
        >>> from orthogan.models import Codes, InfoGANDiscriminator, InfoGANGenerator, add_codes
        >>> from orthogan.models.recognition import add_recognition
        >>> codes, sizes = Codes(4, continuous=2), {"resolution": 16, "image_channels": 1, "channels": 4}
        >>> generator, critic = InfoGANGenerator(latent_dim=4, **sizes), InfoGANDiscriminator(**sizes)
        >>> add_codes(generator, codes)
        >>> add_recognition(critic, codes, width=8, channels=1, resolution=16)
        >>> q = recognizer(generator, critic, fresh=16)
        >>> q(np.zeros((3, 1, 16, 16), np.uint8)).shape
        (3, 2)
    """

    discriminator: nn.Module
    codes: Codes
    resolution: int
    channels: int
    r2: np.ndarray
    variant: str = "Q of the discriminator"
    turned: np.ndarray | None = None

    @torch.no_grad()
    def __call__(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Predict the codes. Raises ValueError for images of another size or type."""
        given = prepare_images(images, self.channels, self.resolution, "network Q")
        place, labels, parts = get_device(self.discriminator), None, []
        with eval_mode(self.discriminator):
            for piece in given.split(ROWS):
                if getattr(self.discriminator, "num_classes", 0):  # Q does not read the class
                    labels = torch.zeros(len(piece), dtype=torch.int64, device=place)
                outputs = logits_and_codes(self.discriminator, as_input(piece.to(place)), labels)[1]
                parts.append(self._values(outputs.double().cpu()))
        codes = torch.cat(parts).numpy()
        return codes if self.turned is None else codes @ self.turned

    def along(self, other: Coordinates) -> Recognizer:
        """Return the same network with coordinates along other directions of the span of the codes.

        Raises ValueError for directions outside of it.
        """
        size, rows = self.codes.size, other.rows.double()
        if float(rows[:, size:].norm(dim=1).amax()) > IN_SPAN:
            raise ValueError("these directions are outside of the codes that Q predicts; train an encoder instead")
        return replace(self, turned=other.duals.double()[:, :size].T.numpy())

    def _values(self, outputs: Tensor) -> Tensor:
        means, *logits = outputs.split([self.codes.continuous, *self.codes.categorical], 1)
        return torch.cat([means, *(block.softmax(1) for block in logits)], 1)


def recognizer(
    generator: Generator, discriminator: nn.Module, *, fresh: int = 2_000, seed: int = 0, y: int | None = None
) -> Recognizer:
    """Return Q of a trained InfoGAN as an encoder, for ``disentangle(..., encoder=...)``.

    This is how InfoGAN-CR and TC-GAN evaluate: metrics of the codes that Q predicts for real images.

    Args:
        fresh: number of generated images that determine its ``r2``.
        y: class of a conditional generator; None cycles through all classes.

    Raises:
        UserError: the generator has no codes, or the discriminator no Q.

    Example:
        >>> from orthogan.disentanglement import recognizer
        >>> from orthogan.models import Codes, InfoGANDiscriminator, InfoGANGenerator, add_codes
        >>> from orthogan.models.recognition import add_recognition
        >>> codes, sizes = Codes(4, continuous=2), {"resolution": 16, "image_channels": 1, "channels": 4}
        >>> generator, critic = InfoGANGenerator(latent_dim=4, **sizes), InfoGANDiscriminator(**sizes)
        >>> add_codes(generator, codes)
        >>> add_recognition(critic, codes, width=8, channels=1, resolution=16)
        >>> q = recognizer(generator, critic, fresh=16)
        >>> q.r2.shape  # of each code
        (2,)
    """
    codes = codes_of(generator)
    if codes is None or not isinstance(getattr(discriminator, "recognition", None), Recognition):
        raise UserError(
            "this model has no network Q that predicts codes; train with model.generator.codes and "
            "loss.information.weight above 0, or use a trained encoder"
        )
    z = generator.sample_latent(fresh, seed=derive(seed, "recognizer"))
    classes = generator.num_classes
    labels = (
        (classes_at(generator, torch.arange(fresh)).numpy() if y is None else np.full(fresh, y)) if classes else None
    )
    images = generate(generator, z, labels, batch_size=256)
    found = Recognizer(discriminator, codes, images.shape[2], images.shape[1], np.zeros(codes.size))
    truth = codes(z)[:, : codes.size].double().numpy()
    return replace(found, r2=1 - ((found(images) - truth) ** 2).mean(0) / truth.var(0))
