"""Films: the walk, its ends and speed, classes that fade, varied noise, and the files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from orthogan.errors import UserError
from orthogan.latent.films import check_film, film, keyframes, save_film
from orthogan.latent.interpolation import slerp_even
from orthogan.latent.latents import Latents
from orthogan.models.families.sngan import SNGANGenerator
from orthogan.models.generate import generate, sample_latents
from tests.fixtures.disc import Affine, Disc
from tests.fixtures.inverted import Grainy

QUICK = {"fps": 10, "progress": False}


def images(z: Tensor) -> np.ndarray:
    return generate(Disc(), z)


def test_a_film_passes_its_keyframes_and_closes() -> None:
    net = Disc()
    keys = keyframes(net, [3, 8, 15])
    z = sample_latents(net, [3, 8, 15])
    for walk in ("line", "sphere", "path"):
        made = film(net, keys, seconds=0.5, walk=walk, **QUICK)
        assert made.frames.shape == (15, 1, 32, 32)
        assert np.abs(made.frames[[0, 5, 10]].astype(int) - images(z)).max() <= 1
        once = film(net, keys, seconds=0.5, walk=walk, loop=False, **QUICK)
        assert len(once.frames) == 11
        assert np.abs(once.frames[-1].astype(int) - images(z)[2]).max() <= 1
    middle = slerp_even(z[0].double(), z[1].double(), torch.tensor([0.4], dtype=torch.float64)).float()
    made = film(net, keys, seconds=0.5, **QUICK)  # the sphere, in z
    assert np.abs(made.frames[2].astype(int) - images(middle[None])[0]).max() <= 1
    assert made.metadata["walk"] == "sphere"
    assert film(net, keys.select([0]), seconds=0.3, **QUICK).frames.shape[0] == 3


def test_a_path_has_no_corners() -> None:
    net = Affine()
    keys = Latents(np.random.default_rng(0).normal(size=(4, 5)) * 0.2, "z")
    weight = np.linalg.pinv(net.fc.weight.detach().numpy())
    bends = {}
    for walk in ("line", "path"):
        made = film(net, keys, seconds=2, walk=walk, **QUICK)
        points = (made.frames.reshape(len(made.frames), -1) / 127.5 - 1 - net.fc.bias.detach().numpy()) @ weight.T
        steps = np.diff(points[[14, 17, 20, 23, 26]], axis=0)  # around the second keyframe
        angle = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairwise(steps)]
        bends[walk] = np.degrees(np.arccos(np.clip(angle, -1, 1))).max()
    assert bends["path"] < 0.6 * bends["line"]


def test_even_speed_makes_equal_steps() -> None:
    net = Disc()
    z = np.zeros((3, 6), np.float32)
    z[:, 0] = [0, 0.05, 2.5]  # a tiny step, then a wide one
    keys = Latents(z)

    def pixels(targets: Tensor):  # type: ignore[no-untyped-def]
        return lambda shown: (shown - targets).square().flatten(1).mean(1)

    options = {"seconds": 1, "walk": "line", "loop": False, **QUICK}
    steps = {}
    for name, even in (("latent", None), ("pictures", pixels)):
        frames = film(net, keys, even=even, **options).frames.astype(float)
        steps[name] = np.sqrt((np.diff(frames, axis=0) ** 2).mean((1, 2, 3)))
    assert steps["pictures"].std() / steps["pictures"].mean() < 0.3
    assert steps["latent"].std() / steps["latent"].mean() > 0.8


def test_classes_fade_into_each_other() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = SNGANGenerator(resolution=32, image_channels=1, channels=2, latent_dim=4, num_classes=3).eval()
        with torch.no_grad():
            for one in net.parameters():
                one += 0.3 * torch.randn_like(one)
    keys = Latents(np.ones((2, 4)), labels=[0, 2])
    made = film(net, keys, seconds=0.4, loop=False, **QUICK)
    z = torch.ones(1, 4)
    assert np.array_equal(made.frames[0], generate(net, z, [0])[0])
    assert np.abs(made.frames[-1].astype(int) - generate(net, z, [2])[0]).max() <= 1
    mixed = SNGANGenerator(resolution=32, image_channels=1, channels=2, latent_dim=4, num_classes=3).eval()
    state = net.state_dict()
    for name, value in state.items():
        if name.endswith(("gain", "bias")) and value.ndim == 2 and len(value) == 3:
            value[1] = (value[0] + value[2]) / 2  # the middle of the film is this class
    mixed.load_state_dict(state)
    assert np.abs(made.frames[2].astype(int) - generate(mixed, z, [1])[0]).max() <= 1
    with pytest.raises(UserError, match="its classes cannot fade"):
        film(Disc(num_classes=3), Latents(np.zeros((2, 6)), labels=[0, 1]), seconds=0.2, **QUICK)


def test_noise_is_fixed_or_varied() -> None:
    keys = Latents(np.zeros((2, 2)))
    fixed = film(Grainy(), keys, seconds=0.2, **QUICK).frames
    varied, again = (film(Grainy(), keys, seconds=0.2, noise="varied", seed=2, **QUICK).frames for _ in range(2))
    assert np.array_equal(fixed[0], fixed[1])
    assert (varied[0] != varied[1]).any()
    assert np.array_equal(varied, again)
    small = film(Grainy(), keys, seconds=0.2, noise="varied", seed=2, batch_size=3, **QUICK).frames
    assert np.array_equal(varied, small)
    with pytest.raises(UserError, match="no noise maps"):
        film(Disc(), Latents(np.zeros((2, 6))), noise="varied")


def test_keyframes_are_seeds_then_latents() -> None:
    net = Disc(num_classes=3)
    mine = Latents(np.ones((1, 6)), labels=[2], names=["me"])
    keys = keyframes(net, [4, 5], [mine], classes=[1], truncation=0.5)
    assert (keys.names, keys.labels) == (("4", "5", "me"), (1, 1, 2))
    assert np.array_equal(keys.matrix[:2], sample_latents(net, [4, 5], 0.5).numpy())
    with pytest.raises(UserError, match="no keyframes"):
        keyframes(net)


def test_files_of_every_kind(tmp_path: Path) -> None:
    made = film(Disc(), keyframes(Disc(), [1, 2]), seconds=0.2, **QUICK)
    for name in ("a.gif", "b.webp"):
        with Image.open(save_film(made, tmp_path / name, side=48)) as found:
            assert (found.n_frames, found.width) == (4, 48)
    folder = save_film(made, tmp_path / "frames", side=64, smooth=True)
    names = sorted(file.name for file in folder.iterdir())
    assert names == [f"frame{i:06d}.png" for i in range(4)]
    with Image.open(folder / names[0]) as first:
        assert first.size == (64, 64)
        assert first.text["keyframes"] == "1,2"
    with pytest.raises(UserError, match=r"film\.avi: a film is written as"):
        check_film("film.avi")
    with pytest.raises(UserError, match="size 9999"):
        check_film("film.gif", 9999)


def test_each_transition_can_have_its_own_seconds() -> None:
    net = Disc()
    keys = keyframes(net, [3, 8, 15])
    z = sample_latents(net, [3, 8, 15])
    made = film(net, keys, seconds=[0.2, 0.5, 0.3], **QUICK)
    assert len(made.frames) == 10
    assert np.abs(made.frames[[0, 2, 7]].astype(int) - images(z)).max() <= 1
    assert made.metadata["seconds"] == "0.2,0.5,0.3"
    once = film(net, keys, seconds=[0.2, 0.5], loop=False, **QUICK)
    assert np.abs(once.frames[[0, 2, 7]].astype(int) - images(z)).max() <= 1

    def against(a: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda b: (a.float() - b.float()).flatten(1).norm(dim=1)

    even = film(net, keys, seconds=[0.2, 0.5], loop=False, even=against, **QUICK)
    assert np.abs(even.frames[[0, 2, 7]].astype(int) - images(z)).max() <= 6  # the keyframes stay at their times
    with pytest.raises(UserError, match="seconds: 2 numbers, but 3 keyframes have 3 transitions; give 3"):
        film(net, keys, seconds=[1, 2], **QUICK)
    with pytest.raises(UserError, match="change the seconds"):
        film(net, keys, seconds=[0.01, 1, 1], **QUICK)
