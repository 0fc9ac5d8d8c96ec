"""A wheel carries the shipped models and configs, which are found by name from any folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from tests.fixtures.runs import ROOT, environment

pytestmark = pytest.mark.slow

SMALL = ["training.steps=1", "training.batch_size=4", "training.generator_batch_size=4", "evaluation.every=0"]
SMALL += ["evaluation.at_start=false", "logging.samples=4", "logging.tensorboard=false"]


def run(*words: str, cwd: Path, path: str = "") -> str:
    """What a process prints; PYTHONPATH is ``path`` alone."""
    done = subprocess.run(words, cwd=cwd, env=environment() | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_wheel_has_models_and_configs(tmp_path: Path) -> None:
    builder = str(Path(pytest.importorskip("setuptools").__file__).parents[1])
    clone, dist = tmp_path / "clone", tmp_path / "dist"
    skip = shutil.ignore_patterns("__pycache__", "weights-*")
    for name in ("orthogan", "pretrained", "configs"):
        shutil.copytree(ROOT / name, clone / name, ignore=skip)
    (clone / "pretrained" / "weights-of-somebody.pth").touch()  # which must not travel
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    # a source distribution, and the wheel that is built from it
    build = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", str(dist)]
    run(*build, str(clone), cwd=tmp_path, path=builder)
    shutil.rmtree(clone)
    venv.create(tmp_path / "venv", with_pip=False)
    inside = tmp_path / "venv" / "bin" / "python"
    (wheel,) = dist.glob("*.whl")
    offline = ["--no-deps", "--no-index"]
    run(sys.executable, "-m", "pip", "--python", str(inside), "install", *offline, str(wheel), cwd=tmp_path)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for kind, folder in (("*.safetensors", "pretrained"), ("*.md", "pretrained"), ("*.yaml", "configs")):
        here, there = ROOT / folder, site / "orthogan" / folder
        files = sorted(path.relative_to(here) for path in here.rglob(kind))
        assert files
        assert sorted(path.relative_to(there) for path in there.rglob(kind)) == files
    assert not list((site / "orthogan").rglob("*.pth"))
    (metadata,) = site.glob("orthogan-*.dist-info/METADATA")
    check_readme(metadata.read_text(encoding="utf-8"))
    # what orthogan builds on comes from here; the package itself from the wheel
    others = sysconfig.get_paths()["purelib"]
    (tmp_path / "work").mkdir()

    def orthogan(*words: str) -> str:
        return run(str(inside), "-m", "orthogan", *words, cwd=tmp_path / "work", path=others)

    where = run(str(inside), "-c", "import orthogan; print(orthogan.__file__)", cwd=tmp_path, path=others)
    assert Path(where.strip()).is_relative_to(site)
    assert "sprites-sngan" in orthogan("models")
    listed = orthogan("config", "--list")
    assert "cifar10/srngan " in listed
    assert str(site / "orthogan" / "configs") in listed
    assert "out: runs/cifar10/srngan" in orthogan("config", "cifar10/srngan")
    orthogan("train", "sprites/srngan", "data.count=32", *SMALL)
    assert "out: runs/sprites/srngan" in (tmp_path / "work/runs/sprites/srngan/config.yaml").read_text()
    for subject in ("runs/sprites/srngan", "sprites-sngan"):
        orthogan("sample", subject, "--seeds", "0-3", "--out", f"{Path(subject).name}.png")
    assert {path.name for path in (tmp_path / "work").glob("*.png")} == {"srngan.png", "sprites-sngan.png"}


def check_readme(metadata: str) -> None:
    """The links of the README are absolute, and lead to files of the repository."""
    assert "Description-Content-Type: text/markdown" in metadata
    text = metadata.partition("\n\n")[2]
    url = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    own = re.findall(rf"{re.escape(url)}/(raw|blob)/main/([^)#\"\s]+)", text)
    assert [file for _, file in own if not (ROOT / file).exists()] == []
    pictures = {file for kind, file in own if kind == "raw"}
    assert pictures == {file for _, file in own if file.endswith((".png", ".gif", ".svg"))} != set()
    targets = re.findall(r"\]\(([^)]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    assert [one for pair in targets for one in pair if one and not one.startswith(("https://", "#"))] == []
