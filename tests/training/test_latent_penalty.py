"""Regularisers of the latent in training: their value, their gradient in a phase, their state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError
from torch import Tensor, nn

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.data import open_configured
from orthogan.errors import UserError
from orthogan.models.modes import eval_mode
from orthogan.penalties.latent import (
    LATENT_PENALTIES,
    LatentPenaltyConfig,
    hessian_penalty,
    orojar_penalty,
    path_lengths,
)
from orthogan.registry import Registry
from orthogan.training import train
from orthogan.training.gan.task import GanTask
from orthogan.training.latent_penalty import LatentPenalty
from orthogan.training.loop import update
from orthogan.training.watch import FiniteWatch
from orthogan.weights import CONSTRAINTS
from tests.fixtures.latent_penalty import CPU, Linear, Toy, penalty_of, rng
from tests.fixtures.runs import tensors, tiny
from tests.fixtures.two_processes import both_finish

STYLE = [
    "model.generator.kind=stylegan2",
    "model.generator.channels=2",
    "model.generator.options={mapping_layers: 2}",
]


def make(out: Path, *overrides: str) -> GanTask:
    config = tiny(out, "model.discriminator.norm.kind=none", *overrides)
    return GanTask(config, open_configured(config.data), Accelerator(cpu=True))


def option(**values: Any) -> str:
    return "loss.latent_penalty={" + ", ".join(f"{k}: {v}" for k, v in values.items()) + "}"


def test_path_lengths_of_a_linear_generator_are_those_of_its_matrix() -> None:
    net = Linear()
    z = torch.randn(5, 3)
    noise = torch.randn(5, 4, generator=rng()) / 2  # N(0, 1 / 4 pixels)
    expected = (noise @ net.first.weight).norm(dim=1)
    torch.testing.assert_close(path_lengths(net, z, None, rng()), expected)
    many = path_lengths(net, torch.zeros(40_000, 3), None, rng())
    assert float(many.detach().square().mean()) == pytest.approx(
        float(net.first.weight.detach().square().sum()) / 4, rel=0.05
    )


def test_path_lengths_of_a_style_based_net_are_taken_in_w(tmp_path: Path) -> None:
    net = make(tmp_path, *STYLE).generator.double().eval()
    z = net.sample_latent(2, seed=1).double()
    found = path_lengths(net, z, None, rng())
    with torch.no_grad():
        w = net.mapping(z)
        ws = w[:, None].repeat(1, net.num_ws, 1)
        noise = torch.randn(2, 1, 32, 32, generator=rng()) / 32
        slopes = torch.zeros_like(ws)
        for row in range(ws.shape[1]):
            for i in range(ws.shape[2]):
                step = torch.zeros_like(ws)
                step[:, row, i] = 1e-5
                change = net.synthesis(ws + step) - net.synthesis(ws - step)
                slopes[:, row, i] = (change * noise).sum((1, 2, 3)) / 2e-5
    torch.testing.assert_close(found.detach(), slopes.square().sum(2).mean(1).sqrt(), rtol=1e-4, atol=1e-7)
    (gradient,) = torch.autograd.grad(found.sum(), net.mapper.layers[0].weight)
    assert float(gradient.abs().max()) > 0  # the mapping net learns of it too


@pytest.mark.parametrize(("kind", "penalty"), [("hessian", hessian_penalty), ("orojar", orojar_penalty)])
def test_hessian_and_orojar_are_those_of_the_penalties_room(kind: str, penalty: Any) -> None:
    net = Toy(num_classes=2)
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    value, logs = penalty_of(net, kind=kind, directions=3, epsilon=0.2, reduction="mean")(z, y, rng())
    with eval_mode(net):
        expected = penalty(lambda x: net(x, y), z, k=3, epsilon=0.2, reduction="mean", generator=rng())
    torch.testing.assert_close(value.detach(), expected)
    torch.testing.assert_close(logs[f"G/{kind}"], expected)
    published, _ = penalty_of(net, kind=kind)(z, y, rng())
    with eval_mode(net):
        torch.testing.assert_close(published.detach(), penalty(lambda x: net(x, y), z, generator=rng()))


def test_a_bilinear_feature_has_the_hessian_penalty_of_the_authors_example() -> None:
    class Product(Toy):
        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return torch.stack([z[:, 0] * z[:, 1], z[:, 0].square() * z[:, 1]], 1).view(-1, 1, 1, 2) * self.scale

    net = Product()
    net.scale = nn.Parameter(torch.ones(()))
    z = torch.tensor([[2.0, 1.0, 0.0]])
    # x1 x2 is +-1: the second derivatives along x are +-2 and (2 z1) +- 4 z0; two signs differ or not
    values = {round(float(penalty_of(net, kind="hessian")(z, None, rng(seed))[0].detach()), 1) for seed in range(12)}
    assert values == {0.0, round(8.0**2 * 2, 1)}


def test_features_are_the_outputs_of_the_layers_in_the_order_they_run() -> None:
    net = Toy().eval()
    z = torch.randn(4, 3)
    found, _ = penalty_of(net, kind="orojar", layers=["curve", "fi*"])(z, None, rng())
    first, curve = (
        penalty_of(net, kind="orojar", layers=[name])(z, None, rng())[0].detach() for name in ("first", "curve")
    )
    torch.testing.assert_close(found.detach(), first + curve)
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize("kind", ["hessian", "orojar", "path_length"])
def test_it_leaves_the_net_as_it_was_and_works_in_float32(kind: str) -> None:
    net = Toy()
    net.curve.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    penalty, z = penalty_of(net, kind=kind), torch.randn(4, 3)
    value, _ = penalty(z, None, rng())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again, _ = penalty(z, None, rng())
    assert torch.equal(value, again)
    assert all(torch.equal(before[name], now) for name, now in net.state_dict().items())
    assert (net.training, net.norm.training, net.curve.training) == (True, True, False)
    value.backward()
    assert net.first.weight.grad is not None
    assert float(net.first.weight.grad.abs().max()) > 0
    assert z.grad is None


CASES = {
    "hessian": option(kind="hessian", weight=0.5),
    "lazy orojar": option(kind="orojar", weight=1e-3, interval=2, shrink=2, reduction="mean"),
    "lazy path length": option(kind="path_length", weight=2.0, interval=2, shrink=2),
    "path length": option(kind="path_length", weight=2.0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_phase_adds_the_mean_gradient_of_its_parts(tmp_path: Path, case: str, parts: int) -> None:
    # an instance-normed generator: its batch can be accumulated too
    overrides = ["model.generator.kind=simple-gan", f"training.accumulate={parts}", "training.steps=4"]
    task, plain = make(tmp_path, *overrides, CASES[case]), make(tmp_path, *overrides)
    section = task.config.loss.latent_penalty
    lazy = "lazy" in case
    for net in (task, plain):
        phases = [phase for phase in net.phases(0) if phase.net == "G"]
        assert [p.name for p in phases] == (["G", "Greg"] if lazy and net is task else ["G"])
        phase = phases[-1]
        update(phase, net, net.accelerator, FiniteWatch(), 0)
    twin = make(tmp_path, *overrides, CASES[case])
    size = twin.config.training.fakes // section.shrink
    z, _ = twin.draws.latents("Greg" if lazy else "G", 0, size)
    total = torch.zeros(())
    for index, mine in enumerate(z.chunk(parts)):
        value, _ = twin.latent_penalty(mine, None, twin.draws.rng("latent penalty", 0, index))
        total = total + value * (section.weight or 0) * section.interval / parts
    total.backward()
    for (name, with_it), without, alone in zip(
        task.generator.named_parameters(), plain.generator.parameters(), twin.generator.parameters(), strict=True
    ):
        extra = torch.zeros_like(alone) if alone.grad is None else alone.grad
        base = torch.zeros_like(alone) if lazy or without.grad is None else without.grad
        found = torch.zeros_like(alone) if with_it.grad is None else with_it.grad
        scale = float(extra.abs().max()) + float(base.abs().max()) + 1e-6
        torch.testing.assert_close(found, base + extra, atol=1e-4 * scale, rtol=1e-3, msg=name)
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in twin.generator.parameters())


def test_lazy_phases_come_every_interval_and_the_rates_make_up_for_them(tmp_path: Path) -> None:
    task = make(tmp_path, option(kind="hessian", weight=0.1, interval=3), "optimizer.generator.beta1=0.5")
    names = [[p.name for p in task.phases(step) if p.net == "G"] for step in range(4)]
    assert names == [["G", "Greg"], ["G"], ["G"], ["G", "Greg"]]
    group = task.optimizers["G"].param_groups[0]
    adam = task.config.optimizer.generator
    assert group["lr"] == pytest.approx(adam.lr * 3 / 4)
    assert group["betas"] == pytest.approx((0.5**0.75, adam.beta2**0.75))


def test_the_ramp_grows_over_its_share_of_the_run() -> None:
    penalty = penalty_of(Toy(), kind="hessian", weight=2.0, ramp=0.5, interval=4)
    assert [penalty.factor(share) for share in (0.0, 0.25, 0.5, 0.9)] == [0.0, 4.0, 8.0, 8.0]
    late = penalty_of(Toy(), kind="hessian", weight=2.0, start=0.5, ramp=0.25)
    assert [late.factor(share) for share in (0.0, 0.49, 0.5, 0.625, 0.75, 1.0)] == [0.0, 0.0, 0.0, 1.0, 2.0, 2.0]
    assert [late.due(0, share) for share in (0.25, 0.75)] == [False, True]
    assert penalty_of(Toy(), kind="hessian", weight=2.0, start=0.5).factor(0.5) == 2.0
    with pytest.raises(ValidationError, match=r"start 0\.6 \+ ramp 0\.5 is more than 1"):
        penalty_of(Toy(), kind="hessian", weight=2.0, start=0.6, ramp=0.5)
    assert not penalty.due(0, 0.0)
    assert penalty.due(4, 0.1)
    assert not penalty.due(5, 0.1)
    assert not penalty_of(Toy(), kind="hessian", weight=0.0).due(0, 0.5)
    assert not LatentPenalty(Toy(), LatentPenaltyConfig(), CPU).due(0, 0.5)


def test_the_mean_length_follows_the_lengths_of_whole_steps() -> None:
    net = Linear()
    penalty, accelerator = penalty_of(net, kind="path_length", decay=0.25), Accelerator(cpu=True)
    expected = 0.0
    for step in range(3):
        seen = []
        for part in range(2):
            z, seed = torch.randn(4, 3), 10 * step + part
            lengths = path_lengths(net, z, None, rng(seed)).detach()
            value, _ = penalty(z, None, rng(seed))
            assert float(value.detach()) == pytest.approx(float((lengths - expected).square().mean()), rel=1e-4)
            seen.append(float(lengths.mean()))
        penalty.finish_step(accelerator)
        expected += 0.25 * (sum(seen) / 2 - expected)
        assert penalty.scalars()["G/path_length_mean"] == pytest.approx(expected, rel=1e-5)
    penalty.finish_step(accelerator)  # a step without a penalty moves nothing
    other = penalty_of(net, kind="path_length")
    other.load({name: tensor.clone() for name, tensor in penalty.state().items()})
    assert torch.equal(other.mean, penalty.mean)


RUNS = {
    "style, lazy path length": [*STYLE, option(kind="path_length", weight=2.0, interval=2, shrink=2, decay=0.2)],
    "batch norm, path length of z, classes, bf16": [
        option(kind="path_length", weight=0.1, ramp=0.5),
        "data.labels=true",
        "training.accumulate=2",
        "training.precision=bf16",
    ],
    "hessian of layers, spectral norm": [
        option(kind="hessian", weight=0.1, layers='["blocks.*"]', reduction="mean", interval=2),
        "model.generator.norm.kind=spectral",
    ],
}


@pytest.mark.parametrize("case", RUNS)
def test_it_trains_and_resumes_to_the_bit(tmp_path: Path, case: str) -> None:
    overrides = ["training.steps=6", "training.d_steps_per_g_step=1", *RUNS[case]]
    a, b = tmp_path / "a", tmp_path / "b"
    train(tiny(a, *overrides))
    shutil.copytree(a, b)
    shutil.rmtree(b / "checkpoints" / "step-000000006")
    train(tiny(b, *overrides))
    whole, resumed, half = tensors(a, 6), tensors(b, 6), tensors(a, 3)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    kind = tiny(a, *overrides).loss.latent_penalty.kind
    if kind == "path_length":
        assert float(whole["latent/path_length_mean"]) > 0
        assert not torch.equal(whole["latent/path_length_mean"], half["latent/path_length_mean"])
    assert f'"G/{kind}"' in (a / "log.jsonl").read_text()


@pytest.mark.slow
def test_two_processes_keep_one_mean_length(tmp_path: Path) -> None:
    script = """
