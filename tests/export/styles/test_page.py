"""The page that is the generator, in a real browser from a file: its pixels are torch's, and everybody can use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import orthogan
from orthogan.drawing.grid import on_white
from orthogan.errors import UserError
from orthogan.export import export
from orthogan.export.styles.page import PARTS, TABLE, own_directions, part
from orthogan.latent import sample_images
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.discovery.random_basis import random_basis
from orthogan.models import DCGANGenerator
from orthogan.models.generate import generate, in_space, sample_label, sample_latents, truncate
from orthogan.models.label_table import LabelTable, add_label_table
from orthogan.models.open import open_model
from orthogan.models.protocol import Generator
from orthogan.models.shipped import shipped_names
from tests.fixtures.browser import LOOKS, PHONE, Visit, chromium, needs_browser
from tests.fixtures.runs import ROOT
from tests.fixtures.small_generators import small_generator

pytestmark = [pytest.mark.slow, needs_browser]
DEMO = ROOT / "docs" / "demo" / "faces-infogan.html"
READ = """() => { const c = document.getElementById("canvas");
  return [c.width, c.height, ...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; }"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens a page; in the end, the browser must have complained of nothing and asked for nothing elsewhere."""
    visits: list[Visit] = []

    def go(file: Path, **how: Any) -> Visit:
        visits.append(Visit(browser, file.resolve().as_uri(), **how))
        return visits[-1]

    yield go
    for one in visits:
        assert one.complaints == []
        assert one.elsewhere == []
        one.context.close()


def shown(one: Visit, words: str) -> np.ndarray:
    """The pixels (h, w, 3), once the page says that it shows ``words``."""
    one.page.wait_for_function(
        "words => document.getElementById('status').textContent.startsWith(words + ', drawn')", arg=words
    )
    assert one.page.get_attribute("#canvas", "aria-label") == f"Picture of {words}"
    width, height, *values = one.page.evaluate(READ)
    pixels = np.array(values).reshape(height, width, 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3]


def same(found: np.ndarray, image: np.ndarray) -> None:
    """Equal to ``image`` uint8 (c, h, w), except that few values are rounded the other way."""
    expected = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0).astype(int)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.002


def slide(one: Visit, name: str, value: float) -> None:
    one.page.evaluate(
        """([name, value]) => { const field = document.getElementById(name);
        field.value = value; field.dispatchEvent(new Event("input", {bubbles: true})); }""",
        [name, value],
    )


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_model_draws_the_pictures_of_orthogan_sample(
    name: str, tmp_path: Path, visit: Callable[..., Visit]
) -> None:
    file = DEMO if name == "faces-infogan" else export(name, "page", tmp_path / "a.html").files[0]
    assert file.stat().st_size < 16_000_000
    net, one = orthogan.load(name), visit(file)

    def words(seed: int) -> str:
        names = open_model(name).class_names
        return f"Seed {seed}" + (f", class {names[seed % net.num_classes]}" if net.num_classes else "")

    same(shown(one, words(0)), sample_images(net, [0]).images[0])
    one.page.fill("#seed", "9007199254740993")  # no float64 holds it
    same(shown(one, words(2**53 + 1)), sample_images(net, [2**53 + 1]).images[0])
    slide(one, "truncation", 60)
    one.page.fill("#seed", "12")
    same(shown(one, words(12)), sample_images(net, [12], truncation=0.6).images[0])
    slide(one, "direction1", 1.5)
    z = sample_latents(net, [12], 0.6) + 1.5 * torch.from_numpy(own_directions(net).matrix[1].copy())
    y = torch.tensor([12 % net.num_classes]) if net.num_classes else None
    same(shown(one, f"{words(12)}, 1 direction changed"), generate(net, z, y)[0])


@pytest.mark.parametrize("channels", [2, 4])
def test_rectangles_and_alpha_on_white(channels: int, tmp_path: Path, visit: Callable[..., Visit]) -> None:
    torch.manual_seed(0)
    net = DCGANGenerator(resolution=(16, 24), image_channels=channels, channels=16, latent_dim=4).eval()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:  # weak as they are initialized
                weight.mul_(20)
    image = sample_images(net, [0]).images[0]
    alpha = image[-1]
    assert alpha.min() < 60 < 200 < alpha.max()
    same(shown(visit(export(net, "page", tmp_path / "a.html").files[0]), "Seed 0"), on_white(image))


