"""Seeds and classes as people write them, samples that depend on their own seed only, grids and folders."""

from __future__ import annotations

import copy
import io
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import orthogan
from orthogan.drawing.grid import to_uint8
from orthogan.errors import UserError
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import model_hash
from orthogan.models.samples import format_ranges as spans_of
from orthogan.models.samples import parse_classes, parse_layers, parse_seeds, sample, sample_images, save_samples
from tests.fixtures.disc import Disc

spans = st.tuples(st.integers(0, 200), st.integers(0, 20))


@settings(deadline=None)
@given(st.lists(spans, min_size=1, max_size=6), st.sampled_from([",", " , ", ", "]))
def test_seeds_round_trip_through_any_spelling(parts: list[tuple[int, int]], comma: str) -> None:
    text = comma.join(f"{first}-{first + more}" if more else str(first) for first, more in parts)
    expected = [seed for first, more in parts for seed in range(first, first + more + 1)]
    assert parse_seeds(text) == list(dict.fromkeys(expected))


@settings(deadline=None)
@given(st.text(max_size=12))
def test_seeds_never_fail_in_another_way(text: str) -> None:
    readable = all(re.fullmatch(r"\s*[0-9]+(-[0-9]+)?\s*", part) for part in text.split(","))
    try:
        seeds = parse_seeds(text)
    except UserError:
        seeds = []
    assert not seeds or readable
    assert all(seed >= 0 for seed in seeds)


def test_seeds_examples_and_errors() -> None:
    assert parse_seeds("0-63,70") == [*range(64), 70]
    assert parse_seeds("5,3-4,5") == [5, 3, 4]
    for text, message in {
        "": "neither",
        "1,,2": "neither",
        "a": "'a'",
        "-3": "'-3'",
        "1.5": "neither",
        "٣": "neither",
        "7-2": "write 2-7",
        "0-1000000": "1,000,000",
        "0-600000,700000-1300000": "1,000,000",
    }.items():
        with pytest.raises(UserError, match=message):
            parse_seeds(text)


def test_classes() -> None:
    assert parse_classes("0-2,9,1", 10) == [0, 1, 2, 9]
    assert parse_classes("Ship, 0", 3, ["cat", "7 of 9", "ship"]) == [2, 0]
    assert parse_classes("7 of 9", 3, ["cat", "7 of 9", "ship"]) == [1]
    # Folders called 1, 2 and 10 are sorted as text: a number is a name everywhere.
    numbered = ["1", "10", "2"]
    for text, expected in {"2": [2], "1-2": [0, 2], "1-10": [0, 2, 1], "10,1": [1, 0]}.items():
        assert parse_classes(text, 3, numbered) == expected
    for text in ("0", "0-2", "3"):
        with pytest.raises(UserError, match=r"no class '[03]'.*; this generator has the classes 1, 10, 2"):
            parse_classes(text, 3, numbered)
    assert parse_classes("cat,Cat", 2, ["Cat", "cat"]) == [1, 0]
    with pytest.raises(UserError, match="'CAT' is ambiguous: Cat, cat"):
        parse_classes("CAT", 2, ["Cat", "cat"])
    with pytest.raises(UserError, match="unconditional"):
        parse_classes("0", 0)
    with pytest.raises(UserError, match="0 to 9"):
        parse_classes("10", 10)
    with pytest.raises(UserError, match=r"'dog'.*cat, bird"):
        parse_classes("dog", 2, ["cat", "bird"])


@pytest.mark.parametrize("classes", [0, 3])
def test_a_seed_makes_the_same_picture_whatever_is_beside_it(classes: int) -> None:
    net = Disc(num_classes=classes)
    together = sample_images(net, list(range(9)), batch_size=4)
    assert together.images.shape == (9, 1, 32, 32)
    for seed in (8, 5):
        alone = sample_images(net, [seed])
        assert np.abs(alone.images[0].astype(int) - together.images[seed]).max() <= 1  # rounding of another batch
        assert alone.labels == (None if classes == 0 else [seed % 3])
    assert not np.array_equal(together.images[1], together.images[2])


