"""The numbers of the audit against brute force in float64, and its picture."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from orthogan import weights
from orthogan.evaluation.spectrum import layer_spectrum as measuring
from orthogan.evaluation.spectrum.conv_operator import conv_operator_norm
from orthogan.evaluation.spectrum.layer_spectrum import (
    LayerSpectrum,
    list_unmeasured,
    log10_product_of_norms,
    spectrum,
    table,
)


def linear(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=matrix.dtype)
    layer.weight = nn.Parameter(matrix.clone())
    return layer


def measured(module: nn.Module, size: int = 8) -> LayerSpectrum:
    (row,) = spectrum(module, size=size)
    return row


def longest_stretch(layer: nn.Module, *shape: int) -> float:
    """The norm of a layer's linear map from inputs of ``shape``, by its whole Jacobian in float64."""
    layer = copy.deepcopy(layer).double()
    jacobian = torch.autograd.functional.jacobian(layer, torch.zeros(1, *shape, dtype=torch.float64))
    assert isinstance(jacobian, Tensor)
    return float(torch.linalg.matrix_norm(jacobian.reshape(-1, math.prod(shape)), 2))


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_every_number_is_that_of_brute_force(m: int, n: int, seed: int) -> None:
    w = torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    row, a = measured(linear(w)), w.numpy()
    values = np.linalg.svd(a, compute_uv=False)
    np.testing.assert_allclose(row.singular_values.numpy(), values, rtol=1e-9)
    assert (row.rows, row.columns, row.shape, row.type, row.name) == (m, n, (m, n), "Linear", "")
    assert row.sigma == row.operator_norm == pytest.approx(values[0])
    assert row.stable_rank == pytest.approx((a**2).sum() / values[0] ** 2)
    assert row.rank == np.linalg.matrix_rank(a) == min(m, n)
    assert row.condition_number == row.effective_condition == pytest.approx(np.linalg.cond(a), rel=1e-6)
    small = a @ a.T if m <= n else a.T @ a
    assert row.orthogonality_residual == pytest.approx(np.linalg.norm(small - np.eye(len(small))))
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    cosines = np.abs(unit @ unit.T - np.eye(m))
    assert row.coherence == pytest.approx(cosines.max(), abs=1e-9)
    assert row.energy == pytest.approx((1 / pdist(unit)).mean(), rel=1e-6)


def test_a_rank_deficient_matrix_has_two_condition_numbers() -> None:
    row = measured(linear(torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.0]))))
    assert row.rank == 3
    assert math.isinf(row.condition_number)
    assert row.effective_condition == pytest.approx(4.0)
    noisy = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, 40)
    row = measured(linear(noisy))  # what float32 leaves below the third value is rounding
    assert row.rank == 3
    assert math.isinf(row.condition_number)


def test_an_orthogonal_matrix_is_perfect_at_any_scale() -> None:
    q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    row = measured(linear(q))
    assert row.orthogonality_residual < 1e-12
    assert row.coherence < 1e-12
    assert row.energy == pytest.approx(1 / math.sqrt(2))
    for scale in (1e-30, 1e30):
        row = measured(linear((q * scale).float()))
        assert row.condition_number == pytest.approx(1.0, rel=1e-5)
        assert row.stable_rank == pytest.approx(6.0, rel=1e-5)


def test_one_row_and_a_zero_matrix_have_finite_numbers_where_there_are_any() -> None:
    row = measured(linear(torch.tensor([[3.0, 4.0]])))
    assert (row.sigma, row.coherence, row.energy, row.rank) == (5.0, 0.0, 0.0, 1)
    row = measured(linear(torch.zeros(3, 2)))
    assert (row.sigma, row.stable_rank, row.rank, row.coherence) == (0.0, 0.0, 0, 0.0)
    assert math.isinf(row.condition_number)
    assert math.isinf(row.effective_condition)
    assert row.orthogonality_residual == pytest.approx(math.sqrt(2))
    assert log10_product_of_norms([row]) == {"reshaped": -math.inf, "operator": -math.inf}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_weights_are_measured_in_float32(dtype: torch.dtype) -> None:
    w = torch.randn(5, 9, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        row = measured(linear(w))
    np.testing.assert_allclose(row.singular_values.numpy(), np.linalg.svd(w.double().numpy())[1], rtol=1e-5)
    assert row.rank == 5


def test_rows_in_small_portions_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = linear(torch.randn(23, 4, generator=torch.Generator().manual_seed(0)))
    whole = measured(layer)
    monkeypatch.setattr(measuring, "CELLS", 100)  # four rows at a time
    parts = measured(layer)
    assert parts.coherence == pytest.approx(whole.coherence, rel=1e-5)
    assert parts.energy == pytest.approx(whole.energy, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"kernel_size": 3, "padding": 1}, 6),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 8),
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, 8),
        ({"kernel_size": 3, "padding": 1, "groups": 2}, 6),
        ({"kernel_size": 1}, 6),
    ],
)
def test_the_operator_norm_is_how_far_the_layer_stretches_an_image(options: dict[str, int], size: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, padding_mode="circular", bias=False, **options)
    assert measured(layer, size).operator_norm == pytest.approx(longest_stretch(layer, 4, size, size), rel=1e-5)


