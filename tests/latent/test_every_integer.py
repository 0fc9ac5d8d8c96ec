"""Seeds, rows, classes and layers: integers of any kind mean the same, and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery import discover
from orthogan.latent.traverse import traverse
from orthogan.models.generate import generate, sample_latents, truncate
from orthogan.rng import derive


class Painter(nn.Module):
    """Images (n, 1, 4, 4) of latents and classes."""

    latent_dim, num_classes = 4, 3

    def __init__(self) -> None:
        super().__init__()
        self.first, self.of_class = nn.Linear(4, 16), nn.Embedding(3, 16)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return (self.first(z) + self.of_class(y)).tanh().view(-1, 1, 4, 4)


NET = Painter()
AXES = Directions(np.eye(4), method="axes")
TAKES: dict[str, Callable[[Any], Any]] = {
    "seed": lambda value: traverse(NET, AXES, steps=3, seed=value).frames,
    "class": lambda value: traverse(NET, AXES, steps=3, y=value).frames,
    "steps": lambda value: traverse(NET, AXES, steps=value).frames,
    "control": lambda value: traverse(NET, AXES, steps=3, control=value).frames,
    "dims": lambda value: traverse(NET, AXES, steps=3, dims=[value]).frames,
    "select": lambda value: AXES.select([value]).matrix,
    "seed of directions": lambda value: np.array(Directions(np.eye(4), method="m", seed=value).seed),
    "layers": lambda value: np.array(Directions(np.eye(4), method="m", space="w", layers=[value]).layers),
    "labels": lambda value: generate(NET, torch.zeros(1, 4), [value] if value in (0, 1, 2) else [0]),
    "latents": lambda value: sample_latents(NET, [value]).numpy(),
}


@pytest.mark.parametrize("kind", [np.int64, np.uint8, lambda n: np.array(n), torch.tensor])
@pytest.mark.parametrize("name", TAKES)
def test_integers_of_any_kind_mean_the_same(name: str, kind: Callable[[int], Any]) -> None:
    number = 3 if name == "steps" else 2
    np.testing.assert_array_equal(TAKES[name](kind(number)), TAKES[name](number))


ALLOWED = [("steps", True), ("seed of directions", True), ("class", None)]  # a class of None is that of the seed


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        (name, bad)
        for name in ("class", "steps", "dims", "select", "layers", "seed", "seed of directions")
        for bad in (1.5, 1.0, "1", None, [1], np.nan, True)
        if (name, bad) not in ALLOWED
    ],
)
def test_nothing_else_is_taken_for_an_integer(name: str, bad: Any) -> None:
    with pytest.raises(UserError, match=r"expected (an integer|integers)"):
        TAKES[name](bad)


@pytest.mark.parametrize("labels", [[0.5], [-1], [3], [0, 1], [], [True], "0"], ids=repr)
def test_labels_that_do_not_fit_are_refused(labels: Any) -> None:
    with pytest.raises(UserError, match=r"labels|this generator has 3 classes, 0 to 2"):
        generate(NET, torch.zeros(1, 4), labels)


def test_a_mask_is_no_list_of_rows() -> None:
    for mask in ([True, False, True, True], np.array([True, False, True, True])):
        with pytest.raises(UserError, match="dims"):
            AXES.select(mask)


@pytest.mark.parametrize("seed", [1.5, None, "1"])
def test_a_seed_is_an_integer(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed is"):
        derive(seed, "anything")


@pytest.mark.parametrize(
    "matrix",
    [torch.eye(4, requires_grad=True), torch.eye(4).bfloat16(), torch.eye(4).to_sparse(), torch.eye(4).double()],
)
def test_directions_are_taken_from_any_tensor(matrix: Tensor) -> None:
    np.testing.assert_array_equal(Directions(matrix, method="m").matrix, np.eye(4))


@pytest.mark.parametrize("matrix", [[["a"]], [[1.0, 2.0], [3.0]], [[None]], [[1j]], torch.eye(2) * 1j], ids=str)
def test_what_is_no_matrix_of_numbers_is_no_directions(matrix: Any) -> None:
    with pytest.raises(UserError, match="directions"):
        Directions(matrix, method="m")


@pytest.mark.parametrize(
    "options", [{"threshold": v} for v in (0, -1, 1.5, np.nan)] + [{"control": v} for v in (0, -1)]
)
def test_options_of_discover_are_checked_with_one_method_too(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        discover(NET, "sefa", **options)


def test_whole_latents_are_truncated_to_fractions() -> None:
    ones = torch.ones(2, 3, dtype=torch.int64)
    torch.testing.assert_close(truncate(ones, 0.5), truncate(ones.float(), 0.5))
