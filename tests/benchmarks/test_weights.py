"""The benchmark of the weights on a tiny net, and its arithmetic on numbers that are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from benchmarks import timing
from benchmarks.layers import NETS, Net, planned, shapes, wrn_28_10
from benchmarks.timing import Readings
from benchmarks.weights import WEIGHTS, C, PublishedStableRankNorm, chosen, main, targets, weights_step
from orthogan.models.families.sngan import SNGANDiscriminator
from orthogan.penalties import PENALTIES
from orthogan.weights import StableRankNorm, stable_rank_norm

CPU = torch.device("cpu")
TOOLS = {
    *("plain", "torch-sn", "published-srn", "sn", "srn-k0", "srn-k1", "srn-k2", "nog-eigh", "nog-polar_express", "olr"),
    *(f"rotation-{m}" for m in ("qr", "gram_schmidt", "householder", "polar", "polar_newton_schulz")),
    *(f"rotation-{m}" for m in ("cayley", "matrix_exp", "ogd", "relaxed")),
    *(f"orthogonal-{m}" for m in ("qr", "householder", "cayley", "polar", "bjorck")),
    *(f"penalty-{name}" for name in PENALTIES),
}
STEPS = {"plain", "sn", "srn-k1", "torch-sn", "published-srn", "rotation-qr", "nog-first"}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def net() -> nn.Module:
        return SNGANDiscriminator(resolution=32, image_channels=3, channels=4)

    monkeypatch.setitem(NETS, "tiny", Net(net, side=32, adversarial=True))
    monkeypatch.setattr(timing, "LEAST", 0.0)


def readings(**seconds: list[float]) -> Readings:
    return Readings({name.replace("_", "-"): values for name, values in seconds.items()})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_tool_is_measured_and_the_raw_numbers_are_written(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "geotorch", None)
    path = tmp_path / "below" / "out.json"
    options = ["--net", "tiny", "--rounds", "1", "--batch", "2", "--device", "cpu", "--precision", precision]
    result = main([*options, "--json", str(path)])
    assert json.loads(path.read_text()) == result
    alone, step = result["tables"]
    assert set(alone["ratios"]) == TOOLS
    assert set(step["ratios"]) == STEPS
    assert set(alone["absent"]) == {"geotorch-expm", "geotorch-cayley"}
    for one in (alone, step):
        assert one["ratios"]["plain"] == {"median": 1.0, "min": 1.0, "max": 1.0}
        assert all(ratio["min"] > 0 for ratio in one["ratios"].values())
        assert all(len(seconds) == 1 for seconds in one["readings"]["seconds"].values())
        assert one["precision"] == precision
    assert len(alone["layers"]) == 11
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert result["machine"]["versions"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "| rotation-qr |" in printed
    assert "srn-k1 over sn, whole step" in printed
    assert "not measured" in printed


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_a_call_gives_every_weight_its_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = NETS["tiny"].build()
    step = weights_step(Net(lambda: net), WEIGHTS[name], torch.float32, CPU)
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda *_: None)
    net.zero_grad()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    step()
    step()  # a second forward needs a graph of its own
    found = {name: p for name, p in net.named_parameters() if p.dim() > 1}
    assert len(found) == 11
    for parameter in found.values():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        if name == "published-srn" and len(parameter) == 1:
            continue  # the published form makes a single row a constant, up to rounding: its gradient may be zero
        assert parameter.grad.norm() > 1e-4
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == (set(found) if name == "rotation-ogd" else set())
    if name == "nog-eigh":
        gradient = net.blocks[0].conv1.weight.grad.flatten(1)
        torch.testing.assert_close(gradient @ gradient.mT, torch.eye(4))


def test_geotorch_is_measured_on_flattened_kernels_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def orthogonal(layer: nn.Module, name: str, triv: str) -> None:
        seen.append(tuple(getattr(layer, name).shape))
        parametrizations.orthogonal(layer, name, "matrix_exp" if triv == "expm" else triv)

    monkeypatch.setitem(sys.modules, "geotorch", SimpleNamespace(orthogonal=orthogonal))
    options = ["--net", "tiny", "--rounds", "2", "--precision", "fp32", "--tables", "weights", "--only", "geotorch-*"]
    (one,) = main(options)["tables"]
    assert set(one["ratios"]) == {"plain", "geotorch-expm", "geotorch-cayley"}
    assert seen[:3] == [(4, 27), (4, 36), (4, 3)]
    assert one["absent"] == {}


@pytest.mark.gpu
def test_peak_memory_is_read_on_cuda() -> None:
    options = ["--net", "tiny", "--rounds", "1", "--batch", "2", "--device", "cuda", "--only", "sn", "--tables", "step"]
    for one in main(options)["tables"]:
        assert min(one["readings"]["peak"]["sn"]) > 0
        assert "peak MiB" in one["text"]


def test_rounds_go_through_all_steps_in_turn_and_every_second_one_backwards() -> None:
    calls: list[str] = []
    steps = {name: lambda name=name: calls.append(name) for name in "abc"}
    found = timing.measure(steps, 3, CPU, "")
    assert "".join(calls) == "aabbcc" + "abc" + "cba" + "abc"
    assert [len(found.seconds[name]) for name in "abc"] == [3, 3, 3]
    assert len(found.load) == 4


def test_a_short_step_is_repeated_until_a_reading_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST", 1e9)
    calls: list[int] = []
    found = timing.measure({"a": lambda: calls.append(0)}, 2, CPU, "")
    assert found.repeats["a"] == timing.MOST_REPEATS
    assert len(calls) == 2 + 2 * timing.MOST_REPEATS


def test_ratios_are_taken_within_a_round() -> None:
    # the machine slows down tenfold; the ratio does not see it
    spread = readings(plain=[1.0, 10.0, 100.0], sn=[1.5, 11.0, 120.0]).ratio("sn", "plain")
    assert (spread.median, spread.min, spread.max) == pytest.approx((1.2, 1.1, 1.5))


def test_targets_compare_medians_with_their_limits() -> None:
    found = targets(readings(plain=[1.0] * 3, sn=[1.1, 1.1, 2.0], srn_k1=[1.1, 1.2, 2.0]), "step")
    assert [(t["median"], t["met"]) for t in found] == [
        (1.0, True),
        (1.1, True),
        (pytest.approx(1.2), False),
    ]
    cheapest = readings(plain=[1.0], rotation_qr=[3.0], rotation_cayley=[2.0], rotation_polar=[4.0])
    (one,) = targets(cheapest, "weights")
    assert one["median"] == 1.5
    assert not one["met"]
    assert "rotation-cayley" in one["target"]
    assert targets(readings(plain=[1.0], sn=[1.0]), "weights") == []


def test_the_published_form_is_ours_once_the_singular_vectors_are_found() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, 3, bias=False).double()
    published = PublishedStableRankNorm(layer.weight, C).double()
    with torch.no_grad():
        for _ in range(2000):
            published(layer.weight)
        found = published(layer.weight)
    weight = layer.weight.detach().clone()
    ours = stable_rank_norm(layer, c=C)
    u, values, vt = torch.linalg.svd(weight.flatten(1))
    constraint: StableRankNorm = layer.parametrizations.weight[0]
    constraint.u.copy_(u[:, 0])
    constraint.v.copy_(vt[0])
    ours.eval()
    torch.testing.assert_close(found, layer.weight.detach(), rtol=1e-6, atol=1e-8)
    assert float(values.square().sum() / values[0] ** 2) > C * 12  # the branch that rescales


def test_wide_resnet_has_the_published_number_of_weights() -> None:
    net = wrn_28_10()
    batch_norms = 2 * (16 + 160 + 3 * 320 + 160 + 320 + 3 * 640 + 320 + 640 + 3 * 1280 + 640)
    assert sum(p.numel() for p in net.parameters()) == 36_536_884 - batch_norms
    assert len(shapes(net)) == 1 + 24 + 3 + 1


def test_resnet_50_has_its_53_convolutions_and_a_classifier() -> None:
    found = shapes(NETS["resnet-50"].build())
    assert len(found) == 54
    assert found[0] == {"name": "conv1", "shape": [64, 3, 7, 7], "stride": [2, 2]}
    assert found[-1] == {"name": "fc", "shape": [1000, 2048], "stride": []}


def test_a_large_net_trains_on_a_cpu_only_when_asked_and_bare_layers_never() -> None:
    cuda = torch.device("cuda")
    assert planned(NETS["resnet-50"], "", CPU) == ["weights"]
    assert planned(NETS["resnet-50"], "", cuda) == ["weights", "step"]
    assert planned(NETS["resnet-50"], "step", CPU) == ["step"]
    assert planned(NETS["sngan-32"], "", CPU) == ["weights", "step"]
    assert planned(NETS["wrn-28-10"], "", cuda) == ["weights"]
    with pytest.raises(ValueError, match="no table speed"):
        planned(NETS["sngan-32"], "speed", CPU)


def test_tools_are_chosen_by_patterns_beside_plain() -> None:
    assert chosen("srn-*, olr", ["plain", "sn", "srn-k0", "srn-k1", "olr"]) == ["plain", "srn-k0", "srn-k1", "olr"]
    assert chosen("", ["plain", "sn"]) == ["plain", "sn"]
    assert chosen("!srn-k0, !plain", ["plain", "sn", "srn-k0"]) == ["plain", "sn"]
    assert chosen("srn-*, !srn-k0", ["plain", "sn", "srn-k0", "srn-k1"]) == ["plain", "srn-k1"]
    with pytest.raises(ValueError, match="'qr' matches no tool; there are plain"):
        chosen("qr", ["plain"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--net", "wrn-28-10", "--tables", "step"], "no training step"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--only", "nothing"], "matches no tool"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_reason(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err
