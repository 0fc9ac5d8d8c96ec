"""Recorded graphs: only what depends on the input is left, in float32 on the CPU."""

from __future__ import annotations

import pytest
import torch

from orthogan.export.graph import Call, examples, plain, record
from tests.fixtures.small_generators import SMALL, small_generator


def operations(name: str) -> set[str]:
    net = small_generator(name)
    program = record(Call(net), examples(net, 2), fixed_batch=True)
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("name", ["dcgan", "eigengan"])
def test_constraints_are_baked(name: str) -> None:
    """Rotations, power iterations and reflections multiply matrices; the nets have linear layers and convolutions."""
    products = {one for one in operations(name) if "mm" in one or "matmul" in one or "linalg" in one or "flip" in one}
    assert products == set()


def test_fixed_noise_is_a_constant() -> None:
    assert not [one for one in operations("stylegan2-3") if "erfinv" in one or "bitwise" in one or "shift" in one]


def test_a_net_in_another_precision_or_mode_is_copied() -> None:
    net = small_generator("wgan-gp")
    assert plain(net) is net
    half = small_generator("wgan-gp").double().train()
    copy = plain(half)
    assert half.training
    assert next(half.parameters()).dtype == torch.float64
    z = net.sample_latent(2, seed=0)
    torch.testing.assert_close(copy(z), net(z), rtol=0, atol=1e-5)


def test_examples_have_the_classes_of_their_net() -> None:
    assert len(examples(small_generator("dcgan"), 2)) == 1
    z, y = examples(small_generator("r3gan-3"), 4)
    assert (z.shape, y.tolist()) == ((4, 16), [0, 1, 2, 0])
    assert set(SMALL) >= {"dcgan", "r3gan-3"}
