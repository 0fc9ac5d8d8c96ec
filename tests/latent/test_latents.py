"""Files of latents: what they keep, what they refuse, and how latents move between spaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orthogan.errors import UserError
from orthogan.io.weights import read_sealed, write_sealed
from orthogan.latent.directions import Directions
from orthogan.latent.latents import Latents
from orthogan.latent.traverse import contact_sheet, traverse
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import generate, in_space, model_hash
from orthogan.models.noise import noise_maps
from tests.fixtures.disc import Affine, Disc
from tests.fixtures.inverted import Grainy


def test_a_file_holds_everything(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    latents = Latents(
        rng.normal(size=(3, 6)),
        "w",
        labels=[2, 0, 1],
        names=["ä", "b", "c"],
        model_hash="ab",
        noise={"noise_const": rng.normal(size=(3, 1, 4, 4))},
        scores={"error": [1, 2, 3.5]},
        protocol={"steps": "5"},
    )
    found = Latents.load(latents.save(tmp_path / "l.safetensors"))
    for name in ("space", "labels", "names", "model_hash", "scores", "protocol"):
        assert getattr(found, name) == getattr(latents, name), name
    assert np.array_equal(found.matrix, latents.matrix)
    assert np.array_equal(found.noise["noise_const"], latents.noise["noise_const"])
    two = found.select([2, 0])
    assert (two.names, two.labels, two.scores) == (("c", "ä"), (1, 2), {"error": (3.5, 1.0)})
    assert np.array_equal(two.noise["noise_const"], latents.noise["noise_const"][[2, 0]])


def test_other_files_and_wrong_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        Latents(np.zeros((1, 2))).save(tmp_path / "l.npy")
    file = Latents(np.zeros((1, 2))).save(tmp_path / "l.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"l\.safetensors: damaged"):
        Latents.load(file)
    for wrong, said in (
        ({"matrix": np.zeros(3)}, "expected"),
        ({"matrix": np.full((1, 2), np.nan)}, "NaN"),
        ({"matrix": np.zeros((2, 2)), "names": ["a"]}, "1 value of 'names' for 2 latents"),
        ({"matrix": np.zeros((1, 2)), "scores": {"error": [np.inf]}}, "score 'error'"),
        ({"matrix": np.zeros((1, 2)), "noise": {"n": np.zeros((1, 4, 4))}}, "noise 'n'"),
        ({"matrix": np.zeros((1, 2)), "noise": {"n": ["a"]}}, "noise maps 'n' are not a matrix of numbers"),
        ({"matrix": np.zeros((1, 2), np.complex64)}, "complex values"),
        ({"matrix": np.zeros((2, 2)), "names": "ab"}, "expected a list"),
        ({"matrix": np.zeros((1, 2)), "names": ["\ud800"]}, "must be a string"),
        ({"matrix": np.zeros((1, 2)), "protocol": {"by": "\ud800"}}, "must be a string"),
        ({"matrix": np.zeros((1, 2)), "model_hash": 3}, "model_hash of these latents must be a string, not 3"),
        ({"matrix": np.zeros((1, 2)), "space": ["z"]}, "space of these latents must be a string"),
        ({"matrix": np.zeros((2, 2)), "labels": []}, "0 values of 'labels' for 2"),
        ({"matrix": np.zeros((1, 2)), "scores": {"error": [None]}}, "score 'error' is .*expected a list of numbers"),
    ):
        with pytest.raises(UserError, match=said):
            Latents(**wrong)
    with pytest.raises(UserError, match=r"latents \[2\]: there are 2"):
        Latents(np.zeros((2, 2))).select([2])


def test_only_floating_point_tensors_are_latents(tmp_path: Path) -> None:
    file = Latents(np.zeros((1, 2))).save(tmp_path / "l.safetensors")
    _, about = read_sealed(file, needed=True)
    for kind in (torch.int64, torch.bool, torch.complex64):
        write_sealed(file, {"latents": torch.zeros(1, 2, dtype=kind)}, about)
        with pytest.raises(UserError, match=rf"l\.safetensors: 'latents' is {kind}"):
            Latents.load(file)


def test_latents_are_compared_with_a_generator() -> None:
    net = Disc(num_classes=3)
    Latents(np.zeros((1, 6)), labels=[2], model_hash=model_hash(net)).check(net)
    for latents, said in (
        (Latents(np.zeros((1, 6))), "mine: this generator needs classes, 0 to 2"),
        (Latents(np.zeros((1, 6)), labels=[3]), "mine: class 3"),
        (Latents(np.zeros((1, 5)), labels=[0]), "mine: made for a latent of 5 dimensions"),
        (Latents(np.zeros((1, 6)), "w", labels=[0]), "mine: space 'w'"),
        (Latents(np.zeros((1, 6)), labels=[0], noise={"n": np.zeros((1, 1, 4, 4))}), "no noise map 'n' of 4x4 pixels"),
    ):
        with pytest.raises(UserError, match=said):
            latents.check(net, where="mine")
    with pytest.warns(UserWarning, match="another model"):
        Latents(np.zeros((1, 5)), model_hash="00").check(Affine())


def test_images_have_their_classes_and_noise() -> None:
    net = Disc(num_classes=3)
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    latents = Latents(z.numpy(), labels=[2, 0, 2, 1])
    assert np.array_equal(latents.images(net), generate(net, z, [2, 0, 2, 1]))
    grainy = Grainy()
    assert list(noise_maps(grainy)) == ["noise_const"]
    maps = np.random.default_rng(1).normal(size=(2, 1, 16, 16)).astype(np.float32)
    images = Latents(np.zeros((2, 2)), noise={"noise_const": maps}).images(grainy)
    expected = (np.clip(0.2 * maps, -1, 1) + 1) * 127.5
    assert np.abs(images - expected).max() <= 0.5 + 1e-4
    dressed = Latents(np.zeros((2, 2)), noise={"noise_const": maps}).dressed(grainy, 1)
    assert model_hash(dressed) == model_hash(grainy)
    assert np.array_equal(generate(dressed, torch.zeros(1, 2))[0], images[1])
    assert grainy.noise_const.shape == (16, 16)  # as before


def test_latents_move_from_z_to_w_to_w_plus() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=4, w_dim=6, mapping_layers=1)
    z = net.sample_latent(1, seed=2)
    for space in ("w", "w+"):
        moved = Latents(z.numpy()).in_space(net, 0, space)
        torch.testing.assert_close(in_space(net.eval(), space)(moved[None]), net(z))
    w = Latents(Latents(z.numpy()).in_space(net, 0, "w").numpy()[None], "w")
    torch.testing.assert_close(w.in_space(net, 0, "w+"), Latents(z.numpy()).in_space(net, 0, "w+"))
    with pytest.raises(
        UserError, match=r"in space 'w' and cannot be moved to 'z'; .*project the picture with --space z"
    ):
        w.in_space(net, 0, "z")


def styled() -> StyleGAN2Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=4, w_dim=6, mapping_layers=1)
        with torch.no_grad():
            for one in net.parameters():
                one += 0.1 * torch.randn_like(one)
    return net.eval()


@pytest.mark.parametrize("layers", [(), (0, 3)])
@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_a_traversal_begins_at_a_latent_of_any_space(space: str, layers: tuple[int, ...]) -> None:
    net = styled()
    rows = np.random.default_rng(1).normal(size=(2, 6))
    directions = Directions(rows, method="m", space="w", layers=layers)
    start = in_space(net, space).sample_latent(1, seed=3)
    if space == "w+":
        start[0, 6:12] += 0.5  # another w in the second row
    latents = Latents(start.numpy(), space, names=["me"])
    walked = traverse(net, directions, steps=3, range=2, latents=latents)
    ws = {"z": lambda: net.mapping(start).repeat(8, 1), "w": lambda: (net.w_mean + start).repeat(8, 1)}
    base = ws.get(space, lambda: net.w_mean + start.view(8, 6))().detach()
    for row in range(2):
        moved = base.clone()
        for layer in layers or range(8):
            moved[layer] += 2 * torch.from_numpy(rows[row]).float()
        expected = (net.synthesis(moved[None]).detach().clamp(-1, 1).numpy()[0] + 1) * 127.5
        assert np.abs(walked.frames[row, 2] - expected).max() <= 0.52
    assert walked.metadata["latent"] == "me"
    assert "seed" not in walked.metadata
    two = Latents(start.repeat(2, 1).numpy(), space, names=["me", "you"])
    sheet = contact_sheet(net, directions, seeds=[0], steps=3, range=2, latents=two)
    assert np.array_equal(sheet.traversals[1].frames, walked.frames)
    assert (sheet.seeds, sheet.starts) == (["me", "you"], "latent")
    with pytest.raises(UserError, match="omit y and base"):
        traverse(net, directions, steps=3, latents=latents, base="zero")
    if space != "z":
        with pytest.raises(UserError, match="cannot be moved to 'z'"):
            traverse(net, Directions(np.eye(4), method="m"), steps=3, latents=latents)
