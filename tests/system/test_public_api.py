"""What a user finds after ``import orthogan``: names, rooms, help; and from the folder that holds the clone."""

from __future__ import annotations

import runpy
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

import orthogan
from orthogan.errors import UserError, install
from orthogan.models import shipped_names
from tests.fixtures.runs import ROOT, TINY

ROOMS = ["data", "disentanglement", "evaluation", "gradients", "latent", "layers", "linalg", "models", "penalties"]


def python(*words: str, cwd: Path, path: str = str(ROOT)) -> str:
    environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin"} if path else {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([*words], capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_listed_reached_and_explained(tmp_path: Path) -> None:
    assert set(ROOMS) <= set(orthogan.__all__) <= set(dir(orthogan))
    assert not {"Any", "TYPE_CHECKING", "annotations", "importlib"} & set(dir(orthogan))
    code = "import orthogan\nprint(*[f'{n}: {getattr(orthogan, n)}' for n in orthogan.__all__]); help(orthogan)"
    text = python(sys.executable, "-c", code, cwd=tmp_path)
    assert "latent: <module 'orthogan.latent'" in text
    for word in ("traverse(", "load_config(", "train(", "class Directions", "orthogan.load(run)"):
        assert word in text
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        _ = orthogan.sampel


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["config", str(ROOT / "configs" / "demo.yaml")], ["torchvision", "accelerate", "sympy"]),
        (["train", "absent.yaml"], ["torch"]),
        (["train", str(ROOT / "configs" / "folder64" / "sngan.yaml"), "data.path=absent"], ["accelerate", "sympy"]),
        (["sample", "absent"], ["torch"]),
        (["evaluate", "absent"], ["torch"]),
        (["evaluate", "sprites-sngan", "--reference", "absent"], ["torch"]),
        (["traverse", "sprites-sngan", "--directions", "absent.safetensors"], ["torch"]),
        (["discover", "sprites-sngan", "--out", "x.npy"], ["torch"]),
        (["disentangle", "sprites-sngan", "--data", "absent.yaml"], ["torch"]),
        (["explore", "absent"], ["torch", "werkzeug"]),
        (["spectrum", "absent"], ["torch"]),
    ],
    ids=lambda value: " ".join(Path(word).name for word in value) if "torch" not in value else "",
)
@pytest.mark.slow
def test_what_needs_no_torch_does_not_wait_for_it(words: list[str], modules: list[str], tmp_path: Path) -> None:
    code = f"import sys; from orthogan.cli.main import main; code = main({words!r}); print(code, *sys.modules)"
    code, *loaded = python(sys.executable, "-c", code, cwd=tmp_path).splitlines()[-1].split()
    assert code == ("0" if words[0] == "config" else "2")
    assert not set(modules) & set(loaded)


def test_the_command_that_installs_an_extra_works_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert install("video") == f"pip install -e '.[video]' in {ROOT}"
    monkeypatch.setattr("orthogan.errors.__file__", str(tmp_path / "orthogan" / "errors.py"))
    assert install("video").startswith("pip install 'av")
    assert install("nothing") == "the extra 'nothing'"


@pytest.mark.slow
def test_an_editable_install_is_found_from_the_folder_that_holds_the_clone(tmp_path: Path) -> None:
    clone = tmp_path / "orthogan"
    package = clone / "orthogan"
    package.mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    for name in ("__init__.py", "errors.py", "lazy.py"):
        (package / name).write_bytes((ROOT / "orthogan" / name).read_bytes())
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    inside = tmp_path / "venv" / "bin" / "python"
    install = ["install", "--no-deps", "--no-build-isolation", "--no-index", "-e", str(clone)]
    builder = str(Path(pytest.importorskip("setuptools").__file__).parents[1])
    python(sys.executable, "-m", "pip", "--python", str(inside), *install, cwd=tmp_path, path=builder)
    for folder in (tmp_path, clone, Path("/")):
        found = python(str(inside), "-c", "import orthogan; print(orthogan.__version__)", cwd=folder, path="")
        assert found == orthogan.__version__


def test_train_takes_the_path_of_a_config(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").touch()
    run = orthogan.train(tmp_path / "tiny.yaml", [*TINY, "training.steps=1", f"out={tmp_path / 'run'}"])
    assert orthogan.load(run).latent_dim > 0
    with pytest.raises(UserError, match="no such config file"):
        orthogan.train("absent.yaml")
    with pytest.raises(TypeError, match="overrides"):
        orthogan.train(orthogan.load_config(None), ["seed=3"])
    with pytest.raises(TypeError, match="overrides"):
        orthogan.train(orthogan.load_config(None), seed=3)
    with pytest.raises(UserError, match="unknown key 'sede'; did you mean 'seed'"):
        orthogan.train(tmp_path / "tiny.yaml", sede=3)


def test_keys_of_a_config_are_keyword_arguments_of_train(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").touch()
    options = {"seed": 5, "out": tmp_path / "run", "training__steps": 1, "logging": {"samples": 5}}
    run = orthogan.train(tmp_path / "tiny.yaml", TINY, **options)
    made = orthogan.load_config(run / "config.yaml")
    assert (made.seed, made.training.steps, made.training.batch_size, made.logging.samples) == (5, 1, 8, 5)


def test_torch_hub_offers_every_shipped_model_by_its_name() -> None:
    entries = runpy.run_path(str(ROOT / "hubconf.py"))
    assert {*shipped_names(), "generator"} <= {name for name, entry in entries.items() if callable(entry)}
    assert "portraits" in entries["faces-srngan"].__doc__
    for words in (("sprites-sngan",), ("generator", "sprites-sngan")):
        assert torch.hub.load(str(ROOT), *words, source="local").resolution == 32


def test_a_shipped_model_is_loaded_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sprites-sngan", "pretrained/sprites-sngan", "sprites-sngan.safetensors"):
        assert orthogan.load(name).resolution == 32
    with pytest.raises(UserError, match="did you mean 'sprites-sngan'"):
        orthogan.load("sprites-srgan")
