"""A compiled phase is the phase: the same gradients under every loss, the same bits after a resume, the same curve."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch

from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.training import train
from orthogan.training.compiled import Compiler
from tests.fixtures.gradients import NONE, SHOW, assert_close, gradients
from tests.fixtures.runs import tensors, tiny

pytestmark = pytest.mark.slow

R1 = "loss.gradient_penalty.kind=r1"
LAZY = "loss.gradient_penalty.interval=2"
POOLED = ["model.discriminator.pooling.kind=covariance", "model.discriminator.pooling.dimension=4"]
CUDA = torch.device("cuda")  # a name; nothing runs there


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and differentiate as for compiling, but run torch's own kernels: what is tested is that, in little time."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "options",
    [
        ["training.fakes_at_once=true", "augment.kind=ada", "loss.gradient_penalty.kind=r1+r2", LAZY],
        ["loss.kind=wasserstein", "loss.gradient_penalty.kind=wgan-gp", "augment.kind=diffaugment", NONE],
        ["loss.kind=relativistic", "model.generator.kind=r3gan", "model.discriminator.kind=r3gan", NONE],
        ["data.labels=true", "training.accumulate=2", NONE],
        ["loss.latent_penalty.kind=hessian", "loss.latent_penalty.weight=0.1", NONE],
        ["model.generator.norm.kind=rotation", "model.discriminator.norm.kind=orthogonal", R1],
        [R1, *POOLED, "model.discriminator.pooling.method=newton_schulz", NONE],
        [R1, *POOLED, "model.discriminator.pooling.method=eigh", NONE],
    ],
    ids=[
        "lazy-r1+r2",
        "wgan-gp",
        "relativistic",
        "conditional",
        "latent-penalty",
        "rotation",
        "pooled",
        "eigh",
    ],
)
def test_compiled_phases_have_the_same_gradients(tmp_path: Path, options: list[str]) -> None:
    train(tiny(tmp_path / "plain", *SHOW, *options, "training.compile=none"))
    train(tiny(tmp_path / "compiled", *SHOW, *options, "training.compile=default"))
    assert_close(gradients(tmp_path / "plain"), gradients(tmp_path / "compiled"))


@pytest.mark.usefixtures("traced")
def test_the_compiled_phases_of_a_classifier_have_the_same_gradients(tmp_path: Path) -> None:
    found = []
    for mode in ("none", "default"):
        config = tiny(tmp_path / mode).model_dump()
        config = {"task": "classifier", "out": str(tmp_path / mode), "data": config["data"] | {"labels": True}}
        config["data"] |= {"holdout": 0.2, "dequantize": False}
        config["model"] = {"classifier": {"kind": "resnet20", "channels": 4}}
        config["training"] = {"steps": 2, "batch_size": 8, "compile": mode, "device": "cpu", "precision": "fp32"}
        config["evaluation"] = {"every": 0, "metrics": ["accuracy"], "best": "accuracy"}
        train(Config.model_validate(config))
        found.append(tensors(tmp_path / mode, 2))
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-3, atol=1e-4)


def test_fakes_at_once_are_the_same_fakes_where_no_batch_is_averaged(tmp_path: Path) -> None:
    nets = ["model.generator.kind=r3gan", "model.discriminator.kind=r3gan", NONE]
    train(tiny(tmp_path / "each", *SHOW, *nets))
    train(tiny(tmp_path / "once", *SHOW, *nets, "training.fakes_at_once=true"))
    assert_close(gradients(tmp_path / "each"), gradients(tmp_path / "once"))


@pytest.mark.parametrize(("device", "mode"), [("cuda", "default"), ("cpu", "none"), ("mps", "none")])
def test_auto_compiles_on_cuda_alone(device: str, mode: str) -> None:
    assert Compiler("auto", torch.device(device)).mode == mode


def test_what_does_not_compile_runs_plainly_after_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(function: object, **_: object) -> object:
        def call(*_: object) -> None:
            raise RuntimeError("no such operator\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", refuse)

    def double(x: float) -> float:
        return 2 * x

    forgiving = Compiler("auto", CUDA)(double)
    assert [forgiving(1.0), forgiving(2.0)] == [2.0, 4.0]
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "orthogan: cannot compile double, so it runs uncompiled, which is slower: no such operator"
    with pytest.raises(RuntimeError, match="no such operator"):
        Compiler("default", CUDA)(double)(1.0)


def test_an_error_of_the_function_itself_is_raised_as_it_is() -> None:
    def wrong(x: torch.Tensor) -> torch.Tensor:
        raise UserError("the labels are missing")

    with pytest.raises(UserError, match="labels are missing"):
        Compiler("auto", CUDA)(wrong)(torch.ones(2))


def test_graphs_that_overwrite_gradients_are_refused_where_gradients_add_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.compile.*accumulate = 2.*use 'default'"):
        tiny(tmp_path, "training.accumulate=2", "training.compile=reduce-overhead")


FAST = ["training.precision=bf16", "training.channels_last=true", "training.compile=default"]
PLAIN = ["training.precision=fp32", "training.channels_last=false", "training.compile=none"]


COMMON = ["training.steps=100", "logging.every=5", "checkpoint.every=95", "augment.kind=diffaugment"]


@pytest.fixture(scope="module")
def compiled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled run of 100 steps in bfloat16; compiling takes most of its time."""
    return train(tiny(tmp_path_factory.mktemp("compiled") / "fast", *COMMON, *FAST))


def losses(run: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return torch.tensor([[line["D/loss"], line["G/loss"]] for line in lines if "D/loss" in line])


def test_a_compiled_run_that_was_interrupted_ends_with_the_same_bits(compiled_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(compiled_run, run)
    shutil.rmtree(run / "checkpoints" / "step-000000100")
    train(tiny(run, *COMMON, *FAST))  # from step 95
    expected, found = tensors(compiled_run, 100), tensors(run, 100)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_the_losses_of_100_steps_with_every_option_on_stay_within_the_noise_of_bfloat16(
    compiled_run: Path, tmp_path: Path
) -> None:
    """Noise: how far the same plain loop strays from float32 when it alone is set to bfloat16."""
    plain = losses(train(tiny(tmp_path / "plain", *COMMON, *PLAIN)))
    bf16 = losses(train(tiny(tmp_path / "bf16", *COMMON, *PLAIN, "training.precision=bf16")))
    assert plain.shape == (20, 2)
    moved = (plain - plain[0]).square().mean().sqrt()
    noise = (bf16 - plain).square().mean().sqrt()
    apart = (losses(compiled_run) - plain).square().mean().sqrt()
    assert 0 < noise < 0.5 * moved  # the losses do go somewhere, so that agreeing means something
    assert apart < 2 * noise
