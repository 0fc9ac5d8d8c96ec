"""bfloat16 where it is asked for and nowhere else; nets come back to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orthogan import weights
from orthogan.cli import _scores as evaluate_command
from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.evaluation import evaluate
from orthogan.evaluation.extractors.extractor import load_extractor
from orthogan.evaluation.fidelity.reference import reference_of
from orthogan.evaluation.precision import Precision, describe_precision, prepare_net, resolve_precision
from orthogan.models.families.sngan import SNGANGenerator
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from tests.fixtures.scored import EXTRACTOR, source

CPU = torch.device("cpu")


class Net(nn.Module):
    """An extractor with a product, that notes what it was given."""

    seen: list[torch.dtype] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 6)
        with torch.no_grad():
            self.linear.weight.copy_(torch.linspace(-1, 1, 288).view(6, 48).sin())
            self.linear.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)
        found = self.linear(x)
        Net.seen += [x.dtype, found.dtype]
        return found


def small_generator() -> Generator:
    torch.manual_seed(0)
    return SNGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=8)


def test_auto_draws_in_what_the_hardware_is_fast_at_and_looks_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (False, True):
        monkeypatch.setattr("orthogan.evaluation.precision.fast_bf16", lambda device, fast=fast: fast)
        assert resolve_precision("auto", CPU) == Precision(fast, False)
        assert resolve_precision("fp32", CPU) == Precision(False, False)
        assert resolve_precision("bf16", CPU) == Precision(True, True)
    with pytest.raises(UserError, match="'fp16': choose one of fp32, bf16, auto"):
        resolve_precision("fp16", CPU)


def test_bf16_is_in_the_products_and_in_the_protocol() -> None:
    options = {"samples": 24, "extractor": "tests.evaluation.test_precision:Net", "progress": False}
    generator = small_generator()
    values = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        Net.seen.clear()
        (found,) = evaluate(generator, source(32), precision=precision, **options)
        assert set(Net.seen[::2]) == {torch.float32}  # what it prepares
        assert set(Net.seen[1::2]) == {dtype}
        values[precision] = found
    assert values["fp32"].protocol["dtype"] == "float32, statistics float64"
    assert values["bf16"].protocol["dtype"] == "sampling bfloat16, features bfloat16, statistics float64"
    assert values["bf16"].value != values["fp32"].value
    assert values["bf16"].value == pytest.approx(values["fp32"].value, rel=0.05)
    (images,) = evaluate(source(40, seed=1), source(32), precision="bf16", **options)
    assert images.protocol["dtype"] == "features bfloat16, statistics float64"


def test_a_half_and_half_protocol_says_which() -> None:
    assert describe_precision(Precision(True, False), CPU, drawn=True) == (
        "sampling bfloat16, features float32, statistics float64"
    )
    assert describe_precision(Precision(True, False), CPU, drawn=False) == "float32, statistics float64"


def test_references_of_two_precisions_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    name = "tests.evaluation.test_precision:Net"
    means = []
    for bf16 in (False, True, False, True):
        net = load_extractor(name, bf16=bf16)
        options = {"samples": None, "keep": None, "device": CPU, "batch_size": 32, "progress": False}
        means.append(reference_of(source(), net, **options).features.gaussian.mean)
    assert np.array_equal(means[0], means[2])
    assert np.array_equal(means[1], means[3])
    assert not np.array_equal(means[0], means[1])
    file = tmp_path / "reference.safetensors"
    options = {"samples": 16, "extractor": name, "progress": False}
    evaluate(small_generator(), source(), save_reference_to=file, precision="bf16", **options)
    evaluate(small_generator(), file, precision="bf16", **options)
    with pytest.raises(UserError, match="made with precision 'bfloat16', but this evaluation uses 'float32'"):
        evaluate(small_generator(), file, **options)
    evaluate(small_generator(), source(), save_reference_to=file, **options)
    with pytest.raises(UserError, match="made with precision 'float32'"):
        evaluate(small_generator(), file, precision="bf16", **options)


def test_a_generator_comes_back_with_the_very_tensors_it_had() -> None:
    net = small_generator()
    weights.apply(net, kind="spectral")
    net.train()
    before = [(t, t.data_ptr(), t.stride(), t.clone()) for t in [*net.parameters(), *net.buffers()]]
    evaluate(net, source(), samples=16, extractor=EXTRACTOR, precision="bf16", progress=False)
    for tensor, pointer, stride, value in before:
        assert (tensor.data_ptr(), tensor.stride()) == (pointer, stride)
        assert torch.equal(tensor, value)
    with pytest.raises(RuntimeError), prepare_net(net):
        raise RuntimeError
    assert [t.data_ptr() for t in [*net.parameters(), *net.buffers()]] == [p for _, p, _, _ in before]


def test_constrained_weights_are_computed_once_and_the_images_stay() -> None:
    net = small_generator()
    weights.apply(net, kind="spectral")
    z = net.sample_latent(4, seed=0)
    calls: list[int] = []
    for module in net.modules():
        if "SpectralNorm" in type(module).__name__:
            module.register_forward_hook(lambda *_: calls.append(0))
    with eval_mode(net):
        plain = net(z)
        once = len(calls)
        assert once > 0
        with prepare_net(net):
            found = [net(z) for _ in range(3)][-1]
            kernels = [p for p in net.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
            assert kernels
            assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert len(calls) == 2 * once
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_the_command_hands_the_precision_on(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = str(Path(__file__).parents[2] / "pretrained" / "sprites-sngan" / "generator.safetensors")
    asked: list[object] = []
    monkeypatch.setattr(evaluate_command, "score", lambda *_, precision, **__: asked.append(precision) or [])
    for options in ([], ["--precision", "bf16"]):
        main(["evaluate", subject, "--metrics", "isc", "--device", "cpu", *options])
    assert asked == ["fp32", "bf16"]