def test_a_conditional_model_has_its_classes(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    net = small_generator("sngan-3")
    net.class_names = ["cat", "<b>dog</b>", "</script>"]
    one = visit(export(net, "page", tmp_path / "a.html", seed=5).files[0])
    same(shown(one, "Seed 5, class </script>"), sample_images(net, [5]).images[0])
    one.page.select_option("#class", "1")
    same(shown(one, "Seed 5, class <b>dog</b>"), sample_images(net, [5], [1]).images[0])
    one.page.click("#next")
    shown(one, "Seed 6, class <b>dog</b>")
    slide(one, "mix", 30)
    one.page.fill("#other", "7")
    ends = sample_latents(net, [6, 7]).double()
    sizes = ends.norm(dim=1)
    angle = torch.acos(ends[0] @ ends[1] / sizes.prod())  # slerp, as it is published (Shoemake 1985)
    unit = (torch.sin(0.7 * angle) * ends[0] / sizes[0] + torch.sin(0.3 * angle) * ends[1] / sizes[1]) / torch.sin(
        angle
    )
    z = ((0.7 * sizes[0] + 0.3 * sizes[1]) * unit).float()[None]
    same(shown(one, "Seed 6, 30% of seed 7, class <b>dog</b>"), generate(net, z, [1])[0])


def test_label_vectors_follow_the_seeds_as_in_orthogan_sample(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    net = small_generator("sngan-3")
    add_label_table(net, LabelTable(torch.rand(40, 3, generator=torch.Generator().manual_seed(0))))
    net.class_names = [f"row {i}" for i in range(40)]
    one = visit(export(net, "page", tmp_path / "a.html", seed=5).files[0])
    label = sample_label(net, 5)
    assert label != 5
    same(shown(one, f"Seed 5, class row {label}"), sample_images(net, [5]).images[0])
    one.page.fill("#seed", "9007199254740993")
    label = sample_label(net, 2**53 + 1)
    same(shown(one, f"Seed 9007199254740993, class row {label}"), sample_images(net, [2**53 + 1]).images[0])


def test_directions_of_w_change_the_styles_that_they_name(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    net = small_generator("stylegan2-3")
    view = in_space(net, "w", y=1)
    found = replace(random_basis(view, components=3, seed=1), space="w", model_hash="", layers=(0, 1, 2))
    one = visit(export(net, "page", tmp_path / "a.html", directions=found, seed=4).files[0])
    same(shown(one, "Seed 4, class 1"), sample_images(net, [4], [1]).images[0])
    slide(one, "truncation", 50)
    slide(one, "direction2", 2)
    base = view.sample_latent(1, seed=4)[0] * 0.5
    moved = in_space(net, "w", y=1, layers=[0, 1, 2], base=base)
    v = base + 2 * torch.from_numpy(found.matrix[2].copy())
    same(shown(one, "Seed 4, class 1, 1 direction changed"), generate(moved, v[None])[0])


def test_a_prior_of_ones_own_has_a_table_of_latents(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    class Uniform(Generator):
        latent_dim = 4

        def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
            return torch.rand(n, 4, generator=torch.Generator().manual_seed(seed))

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return (z * 2 - 1).view(-1, 1, 2, 2)

    net = Uniform()
    (file,) = export(net, "page", tmp_path / "a.html", directions=latent_axes(net)).files
    one = visit(file)
    one.page.fill("#seed", str(TABLE - 1))
    same(shown(one, f"Seed {TABLE - 1}"), sample_images(net, [TABLE - 1]).images[0])
    one.page.fill("#seed", str(TABLE))
    one.page.wait_for_selector("#seed[aria-invalid=true]")
    assert one.page.inner_text("#status") == f"A seed is a whole number from 0 to {TABLE - 1}."
    with pytest.raises(UserError, match="has the seeds 0 to 255"):
        export(net, "page", tmp_path / "b.html", directions=latent_axes(net), seed=TABLE)


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_everybody_can_use_it(size: tuple[int, int], scheme: str, visit: Callable[..., Visit]) -> None:
    one = visit(DEMO, size=size, scheme=scheme)
    shown(one, "Seed 0")
    assert one.fits()
    assert one.violations() == []
    (one.page.tap if size == PHONE else one.page.click)("#more")
    assert one.page.locator("#sliders li:visible").count() == 10
    assert one.page.evaluate("document.activeElement.id") == "direction8"
    assert one.fits()
    one.page.focus("#direction0")
    one.page.keyboard.press("ArrowRight")  # sliders work from the keyboard
    shown(one, "Seed 0, 1 direction changed")
    one.page.click("#reset")
    shown(one, "Seed 0")
    one.page.click("#random")
    one.page.wait_for_function("() => Number(document.documentElement.dataset.ready) > 3")
    assert one.page.input_value("#seed").isdigit()


def test_the_picture_is_saved_as_a_png(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    one = visit(DEMO)
    before = shown(one, "Seed 0")
    one.page.select_option("#size", "4")
    with one.page.expect_download() as saved:
        one.page.click("#save")
    assert saved.value.suggested_filename == "faces-infogan-seed0.png"
    saved.value.save_as(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert (np.asarray(image.convert("RGB")) == before.repeat(4, 0).repeat(4, 1)).all()


def test_the_blend_plays_and_stops(visit: Callable[..., Visit]) -> None:
    one = visit(DEMO)
    shown(one, "Seed 0")
    one.page.click("#play")
    one.page.wait_for_function("() => Number(document.getElementById('mix').value) > 3")
    one.page.click("#play")
    assert one.page.get_attribute("#play", "aria-pressed") == "false"


def test_a_browser_that_refuses_workers_draws_too(browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("window.Worker = class { constructor() { throw new Error('none here'); } };")
    page.goto(DEMO.resolve().as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    assert page.inner_text("#status").startswith("Seed 0, drawn in")
    context.close()


def test_the_demo_of_the_docs_is_of_this_version() -> None:
    text = DEMO.read_text("utf-8")
    for name in (*PARTS, "main.js"):
        assert part(name) in text
    assert not re.search("@[A-Z]+@", text)


def test_bad_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dims: 99 is out of range; there are 16 directions"):
        export("sprites-sngan", "page", tmp_path / "a.html", dims="0,99")
    assert not list(tmp_path.iterdir())


def test_truncation_to_nothing_is_the_mode(visit: Callable[..., Visit]) -> None:
    net = orthogan.load("faces-infogan")
    one = visit(DEMO)
    slide(one, "truncation", 0)
    one.page.fill("#seed", "3")
    assert not truncate(torch.ones(1, net.latent_dim), 0.0).any()
    same(shown(one, "Seed 3"), generate(net, torch.zeros(1, net.latent_dim))[0])
