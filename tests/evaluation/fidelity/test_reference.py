"""Files of reference statistics: what is not statistics is refused, and a damaged byte never changes a number."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.evaluation.extractors.extractor import load_extractor
from orthogan.evaluation.fidelity.reference import reference_of
from orthogan.evaluation.fidelity.statistics import FORMAT, Gaussian, load_gaussian, save_gaussian
from orthogan.io.weights import Damaged, read_sealed, write_sealed
from tests.fixtures.scored import EXTRACTOR, source

D = 4
MEAN, COVARIANCE = np.arange(1.0, D + 1), np.diag(np.arange(1.0, D + 1)) + 0.1
WRONG_SIDE = np.triu(np.full((D, D), 0.5), 1) + np.diag(np.full(D, 2.0))
BAD: dict[str, tuple[Any, Any]] = {
    "minus the identity": (MEAN, -np.eye(D)),
    "one negative eigenvalue": (MEAN, np.diag([1.0, 1.0, 1.0, -0.5])),
    "indefinite with a positive diagonal": (MEAN, np.eye(D) + 3 * (np.eye(D)[::-1])),
    "upper triangle": (MEAN, WRONG_SIDE),
    "lower triangle": (MEAN, WRONG_SIDE.T),
    "NaN": (np.full(D, np.nan), COVARIANCE),
    "infinite covariance": (MEAN, np.full((D, D), np.inf)),
    "huge mean": (np.full(D, 1e300), COVARIANCE),
    "huge covariance": (MEAN, COVARIANCE * 1e200),
    "other length": (MEAN[:-1], COVARIANCE),
    "no length": (np.zeros(0), np.zeros((0, 0))),
    "0-d": (np.float64(3), np.float64(2)),
    "3-d": (MEAN, COVARIANCE[None]),
    "complex": ((MEAN + 1j).astype(np.complex64), COVARIANCE),
    "complex covariance": (MEAN, COVARIANCE.astype(np.complex64)),
    "bool": (MEAN > 0, COVARIANCE),
}
BAD_NPZ = BAD | {
    "datetime": (MEAN.astype("datetime64[s]"), COVARIANCE),
    "time difference": (MEAN.astype("timedelta64[s]"), COVARIANCE),
    "digits as text": (MEAN.astype(int).astype(str), COVARIANCE),
    "bytes": (MEAN.astype(int).astype("S2"), COVARIANCE),
    "structured": (np.zeros(D, [("a", float)]), COVARIANCE),
    "structured covariance": (MEAN, np.zeros((D, D), [("a", float), ("b", float)])),
    "objects": (np.array([None] * D, object), COVARIANCE),
}
BAD_COUNTS = {
    "three": torch.tensor([2, 2, 2]),
    "infinite": torch.tensor(torch.inf),
    "bfloat16": torch.tensor(50, dtype=torch.bfloat16),
    "bool": torch.tensor(True),
    "negative": torch.tensor(-5),
    "one": torch.tensor(1),
}


def ours(path: Path, mean: Any, covariance: Any, count: torch.Tensor | None = None) -> Path:
    tensors = {"mean": torch.as_tensor(mean), "covariance": torch.as_tensor(covariance)}
    tensors["count"] = torch.tensor(100) if count is None else count
    write_sealed(path, tensors, {"format": FORMAT})
    return path


@pytest.mark.parametrize("name", BAD_NPZ)
def test_an_npz_that_is_no_statistics(name: str, tmp_path: Path) -> None:
    mean, covariance = BAD_NPZ[name]
    np.savez(tmp_path / "r.npz", mu=mean, sigma=covariance)
    with pytest.raises(UserError, match=r"r\.npz: "):
        load_gaussian(tmp_path / "r.npz")


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_ours_that_is_no_statistics(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"r\.safetensors: "):
        load_gaussian(ours(tmp_path / "r.safetensors", *BAD[name]))


@pytest.mark.parametrize("name", BAD_COUNTS)
def test_a_count_that_is_no_number_of_images(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="number of images"):
        load_gaussian(ours(tmp_path / "r.safetensors", MEAN, COVARIANCE, BAD_COUNTS[name]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "longdouble", ">f8"])
def test_other_real_types_are_taken(dtype: str, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "r.npz", mu=MEAN.astype(dtype), sigma=np.asfortranarray(np.diag(MEAN)).astype(dtype))
    found, _ = load_gaussian(tmp_path / "r.npz")
    assert np.array_equal(found.mean, MEAN)
    assert np.array_equal(found.covariance, np.diag(MEAN))


def test_rounding_of_a_singular_float32_covariance_is_no_damage(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
    np.savez(tmp_path / "r.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False).astype(np.float32))
    assert load_gaussian(tmp_path / "r.npz")[0].covariance.shape == (64, 64)


def declared(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "mu",
    [
        b"",
        b"\x93NUMPY",
        declared("(10,"),
        declared("(1000000000000000,)"),
        declared(f"({10**30},)"),
        declared("(-3,)"),
        b"x",
    ],
)
def test_damaged_arrays_in_an_npz(mu: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.npz", "w") as archive:
        archive.writestr("mu.npy", mu)
        archive.writestr("sigma.npy", mu)
    with pytest.raises(UserError, match="damaged, or not an"):
        load_gaussian(tmp_path / "r.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK", b"<!DOCTYPE html>", b"\x80\x04cos\nsystem\n", bytes(500)])
def test_files_of_something_else(
    suffix: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"r{suffix}"
    path.write_bytes(content)
    shipped = "pretrained/sprites-sngan/generator.safetensors"
    words = ["--samples", "8", "--extractor", "efficientnet-lite0", "--device", "cpu"]
    assert main(["evaluate", shipped, "--reference", str(path), *words]) == 2
    said = capsys.readouterr().err
    assert path.name in said
    assert "allow_pickle" not in said
    assert "weights_only" not in said


def test_a_folder_a_pipe_and_a_missing_file(tmp_path: Path) -> None:
    import os

    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("folder.npz", "pipe.npz", "absent.npz", "absent.safetensors", "bad\0name.npz"):
        with pytest.raises(UserError):
            load_gaussian(tmp_path / name)


def written(kind: str) -> bytes:
    if kind == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, mu=MEAN, sigma=COVARIANCE)
        return buffer.getvalue()
    return b""


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from([".npz", ".safetensors"]), cut=st.booleans())
def test_damaged_files_are_named_or_read_as_they_were_written(
    data: st.DataObject, kind: str, cut: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"r{kind}"
    if kind == ".npz":
        path.write_bytes(written(kind))
    else:
        save_gaussian(path, Gaussian(MEAN, COVARIANCE, 100), {"reference": "r", "extractor": "x"})
    content = bytearray(path.read_bytes())
    # two flips can hit the name of the hash and the numbers, which reads like a file of an early version
    for _ in range(data.draw(st.integers(1, 4 if kind == ".npz" else 1))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if cut else content)
    try:
        found, _ = load_gaussian(path)
    except UserError as error:
        assert path.name in str(error)  # noqa: PT017
    else:
        assert np.array_equal(found.mean, MEAN)
        assert np.array_equal(found.covariance, COVARIANCE)


def test_statistics_of_an_earlier_version_carry_no_hash(tmp_path: Path) -> None:
    tensors = {"mean": torch.from_numpy(MEAN), "covariance": torch.from_numpy(COVARIANCE), "count": torch.tensor(9)}
    save_file(tensors, tmp_path / "old.safetensors", {"format": FORMAT, "extractor": "x"})
    found, metadata = load_gaussian(tmp_path / "old.safetensors")
    assert (found.count, metadata) == (9, {"extractor": "x"})
    with pytest.raises(Damaged, match="no hash"):
        load_gaussian(tmp_path / "old.safetensors", sealed=True)


def test_no_flip_in_the_cache_changes_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    extractor, images = load_extractor(EXTRACTOR), source()

    def features() -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
        place = torch.device("cpu")
        found = reference_of(
            images, extractor, samples=None, keep=np.arange(64), device=place, batch_size=64, progress=False
        ).features
        assert found.rows is not None
        return found.gaussian.mean, found.gaussian.covariance, found.rows

    first = features()
    rng = np.random.default_rng(0)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 2
    for _ in range(100):
        for file in files:
            content = bytearray(file.read_bytes())
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
            file.write_bytes(content)
            for was, now in zip(first, features(), strict=True):
                assert np.array_equal(was, now)


def test_a_sealed_file_hashes_its_metadata_too(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.safetensors", {"x": torch.arange(3.0)}, {"step": "1"})
    tensors, metadata = read_sealed(tmp_path / "a.safetensors", needed=True)
    assert metadata == {"step": "1"}
    assert tensors["x"].tolist() == [0, 1, 2]
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content.replace(b'"step":"1"', b'"step":"2"'))
    assert load_file(tmp_path / "a.safetensors")["x"].tolist() == [0, 1, 2]
    with pytest.raises(Damaged, match="does not match its hash"):
        read_sealed(tmp_path / "a.safetensors", needed=False)
