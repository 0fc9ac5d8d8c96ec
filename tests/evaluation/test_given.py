"""What ``evaluate`` takes as images, by which names, and what becomes of metrics that cannot be computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from orthogan.data import ArraySource
from orthogan.errors import UserError
from orthogan.evaluation import METRICS, Incomplete, evaluate
from orthogan.evaluation.finite import NotFinite
from orthogan.evaluation.images import generate_images
from orthogan.evaluation.metric import find_metrics
from tests.fixtures.scored import EXTRACTOR, Patches, source

CLASSIFYING = "tests.fixtures.scored:Classifying"
IMAGES = source(40, seed=5)
PIXELS = IMAGES.read(np.arange(40))[0]
TENSOR = torch.from_numpy(PIXELS)
FLOATS = TENSOR.float() / 127.5 - 1


def score(reference: Any, subject: Any = None, **options: Any) -> float:
    net = Patches() if subject is None else subject
    return evaluate(net, reference, **{"samples": 24, "extractor": EXTRACTOR, "progress": False} | options)[0].value


class Items(Dataset[Any]):
    """A map-style data set of whatever ``make`` makes of an image."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return self.make(TENSOR[index])


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(TENSOR)


FORMS: dict[str, Any] = {
    "uint8 tensor": TENSOR,
    "float tensor": FLOATS,
    "half tensor": FLOATS.half(),
    "tensor with a gradient": FLOATS.clone().requires_grad_(),
    "array": PIXELS,
    "float array": FLOATS.numpy(),
    "flipped twice": np.ascontiguousarray(PIXELS[..., ::-1])[..., ::-1],
    "sparse tensor": FLOATS.to_sparse(),
    "data set of tensors": Items(lambda image: image),
    "data set of labelled tensors": Items(lambda image: (image, 3)),
    "data set of PIL images": Items(lambda image: (Image.fromarray(image.numpy().transpose(1, 2, 0)), 3)),
    "data set of floats": Items(lambda image: image.float() / 127.5 - 1),
    "tensor data set": TensorDataset(TENSOR, torch.arange(40)),
    "stream": Stream(),
    "loader": DataLoader(TensorDataset(TENSOR, torch.arange(40)), batch_size=16),
    "loader of a stream": DataLoader(Stream(), batch_size=7),
    "list of batches": [TENSOR[:30], TENSOR[30:]],
    "generator expression": (image for image in TENSOR),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_same_images_in_any_form_give_the_same_score(name: str) -> None:
    expected = score(IMAGES)
    if name == "half tensor":
        assert score(FORMS[name]) == pytest.approx(expected, rel=1e-2)
    else:
        assert score(FORMS[name]) == expected
    if name != "generator expression":  # it is used up
        assert score(IMAGES, FORMS[name], samples=None) == pytest.approx(0, abs=1 if "half" in name else 1e-6)


def test_a_folder_is_brought_to_the_size_of_the_subject(tmp_path: Path) -> None:
    for index, image in enumerate(PIXELS):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{index:03d}.png")
    assert score(tmp_path) == score(str(tmp_path)) == score(IMAGES)
    assert score(tmp_path, IMAGES, samples=None) == pytest.approx(0, abs=1e-6)
    bare = Patches()
    del bare.resolution, bare.image_channels
    bare.forward = lambda z, y=None: Patches().eval()(z)  # the size is read off an image
    assert score(tmp_path, bare) == score(IMAGES)
    with pytest.raises(TypeError, match=r"open_source\('folder'"):
        score(IMAGES, tmp_path)
    with pytest.raises(UserError, match=r"neither a folder or \.zip of images, nor statistics"):
        score(tmp_path / "absent")


@pytest.mark.parametrize("classes", [0, 3])
def test_two_generators_are_compared(classes: int) -> None:
    one, other = Patches(classes), Patches(classes)
    with torch.no_grad():
        other.norm.weight.mul_(0.3)
    assert score(other, one, samples=2000) > 1.5 * score(one, one, samples=2000)
    (found,) = evaluate(one, other, samples=64, extractor=EXTRACTOR, progress=False)
    assert found.protocol["reference"].startswith("fakes of Patches, 64 images")
    assert ("labels" in found.protocol) == (classes > 0)


def test_drawn_fakes_as_a_tensor_are_the_fakes() -> None:
    net = Patches(3)
    place = torch.device("cpu")
    fakes = torch.cat(list(generate_images(net.eval(), 48, seed=0, batch_size=7, truncation=1.0, device=place)))
    assert score(IMAGES, fakes, samples=None) == pytest.approx(score(IMAGES, net, samples=48), rel=1e-9)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "0 to 1": (TENSOR.float() / 255, UserError, "without a negative value"),
    "0 to 255": (TENSOR.float(), UserError, r"floats in \[0, 255\]"),
    "outside": (FLOATS * 1.5, UserError, r"images must be in \[-1, 1\]"),
    "NaN": (FLOATS * torch.nan, NotFinite, "NaN or infinite"),
    "infinite": (FLOATS * torch.inf, NotFinite, "NaN or infinite"),
    "int64": (TENSOR.long(), UserError, "images of torch.int64"),
    "bool": (TENSOR > 4, UserError, "images of torch.bool"),
    "complex": (FLOATS.to(torch.complex64), UserError, "images of torch.complex64"),
    "channels last": (TENSOR.permute(0, 2, 3, 1), UserError, "permute the axes"),
    "flat": (TENSOR.flatten(1), UserError, r"not \(n, c, h, w\)"),
    "empty": (TENSOR[:0], UserError, r"not \(n, c, h, w\)"),
    "no images": ([], UserError, "contains no images"),
    "two sizes": ([TENSOR, TENSOR[:, :, :8, :8]], UserError, "different sizes"),
    "numbers": ([1, 2], TypeError, "it contains a int"),
    "data set of dictionaries": (Items(lambda image: {"image": image}), TypeError, "it contains a dict"),
    "a number": (3, TypeError, "a Dataset, a DataLoader"),
    "a dictionary": ({"images": TENSOR}, TypeError, "not dict"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("side", ["subject", "reference"])
def test_images_of_another_form_or_range_are_refused(name: str, side: str) -> None:
    given, kind, said = BAD[name]
    with pytest.raises(kind, match=said):
        score(given) if side == "reference" else score(IMAGES, given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["FID"], ["fid"]),
        (["fd", "FID", "fid"], ["fid"]),
        (["IS", "Inception-Score"], ["isc"]),
        (["precision", "recall", "kid"], ["prc", "kid"]),
        ("fid, KID", ["fid", "kid"]),
    ],
)
def test_metrics_go_by_the_names_of_other_tools(given: Any, expected: list[str]) -> None:
    assert [metric.name for metric in find_metrics(given)] == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("fidd", "unknown metric 'fidd'; did you mean 'fid'"),
        ("recal", "did you mean 'recall'"),
        ("xyzzy", "known: accuracy, .*fid, .*isc, kid, .*or module:Name for your own"),
        ("fid,", "unknown metric ''"),
        ([], "name at least one of"),
    ],
)
def test_unknown_metrics_are_refused_with_the_nearest_known(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_metrics(given)


ALL = ["fid", "isc", "kid", "prc", "pixel_path_length", "ppl_nog"]


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"kid_subset_size": 10}, {"ppl_nog": "no subspaces"}),
        ({"extractor": EXTRACTOR, "kid_subset_size": 10}, {"isc": "is not a classifier", "ppl_nog": "no subspaces"}),
        ({"truncation": 0.7, "kid_subset_size": 10}, {"pixel_path_length": "untruncated", "ppl_nog": "untruncated"}),
        (
            {"reference": None},
            {"fid": "a reference", "kid": "a reference", "prc": "a reference", "ppl_nog": "subspaces"},
        ),
        ({"subject": IMAGES, "kid_subset_size": 10}, {"pixel_path_length": "a generator", "ppl_nog": "a generator"}),
    ],
)
def test_a_metric_that_cannot_be_computed_leaves_the_others(options: dict[str, Any], refused: dict[str, str]) -> None:
    given = {"subject": Patches(), "reference": IMAGES, "samples": 24, "extractor": CLASSIFYING} | options
    with pytest.raises(Incomplete) as caught:
        evaluate(**given, metrics=ALL, progress=False)
    assert [result.metric for result in caught.value.results] == [metric for metric in ALL if metric not in refused]
    lines = str(caught.value).splitlines()
    assert len(lines) == len(refused)
    for line, (metric, said) in zip(lines, refused.items(), strict=True):
        assert line.startswith(f"{metric} could not be computed: ")
        assert said in line
    for result in caught.value.results:
        one: dict[str, Any] = given if METRICS.get(result.metric).compares else given | {"reference": None}
        (alone,) = evaluate(**one, metrics=[result.metric], progress=False)
        assert alone.value == pytest.approx(result.value, rel=1e-9)


