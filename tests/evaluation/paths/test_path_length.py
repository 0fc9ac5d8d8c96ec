"""Path lengths: closed forms of linear generators, the published variants, and no name that is not earned."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.errors import UserError
from orthogan.evaluation import evaluate
from orthogan.evaluation.paths.distances import DISTANCES, Distance, load_distance
from orthogan.evaluation.paths.path_length import (
    PATH_METRICS,
    PRESETS,
    Variant,
    _batches,
    path_length,
    perturbation_length,
    trim,
)
from orthogan.evaluation.result import MetricResult
from orthogan.latent.directions import Directions
from orthogan.models.families.eigengan import EigenGANGenerator
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.protocol import Generator
from tests.fixtures.linear_paths import DIM, PIXELS, Linear, Noisy, WideLatent
from tests.fixtures.scored import Patches, source

QUIET = {"progress": False}


def mean_inside(values: np.ndarray) -> float:
    """The rejection of outliers by sorting: ranks from floor(1 %) to ceil(99 %) of n - 1."""
    ordered, top = np.sort(values), len(values) - 1
    low, high = ordered[math.floor(0.01 * top)], ordered[math.ceil(0.99 * top)]
    return float(np.mean([v for v in values if low <= v <= high]))


def pixel(net: Generator, variant: Variant, samples: int = 200, **options: object) -> MetricResult:
    return path_length(net, variant, distance="pixel", samples=samples, batch_size=64, **QUIET, **options)


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_on_a_line_a_linear_generator_has_one_speed(sampling: str) -> None:
    net = Linear()
    found = pixel(net, Variant("z", "lerp", sampling))
    a, b = net.drawn[0][:200], net.drawn[1][:200]
    speed = ((b - a) @ net.matrix).square().mean(1)
    assert found.value == pytest.approx(mean_inside(speed.numpy()), rel=1e-8)


def test_on_an_arc_the_speed_at_its_end_is_the_derivative() -> None:
    net = Linear()
    found = pixel(net, Variant("z", "slerp_any", "end", eps=1e-6))
    a, b = net.drawn[0][:200].numpy(), net.drawn[1][:200].numpy()
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    w = np.arccos(cosine)[:, None]
    velocity = w * (b - np.cos(w) * a) / np.sin(w)
    speed = np.square(velocity @ net.matrix.numpy()).mean(1)
    assert found.value == pytest.approx(mean_inside(speed), rel=1e-4)


def test_full_paths_of_an_isometry_have_the_squared_angle_as_speed() -> None:
    # on the unit sphere every t has the speed of the angle, so the place of the step does not matter
    net = Linear()
    net.matrix = torch.linalg.qr(net.matrix.T)[0].T.contiguous()
    with pytest.warns(UserWarning, match="latents of length 1"):
        found = pixel(net, Variant("z", "slerp_unit", "full"))
    a, b = (z[:200].numpy() for z in net.drawn[-2:])
    angle = np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    assert found.value == pytest.approx(mean_inside(angle**2 / PIXELS), rel=1e-5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=250))
@settings(max_examples=40, deadline=None)
def test_rejection_keeps_its_edges(values: list[float]) -> None:
    array = np.array(values)
    assert trim(array).mean() == pytest.approx(mean_inside(array), rel=1e-9, abs=1e-9)


def test_half_the_scale_is_a_quarter_of_the_length_and_the_error_shrinks() -> None:
    one, half = (pixel(Linear(scale=s), Variant("z", "lerp"), 400) for s in (1.0, 0.5))
    assert half.value == pytest.approx(one.value / 4)
    few = pixel(Linear(), Variant("z", "lerp"), 100)
    assert one.std is not None
    assert few.std is not None
    assert 0.3 < one.std / few.std < 0.7


def test_same_seed_same_number_whatever_the_batch() -> None:
    net, variant = Patches(), Variant()
    numbers = [
        path_length(net, variant, distance="pixel", samples=50, batch_size=n, seed=seed, **QUIET).value
        for n, seed in ((16, 1), (16, 1), (7, 1), (16, 2))
    ]
    assert numbers[0] == numbers[1]
    assert numbers[2] == pytest.approx(numbers[0], rel=1e-3)
    assert abs(numbers[3] / numbers[0] - 1) > 0.01


def test_everything_is_put_back() -> None:
    net = Patches().train()
    net.norm.eval()
    state, chance = {k: v.clone() for k, v in net.state_dict().items()}, torch.random.get_rng_state()
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        pixel(net, Variant(), 8)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert net.training
    assert not net.norm.training
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), chance)


def test_both_images_have_the_same_noise() -> None:
    quiet, noisy = (pixel(kind(), Variant("z", "lerp"), 64).value for kind in (Linear, Noisy))
    assert noisy == pytest.approx(quiet, rel=1e-6)


def test_both_images_have_the_same_class_and_classes_have_equal_shares() -> None:
    net = Linear(num_classes=3)
    pixel(net, Variant("z", "lerp", "end"), 30)
    first, second = net.labels[::2], net.labels[1::2]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.cat(first).bincount().tolist() == [10, 10, 10]


@given(st.integers(0, 5), st.integers(1, 60), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_batches_cover_every_pair_once_and_have_one_class_each(classes: int, count: int, size: int) -> None:
    batches = list(_batches(classes, count, size))
    assert [i for _, start, stop in batches for i in range(start, stop)] == list(range(count))
    assert max(stop - start for _, start, stop in batches) <= size
    for label, start, stop in batches:
        assert {i * classes // count if classes else None for i in range(start, stop)} == {label}


def test_crop_and_sizes_are_the_published_ones() -> None:
    big = torch.arange(1024.0).view(1, 1, 1024, 1) + torch.arange(1024.0) / 1000
    face = PRESETS["ppl_zfull"].look(big)
    assert face.shape == (1, 1, 256, 256)
    assert face[0, 0, 0, 0] == pytest.approx(float(big[0, 0, 384:386, 256:258].mean()))
    assert PRESETS["ppl2_wend"].look(big).shape == (1, 1, 256, 256)
    assert PRESETS["ppl2_wend"].look(big)[0, 0, 1, 1] == pytest.approx(float(big[0, 0, 4:8, 4:8].mean()))
    small = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(PRESETS["ppl2_wend"].look(small), small)
    wide = PRESETS["ppl_zend_v2"].look(small)
    assert wide.shape == (1, 1, 256, 256)
    assert wide[0, 0, 0, 32] == pytest.approx(0.5)  # TensorFlow 1 has pixel 32 of 64 half way from one to the next
    assert torch.equal(Variant().look(big), big)


def test_rectangles_keep_their_proportions_and_the_crop_its_place() -> None:
    wide = torch.arange(512.0).view(1, 1, 512, 1) + torch.arange(1024.0) / 1000
    for image in (wide, wide.mT):
        face = replace(PRESETS["ppl_zfull"], resize="none").look(image)
        down, across = image.shape[2] // 8, image.shape[3] // 8
        torch.testing.assert_close(face, image[:, :, 3 * down : 7 * down, 2 * across : 6 * across])
        assert sorted(PRESETS["ppl2_wend"].look(image).shape[2:]) == [256, 512]
        assert sorted(PRESETS["ppl_zend_v2"].look(image[..., ::8, ::8]).shape[2:]) == [256, 512]


def test_presets_are_those_of_the_papers() -> None:
    assert PRESETS["ppl2_wend"] == Variant("w", "lerp", "end", False, "shrink", 1e-4, 50_000)
    assert PRESETS["ppl_zend_v2"] == Variant("z", "slerp_unit", "end", False, "fit", 1e-4, 100_000)
    for name in ("ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend"):
        variant = PRESETS[name]
        assert name == f"ppl_{variant.space}{variant.sampling}"
        assert variant.crop
    assert all(variant.published == name for name, variant in PRESETS.items())
    assert replace(PRESETS["ppl2_wend"], samples=7).published == "ppl2_wend"
    assert replace(PRESETS["ppl2_wend"], eps=1e-3).published is None


def style_gan(num_classes: int = 0) -> StyleGAN2Generator:
    torch.manual_seed(0)
    net = StyleGAN2Generator(
        resolution=32, image_channels=3, channels=4, latent_dim=6, mapping_layers=2, num_classes=num_classes
    )
    net.w_mean.copy_(torch.randn(6))
    return net


@pytest.mark.parametrize("classes", [0, 2])
def test_a_path_in_w_is_a_line_between_two_mapped_latents(classes: int) -> None:
    net = style_gan(classes).eval()
    seen: list[Tensor] = []

    def record(a: Tensor, b: Tensor) -> Tensor:
        seen.extend((a, b))
        return (a - b).square().flatten(1).mean(1)

    drawn: list[Tensor] = []
    sample = net.sample_latent
    net.sample_latent = lambda n, *, seed: drawn.append(sample(n, seed=seed)) or drawn[-1]
    eps = 0.01
    found = path_length(net, Variant("w", "lerp", "end", eps=eps), distance=record, samples=6, batch_size=3, **QUIET)
    values = []
    for batch, (a, b) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
        part = slice(3 * batch, 3 * batch + 3)
        y = torch.full((3,), batch) if classes else None
        with torch.no_grad():
            w0, w1 = net.mapping(a[part], y), net.mapping(b[part], y)
            ends = net.synthesis(w0), net.synthesis(w0 + eps * (w1 - w0))
        torch.testing.assert_close(seen[2 * batch], ends[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(seen[2 * batch + 1], ends[1], atol=1e-5, rtol=1e-4)
        values.append((ends[0] - ends[1]).square().flatten(1).mean(1) / eps**2)
    assert found.value == pytest.approx(float(torch.cat(values).mean()), rel=1e-2)
    assert found.label == "path_length[record,w,lerp,end,eps=0.01]"


def test_the_nog_papers_walk_stays_in_positive_corners_of_unit_spheres() -> None:
    torch.manual_seed(0)
    net = EigenGANGenerator(resolution=32, image_channels=3, channels=4, latent_dim=3 * 4 + 200, dims=4)
    shown: list[Tensor] = []
    hook = net.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    path_length(net, replace(PRESETS["ppl_nog"], eps=1e-3), distance="pixel", samples=10, batch_size=10, **QUIET)
    hook.remove()
    first, second = (z[:, :12].unflatten(1, (3, 4)) for z in shown)
    torch.testing.assert_close(first.norm(dim=2), torch.ones(10, 3))
    assert (first >= 0).all()
    assert torch.equal(shown[0][:, 12:], shown[1][:, 12:])
    assert float(shown[0][:, 12:].std()) == pytest.approx(0.7, rel=0.05)
    assert 0 < float((first - second).norm(dim=2).max()) < 1e-3 * math.pi / 2 * 1.01


def perturbation(net: Generator, directions: Directions, **options: object) -> MetricResult:
    arguments = {"distance": "pixel", "samples": 40, **QUIET, **options}
    return perturbation_length(net, directions, **arguments)


def test_a_step_along_a_direction_has_a_closed_form_too() -> None:
    net, row = Linear(), torch.randn(1, DIM, generator=torch.Generator().manual_seed(1))
    directions = Directions(row.numpy(), method="sefa")
    found = perturbation(net, directions, eps=0.5)
    assert found.value == pytest.approx(float((row.double() @ net.matrix).square().mean()), rel=1e-6)
    assert found.label == "pixel_perturbation_length[1 sefa,z,full,eps=0.5]"
    with pytest.raises(UserError, match="latent of 6"):
        perturbation(net, Directions(np.eye(6), method="sefa"))


def test_each_direction_is_taken_about_as_often_as_another() -> None:
    net = Linear()
    found = perturbation(net, Directions(np.eye(DIM), method="axes"), samples=4_000, batch_size=500)
    speeds = net.matrix.square().mean(1)
    assert found.value == pytest.approx(float(speeds.mean()), rel=0.05)


def test_directions_of_w_step_in_w() -> None:
    net = style_gan()
    directions = Directions(np.eye(6)[:2], method="sefa", space="w")
    found = perturbation(net, directions, samples=8)
    assert found.value > 0
    assert found.label == "pixel_perturbation_length[2 sefa,w,full,eps=1]"
    assert found.protocol["directions"] == "2 directions, sefa, of w"


def test_only_lpips_makes_a_published_name() -> None:
    net, mine = Linear(), Distance("lpips-vgg16", "a stand-in", lambda a, b: (a - b).square().flatten(1).sum(1))
    warnings.simplefilter("ignore")
    assert path_length(net, "ppl_zend_v2", distance=mine, samples=4, **QUIET).label == "ppl_zend_v2"
    own = path_length(net, Variant(eps=1e-3), distance=mine, samples=4, **QUIET)
    assert own.label == "ppl[z,slerp_any,full,eps=0.001]"
    other = path_length(net, "ppl_zend_any", distance="pixel", samples=4, **QUIET)
    assert (other.metric, other.label) == ("pixel_path_length", "pixel_path_length[z,slerp_any,end,shrink]")
    assert not any("ppl" in result.label for result in (other, pixel(net, Variant(), 4)))


def test_latents_made_short_are_warned_of_where_length_matters() -> None:
    short = Variant("z", "slerp_unit")
    with pytest.warns(UserWarning, match="ppl_zend_any"):
        pixel(Linear(), short, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel(WideLatent(), short, 4)
        pixel(Linear(), Variant(), 4)


def test_features_of_the_embedded_net_move_with_a_step_too_small_for_bytes() -> None:
    distance = load_distance("efficientnet-lite0")
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    step = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    near, far = (distance(image, image + eps * step) / eps**2 for eps in (1e-3, 2e-3))
    assert (near > 0).all()
    torch.testing.assert_close(near, far, rtol=0.1, atol=0)
    assert not distance(image, image).any()
    found = path_length(Patches(channels=1), Variant(), distance=distance, samples=2, **QUIET)
    assert found.label == "feature_path_length[efficientnet-lite0,z,slerp_any,full]"
    assert found.protocol["distance weights"].startswith("57934424")


def test_a_path_length_stands_beside_other_metrics(tmp_path: Path) -> None:
    extractor = "tests.fixtures.extractor:Moments"
    net = Patches(2)
    results = evaluate(
        net, source(), metrics=["pixel_path_length", "fid"], samples=12, extractor=extractor, progress=False
    )
    assert [r.metric for r in results] == ["pixel_path_length", "fid"]
    alone = path_length(net, PATH_METRICS["pixel_path_length"][0], distance="pixel", samples=12, batch_size=64, **QUIET)
    assert results[0].value == alone.value
    (same,) = evaluate(net, None, metrics=["pixel_path_length"], samples=12, progress=False)
    assert same.value == alone.value
    assert results[0].protocol["samples"] == 12
    assert results[0].as_dict()["variant"] == "z,slerp_any,full"
    assert "variant" not in results[1].as_dict()
    assert results[0].one_line().startswith("pixel_path_length[z,slerp_any,full] ")
    assert results[0].is_better(alone.value + 1)
    assert not results[0].is_better(alone.value - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["ppl"]}, "ppl_zend_v2"),
        ({"metrics": ["pixel_path_length", "ppl2_wend"]}, "space 'w'"),
        ({"metrics": ["pixel_path_length"], "truncation": 0.5}, "untruncated"),
        ({"metrics": ["pixel_path_length"], "subject": source()}, "needs a generator"),
        ({"metrics": ["pixel_path_length"], "samples": 1}, "at least 2"),
        ({"metrics": ["pixel_path_length"], "save_reference_to": "x.safetensors"}, "which use no reference"),
    ],
)
def test_what_has_no_path_length_is_refused(options: dict[str, object], message: str) -> None:
    arguments = {"samples": 8, "progress": False, **options}
    with pytest.raises(UserError, match=message):
        evaluate(arguments.pop("subject", Patches()), None, **arguments)


class Half(Patches):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(z, y).half()


class Burst(Patches):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(z, y) / 0


class Line(Patches):
    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = 1


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (Patches(), {"variant": "ppl"}, "choose one of ppl_zfull"),
        (Patches(), {"variant": "ppl2_wend"}, "space 'w'"),
        (Patches(), {"variant": "ppl_nog"}, "an eigengan has"),
        (Line(), {}, "one dimension"),
        (Half(), {}, "float16"),
        (Burst(), {}, "NaN or infinite"),
        (Patches(), {"samples": 1}, "at least 2"),
        (Patches(), {"batch_size": 0}, "batch_size=0"),
        (Patches(), {"distance": "lpips"}, ", ".join(DISTANCES)),
        (Patches(), {"distance": lambda a, b: a - b}, r"must return 4 numbers"),
        (style_gan().latent_space("w"), {}, "view from w"),
    ],
)
def test_what_cannot_be_walked_is_refused(net: Generator, options: dict[str, object], message: str) -> None:
    arguments = {"variant": Variant(), "distance": "pixel", "samples": 4, **QUIET, **options}
    with pytest.raises(UserError, match=message):
        path_length(net, **arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"space": "v"},
        {"sampling": "middle"},
        {"resize": "grow"},
        {"eps": 0.0},
        {"samples": 1},
        {"space": "w"},
        {"space": "subspaces"},
    ],
)
def test_variants_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(
        UserError, match=next(iter(options)) if options.get("space") not in ("w", "subspaces") else "interpolation"
    ):
        Variant(**options)
