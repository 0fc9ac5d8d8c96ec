"""Programs of torch.export: loaded without the code of the net, they draw its images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orthogan.export import export
from tests.fixtures.small_generators import small_generator

pytestmark = pytest.mark.slow

LOADED = """
import sys, torch
program = torch.export.load(sys.argv[1])
z, y = torch.load(sys.argv[2], weights_only=True)
torch.save(program.module()(z, y), sys.argv[3])
assert not [name for name in sys.modules if name.startswith("orthogan")]
"""


def test_the_file_draws_the_same_images_without_orthogan(tmp_path: Path) -> None:
    net = small_generator("dcgan-3")
    (file,) = export(net, "torch-export", tmp_path / "net.pt2").files
    z, y = net.sample_latent(4, seed=2), torch.tensor([0, 2, 1, 1])
    torch.save((z, y), tmp_path / "given.pt")
    done = subprocess.run(
        [sys.executable, "-c", LOADED, file, tmp_path / "given.pt", tmp_path / "drawn.pt"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "drawn.pt"), net(z, y), rtol=0, atol=1e-5)