@pytest.mark.parametrize(
    ("samples", "options", "said"),
    [
        (1, {"kid_subset_size": 2}, ["covariance needs at least 2"]),
        (3, {"kid_subset_size": 2}, ["isc needs at least 10", "precision and recall", "density", "fid_infinity", "ct"]),
        (9, {"kid_subset_size": 9}, ["isc needs at least 10 generated images", "fid_infinity", "ct needs at least"]),
        (24, {}, ["kid: draws subsets of 1000", "--kid-subset-size 24"]),
    ],
)
def test_too_few_images_for_one_metric_are_refused_before_any_is_drawn(
    samples: int, options: dict[str, Any], said: list[str]
) -> None:
    drawn = []

    class Drawn(Patches):
        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            drawn.append(len(z))
            return super().forward(z, y)

    metrics = ["fid", "isc", "kid", "prc", "density_coverage", "fid_infinity", "ct"]
    given: dict[str, Any] = {"reference": IMAGES, "held_out": IMAGES, "extractor": CLASSIFYING, "progress": False}
    with pytest.raises(UserError) as caught:
        evaluate(Drawn(), metrics=metrics, samples=samples, **given, **options)
    assert not isinstance(caught.value, Incomplete)
    assert not drawn
    for words in said:
        assert words in str(caught.value)


