"""FGSM and PGD through ART: one step against one written by hand, the ball, the range, chance, and a net left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from orthogan import weights
from orthogan.data import to_float
from orthogan.errors import UserError
from orthogan.evaluation.robustness import attacks
from orthogan.evaluation.robustness.attacks import Attack, Attacker
from tests.fixtures.attacked import CLASSES, SIDE, answers, net, pictures

pytest.importorskip("art", reason="needs the extra robust")


def batch(count: int = 6, channels: int = 3) -> Tensor:
    return to_float(torch.from_numpy(pictures(count, channels=channels)), dequantize=False)


def attacker(module: nn.Module, attack: Attack, channels: int = 3) -> Attacker:
    return Attacker(module.eval(), attack, shape=(channels, SIDE, SIDE), num_classes=CLASSES)


def slope(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cross entropy in the images."""
    x = images.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(functional.cross_entropy(module(x), labels, reduction="sum"), x)
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_one_step_in_the_largest_norm_is_the_sign_of_the_gradient(channels: int) -> None:
    module, images = net(channels=channels).eval(), batch(channels=channels)
    labels = answers(module, images)
    found = attacker(module, Attack("fgsm", "inf", 4.0), channels)(images, labels)
    # [-1, 1] is twice as wide as [0, 1]
    wanted = (images + 2 * 4 / 255 * slope(module, images, labels).sign()).clamp(-1, 1)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    assert float((found - images).abs().amax()) == pytest.approx(8 / 255, rel=1e-4)


def test_one_step_in_the_euclidean_norm_is_along_the_gradient() -> None:
    module, images = net().eval(), batch()
    labels = answers(module, images)
    found = attacker(module, Attack("fgsm", "2", 20.0))(images, labels)
    along = slope(module, images, labels)
    wanted = images + 2 * 20 / 255 * along / along.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)  # nothing is cut off: see ``pictures``


def test_one_step_of_pgd_from_the_image_is_a_step_of_its_size() -> None:
    module, images = net().eval(), batch()
    labels = answers(module, images)
    found = attacker(module, Attack("pgd", "inf", 4.0, steps=1, step=1.5, restarts=0))(images, labels)
    wanted = images + 2 * 1.5 / 255 * slope(module, images, labels).sign()
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["fgsm", "pgd"]),
    norm=st.sampled_from(["inf", "2"]),
    eps=st.floats(0.1, 300.0),
    steps=st.integers(1, 4),
    restarts=st.integers(0, 2),
)
def test_no_image_leaves_the_ball_or_the_range(kind: str, norm: str, eps: float, steps: int, restarts: int) -> None:
    module, images = net(), batch()
    labels = answers(module, images)
    found = attacker(module, Attack(kind, norm, eps, steps, None, restarts))(images, labels)
    assert float(found.abs().amax()) <= 1
    change = (found - images).flatten(1) * 255 / 2
    sizes = change.abs().amax(1) if norm == "inf" else change.norm(dim=1)
    assert float(sizes.amax()) <= eps * (1 + 1e-4) + 1e-3
    assert float(sizes.amin()) > 0


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_no_perturbation_gives_the_very_images(kind: str, norm: str) -> None:
    module, images = net(), batch()
    found = attacker(module, Attack(kind, norm, 0.0))(images, answers(module, images))
    assert torch.equal(found, images)
    assert found is not images


@pytest.mark.parametrize(("norm", "eps"), [("inf", 100.0), ("2", 2000.0)])
def test_a_large_ball_leaves_nothing_right(norm: str, eps: float) -> None:
    module, images = net(), batch(24)
    labels = answers(module, images)
    found = attacker(module, Attack("pgd", norm, eps))(images, labels)
    assert float((answers(module, found) == labels).double().mean()) == 0.0


def test_more_steps_raise_the_loss() -> None:
    module, images = net().eval(), batch(24)
    labels = answers(module, images)
    losses = []
    for attack in (Attack("fgsm", eps=3.0), Attack("pgd", eps=3.0, steps=1), Attack("pgd", eps=3.0, steps=40)):
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(module(attacker(module, attack)(images, labels)), labels)))
    assert losses[2] > losses[1]
    assert losses[2] >= losses[0] - 1e-4


def test_chance_is_the_seeds_and_nobody_elses() -> None:
    module, images = net(), batch()
    labels = answers(module, images)
    attack = attacker(module, Attack("pgd", eps=8.0, steps=1, restarts=1))
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    one, two, other = (attack(images, labels, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kind", ["none", "spectral", "stable_rank", "orthogonal"])
def test_the_net_is_as_it_was(kind: str) -> None:
    module = net()
    weights.apply(module, kind)
    module[0].bias.requires_grad_(False)
    module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wanted = [p.requires_grad for p in module.parameters()]
    images = batch()
    with torch.no_grad():
        attacker(module, Attack("pgd", eps=8.0, steps=2))(images, answers(module, images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert [p.requires_grad for p in module.parameters()] == wanted
    assert all(p.grad is None for p in module.parameters())
    assert not module.training


def test_a_sure_net_is_not_safe_because_its_loss_is_tiny() -> None:
    module, images = net().eval(), batch(16)
    with torch.no_grad():
        module[-1].weight.mul_(100)  # gradients down to 1e-14
    labels = answers(module, images)
    attack = attacker(module, Attack("pgd", "2", 300.0, restarts=0))
    assert float((answers(module, attack(images, labels)) == labels).double().mean()) < 0.3


def test_an_image_is_attacked_alike_alone_and_among_others() -> None:
    module, images = net().eval(), batch(48)
    with torch.no_grad():
        module[-1].weight.mul_(100)  # gradients from 1e-14 to 5
    labels = answers(module, images)
    attack = attacker(module, Attack("fgsm", "2", 20.0))
    among = attack(images, labels)
    for i in range(0, 48, 8):
        torch.testing.assert_close(attack(images[[i]], labels[[i]]), among[[i]], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "cw"}, "attack 'cw': choose fgsm or pgd"),
        ({"norm": "1"}, "norm '1': choose inf or 2"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"step": 0.0}, "step is 0.0"),
        ({"restarts": -1}, "restarts is -1"),
    ],
)
def test_an_attack_that_means_nothing_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Attack(**options)


def test_the_variant_holds_all_that_moves_the_number() -> None:
    assert Attack("fgsm", "2", 128.0).variant == "L2 128/255"
    assert Attack("pgd", "inf", 8.0).variant == "Linf 8/255, 20 steps of 1, 1 restarts"
    assert Attack("pgd", eps=8.0, steps=2).step_size == 8.0
    assert Attack("pgd", eps=8.0, step=0.5, restarts=0).variant == "Linf 8/255, 20 steps of 0.5, 0 restarts"


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[robust\]'"):
        attacker(net(), Attack())
