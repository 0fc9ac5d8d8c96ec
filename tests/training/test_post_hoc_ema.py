"""Post-hoc EMA against the average of a stored trajectory, whose weights are written down here."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from orthogan.errors import UserError
from orthogan.io.weights import read_sealed
from orthogan.models.open import load_generator
from orthogan.training import post_hoc_ema, train
from orthogan.training.config import EmaConfig
from orthogan.training.ema import PowerEma, exponent
from orthogan.training.post_hoc_ema import PostHocEma, fit_profile, write_snapshot
from tests.fixtures.runs import finish, tensors, tiny

STEPS, BATCH = 640, 10
POWER = (
    "training.ema.kind=power",
    "logging.watch_every=3",
    "training.ema.snapshot_every=2",
    "checkpoint.every=3",
    "checkpoint.keep=3",
)


def gamma_by_root(length: float) -> float:
    """The positive root of the cubic that the paper solves."""
    s = length**-2
    return float(max(root.real for root in np.roots([1, 7, 16 - s, 12 - s])))


def profile(length: float, steps: int) -> np.ndarray:
    """The weight of each of ``steps`` equal steps: the integral of the profile over it."""
    power = gamma_by_root(length) + 1
    edges = (np.arange(steps + 1) / steps) ** power
    return np.diff(edges)


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """Weights that wander like those of a training: (STEPS, 6)."""
    return np.cumsum(np.random.default_rng(3).normal(size=(STEPS, 6)), axis=0).astype(np.float32)


@pytest.fixture(scope="module")
def stored(walk: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with 32 snapshots of the averages of ``walk``, and nothing else."""
    run = tmp_path_factory.mktemp("walk")
    net = nn.Sequential(nn.Linear(5, 1), nn.BatchNorm1d(1, affine=False))
    average = PowerEma(net, EmaConfig(kind="power"))
    for step, point in enumerate(walk, 1):
        with torch.no_grad():
            net[0].weight.copy_(torch.from_numpy(point[None, :5]))
            net[0].bias.copy_(torch.from_numpy(point[5:]))
        net[1].num_batches_tracked.fill_(step)
        average.update(net, step * BATCH, BATCH)
        if step % (STEPS // 32) == 0:
            write_snapshot(run, average, step, step * BATCH)
    return run


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.27])
def test_the_exponent_is_the_root_of_the_papers_cubic(length: float) -> None:
    assert exponent(length) == pytest.approx(gamma_by_root(length), rel=1e-9)


def test_the_averages_of_training_are_those_of_the_whole_trajectory(stored: Path, walk: np.ndarray) -> None:
    newest = load_file(stored / "ema" / f"step-{STEPS:09d}.safetensors")
    for length in (0.05, 0.1):
        direct = profile(length, STEPS) @ walk.astype(np.float64)
        found = torch.cat([newest[f"{length:g}/0.weight"][0], newest[f"{length:g}/0.bias"]]).double().numpy()
        np.testing.assert_allclose(found, direct, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("length", "most"), [(0.05, 1e-4), (0.06, 0.01), (0.08, 0.01), (0.12, 0.01), (0.18, 0.03)])
def test_a_reconstructed_average_equals_the_direct_one(
    stored: Path, walk: np.ndarray, length: float, most: float
) -> None:
    averages = PostHocEma.open(stored)
    _, error = averages.coefficients(length)
    assert error < most
    found = averages.tensors(length)
    assert int(found["1.num_batches_tracked"]) == STEPS
    reconstructed = torch.cat([found["0.weight"][0], found["0.bias"]]).double().numpy()
    weights = profile(length, STEPS)
    direct = weights @ walk.astype(np.float64)
    # Cauchy and Schwarz: the error is at most that of the profile times the spread of the trajectory about any point
    norm = np.sqrt(np.sum(weights**2))
    bound = 1.05 * error * norm * np.linalg.norm(walk - direct, axis=0) + 1e-3
    assert np.all(np.abs(reconstructed - direct) <= bound)
    assert np.all(np.abs(reconstructed - direct) < 0.02 * walk.std(axis=0) + 1e-3)


