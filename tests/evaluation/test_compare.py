"""The FID of any two sets of images in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import orthogan
from orthogan.errors import UserError
from orthogan.evaluation import MetricResults, fid
from orthogan.evaluation.compare import _first_size
from tests.fixtures.disc import Disc

EXTRACTOR = {"extractor": "tests.fixtures.extractor:Moments", "progress": False}


def images(n: int, seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def folder(path: Path, pictures: np.ndarray) -> Path:
    path.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture.transpose(1, 2, 0)).save(path / f"{number:03d}.png")
    return path


def test_the_same_images_in_any_form_give_the_same_number(tmp_path: Path) -> None:
    a, b = images(24, 0), images(24, 1)
    (expected,) = orthogan.evaluate(a, b, metrics="fid", **EXTRACTOR)
    assert expected.value > 0
    floats = torch.from_numpy(a).float() / 127.5 - 1
    data = torch.utils.data.TensorDataset(torch.from_numpy(a), torch.zeros(24))
    loader = torch.utils.data.DataLoader(data, batch_size=7)
    one, two = folder(tmp_path / "one", a), folder(tmp_path / "two", b)
    for left in (a, floats, data, loader, one, str(one)):
        for right in (b, two):
            assert fid(left, right, **EXTRACTOR).value == pytest.approx(expected.value, rel=1e-6)
    assert fid(one, one, **EXTRACTOR).value == pytest.approx(0, abs=1e-6)
    assert repr(fid(a, two, **EXTRACTOR)).startswith("<")


def test_a_folder_is_read_at_the_size_of_the_other_side(tmp_path: Path) -> None:
    large = folder(tmp_path / "large", images(8, 0, side=24))
    assert _first_size(str(large)) == 24
    assert "8 images of 16 px" in fid(images(8, 1), large, **EXTRACTOR).protocol["reference"]
    assert "8 images of 24 px" in fid(large, large, **EXTRACTOR).protocol["reference"]
    assert "8 images of 12 px" in fid(large, large, resolution=12, **EXTRACTOR).protocol["reference"]


def test_generators_models_samples_and_data_sets() -> None:
    net = Disc()
    (expected,) = orthogan.evaluate(net, orthogan.sample(net, 8).images, metrics="fid", samples=16, **EXTRACTOR)
    assert fid(net, orthogan.sample(net, 8), samples=16, **EXTRACTOR).value == expected.value
    result = fid("sprites-sngan", "sprites", samples=16, reference_samples=16, **EXTRACTOR)
    assert "16 images of 32 px" in result.protocol["reference"]


def test_what_cannot_be_compared_gets_an_answer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="second argument"):
        fid(tmp_path / "mine.npz", images(8, 0), **EXTRACTOR)
    with pytest.raises(UserError, match="no such run, checkpoint, file or shipped model"):
        fid("absent", images(8, 0), **EXTRACTOR)
    with pytest.raises(TypeError, match="must be an image source"):
        fid(3, images(8, 0), **EXTRACTOR)


def test_statistics_of_a_reference_can_stand_in_for_it(tmp_path: Path) -> None:
    a, b = images(24, 0), images(24, 1)
    file = tmp_path / "b.safetensors"
    (expected,) = orthogan.evaluate(a, b, metrics="fid", save_reference_to=file, **EXTRACTOR)
    assert fid(a, file, **EXTRACTOR).value == pytest.approx(expected.value, rel=1e-6)


def test_results_show_themselves_as_a_table() -> None:
    results = orthogan.evaluate(images(24, 0), images(24, 1), metrics="fid", **EXTRACTOR)
    assert isinstance(results, MetricResults)
    page = results._repr_html_()
    assert results[0]._repr_html_() == page
    assert f"{results[0].value:.5g}" in page
    assert page.count("<tr") == 2
