"""The skew orthogonal convolution against dense matrix exponentials, built pixel by pixel."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.evaluation.spectrum.conv_operator import conv_operator_norm, conv_singular_values
from orthogan.layers.skew_orthogonal import BoundedSkew, SkewOrthogonalConv2d, skew, skew_orthogonal, truncation_bound
from orthogan.weights import network


def constraint(layer: nn.Module) -> BoundedSkew:
    return layer.parametrizations.weight[0]


def raw(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original


def layer_of(inputs: int, outputs: int, *, seed: int = 0, **options: Any) -> SkewOrthogonalConv2d:
    """In float64, its vectors converged, in eval mode, with a bias that is not zero."""
    torch.manual_seed(seed)
    layer = SkewOrthogonalConv2d(inputs, outputs, **options).double().eval()
    constraint(layer).advance(raw(layer), 2000)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def four_norms(kernel: Tensor) -> list[float]:
    """The spectral norms of all four unfoldings of (out, in, h, w)."""
    out, inputs, h, w = kernel.shape
    matrices = [
        kernel.reshape(out, -1),
        kernel.permute(0, 2, 3, 1).reshape(-1, inputs),
        kernel.permute(0, 2, 1, 3).reshape(out * h, inputs * w),
        kernel.permute(0, 3, 1, 2).reshape(out * w, inputs * h),
    ]
    return [float(torch.linalg.matrix_norm(m, 2)) for m in matrices]


def dense(kernel: Tensor, size: int, padding: str) -> Tensor:
    """The matrix of a stride-1 convolution on (channels, size, size), tap by tap."""
    out, inputs, k, _ = kernel.shape
    matrix = torch.zeros(out, size, size, inputs, size, size, dtype=kernel.dtype)
    for y in range(size):
        for x in range(size):
            for i in range(k):
                for j in range(k):
                    a, b = y + i - k // 2, x + j - k // 2
                    if padding == "circular":
                        a, b = a % size, b % size
                    if 0 <= a < size and 0 <= b < size:
                        matrix[:, y, x, :, a, b] += kernel[:, :, i, j]
    return matrix.reshape(out * size**2, inputs * size**2)


def exponent(layer: SkewOrthogonalConv2d, size: int) -> Tensor:
    """The dense A of the layer from its raw parameter: skew-symmetrised as a matrix, scaled by exact norms."""
    kernel = raw(layer).detach()
    k = kernel.shape[-1]
    matrix = dense(kernel, size, layer.padding)
    sigma = min(four_norms(skew(kernel)))
    return (matrix - matrix.T) / 2 * ((2.1 if k > 1 else 1.0) / (k * sigma))


def jacobian(layer: SkewOrthogonalConv2d, size: int) -> Tensor:
    """The matrix of the layer, by one-pixel images."""
    images = torch.eye(layer.in_channels * size**2, dtype=torch.float64).reshape(-1, layer.in_channels, size, size)
    with torch.no_grad():
        return (layer(images) - layer(torch.zeros_like(images[:1]))).flatten(1).T


def folding(channels: int, size: int, stride: int) -> Tensor:
    """The permutation matrix of space-to-depth, pixel by pixel."""
    small = size // stride
    matrix = torch.zeros(channels * stride**2, small, small, channels, size, size, dtype=torch.float64)
    for c in range(channels):
        for y in range(size):
            for x in range(size):
                folded = (c * stride + y % stride) * stride + x % stride
                matrix[folded, y // stride, x // stride, c, y, x] = 1
    return matrix.reshape(channels * size**2, channels * size**2)


@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "stride", "k"),
    [(3, 3, 1, 3), (2, 3, 1, 3), (3, 1, 1, 3), (1, 4, 2, 3), (1, 5, 2, 3), (1, 2, 2, 3), (2, 2, 1, 5), (3, 2, 1, 1)],
)
def test_the_layer_is_the_matrix_exponential_and_orthogonal(
    inputs: int, outputs: int, stride: int, k: int, padding: str
) -> None:
    layer = layer_of(inputs, outputs, kernel_size=k, stride=stride, padding=padding)
    size, small = 6, 6 // stride
    a = exponent(layer, small)
    torch.testing.assert_close(a, -a.T)
    norm = float(torch.linalg.matrix_norm(a, 2))
    assert norm <= (2.1 if k > 1 else 1.0) + 1e-9
    filled = torch.zeros(len(a), inputs * size**2, dtype=torch.float64)
    filled[: inputs * size**2] = folding(inputs, size, stride)
    expected = (torch.linalg.matrix_exp(a) @ filled)[: outputs * small**2]
    for terms in (2, 5, 10, 20):
        layer.eval_terms = terms
        found, bound = jacobian(layer, size), truncation_bound(norm, terms)
        assert float(torch.linalg.matrix_norm(found - expected, 2)) <= bound + 1e-9
        values = torch.linalg.svdvals(found)
        assert float((values - 1).abs().max()) <= bound + 1e-9
    assert truncation_bound(norm, 20) < 1e-8  # so that the last of them was orthogonal
    smaller = found if len(found) <= found.shape[1] else found.T
    torch.testing.assert_close(smaller @ smaller.T, torch.eye(len(smaller)).double(), atol=1e-7, rtol=0)


def test_the_truncation_bound_is_reached_by_a_single_pair_of_angles_to_first_order() -> None:
    # the series of a rotation by a small angle t misses exp by t^(n+1)/(n+1)! and less than that times t^2
    t = 0.05
    a = torch.tensor([[0.0, t], [-t, 0.0]], dtype=torch.float64)
    series = torch.eye(2, dtype=torch.float64) + a + a @ a / 2
    error = float(torch.linalg.matrix_norm(torch.linalg.matrix_exp(a) - series, 2))
    assert error <= truncation_bound(t, 2)
    assert error == pytest.approx(truncation_bound(t, 2), rel=1e-3)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_two_unfoldings_of_a_skew_filter_have_the_norms_of_all_four(k: int) -> None:
    layer = layer_of(3, 4, kernel_size=k)
    norms = four_norms(layer.weight.detach())
    assert norms[0] == pytest.approx(norms[1])
    assert norms[2] == pytest.approx(norms[3])
    limit = 2.1 if k > 1 else 1.0
    assert k * min(norms) == pytest.approx(limit)
    assert float(conv_operator_norm(layer.weight.detach(), 12)) <= limit + 1e-9
    torch.testing.assert_close(layer.weight, -layer.weight.transpose(0, 1).flip(2, 3))


def test_a_fresh_layer_of_64_channels_has_a_norm_near_1_2() -> None:
    torch.manual_seed(0)
    layer = SkewOrthogonalConv2d(3, 64).eval()
    assert float(conv_operator_norm(layer.weight.detach(), 8)) == pytest.approx(1.2, abs=0.15)
    assert weights.report(layer)[""]["operator_bound"] == pytest.approx(2.1, rel=0.03)  # after the warm-up alone


cases = st.tuples(
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.sampled_from(["circular", "zeros"]),
    st.integers(0, 10**6),
)


@given(cases)
@settings(max_examples=60, deadline=None)
def test_norms_of_inputs_or_of_gradients_are_kept(case: tuple[int, int, int, int, str, int]) -> None:
    inputs, outputs, k, stride, padding, seed = case
    torch.manual_seed(seed)
    layer = SkewOrthogonalConv2d(inputs, outputs, k, stride, padding, terms=20).double()
    constraint(layer).advance(raw(layer), 20)
    x = torch.randn(2, inputs, 4, 8, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == (2, outputs, 4 // stride, 8 // stride)
    probe = torch.randn_like(y)
    (back,) = torch.autograd.grad(y, x, probe)
    if inputs * stride**2 >= outputs:
        torch.testing.assert_close(back.flatten(1).norm(dim=1), probe.flatten(1).norm(dim=1), atol=0, rtol=1e-5)
    if inputs * stride**2 <= outputs:
        torch.testing.assert_close(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), atol=0, rtol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(2, 2, 1), (3, 2, 1), (1, 3, 2), (1, 5, 2)])
def test_the_equivalent_kernel_is_the_layer(inputs: int, outputs: int, stride: int) -> None:
    layer = layer_of(inputs, outputs, stride=stride, eval_terms=9)
    kernel, reach = layer.kernel()
    size = stride * (1 + 9 * 2)
    assert kernel.shape == (outputs, inputs, size, size)
    assert reach == stride * 9
    x = torch.randn(2, inputs, 20, 24, dtype=torch.float64)
    padded = nn.functional.pad(x, (reach,) * 4, mode="circular")
    torch.testing.assert_close(nn.functional.conv2d(padded, kernel, layer.bias, stride), layer(x))
    # on any map, also one that the kernel reaches around several times
    values = conv_singular_values(kernel, 4, stride)
    torch.testing.assert_close(values, torch.ones_like(values), atol=truncation_bound(2.1, 9), rtol=0)


def test_asking_for_the_kernel_advances_nothing() -> None:
    layer = layer_of(2, 2).train()
    raw(layer).data.normal_()
    before = copy.deepcopy(layer.state_dict())
    assert layer.kernel()[0].shape[-1] == 11  # of the terms in training
    weights.report(layer)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_gradients_of_both_orders() -> None:
    layer = layer_of(1, 3, stride=2, terms=4, eval_terms=4)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = raw(layer).detach().clone().requires_grad_(True)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"parametrizations.weight.original": weight}, (x,))

    assert torch.autograd.gradcheck(run, (x, weight))
    assert torch.autograd.gradgradcheck(run, (x, weight))


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 0.5, 1e6, 1e25])
def test_the_scale_of_the_parameter_does_not_matter(scale: float) -> None:
    layer = layer_of(2, 3)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    before = layer(x)
    raw(layer).data.mul_(scale)
    torch.testing.assert_close(layer(x), before)


def test_weight_decay_and_training_leave_it_orthogonal() -> None:
    torch.manual_seed(0)
    layer = SkewOrthogonalConv2d(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.02, weight_decay=0.5)
    x, target = torch.randn(2, 4, 2, 6, 6)
    start, before = raw(layer).detach().clone(), layer.weight.detach().clone()
    for _ in range(100):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimizer.step()
    assert float(raw(layer).detach().norm()) < 0.5 * float(start.norm())
    assert float((layer.weight.detach() - before).norm()) > 0.1 * float(before.norm())
    bound = weights.report(layer)[""]["operator_bound"]
    assert bound < 2.1 * 1.15
    for training, terms in [(True, 5), (False, 10)]:
        values = conv_singular_values(layer.train(training).kernel()[0].detach(), 6)
        torch.testing.assert_close(values, torch.ones_like(values), atol=truncation_bound(bound, terms), rtol=0)


def test_two_forwards_before_one_backward_give_the_gradients_of_each_alone() -> None:
    torch.manual_seed(0)
    layer = SkewOrthogonalConv2d(2, 3).double()
    raw(layer).data.normal_()  # the vectors lag behind, hence move with each forward
    x, y = torch.randn(2, 2, 2, 5, 5, dtype=torch.float64)
    twin = copy.deepcopy(layer)
    first = layer(x).pow(4).sum()
    between = constraint(layer).u_wide.clone()
    second = layer(y).pow(4).sum()
    assert not torch.equal(constraint(layer).u_wide, between)
    (first + second).backward()
    twin(x).pow(4).sum().backward()
    twin(y).pow(4).sum().backward()
    assert raw(layer).grad is not None
    torch.testing.assert_close(raw(layer).grad, raw(twin).grad)


@pytest.mark.parametrize("how", ["training", "eval", "frozen"])
def test_vectors_move_in_training_unless_frozen(how: str) -> None:
    torch.manual_seed(0)
    layer = SkewOrthogonalConv2d(2, 3).train(how != "eval")
    raw(layer).data.normal_()
    before = copy.deepcopy(dict(layer.named_buffers()))
    x = torch.randn(1, 2, 5, 5)
    if how == "frozen":
        with weights.hold_power_iteration(layer):
            layer(x)
    else:
        layer(x)
    moved = [not torch.equal(value, before[name]) for name, value in layer.named_buffers()]
    assert moved == [how == "training"] * 2


def test_the_tools_of_weights_work_on_it() -> None:
    layer = layer_of(2, 3)
    assert [type(c) for _, _, _, c in network.list_constrained(layer)] == [BoundedSkew]
    assert weights.report(layer)[""]["operator_bound"] == pytest.approx(2.1)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    before = layer(x)
    weights.remove(layer)
    assert "weight" in dict(layer.named_parameters())
    torch.testing.assert_close(layer(x), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("raw_filter", ["zero", "symmetric", "one skew tap", "a single channel"])
def test_degenerate_filters_give_finite_values_and_gradients(raw_filter: str, training: bool) -> None:
    torch.manual_seed(0)
    layer = SkewOrthogonalConv2d(*((1, 1) if raw_filter == "a single channel" else (2, 2)), terms=12).train(training)
    w = raw(layer).data
    if raw_filter == "zero":
        w.zero_()
    elif raw_filter == "symmetric":
        w.copy_(w + w.transpose(0, 1).flip(2, 3))  # no skew part at all
    elif raw_filter == "one skew tap":
        w.zero_()[0, 1, 0, 0] = 1.0  # rank deficient
    x = torch.randn(2, layer.in_channels, 4, 4, requires_grad=True)
    y = layer(x)
    y.pow(3).sum().backward()
    assert x.grad is not None
    assert raw(layer).grad is not None
    assert bool(torch.isfinite(x.grad).all() and torch.isfinite(raw(layer).grad).all())
    assert float(y.detach().norm()) == pytest.approx(float(x.detach().norm()), rel=1e-4)
    if raw_filter in ("zero", "symmetric"):
        torch.testing.assert_close(y, x)
    else:
        assert float((y - x).detach().norm()) > 0.1


def test_a_vector_that_met_a_zero_filter_recovers() -> None:
    layer = layer_of(2, 2)
    kept = raw(layer).detach().clone()
    raw(layer).data.zero_()
    constraint(layer).advance(raw(layer), 5)
    raw(layer).data.copy_(kept)
    constraint(layer).advance(raw(layer), 2000)
    assert weights.report(layer)[""]["operator_bound"] == pytest.approx(2.1)


def test_a_one_by_one_map_and_a_single_output_channel() -> None:
    layer = layer_of(4, 1, bias=False)
    x = torch.randn(1, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.norm()) == pytest.approx(1.0, abs=1e-4)  # a unit row
    assert layer.bias is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_near_float64_in_lower_precision_and_under_autocast(dtype: torch.dtype) -> None:
    layer = layer_of(2, 3)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    low, step = copy.deepcopy(layer).to(dtype), float(torch.finfo(dtype).eps)
    y = low(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), layer(x), atol=8 * step, rtol=0)
    single = copy.deepcopy(layer).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = single(x.float())
    assert torch.equal(inside, single(x.float()))


def test_half_precision_input_under_autocast_is_rounded_once() -> None:
    layer = layer_of(2, 3).float()
    x = torch.randn(2, 2, 6, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert torch.equal(y, layer(x.float()).bfloat16())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_compiles_into_one_graph(padding: str, training: bool) -> None:
    torch.manual_seed(0)
    eager = SkewOrthogonalConv2d(1, 3, stride=2, padding=padding, terms=3).train(training)
    raw(eager).data.normal_()
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 1, 6, 6)
    for _ in range(2):
        compiled(x).square().mean().backward()
        eager(x).square().mean().backward()
    torch.testing.assert_close(raw(twin).grad, raw(eager).grad)
    torch.testing.assert_close(constraint(twin).u_square, constraint(eager).u_square)


def test_state_dict_and_deepcopy_round_trips() -> None:
    torch.manual_seed(0)
    layer = SkewOrthogonalConv2d(2, 3)
    x = torch.randn(1, 2, 5, 5)
    layer(x)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = SkewOrthogonalConv2d(2, 3)
    assert not torch.equal(other.eval()(x), layer.eval()(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), layer(x))
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    raw(twin).data.normal_()
    assert not torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_a_convolution_gives_its_shape_stride_bias_and_mode(mode: str) -> None:
    conv = nn.Conv2d(2, 5, 3, stride=2, padding=1, padding_mode=mode).double().eval()
    new = skew_orthogonal(conv, terms=4, eval_terms=6)
    assert new.padding == mode
    assert (new.kernel_size, new.stride, new.terms, new.eval_terms, new.training) == (3, 2, 4, 6, False)
    x = torch.randn(1, 2, 6, 8, dtype=torch.float64)
    assert new(x).shape == conv(x).shape
    assert new(x).dtype == torch.float64
    assert new.bias is not None
    assert conv.bias is not None
    assert torch.equal(new.bias, conv.bias)
    assert new.bias.data_ptr() != conv.bias.data_ptr()


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 2, 1, bias=False),
        nn.Conv2d(2, 2, 1, padding="valid", bias=False),
        nn.Conv2d(2, 2, 5, padding="same", bias=False),
        nn.Conv2d(2, 2, 5, padding=2, bias=False),
    ],
)
def test_paddings_that_keep_the_size_are_accepted(conv: nn.Conv2d) -> None:
    new = skew_orthogonal(conv)
    x = torch.randn(1, 2, 4, 4)
    assert new.bias is None
    assert new(x).shape == conv(x).shape


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), "groups is 2"),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2), r"dilation is \(2, 2\)"),
        (nn.Conv2d(4, 4, 4, stride=2, padding=1), r"kernel_size is \(4, 4\)"),
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2)), r"kernel_size is \(3, 5\)"),
        (nn.Conv2d(4, 4, 3, stride=(1, 2), padding=1), r"stride is \(1, 2\)"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode is 'reflect'"),
        (nn.Conv2d(4, 4, 3), r"padding is \(0, 0\)"),
        (nn.Conv2d(4, 4, 3, padding="valid"), "padding is 'valid'"),
        (nn.ConvTranspose2d(4, 4, 3, padding=1), "ConvTranspose2d"),
    ],
)
def test_convolutions_that_cannot_be_replaced(conv: nn.Conv2d, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        skew_orthogonal(conv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels is 0"),
        ({"out_channels": 0}, "out_channels is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"terms": 0}, "terms is 0"),
        ({"kernel_size": 4}, "kernel_size is 4"),
        ({"kernel_size": -1}, "kernel_size is -1"),
        ({"padding": "reflect"}, "padding is 'reflect'"),
        ({"eval_terms": 4}, "eval_terms is 4"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SkewOrthogonalConv2d(**{"in_channels": 2, "out_channels": 2, **options})


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="stride 2 needs multiples"):
        SkewOrthogonalConv2d(2, 2, stride=2)(torch.zeros(1, 2, 5, 6))
    with pytest.raises(ValueError, match="wraps around it more than once"):
        SkewOrthogonalConv2d(2, 2, 5)(torch.zeros(1, 2, 1, 6))
    with pytest.raises(ValueError, match="only a circular layer"):
        SkewOrthogonalConv2d(2, 2, padding="zeros").kernel()


@pytest.mark.parametrize("way", ["in place", "compiled", "loaded"])
def test_a_filter_that_comes_without_its_vectors_is_bounded(way: str) -> None:
    torch.manual_seed(0)
    layer, other = SkewOrthogonalConv2d(4, 4, bias=False), torch.randn(4, 4, 3, 3)
    other[:2] *= 20
    if way == "loaded":
        state = {key: value for key, value in layer.state_dict().items() if "original" in key}
        layer.load_state_dict(dict.fromkeys(state, other), strict=False)
        layer.train()
        with weights.hold_power_iteration(layer):
            found = layer.weight
    else:
        with torch.no_grad():
            raw(layer).copy_(other)
        layer.eval()
        torch._dynamo.reset()
        found = torch.compile(lambda: layer.weight, backend="eager")() if way == "compiled" else layer.weight
    # the smaller norm of the unfoldings times k is the limit of 2.1
    found = found.detach()
    sides = [found.reshape(4, -1), found.transpose(1, 2).reshape(12, 12)]
    assert min(float(torch.linalg.matrix_norm(side, 2)) for side in sides) * 3 == pytest.approx(2.1, rel=0.01)


@pytest.mark.parametrize("missing", [["u_wide"], ["u_square"], ["u_wide", "u_square"]])
def test_vectors_that_a_checkpoint_does_not_have_are_those_of_its_filter(missing: list[str]) -> None:
    torch.manual_seed(0)
    stored, layer = SkewOrthogonalConv2d(4, 4, 3), SkewOrthogonalConv2d(4, 4, 3)
    state = {key: value for key, value in stored.state_dict().items() if not key.endswith(tuple(missing))}
    layer.load_state_dict(state, strict=False)
    with weights.hold_power_iteration(stored), weights.hold_power_iteration(layer):  # in training mode, as they are
        torch.testing.assert_close(layer.weight, stored.weight, rtol=1e-4, atol=1e-5)