def test_images_are_the_generators_own_in_eval_mode() -> None:
    net = Disc(num_classes=4)
    net.train()
    found = sample_images(net, [3, 6], [2, 1])
    assert found.labels == [1, 2]
    z = torch.cat([net.sample_latent(1, seed=3), net.sample_latent(1, seed=6)])
    with torch.no_grad():
        expected = ((net(z, torch.tensor([1, 2])).double().clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert np.abs(found.images - expected).max() <= 1
    assert net.training


def test_truncation_moves_samples_towards_the_mode() -> None:
    net = Disc()
    mode = sample_images(net, [1], truncation=0.0).images
    assert np.array_equal(mode, sample_images(net, [2], truncation=0.0).images)
    near, far = (
        np.abs(sample_images(net, range(12), truncation=share).images.astype(int) - mode).mean() for share in (0.2, 1)
    )
    assert near < far / 2


def test_classes_that_do_not_fit_are_refused() -> None:
    for net, classes, message in [
        (Disc(), [0], "unconditional"),
        (Disc(num_classes=3), [3], "0 to 2"),
        (Disc(num_classes=3), [], "no class"),
    ]:
        with pytest.raises(UserError, match=message):
            sample_images(net, [0], classes)
    with pytest.raises(UserError, match="no seeds"):
        sample_images(Disc(), [])
    with pytest.raises(UserError, match="batch_size=0"):
        sample_images(Disc(), [0], batch_size=0)


def test_a_broken_generator_is_named() -> None:
    net = Disc()
    with torch.no_grad():
        net.strength.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN"):
        sample_images(net, [0])


@settings(deadline=None)
@given(st.sets(st.integers(0, 30)).map(sorted))
def test_spans_are_the_shortest_text_that_reads_back(numbers: list[int]) -> None:
    text = spans_of(numbers)
    assert (parse_layers(text) if numbers else []) == numbers
    assert text.count(",") + 1 == max(1, sum(number - 1 not in numbers for number in numbers))
    with pytest.raises(UserError, match="layers"):
        parse_layers(text + ",x")


def test_folder_has_one_exact_png_a_seed(tmp_path: Path) -> None:
    net = Disc(channels=3, num_classes=12)
    samples = sample_images(net, [0, 12, 11])
    paths = save_samples(samples, tmp_path / "out")
    assert [p.name for p in paths] == ["seed000000-class00.png", "seed000012-class00.png", "seed000011-class11.png"]
    for path, image, seed, label in zip(paths, samples.images, samples.seeds, [0, 0, 11], strict=True):
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), image)
            text = picture.text
        assert text["seeds"] == str(seed)
        assert text["classes"] == str(label)
        assert text["model_hash"] == model_hash(net)
    grey = save_samples(sample_images(Disc(), [12]), tmp_path / "grey")
    assert grey[0].name == "seed000012.png"
    with Image.open(grey[0]) as picture:
        assert picture.mode == "L"


def test_grid_sorts_many_of_few_classes_into_rows_and_captions_others(tmp_path: Path) -> None:
    net = Disc(num_classes=3)
    samples = sample_images(net, range(12))
    (path,) = save_samples(samples, tmp_path / "g.png", class_names=["cat", "dog", "ship"])
    with Image.open(path) as picture:
        pixels = np.asarray(picture)[..., 0]
        assert picture.text["seeds"] == "0,1,2,3,4,5,6,7,8,9,10,11"
    right = pixels[:, -(4 * 66 + 2) :]  # four columns of 32-pixel images doubled, gutter 2
    for row, column, seed in [(0, 1, 3), (2, 3, 11), (1, 0, 1)]:
        cell = right[2 + row * 66 : 66 + row * 66 : 2, 2 + column * 66 : 66 + column * 66 : 2]
        assert np.array_equal(cell, samples.images[seed, 0])
    (captioned,) = save_samples(sample_images(net, [0, 1, 2]), tmp_path / "few.png")
    (bare,) = save_samples(sample_images(Disc(), [0, 1, 2]), tmp_path / "bare.png")
    with Image.open(captioned) as one, Image.open(bare) as other:
        assert one.width == other.width
        assert one.height > other.height


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.jpg"):
        save_samples(sample_images(Disc(), [0]), tmp_path / "grid.jpg")