def test_other_operator_norms() -> None:
    torch.manual_seed(0)
    line = nn.Conv1d(3, 4, 5, padding=2, padding_mode="circular", bias=False)
    assert measured(line, 7).operator_norm == pytest.approx(longest_stretch(line, 3, 7), rel=1e-5)
    embedding = nn.Embedding(9, 5)
    assert measured(embedding).operator_norm == pytest.approx(float(embedding.weight.detach().norm(dim=1).max()))
    # kernel as wide as the step: no overlap, so the map is the same matrix at every pixel, whatever the borders
    up = nn.ConvTranspose2d(4, 3, 2, stride=2, bias=False)
    assert measured(up, 5).operator_norm == pytest.approx(longest_stretch(up, 4, 5, 5), rel=1e-5)
    wide = nn.ConvTranspose2d(4, 6, 4, stride=2, groups=2, bias=False)
    want = float(conv_operator_norm(wide.weight.detach(), 10, 2, 2))
    assert measured(wide, 5).operator_norm == pytest.approx(want)


def test_the_map_grows_to_hold_the_kernel_and_to_fit_the_stride() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 2, 5, stride=3, bias=False)
    want = float(conv_operator_norm(layer.weight.detach(), 6, 3))
    assert measured(layer, 1).operator_norm == pytest.approx(want)
    assert measured(layer, 4).operator_norm == pytest.approx(want)


def test_constraints_count_and_nothing_moves() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 7))
    weights.apply(net[:3], "spectral", n_power_iterations=3)
    parametrizations.spectral_norm(net[4])
    net[2].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    rows = spectrum(net)
    assert [row.type for row in rows] == ["Linear", "Conv2d", "Linear"]
    assert [row.sigma for row in rows] == pytest.approx([1.0, 1.0, 1.0], abs=0.1)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [part.training for part in net.modules()] == modes
    again = spectrum(copy.deepcopy(net))
    assert all(torch.equal(a.singular_values, b.singular_values) for a, b in zip(rows, again, strict=True))
    assert net[0].weight.requires_grad


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_weights_behind_old_hooks_are_the_current_ones() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(6, 8), n_power_iterations=50), nn.utils.weight_norm(nn.Linear(8, 4))
    )
    net(torch.zeros(1, 6))
    before = spectrum(net)[1].sigma
    with torch.no_grad():  # as after load_state_dict: the weight that the last forward set is not the net's
        net[0].weight_orig.mul_(7)
        net[1].weight_g.mul_(3)
    first, second = spectrum(net)
    assert second.sigma == pytest.approx(3 * before)
    net.eval()(torch.zeros(1, 6))
    assert first.sigma == pytest.approx(1.0, rel=1e-2)
    assert first.sigma == pytest.approx(float(torch.linalg.matrix_norm(net[0].weight.detach(), 2)))
    assert second.sigma == pytest.approx(float(torch.linalg.matrix_norm(net[1].weight.detach(), 2)))


def test_layers_are_chosen_by_words_and_errors_name_the_remedy() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    assert [row.name for row in spectrum(net, "linear")] == ["1"]
    with pytest.raises(ValueError, match="embedding"):
        spectrum(net, "embedding")
    with pytest.raises(ValueError, match="size is 0"):
        spectrum(net, size=0)
    with torch.no_grad():
        net[1].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="1: the weight contains NaN"):
        spectrum(net)


def test_what_is_not_measured_is_named() -> None:
    net = nn.ModuleDict({"rnn": nn.LSTM(2, 3), "fc": nn.Linear(3, 2), "norm": nn.LayerNorm((2, 2))})
    weights.spectral_norm(net["fc"])
    assert list_unmeasured(net) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "norm.weight", "norm.bias"]


