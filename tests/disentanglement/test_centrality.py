"""ModelCentrality: models with the same codes are central, one with mixed codes is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan.disentanglement import model_centrality
from orthogan.errors import UserError
from orthogan.models.codes import Codes, add_codes
from orthogan.models.protocol import Generator

CODES = Codes(4, continuous=3)


class Bars(Generator):
    """Row i of the image shows factor i, a mixture of the codes."""

    latent_dim, num_classes, image_channels, resolution = 4, 0, 1, 4

    def __init__(self, mixture: np.ndarray) -> None:
        super().__init__()
        self.mixture = torch.from_numpy(mixture).float()

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        factors = torch.cat([z[:, :3] @ self.mixture.T, z[:, 3:]], 1).clamp(-1, 1)
        return factors[:, None, :, None].expand(-1, 1, 4, 4)


class Reader:
    """Reads the factors from the image, and returns the codes that made them."""

    def __init__(self, mixture: np.ndarray) -> None:
        self.codes, self.inverse = CODES, np.linalg.inv(mixture)

    def __call__(self, images: Any) -> np.ndarray:
        return (np.asarray(images, float)[:, 0, :3, 0] / 127.5 - 1) @ self.inverse.T


def model(mixture: np.ndarray) -> tuple[Any, Any]:
    net = Bars(mixture)
    add_codes(net, CODES)
    return net, Reader(mixture)


def test_the_model_with_codes_of_its_own_is_the_least_central() -> None:
    own, permuted = np.eye(3), np.eye(3)[[2, 0, 1]] * [1, -1, 1]
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0] / 1.8
    found = model_centrality([model(own), model(turn), model(permuted)], groups=60, batch=30, reference=300)
    assert found.agreement[0, 2] == found.agreement[2, 0] == 1  # the order and the sign of codes do not matter
    assert found.agreement[0, 0] == 1
    assert found.scores[1] < min(found.scores[0], found.scores[2])
    assert found.best in (0, 2)
    pairs = (found.agreement + found.agreement.T) / 2
    np.testing.assert_allclose(found.scores[0], (pairs[0, 1] + pairs[0, 2]) / 2)


def test_two_models_have_no_centre() -> None:
    with pytest.raises(UserError, match="at least 3 models, not 2"):
        model_centrality([model(np.eye(3))] * 2)
    plain = Bars(np.eye(3))
    with pytest.raises(UserError, match="models with codes"):
        model_centrality([(plain, model(np.eye(3))[1])] * 3, groups=2, batch=4)
