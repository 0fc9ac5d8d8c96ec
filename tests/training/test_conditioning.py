"""Every method from YAML: it trains, is logged, resumes to the bit; what makes no sense is refused with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from orthogan.errors import UserError
from orthogan.models.open import load_generator
from orthogan.training import train
from orthogan.training.gan.task import GanTask
from orthogan.training.loop import update
from orthogan.training.precision import make_accelerator
from orthogan.training.watch import FiniteWatch
from tests.fixtures.overrides import flow, norm, one
from tests.fixtures.runs import tensors, tiny

STEPS = ["training.steps=6", "logging.spectrum_every=3"]
G, D = "model.generator", "model.discriminator"


ROTATIONS = ["qr", "gram_schmidt", "householder", "polar", "polar_newton_schulz", "cayley", "matrix_exp"]
CASES = {
    **{f"rotation {m}": [norm(D, "rotation", method=m, block_size=40)] for m in ROTATIONS},
    "ogd": [norm(G, "rotation", ["!last"], method="ogd", block_size=40, lr=0.02)],
    "relaxed": [norm(D, "rotation", ["conv"], method="relaxed", block_size=40)],
    "stochastic": [
        norm(D, "rotation", ["conv", "matrix"], sample=0.5, episode=2, block_size=40, refine=2),
    ],
    "stochastic ogd in G": [
        norm(G, "rotation", ["conv"], sample=0.25, episode=2, method="ogd"),
        "training.ema.half_life=0",
    ],
    **{
        f"orthogonal {m}": [norm(D, "orthogonal", method=m, gain=0.5)]
        for m in ("qr", "householder", "cayley", "polar", "bjorck")
    },
    "skew orthogonal": [norm(D, "skew_orthogonal")],
    "stable rank k": [norm(D, "stable_rank", c=0.3, k=2), norm(G, "stable_rank", c=0.3, k=0)],
    **{
        kind: [one(D, "penalties", kind=kind, weight=0.01, layers=["conv"], schedule=[[0.0, 1.0], [0.5, 0.1]])]
        for kind in ("soft_orthogonality", "double_soft_orthogonality", "mutual_coherence", "srip", "off_diagonal")
    },
    "conv_orthogonality": [one(D, "penalties", kind="conv_orthogonality", weight=0.01)],
    "disentangled_norm": [one(G, "penalties", kind="disentangled_norm", weight=0.01, relaxed=True)],
    "hyperspherical_energy": [
        one(G, "penalties", kind="hyperspherical_energy", layers=["matrix"], s=1, half_space=True)
    ],
    "nearest orthogonal": [
        one(G, "gradient_transforms", kind="nearest_orthogonal", layers=["first"], every=2, rank_tolerance=0.01)
    ],
    "muon": [one(D, "gradient_transforms", kind="nearest_orthogonal", layers=["conv"], momentum=0.9, scale="nuclear")],
    "optimal learning rate": [
        one(G, "gradient_transforms", kind="optimal_learning_rate", layers=["first"]),
    ],
    "nog + olr": [
        f"{G}.gradient_transforms="
        + flow(
            [
                {"kind": "nearest_orthogonal", "layers": ["first"]},
                {"kind": "optimal_learning_rate", "layers": ["first"], "form": "matrix"},
            ]
        )
    ],
    "whitening": [f"{G}.whitening={flow({'layers': ['blocks.0.*'], 'groups': 2})}"],
    "covariance pooling": [f"{D}.pooling={flow({'kind': 'covariance', 'dimension': 4})}"],
    "covariance pooling and R1": [
        f"{D}.pooling={flow({'kind': 'covariance', 'dimension': 4})}",
        "loss.gradient_penalty.kind=r1",
    ],
}


def spectra(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["spectrum"] for line in lines if "spectrum" in line]


@pytest.mark.parametrize("case", CASES)
def test_it_trains_and_resumes_to_the_bit(tmp_path: Path, case: str) -> None:
    overrides = [*STEPS, *CASES[case]]
    a, b = tmp_path / "a", tmp_path / "b"
    train(tiny(a, *overrides))
    shutil.copytree(a, b)
    shutil.rmtree(b / "checkpoints" / "step-000000006")
    (b / "config.yaml").write_text((b / "config.yaml").read_text().replace(str(a), str(b)))
    train(tiny(b, *overrides))
    whole, resumed = tensors(a, 6), tensors(b, 6)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    moved = tensors(a, 3)
    assert any(not torch.equal(whole[n], moved[n]) for n in whole if n.startswith("generator/"))
    net = load_generator(a)
    assert torch.isfinite(net(net.sample_latent(2, seed=0))).all()


def task_of(tmp_path: Path, *overrides: str) -> GanTask:
    from orthogan.data import open_configured

    config = tiny(tmp_path / "run", *overrides)
    return GanTask(config, open_configured(config.data), make_accelerator(config.training))


def test_a_penalty_adds_its_gradient_once_however_many_parts(tmp_path: Path) -> None:
    found = []
    for weight, parts in ((0.0, 1), (0.5, 1), (0.5, 4)):
        penalty = one(D, "penalties", kind="soft_orthogonality", weight=weight)
        task = task_of(tmp_path, penalty, f"training.accumulate={parts}", f"{D}.norm.kind=none")
        phase = list(task.phases(0))[1]
        logs = update(phase, task, task.accelerator, FiniteWatch(), 0)
        if weight:
            assert float(logs["D/soft_orthogonality"]) > 0
        found.append({n: p.grad.clone() for n, p in task.discriminator.named_parameters()})
        weights = {
            n: p.detach().clone() for n, p in task_of(tmp_path, f"{D}.norm.kind=none").discriminator.named_parameters()
        }
    plain, once, parted = found
    for name in plain:
        torch.testing.assert_close(once[name], parted[name], atol=1e-4, rtol=1e-3)
    matrix = weights["blocks.1.conv1.weight"].flatten(1).double()  # (8, 72): rows
    slope = 0.5 * 4 * (matrix @ matrix.T - torch.eye(8)) @ matrix
    extra = (once["blocks.1.conv1.weight"] - plain["blocks.1.conv1.weight"]).flatten(1)
    torch.testing.assert_close(extra.double(), slope, atol=1e-4, rtol=1e-3)


def test_the_schedule_follows_the_share_of_the_run(tmp_path: Path) -> None:
    penalty = one(D, "penalties", kind="soft_orthogonality", weight=2.0, schedule=[[0.0, 1.0], [0.5, 0.1], [0.8, 0.0]])
    conditioning = task_of(tmp_path, penalty, *STEPS).conditioning["D"]
    full, part, none = (conditioning.weight_penalty(share) for share in (0.49, 0.5, 0.9))
    assert full is not None
    assert part is not None
    assert float(part[0].detach()) == pytest.approx(0.1 * float(full[0].detach()), rel=1e-5)
    assert none is None


def test_rotations_keep_the_spectrum_through_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(run, *STEPS, norm(D, "rotation", method="cayley", block_size=40)))
    first, *_, last = spectra(run)
    layers = [name for name in first if name.startswith("D.")]
    assert len(layers) > 5
    for name in layers:
        assert last[name]["sigma_after"] == pytest.approx(first[name]["sigma_after"], rel=1e-5)
        assert last[name]["orthogonality_error"] < 1e-4


def test_what_acts_is_said_and_logged(tmp_path: Path) -> None:
    overrides = [
        one(G, "gradient_transforms", kind="optimal_learning_rate", layers=["first"]),
        one(D, "penalties", kind="srip", layers=["blocks.0.*"]),
        f"{G}.whitening={flow({'layers': ['blocks.0.*'], 'method': 'newton_schulz'})}",
    ]
    summary = task_of(tmp_path, *overrides).summary()
    assert summary["G OptimalLearningRate on"] == "linear"
    assert "blocks.0.conv1" in summary["D srip on"]
    run = tmp_path / "logged"
    train(tiny(run, *STEPS, *overrides))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    scalars = next(line for line in lines if "G/olr/linear/eta" in line)
    assert {"G/olr/linear/cosine", "G/olr/linear/used", "D/srip"} <= scalars.keys()
    layer = spectra(run)[-1]["G.linear"]
    assert {"norm", "sigma", "condition"} <= layer.keys()
    whitened = next(v for n, v in spectra(run)[-1].items() if "kappa_shifted" in v)
    assert whitened["kappa_shifted"] < whitened["lambda_max"] / 1e-2 + 2


REFUSED = {
    "only an nn.Conv2d": [norm(D, "skew_orthogonal", ["linear"])],
    "matches nothing": [norm(D, "spectral", ["convs"])],
    "did you mean": [one(D, "penalties", kind="srip", layers=["liner"])],
    "did you mean 'model.discriminator.penalties.0.iterations'?": [one(D, "penalties", kind="srip", iteration=3)],
    "must be at position 0": [one(D, "penalties", kind="srip", schedule=[[0.5, 1.0]])],
    "makes hyperspherical_energy constant": [
        norm(D, "rotation", block_size=40),
        one(D, "penalties", kind="hyperspherical_energy"),
    ],
    "makes off_diagonal constant": [norm(D, "orthogonal", ["wide"]), one(D, "penalties", kind="off_diagonal")],
    "would not learn": [norm(D, "spectral"), one(D, "gradient_transforms", kind="optimal_learning_rate")],
    "not a weight matrix": [
        norm(G, "rotation"),
        one(G, "gradient_transforms", kind="nearest_orthogonal", layers=["first"]),
    ],
    "takes the whole step": [
        f"{G}.gradient_transforms="
        + flow([{"kind": "nearest_orthogonal", "momentum": 0.9}, {"kind": "optimal_learning_rate"}])
    ],
    "every: must be 1 with momentum": [one(G, "gradient_transforms", kind="nearest_orthogonal", momentum=0.9, every=2)],
    "training.ema.half_life to 0": [norm(G, "rotation", sample=4.0)],
    "would change the neurons": [norm(G, "rotation", sample=4.0, method="relaxed")],
    "interval to 1": [
        "loss.gradient_penalty={kind: r1, interval: 16}",
        one(D, "gradient_transforms", kind="nearest_orthogonal"),
    ],
    "differentiates D twice": [
        "loss.gradient_penalty={kind: r1}",
        f"{D}.pooling={flow({'kind': 'covariance', 'method': 'pade'})}",
    ],
    "does not support covariance pooling": [f"{D}.kind=dcgan", f"{D}.pooling.kind=covariance"],
    "matches nothing in the batch norms": [f"{G}.whitening.layers=[norms.*]"],
    "must divide": [f"{G}.whitening={flow({'layers': ['*'], 'groups': 3})}"],
    "must be Lipschitz": ["loss.kind=wasserstein", norm(D, "rotation")],
    "did you mean 'model.discriminator.penalties.0.weight'?": [
        one(D, "penalties", kind="srip", wieght=1.0),
    ],
    "did you mean 'soft_orthogonality'": [one(D, "penalties", kind="soft_ortho")],
    "neither a number": [norm(D, "rotation", sample=2.5)],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_makes_no_sense_is_refused_with_the_reason(tmp_path: Path, message: str) -> None:
    with pytest.raises(UserError) as caught:
        task_of(tmp_path, *REFUSED[message])
    assert message in str(caught.value)
    assert "model." in str(caught.value) or "loss." in str(caught.value)


def test_the_neurons_of_a_rotation_follow_the_seed(tmp_path: Path) -> None:
    rotated = norm(D, "rotation", block_size=40)
    neurons = [
        task_of(tmp_path, rotated, f"seed={seed}").discriminator.state_dict()[
            "linear.parametrizations.weight.0.neurons"
        ]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(neurons[0], neurons[1])
    assert not torch.equal(neurons[0], neurons[2])
