"""Starting from given weights: what is loaded, what is fitted to it, what is refused; and a run that continues."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from orthogan.config.files import load_config
from orthogan.data import open_configured
from orthogan.errors import UserError
from orthogan.layers import HouseholderProjector
from orthogan.models.build import build_generator
from orthogan.models.open import load_generator, open_model
from orthogan.models.saved import save_generator
from orthogan.training import train
from orthogan.training.gan.task import GanTask
from tests.fixtures.runs import ROOT, tensors, tiny

SPRITES = ROOT / "pretrained" / "sprites-sngan" / "generator.safetensors"


def task_of(out: Path, *overrides: str) -> GanTask:
    config = tiny(out, *overrides)
    return GanTask(config, open_configured(config.data), Accelerator(cpu=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps with a constraint on both nets; the average has not caught up with the generator."""
    out = tmp_path_factory.mktemp("given") / "run"
    return train(
        tiny(out, "training.steps=3", "model.generator.norm.kind=orthogonal", "optimizer.generator.lr=0.01", "seed=5")
    )


def test_a_run_gives_both_nets_baked(tmp_path: Path, run: Path) -> None:
    task = task_of(tmp_path, f"model.init={run}", "model.discriminator.norm.kind=none")
    source = load_generator(run)
    z = source.sample_latent(4, seed=0)
    torch.testing.assert_close(task.generator.eval()(z), source(z))
    torch.testing.assert_close(task.averages["G"].net(z), source(z))
    assert not any(hasattr(part, "parametrizations") for part in task.generator.modules())
    raw = load_generator(run, ema=False)
    assert not torch.allclose(raw(z), source(z), atol=1e-3)
    # D: the effective weights under stable rank normalisation, not those behind it
    kept = tensors(run, 3)
    name = "blocks.0.conv1"
    behind = kept[f"discriminator/{name}.parametrizations.weight.original"]
    mine = task.discriminator.get_parameter(f"{name}.weight")
    assert not torch.allclose(mine, behind, atol=1e-3)
    assert float(torch.linalg.svdvals(mine.detach().flatten(1))[0]) == pytest.approx(1.0, abs=0.1)
    assert float(torch.linalg.svdvals(behind.flatten(1))[0]) > 1.25


def test_the_new_constraints_are_fitted_to_the_given_weights(tmp_path: Path, run: Path) -> None:
    given = task_of(tmp_path, f"model.init={run}", "model.discriminator.norm.kind=none")
    rows = given.discriminator.get_submodule("blocks.0.conv1").weight.detach().flatten(1)
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    # the given rows are the neurons of a rotation; an orthogonal weight is the nearest to them
    for kind, expected in (("rotation", rows), ("orthogonal", left @ right)):
        task = task_of(tmp_path, f"model.init={run}", f"model.discriminator.norm={{kind: {kind}, layers: [conv]}}")
        layer = task.discriminator.eval().get_submodule("blocks.0.conv1")
        torch.testing.assert_close(layer.weight.detach().flatten(1), expected, atol=1e-4, rtol=0)


def test_a_file_or_a_checkpoint_do_as_well_and_a_file_has_no_discriminator(tmp_path: Path, run: Path) -> None:
    fresh = task_of(tmp_path)
    folder = run / "checkpoints" / "step-000000003"
    alone = task_of(tmp_path, f"model.init={folder / 'generator.safetensors'}")
    whole = task_of(tmp_path, f"model.init={folder}")
    z = fresh.generator.sample_latent(4, seed=0)
    torch.testing.assert_close(alone.generator.eval()(z), load_generator(run, ema=False)(z))
    torch.testing.assert_close(whole.generator.eval()(z), load_generator(run)(z))
    parts = [t.discriminator.state_dict()["linear.parametrizations.weight.original"] for t in (fresh, alone, whole)]
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])