import os, sys
sys.path.insert(0, os.getcwd())
import torch
import torch.distributed as dist
from accelerate import Accelerator
from orthogan.penalties.latent import path_lengths
from tests.fixtures.latent_penalty import Linear, penalty_of, rng

accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
net, z = Linear(), torch.randn(4, 3)
penalty = penalty_of(net, kind="path_length", decay=0.5)
penalty(z, None, rng(accelerator.process_index))
penalty.finish_step(accelerator)
both = [float(path_lengths(net, z, None, rng(rank)).mean().detach()) for rank in range(2)]
assert accelerator.num_processes == 2
assert abs(float(penalty.mean) - sum(both) / 4) < 1e-6, (penalty.mean, both)
"""
    both_finish(script, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.latent_penalty.kind=orojar"], r"loss\.latent_penalty\.weight: must be set; published values are"),
        ([option(kind="path_length", weight=2, epsilon=0.2)], r"latent_penalty\.epsilon'; it is an option of"),
        ([option(kind="hessian", weight=2, decay=0.2)], r"\.decay'; it is an option of kind 'path_length'"),
        ([option(kind="hessian", weight=2, reduction="sum")], r"reduction: .*'max' or 'mean'"),
        ([option(kind="hessian", weight=2, shrink=3)], r"shrink: 3 parts .* do not divide"),
        ([option(kind="hessian", weight=2, layers="[bloks.*]")], r"layers: 'bloks\.\*' matches nothing in SNGAN"),
        ([option(kind="hessian", weight=2, layers="[blocks]")], r"layers: blocks are not used"),
        (
            [option(kind="hessian", weight=2, layers="[blocks.0]"), *STYLE],
            r"layers: 'blocks\.0' does not return one array",
        ),
        (
            [
                option(kind="hessian", weight=2, interval=2),
                "model.generator.gradient_transforms=[{kind: nearest_orthogonal, layers: [first]}]",
            ],
            r"model\.generator\.gradient_transforms: nearest_orthogonal .* set loss\.latent_penalty\.interval to 1",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(tmp_path, *overrides)


def test_a_classifier_has_no_latent() -> None:
    with pytest.raises(UserError, match=r"loss\.latent_penalty\.kind: does not apply to task 'classifier'"):
        load_config(None, ["task=classifier", option(kind="hessian", weight=2)])


def test_a_penalty_from_outside_the_package_trains_with_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_penalties.py").write_text(
        "def length(function, z, *, strength: float = 1.0):\n    return strength * function(z)[0].square().mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    values = {}
    for name, options in {"usual": {}, "own": {"strength": 0.5}}.items():
        section = option(kind="'my_penalties:length'", weight=1e-6, **options)
        run = train(tiny(tmp_path / name, section, "training.steps=1", "logging.every=1", "checkpoint.every=1"))
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        values[name] = next(line["G/length"] for line in lines if "G/length" in line)
    assert values["usual"] > 0
    assert values["own"] == pytest.approx(values["usual"] / 2, rel=1e-6)
    net = Toy()
    value, _ = penalty_of(net, kind="my_penalties:length", strength=0.5)(z := torch.randn(4, 3), None, rng())
    with eval_mode(net):
        torch.testing.assert_close(value.detach(), 0.5 * net(z).square().mean())
    with pytest.raises(UserError, match=r"strengh"):
        train(tiny(tmp_path / "typo", option(kind="'my_penalties:length'", weight=1e-6, strengh=0.5)))


OF_VERSION_0_1 = {
    "weight": 1.0,
    "interval": 1,
    "ramp": 0.0,
    "shrink": 1,
    "layers": [],
    "reduction": None,
    "over_batch": "mean",
    "directions": 2,
    "epsilon": 0.1,
    "decay": 0.01,
}


@pytest.mark.parametrize("kind", ["none", "hessian", "orojar", "path_length"])
def test_configs_of_version_0_1_which_list_the_options_of_all_kinds_are_read(kind: str) -> None:
    read = Config.model_validate({"loss": {"latent_penalty": {"kind": kind, **OF_VERSION_0_1}}})
    now = Config.model_validate({"loss": {"latent_penalty": {"kind": kind, "weight": 1.0}}})
    assert read.loss.latent_penalty == now.loss.latent_penalty
    assert type(read.loss.latent_penalty) is LATENT_PENALTIES.get(kind)


@pytest.mark.parametrize(
    ("registry", "name", "message"),
    [
        (LATENT_PENALTIES, "PathLengthConfig", r"name a function \(function, z, \*, generator, \*\*options\)"),
        (LATENT_PENALTIES, "THINGS", r"name a function \(function, z, \*, generator, \*\*options\)"),
        (CONSTRAINTS, "THINGS", r"a constraint is a function \(layer, name, \*\*options\)"),
    ],
)
def test_what_is_neither_a_function_nor_a_section_of_options_is_refused(
    registry: Registry[Any], name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other_things.py").write_text(
        "from orthogan.penalties.latent import PathLengthConfig  # the training loop computes it\nTHINGS = [1, 2]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message):
        registry.get(f"other_things:{name}")
