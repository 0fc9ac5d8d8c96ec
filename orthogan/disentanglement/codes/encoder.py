"""An encoder for a generator that has none, trained on its own images to predict their coordinates.

It makes metrics that need codes of real images applicable, as in Ren et al., ICLR 2022, "Learning Disentangled
Representation by Exploiting Pretrained Generative Models". They judge the inversion of the encoder together with the
axes of the generator, so always report its R^2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.data.order import permuted_index
from orthogan.disentanglement.codes.coordinates import Coordinates, subject
from orthogan.disentanglement.codes.oracle import ROWS, as_input
from orthogan.disentanglement.codes.trunk import Precision, Trunk, fit_trunk, new_trunk, prepare_images
from orthogan.latent.directions import Directions
from orthogan.rng import derive

IN_SPAN = 1e-4


@dataclass(frozen=True, eq=False)
class PostHocEncoder:
    """Maps uint8 images (n, c, s, s) to coordinates float64 (n, k); an ``Encoder`` for ``factor_vae`` and others.

    ``r2`` (k,): 1 - squared error / variance of each coordinate on fresh images of the generator.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import train_encoder
        >>> generator = orthogan.load("sprites-sngan")
        >>> quick = {"steps": 2, "batch_size": 8, "fakes": 32, "fresh": 16, "precision": "float32"}
        >>> encoder = train_encoder(generator, **quick, progress=False)
        >>> encoder.r2.shape  # of each coordinate
        (16,)
    """

    net: Trunk
    coordinates: Coordinates
    resolution: int
    channels: int
    r2: np.ndarray
    variant: str
    turned: np.ndarray | None = None

    @torch.no_grad()
    def __call__(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Predict coordinates. Raises ValueError for images of another size or type."""
        given = prepare_images(images, self.channels, self.resolution, "encoder")
        place = next(self.net.parameters()).device
        parts = [self.net(as_input(piece.to(place))).cpu().double() for piece in given.split(ROWS)]
        codes = torch.cat(parts).numpy()
        return codes if self.turned is None else codes @ self.turned

    def along(self, other: Coordinates) -> PostHocEncoder:
        """Return the same encoder with coordinates along other directions of the same span; ``r2`` is unchanged.

        The best prediction of a rotated coordinate is the rotated best prediction, so training would converge to the
        same result. Coordinates keep their scale but not their zero. Raises ValueError for directions outside of the
        span.
        """
        span = self.coordinates.duals.double().T @ self.coordinates.rows.double()
        rows = other.rows.double()
        if len(other) != len(self.coordinates) or float((rows - rows @ span).norm(dim=1).max()) > IN_SPAN:
            raise ValueError(
                "these directions are outside of the span of the directions that the encoder was trained on; train "
                "another encoder"
            )
        own = (self.coordinates.spread[:, None] * self.coordinates.rows).double()
        return replace(self, turned=(own @ (other.duals / other.spread[:, None]).double().T).numpy())


def train_encoder(
    generator: nn.Module,
    directions: Directions | None = None,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    fakes: int = 20_000,
    fresh: int = 2_000,
    lr: float = 2e-3,
    precision: Precision = "bfloat16",
    y: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> PostHocEncoder:
    """Train the network of the oracle to predict the coordinates of generated images, with squared error.

    The same arguments give the same encoder.

    Args:
        generator: the generator that is inverted.
        directions: k directions whose coordinates are predicted; default: the native ones.
        steps: training steps.
        batch_size: images per step.
        fakes: number of images to train on.
        fresh: number of further images, which determine ``r2``.
        lr: learning rate.
        precision: of the training; results differ slightly between precisions.
        y: class of all images; None means a random class per image, if there are classes.
        seed: of the images, of the initialization and of the batches.
        progress: show a progress bar.

    Returns:
        An encoder: uint8 images (n, c, s, s) to coordinates float64 (n, k).

    Raises:
        ValueError: a number is too small.
        UserError: the directions or the class are invalid.

    Example:
        >>> import numpy as np
        >>> import orthogan
        >>> from orthogan.disentanglement import train_encoder
        >>> generator = orthogan.load("sprites-sngan")
        >>> quick = {"steps": 2, "batch_size": 8, "fakes": 32, "fresh": 16, "precision": "float32"}
        >>> encoder = train_encoder(generator, **quick, progress=False)
        >>> encoder(np.zeros((2, 1, 32, 32), np.uint8)).shape
        (2, 16)
    """
    if fresh < 2 or fakes < batch_size or batch_size < 2:
        raise ValueError(
            f"encoder: fakes={fakes}, fresh={fresh}, batch_size={batch_size}: batch_size and fresh must be at least "
            "2, and fakes at least one batch"
        )
    with subject(generator, directions, y=y) as seen:
        z, labels = seen.draw(fakes + fresh, derive(seed, "encoder"))
        images = torch.from_numpy(seen.images(z, labels))
        targets, coordinates, place = seen.coordinates.of(z), seen.coordinates, seen.response.device
    net = new_trunk(images.shape[1], images.shape[2], len(coordinates), seed=seed).to(place)
    order = derive(seed, "encoder order")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = permuted_index(order, fakes, step * batch_size, batch_size)
        return as_input(images[chosen].to(place)), targets[chosen].to(place)

    fit_trunk(
        net,
        batch,
        functional.mse_loss,
        steps=steps,
        lr=lr,
        precision=precision,
        what="encoder",
        progress=progress,
    )
    sizes = f"steps={steps},batch={batch_size},fakes={fakes},lr={lr:g},{precision}"
    found = PostHocEncoder(
        net, coordinates, images.shape[2], images.shape[1], np.zeros(len(coordinates)), f"encoder,{sizes}"
    )
    truth = targets[fakes:].double().numpy()
    error = ((found(images[fakes:]) - truth) ** 2).mean(0)
    return replace(found, r2=1 - error / truth.var(0))