def test_the_projector_takes_the_top_right_singular_vectors_of_a_pretrained_layer(tmp_path: Path) -> None:
    section = open_model(SPRITES).config.model.generator
    config = tiny(
        tmp_path,
        f"model.init={SPRITES}",
        f"model.generator.channels={section.channels}",
        f"model.generator.latent_dim={section.latent_dim}",
        "model.generator.norm={kind: householder, layers: [first], rank: 4, scale: null}",
        "training.steps=2",
        "training.d_steps_per_g_step=1",
    )
    source = load_generator(SPRITES)
    matrix = source.first_layer().weight.detach()
    values, right = torch.linalg.svd(matrix)[1:]
    task = GanTask(config, open_configured(config.data), Accelerator(cpu=True))
    first = task.generator.first_layer()
    assert isinstance(first, HouseholderProjector)
    along = (first.directions().detach() * right[:4]).sum(1).abs()
    torch.testing.assert_close(along, torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(first.scale, values[:4].square().mean().sqrt().expand(4), rtol=1e-4, atol=0)
    rest = {k: v for k, v in source.state_dict().items() if not k.startswith("linear.")}
    assert all(torch.equal(task.generator.state_dict()[name], value) for name, value in rest.items())
    done = train(config)
    tuned = load_generator(done)  # needs no file but its own
    assert open_model(done).config.model.init == str(SPRITES)
    assert isinstance(tuned.first_layer(), HouseholderProjector)


@pytest.mark.parametrize(
    "norm",
    [
        "{kind: householder, rank: 3}",
        "{kind: rotation, layers: [conv], block_size: 40, refine: 1}",
        "{kind: orthogonal, layers: [conv], method: cayley}",
        "{kind: stable_rank, c: 0.3}",
    ],
)
def test_a_continued_run_needs_the_file_no_more(tmp_path: Path, run: Path, norm: str) -> None:
    given = tmp_path / "given"
    shutil.copytree(run, given)
    overrides = [
        f"model.init={given}",
        f"model.generator.norm={norm}",
        "training.steps=6",
        "training.d_steps_per_g_step=1",
    ]
    a, b = tmp_path / "a", tmp_path / "b"
    train(tiny(a, *overrides))
    shutil.copytree(a, b)
    shutil.rmtree(b / "checkpoints" / "step-000000006")
    shutil.rmtree(given)
    train(tiny(b, *overrides))
    whole, resumed = tensors(a, 6), tensors(b, 6)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    with pytest.raises(UserError, match=r"model\.init: .*given: no such run"):
        train(tiny(tmp_path / "c", *overrides))


def style(*options: str) -> list[str]:
    return ["model.generator.kind=stylegan2", "model.generator.channels=2", *options]


def test_gains_and_projectors_of_a_style_based_net_are_made_good(tmp_path: Path) -> None:
    config = load_config(
        None,
        style(
            "model.generator.latent_dim=8",
            "model.generator.options={style_rank: 4, mapping_layers: 2}",
            "model.generator.norm={kind: spectral, layers: [blocks.0.conv, mapper.*]}",
        ),
    )
    source = build_generator(config, num_classes=0).eval()
    with torch.no_grad():
        for layer in source.mapper.layers:
            layer.bias.normal_(0, 20)
    save_generator(tmp_path / "g.safetensors", source, config=config)
    z = source.sample_latent(3, seed=0)
    for options in (
        "model.generator.options={mapping_layers: 2}",
        "model.generator.options={mapping_layers: 2, equalized: false}",
    ):
        fresh = task_of(tmp_path, *style(options), f"model.init={tmp_path / 'g.safetensors'}", "data.channels=3")
        torch.testing.assert_close(fresh.generator.eval()(z), source(z), rtol=1e-3, atol=1e-4)
    again = task_of(
        tmp_path,
        *style("model.generator.options={mapping_layers: 2, style_rank: 4}"),
        f"model.init={tmp_path / 'g.safetensors'}",
        "data.channels=3",
    )
    assert any(isinstance(part, HouseholderProjector) for part in again.generator.modules())
    torch.testing.assert_close(again.generator.eval()(z), source(z), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.generator.latent_dim=9"], ["generator of", "latent_dim: 8 -> 9", "set model.generator.latent_dim=8"]),
        (["model.generator.channels=16"], ["model.generator.channels: 8 -> 16"]),
        (["model.generator.kind=dcgan"], ["model.generator.kind: sngan -> dcgan", "set model.generator.kind=sngan"]),
        (["data.resolution=64"], ["data.resolution: 32 -> 64", "set data.resolution=32"]),
        (["model.generator.whitening.layers=['blocks.0.*']"], ["model.generator.whitening.layers: [] ->"]),
        (
            ["model.discriminator.channels=4"],
            ["discriminator of", "model.discriminator.channels: 8 -> 4", "from the generator alone"],
        ),
        (["model.generator.norm.kind=skew_orthogonal"], ["model.init", "initializes its kernels randomly"]),
    ],
)
def test_other_nets_are_refused_by_the_keys_that_differ(
    tmp_path: Path, run: Path, overrides: list[str], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        task_of(tmp_path, f"model.init={run}", *overrides)
    for part in ("model.init", *parts):
        assert part in str(caught.value)


def test_the_user_hears_what_was_loaded(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "checkpoints" / "step-000000003"
    both = task_of(tmp_path, f"model.init={run}")
    assert both.summary()["model.init"].startswith(f"generator and discriminator of {folder}")
    alone = task_of(tmp_path, f"model.init={folder / 'generator-ema.safetensors'}").summary()["model.init"]
    assert "only the generator" in alone
    assert f"the discriminator starts from the random seed (give {folder} to start" in alone
    assert "model.init" not in task_of(tmp_path).summary()
    wide = ["model.generator.channels=32", "model.discriminator.channels=32", "model.generator.latent_dim=16"]
    shipped = task_of(tmp_path, "model.init=sprites-sngan", *wide)
    assert "sprites-sngan" in shipped.summary()["model.init"]
    z = shipped.generator.sample_latent(2, seed=0)
    torch.testing.assert_close(shipped.generator.eval()(z), load_generator(SPRITES)(z))
    train(tiny(tmp_path / "run", f"model.init={run}", "training.steps=1"))
    assert "model.init: generator and discriminator of" in "".join(capsys.readouterr())


def test_the_name_of_code_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
    with pytest.raises(UserError, match=r"model\.init: evil_module:net: no such file"):
        task_of(tmp_path, "model.init=evil_module:net")


def test_a_skew_orthogonal_net_cannot_be_baked(tmp_path: Path) -> None:
    config = tiny(tmp_path / "other", "model.generator.norm={kind: skew_orthogonal, layers: [blocks.0.conv2]}")
    save_generator(tmp_path / "g.safetensors", build_generator(config, num_classes=0), config=config)
    with pytest.raises(UserError, match=r"model\.init: .*blocks\.0\.conv2 is a skew orthogonal convolution"):
        task_of(tmp_path / "run", f"model.init={tmp_path / 'g.safetensors'}")
    assert load_file(tmp_path / "g.safetensors")
    assert isinstance(load_generator(tmp_path / "g.safetensors"), nn.Module)