def test_the_fit_is_as_good_as_the_normal_equations_of_the_paper_in_exact_arithmetic() -> None:
    times = [20, 40, 60, 80, 100]
    profiles = [(t, length) for t in times for length in (0.05, 0.1)]
    target = (100, 0.08)

    def inner(a: tuple[float, float], b: tuple[float, float]) -> mpmath.mpf:
        (t, first), (s, second) = a, b
        p, q = (mpmath.mpf(gamma_by_root(length)) for length in (first, second))
        low = mpmath.mpf(min(t, s))
        norm = mpmath.mpf(t) ** (p + 1) * mpmath.mpf(s) ** (q + 1)
        return (p + 1) * (q + 1) / (p + q + 1) * low ** (p + q + 1) / norm

    with mpmath.workdps(60):
        gram = mpmath.matrix([[inner(a, b) for b in profiles] for a in profiles])
        x = mpmath.lu_solve(gram, mpmath.matrix([inner(a, target) for a in profiles]))
        x = x / sum(x)
        cross = sum(x[i] * inner(a, target) for i, a in enumerate(profiles))
        square = (x.T * gram * x)[0]
        best = float(mpmath.sqrt((inner(target, target) - 2 * cross + square) / inner(target, target)))
        exact = np.array([float(value) for value in x])
    found, error = fit_profile(profiles, target)
    assert error == pytest.approx(best, rel=1e-3)
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)


def test_no_two_files_of_snapshots_are_held_longer_than_needed(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensors(dict[str, torch.Tensor]):
        pass

    alive, most = weakref.WeakSet[torch.Tensor](), [0]
    real = post_hoc_ema.read_sealed

    def counted(path: Path, *, needed: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        tensors, about = real(path, needed=needed)
        alive.update(tensors.values())
        most[0] = max(most[0], len(alive))
        return tensors, about

    monkeypatch.setattr(post_hoc_ema, "read_sealed", counted)
    averages = PostHocEma.open(stored)
    averages.tensors(0.08)
    one_file = len(load_file(stored / "ema" / f"step-{STEPS:09d}.safetensors"))
    assert most[0] <= 2 * one_file
    assert len(averages.snapshots) == 64


@pytest.mark.parametrize("length", [0.0, 0.001, 0.28, 2.0])
def test_a_length_that_cannot_be_had_is_refused(stored: Path, length: float) -> None:
    with pytest.raises(UserError, match="length"):
        PostHocEma.open(stored).tensors(length)


def test_a_damaged_snapshot_is_named(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(stored, tmp_path / "run")
    file = run / "ema" / "step-000000320.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    averages = PostHocEma.open(run)
    assert file.name in capsys.readouterr().err
    assert len(averages.snapshots) == 62
    averages.tensors(0.08)
    other = run / "ema" / "step-000000340.safetensors"
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    with pytest.raises(UserError, match=other.name):
        averages.tensors(0.08)


def test_a_folder_without_snapshots_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.ema=\{kind: power\}"):
        PostHocEma.open(tmp_path)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"lengths": [0.05, 0.2]}, "lengths"),
        ({"snapshot_every": 5}, "snapshot_every"),
        ({"kind": "power", "lengths": [0.1]}, "lengths"),
        ({"kind": "power", "lengths": [0.1, 0.1]}, "lengths"),
        ({"kind": "power", "lengths": [0.1, 0.3]}, "lengths"),
    ],
)
def test_a_section_that_means_nothing_is_refused(section: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        EmaConfig.model_validate(section)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(tmp_path_factory.mktemp("ema") / "run", *POWER, "training.steps=7"))