def test_the_product_bounds_the_jacobian_of_a_chain() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
    net = nn.Sequential(conv, nn.LeakyReLU(), nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    product = log10_product_of_norms(spectrum(net, size=4))
    for seed in range(5):
        x = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        jacobian = torch.autograd.functional.jacobian(net, x)
        assert isinstance(jacobian, Tensor)
        assert float(torch.linalg.matrix_norm(jacobian.reshape(4, 32), 2)) <= 10 ** product["operator"]
    sigmas = [row.sigma for row in spectrum(net)]
    assert product["reshaped"] == pytest.approx(math.log10(math.prod(sigmas)))
    assert product["reshaped"] < product["operator"]


def test_json_is_strict_and_the_table_aligned() -> None:
    net = nn.ModuleDict({"a": linear(torch.zeros(2, 3)), "longer_name": nn.Conv2d(3, 4, 3)})
    rows = spectrum(net)
    read = json.loads(json.dumps([row.as_dict() for row in rows], allow_nan=False))
    assert read[0]["condition_number"] is None
    assert read[1]["shape"] == [4, 3, 3, 3]
    assert read[1]["singular_values"] == rows[1].singular_values.tolist()
    head, first, second = table(rows).splitlines()
    assert len(head) == len(first) == len(second)
    assert second.split()[:3] == ["longer_name", "Conv2d", "4x3x3x3"]
    assert float(second.split()[3]) == pytest.approx(rows[1].sigma, rel=1e-3)
    assert first.split()[6:8] == ["0/2", "inf"]


GROUPED = {
    "conv": lambda: nn.Conv2d(6, 4, 3, groups=2, bias=False),
    "depthwise": lambda: nn.Conv1d(4, 8, 3, groups=4, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False),
}


@pytest.mark.parametrize("kind", GROUPED)
def test_a_kernel_with_groups_is_measured_as_the_same_map_without(kind: str) -> None:
    torch.manual_seed(0)
    layer: Any = GROUPED[kind]()
    dense: Any = type(layer)(layer.in_channels, layer.out_channels, layer.kernel_size, bias=False)
    with torch.no_grad():
        dense.weight.zero_()
        for i, block in enumerate(layer.weight.chunk(layer.groups)):
            rows, columns = block.shape[:2]
            dense.weight[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = block
    x = torch.randn(1, layer.in_channels, *[5] * (layer.weight.dim() - 2))
    torch.testing.assert_close(layer(x), dense(x))
    ((one,), (other,)) = spectrum(layer), spectrum(dense)
    numbers, wanted = one.as_dict(), other.as_dict()
    for key in wanted.keys() - {"shape", "singular_values"}:
        assert numbers[key] == (pytest.approx(wanted[key], rel=1e-5) if isinstance(wanted[key], float) else wanted[key])
    torch.testing.assert_close(one.singular_values, other.singular_values)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_weights_have_the_numbers_of_their_complex_matrices(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    unitary = torch.linalg.qr(torch.randn(4, 4, dtype=dtype))[0]
    net = nn.ModuleDict({"unitary": nn.Linear(4, 4, bias=False, dtype=dtype), "conv": nn.Conv2d(2, 3, 3, dtype=dtype)})
    net["unitary"].weight = nn.Parameter(unitary)
    net["embedding"] = nn.Embedding(5, 3, dtype=dtype)
    first, conv, embedding = spectrum(net, size=6)
    assert first.sigma == pytest.approx(1, abs=1e-5)
    assert first.condition_number == pytest.approx(1, abs=1e-5)
    assert first.orthogonality_residual == pytest.approx(0, abs=1e-5)
    assert first.coherence == pytest.approx(0, abs=1e-5)
    kernel = net["conv"].weight.detach()
    spectra = torch.fft.fft2(kernel.to(torch.complex128), (6, 6)).permute(2, 3, 0, 1)  # its taps' turn changes no norm
    assert conv.operator_norm == pytest.approx(float(torch.linalg.matrix_norm(spectra, 2).amax()), rel=1e-5)
    assert conv.sigma == pytest.approx(float(torch.linalg.matrix_norm(kernel.flatten(1), 2)), rel=1e-5)
    rows = net["embedding"].weight.detach()
    assert embedding.operator_norm == pytest.approx(float(rows.norm(dim=1).amax()), rel=1e-5)
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert embedding.coherence == pytest.approx(float((unit @ unit.mH).tril(-1).abs().amax()), rel=1e-5)
    distances = torch.linalg.vector_norm(unit[:, None] - unit, dim=-1)
    mean = float((1 / distances[~torch.eye(5, dtype=torch.bool)]).mean())
    assert embedding.energy == pytest.approx(mean, rel=1e-5)


def test_weights_without_numbers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^1: the weight is on the meta device"):
        spectrum(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, device="meta")))