def test_an_overflow_is_no_number(tmp_path: Path) -> None:
    from orthogan.evaluation.fidelity.statistics import Gaussian, save_gaussian

    save_gaussian(tmp_path / "r.safetensors", Gaussian(np.full(12, 1e160), np.eye(12), 100), {})
    with pytest.raises(UserError):
        score(tmp_path / "r.safetensors")


@pytest.mark.parametrize(("size", "label"), [(1000, "KD[Classifying]"), (10, "KD[Classifying,subset=10]")])
def test_the_size_of_kid_subsets_is_in_its_name_unless_it_is_the_published_one(
    size: int, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthogan.evaluation.fidelity.kid.SUBSETS", 2)
    images = ArraySource("m", np.random.default_rng(0).integers(0, 256, (1000, 3, 16, 16), np.uint8))
    (found,) = evaluate(
        images, images, metrics="kid", extractor=CLASSIFYING, kid_subset_size=size, samples=None, progress=False
    )
    assert found.label == label
    assert found.as_dict()["label"] == label


@pytest.mark.parametrize("size", [0, 1, 41])
def test_impossible_subsets_are_refused(size: int) -> None:
    with pytest.raises(UserError, match="kid"):
        score(IMAGES, IMAGES, metrics=["kid"], kid_subset_size=size)


def test_a_result_is_shown_in_a_line() -> None:
    (found,) = evaluate(Patches(), IMAGES, samples=24, extractor=EXTRACTOR, progress=False)
    assert repr(found) == f"<FD[Moments] {found.value:.5g}, 24 samples, {found.protocol['reference']} reference>"
    assert len(repr([found])) < 120


@pytest.mark.parametrize(
    "options",
    [{name: value} for name in ("batch_size", "samples", "reference_samples") for value in (0, -1, 1.5, "10")]
    + [{"metrics": [None]}],
    ids=str,
)
def test_options_that_are_no_numbers_or_names_are_refused_by_their_names(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        score(IMAGES, **options)


@pytest.mark.parametrize("extractor", [3, None, torch.nn.Identity()])
def test_an_extractor_is_given_by_its_name(extractor: Any) -> None:
    with pytest.raises(TypeError, match="'module:Class'"):
        score(IMAGES, extractor=extractor)


@pytest.mark.parametrize("dtype", [object, "U8", "datetime64[s]", complex])
def test_arrays_that_are_no_pixels_are_refused(dtype: Any) -> None:
    with pytest.raises(UserError, match="subject has images of"):
        score(IMAGES, PIXELS.astype(dtype))


def test_gray_images_without_a_channel_axis_are_not_channels_of_one_image() -> None:
    gray = TENSOR[:24, 0]
    right = score(gray[:, None], IMAGES)
    for given in (DataLoader(TensorDataset(gray), batch_size=8), gray[:4], gray[:4].numpy()):
        with pytest.raises(UserError, match=r"shape \(\d, \d+, \d+\), not \(n, c, h, w\); gray images need an axis"):
            score(given, IMAGES)
    loader = DataLoader(TensorDataset(gray[:, None]), batch_size=8)
    assert score(loader, IMAGES) == right
    assert score(DataLoader(TensorDataset(gray[:, None]), batch_size=None), IMAGES) == right