def test_styles_are_chosen_by_number_or_by_the_words_of_layers() -> None:
    net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=6, mapping_layers=2)
    assert parse_layers("0-1,3", net) == [0, 1, 3]
    rows = net.style_rows()
    assert parse_layers("blocks.1.*", net) == [1, 2, 3]
    assert parse_layers("first", net) == [0]
    assert parse_layers("!first,!blocks.0.to_rgb.affine", net) == sorted(set(rows.values()) - {0})
    with pytest.raises(UserError, match=r"'blocks\.9' matches nothing in the styles of StyleGAN2.*blocks\.0\.conv"):
        parse_layers("blocks.9", net)


def test_sample_is_one_image_per_seed_from_a_net_or_a_name() -> None:
    net = Disc()
    samples = sample(net, 5, seed=3)
    assert np.array_equal(samples.images, sample_images(net, [3, 4, 5, 6, 7]).images)
    assert np.array_equal(net.sample(5, seed=3).images, samples.images)
    assert len(samples) == 5
    assert np.array_equal(np.asarray(samples), samples.images)
    assert torch.equal(to_uint8(samples.tensor), torch.from_numpy(samples.images))
    named = sample("sprites-sngan", 2, truncation=0.5)
    assert repr(named) == "<2 samples, 32x32 px, gray, seeds 0-1>"
    assert np.array_equal(named.images, sample_images(orthogan.load("sprites-sngan"), [0, 1], truncation=0.5).images)


def test_sample_takes_classes_by_number_or_name() -> None:
    net = Disc(num_classes=3)
    net.class_names = ["cat", "dog", "ship"]
    assert sample(net, 4, classes="ship").labels == [2, 2, 2, 2]
    assert sample(net, 4, classes=1).labels == [1, 1, 1, 1]
    assert sample(net, 4, classes=[0, 2]).labels == [0, 2, 0, 2]
    assert sample(net, 4).class_names == ["cat", "dog", "ship"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n": 0}, "n=0: from 1"), ({"seed": -1}, "seed=-1: must be 0"), ({"classes": 1}, "no classes")],
)
def test_sample_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sample(Disc(), **options)


def test_samples_show_themselves_as_the_grid_that_is_saved(tmp_path: Path) -> None:
    net = Disc(num_classes=2)
    net.class_names = ["cat", "dog"]
    samples = sample(net, 8)
    (path,) = samples.save(tmp_path / "grid.png")
    shown = Image.open(io.BytesIO(samples._repr_png_()))
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(path)))


def test_a_net_without_the_protocol_gets_the_lines_to_write() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(128, 3 * 8 * 8), torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 8, 8)))
    with pytest.raises(UserError, match="wrap the net like this") as caught:
        sample(net)
    names: dict[str, Any] = {"net": net}
    exec(textwrap.dedent(str(caught.value).partition("\n\n")[2]), names)
    assert repr(sample(names["generator"], 3)) == "<3 samples, 8x8 px, RGB, seeds 0-2>"
    assert len(names["generator"].sample(2)) == 2  # a method from then on
    assert len(copy.deepcopy(names["generator"]).sample(2)) == 2


@pytest.mark.parametrize("z", [None, "z", [[0.0] * 16], np.zeros((1, 16))], ids=lambda z: type(z).__name__)
def test_latents_must_be_a_tensor(z: Any) -> None:
    net = orthogan.load("sprites-sngan")
    with pytest.raises(TypeError, match=rf"latents: expected a torch.Tensor, not {type(z).__name__}"):
        net(z)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_latents_of_another_type_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"latents are {dtype}, but this generator computes in torch.float32; use z.to"):
        orthogan.load("sprites-sngan")(torch.zeros(1, 16, dtype=dtype))


@pytest.mark.parametrize(
    ("n", "error"), [(None, TypeError), ("x", TypeError), (1.5, TypeError), ([1], TypeError), (-1, ValueError)]
)
def test_the_number_of_latents_is_checked(n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^n is "):
        orthogan.load("sprites-sngan").sample_latent(n)
