"""ONNX files: onnxruntime draws torch's images for every family, batch size, class and space."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from orthogan.errors import UserError
from orthogan.export import export
from orthogan.export.graph import Call
from orthogan.export.styles.onnx import check, compare
from orthogan.models.generate import in_space
from orthogan.models.protocol import Generator
from tests.fixtures.small_generators import SMALL, small_generator

pytestmark = pytest.mark.slow


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected.numpy()).max() <= 1e-4 * max(1.0, float(expected.abs().max()))


DEEP = ("biggan-3", "biggan-deep-3", "stylegan3-3")  # many layers
FAMILIES = [
    pytest.param(name, marks=pytest.mark.slow if name in DEEP else ())
    for name in SMALL
    if name not in ("dcgan", "stylegan2-3")
]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_draws_the_same_images(tmp_path: Path, name: str) -> None:
    net = small_generator(name)
    export(net, "onnx", tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert [(one.domain, one.version) for one in model.opset_import if not one.domain] == [("", 18)]
    about = {prop.key: prop.value for prop in model.metadata_props}
    assert (about["latent_dim"], about["num_classes"]) == (str(net.latent_dim), str(net.num_classes))
    run = session(tmp_path / "net.onnx")
    assert [one.name for one in run.get_inputs()] == ["z", *(["y"] if net.num_classes else [])]
    assert [one.name for one in run.get_outputs()] == ["images"]
    for count in (1, 5):  # neither is the size of the recording
        z, y = net.sample_latent(count, seed=3), torch.arange(count) % 3
        given = {"z": z.numpy()} | ({"y": y.numpy()} if net.num_classes else {})
        images = run.run(None, given)[0]
        with torch.no_grad():
            close(images, net(z, y) if net.num_classes else net(z))
    if net.num_classes:  # the class counts
        assert np.abs(np.diff(run.run(None, {"z": z.numpy()[:1].repeat(2, 0), "y": np.array([0, 1])})[0], axis=0)).max()


def test_stylegan2_takes_two_files_in_the_space_w(tmp_path: Path) -> None:
    net = small_generator("stylegan2-3")
    written = export(net, "onnx", tmp_path / "net.onnx", space="w").files
    assert [file.name for file in written] == ["net.onnx", "net.mapping.onnx"]
    z, y = net.sample_latent(3, seed=1), torch.tensor([2, 0, 1])
    (w,) = session(written[1]).run(None, {"z": z.numpy(), "y": y.numpy()})
    (images,) = session(written[0]).run(None, {"w": w})
    with torch.no_grad():
        close(images, net(z, y))
        view = in_space(net, "w", y=2)
        close(session(written[0]).run(None, {"w": view.sample_latent(2).numpy()})[0], view(view.sample_latent(2)))


def test_a_file_that_differs_is_refused() -> None:
    net = small_generator("dcgan")
    assert compare(net, Call(net), net, "it") == 0
    with pytest.raises(UserError, match=r"it differs from torch by 0\.0002, more than 0\.0001; nothing is written"):
        compare(lambda z: net(z) + 2e-4, Call(net), net, "it")
    with pytest.raises(UserError, match=r"\(1, 3, 32, 31\) instead of \(1, 3, 32, 32\)"):
        compare(lambda z: net(z)[..., 1:], Call(net), net, "it")
    with pytest.raises(UserError, match="differs from torch by nan"):
        compare(lambda z: net(z) * float("nan"), Call(net), net, "it")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    net = small_generator("dcgan")
    assert check(b"", Call(net), net) is None
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"  # before it is imported: it would send usage data
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx is not installed: pip install"):
        export(net, "onnx", "net.onnx")


def test_a_net_with_an_operation_that_torch_cannot_record() -> None:
    class Branches(Generator):
        latent_dim = 4

        def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return z.view(-1, 1, 2, 2) if float(z.sum()) > 0 else -z.view(-1, 1, 2, 2)

    class Fixed(Generator):
        latent_dim = 4

        def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return z.view(-1, 1, 2, 2) + torch.zeros(len(z), 1, 2, 2)

    with pytest.raises(UserError, match=r"Branches: torch\.export cannot record"):
        export(Branches(), "onnx", "net.onnx")
    with pytest.raises(UserError, match=r"Fixed: .* use x\.shape\[0\] instead of len\(x\)"):
        export(Fixed(), "onnx", "net.onnx")