def snapshots(run: Path) -> dict[str, object]:
    """The tensors and the metadata, whose order may change, of each file."""
    found = {}
    for file in sorted((run / "ema").iterdir()):
        tensors, about = read_sealed(file, needed=True)
        found[file.name] = about | {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return found


def test_a_resumed_run_stores_the_same_bits(trained: Path, tmp_path: Path) -> None:
    assert list(snapshots(trained)) == [f"step-{step:09d}.safetensors" for step in (2, 4, 6, 7)]
    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)
    for step in (6, 7):
        shutil.rmtree(run / "checkpoints" / f"step-{step:09d}", ignore_errors=True)
    shutil.copy(run / "ema" / "step-000000007.safetensors", run / "ema" / "step-000000005.safetensors")
    (run / "ema" / ".step-000000006.safetensors.1.writing").write_text("a kill left this")
    before = tensors(trained, 7)
    train(tiny(run, *POWER, "training.steps=7"))
    after = tensors(run, 7)
    assert before.keys() == after.keys()
    assert any(name.startswith("generator-ema-0.1/") for name in after)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert snapshots(run) == snapshots(trained)


def test_the_averages_of_the_checkpoint_are_those_of_the_last_snapshot(trained: Path) -> None:
    newest, kept = load_file(trained / "ema" / "step-000000007.safetensors"), tensors(trained, 7)
    for length, stem in ((0.05, "generator-ema"), (0.1, "generator-ema-0.1")):
        names = [name for name in newest if name.startswith(f"{length:g}/")]
        assert names
        for name in names:
            assert torch.equal(newest[name], kept[f"{stem}/{name.partition('/')[2]}"])


@pytest.mark.slow
def test_two_processes_store_the_averages_of_one_and_know_that_they_are_done(trained: Path, tmp_path: Path) -> None:
    result = finish(tmp_path / "two", *POWER, "training.steps=7", processes=2)
    assert result.returncode == 0, result.stderr
    one, two = (load_file(run / "ema" / "step-000000007.safetensors") for run in (trained, tmp_path / "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name].float(), two[name].float(), rtol=1e-2, atol=1e-3)
    assert "data: " in result.stdout
    again = finish(tmp_path / "two", *POWER, "training.steps=7", processes=2)  # a finished run opens no data
    assert again.returncode == 0, again.stderr
    assert "data: " not in again.stdout


class Tied(nn.Module):
    """A user's generator, two of whose layers share a weight."""

    def __init__(self, latent_dim: int, resolution: int) -> None:
        super().__init__()
        self.latent_dim, self.side = latent_dim, resolution
        self.first, self.second = nn.Linear(latent_dim, latent_dim), nn.Linear(latent_dim, latent_dim)
        self.second.weight = self.first.weight
        self.out = nn.Linear(latent_dim, resolution**2)

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.out(self.second(self.first(z).relu()).relu()).tanh().view(-1, 1, self.side, self.side)


def test_a_generator_with_tied_weights_is_stored_resumed_and_averaged(tmp_path: Path) -> None:
    kind = [f"model.generator.kind={__name__}:Tied", "training.schedule.kind=constant", *POWER]
    for steps in (3, 6):
        parts = train(tiny(tmp_path / "parts", *kind, f"training.steps={steps}"))
    whole = train(tiny(tmp_path / "whole", *kind, "training.steps=6"))
    one, two = tensors(whole, 6), tensors(parts, 6)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    net: Any = load_generator(whole, trust=True)
    assert net.first.weight is net.second.weight
    assert torch.equal(net.first.weight, one["generator-ema/first.weight"])
    found: Any = PostHocEma.open(whole).generator(0.1, net)
    wanted = one["generator-ema-0.1/second.weight"]
    assert not torch.allclose(wanted, one["generator-ema/second.weight"], atol=1e-5)
    torch.testing.assert_close(found.first.weight.data, wanted, atol=1e-6, rtol=0)
    assert found.first.weight is found.second.weight
